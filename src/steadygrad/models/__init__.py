"""Models: architectures by name, and loading of any module."""

# Importing the families puts their rows into the registry, in this order.
from steadygrad.models import small, deep, vit  # noqa: F401, I001
from steadygrad.models.architectures import ARCHITECTURES as ARCHITECTURES
from steadygrad.models.architectures import Architecture as Architecture
from steadygrad.models.architectures import build as build
from steadygrad.models.loading import load as load
