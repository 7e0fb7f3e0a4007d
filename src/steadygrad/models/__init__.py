"""Models: architectures by name, and loading of any module."""

# Importing the families puts their rows into the registry, in this order.
from steadygrad.models import small, deep, vit  # noqa: I001
from steadygrad.models.architectures import ARCHITECTURES, Architecture, build
from steadygrad.models.loading import load

__all__ = ["ARCHITECTURES", "Architecture", "build", "deep", "load", "small", "vit"]
