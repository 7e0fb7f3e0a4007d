"""The plan of a model: what a command says of a module that does not say it itself."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from steadygrad.classifier import Classifier
from steadygrad.models.class_names import read_class_names
from steadygrad.models.loading import load
from steadygrad.plans import Numbers, Plan


class ModelPlan(Plan):
    """How the inputs of a module are normalized, and what its outputs mean.

    >>> ModelPlan(mean="0.5", std="0.25").classifier("mlp", input_shape=(1, 8, 8)).std
    tensor(0.2500)
    """

    what: ClassVar[str] = "the model"

    classes: str | None = Field(
        None, description="File with the names of the model's outputs in their order: a line each, or JSON."
    )
    mean: Numbers | None = Field(
        None,
        description="Mean to normalize inputs with, a number or one per channel (0.5,0.4,0.4); or imagenet.",
    )
    std: Numbers | None = Field(None, description="Standard deviation, likewise.")
    binary: bool = Field(False, description="The module gives one logit, of the second of two classes.")

    def classifier(self, spec: str, **more: Any) -> Classifier:
        """The model of a name, with what is said of it; other arguments as for `models.load`."""
        names = None if self.classes is None else read_class_names(self.classes)
        return load(spec, classes=names, mean=self.mean, std=self.std, binary=self.binary, **more)

    def said(self) -> list[str]:
        """The fields that say something."""
        fields = type(self).model_fields
        return [name for name in ModelPlan.model_fields if getattr(self, name) != fields[name].default]
