"""The plan of a training: its configuration file and its flags, and what is trained by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from steadygrad import defenses, models, readable, recipes
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.ahead import in_order
from steadygrad.data.data_plan import DataPlan
from steadygrad.defenses import Defense
from steadygrad.files import read_toml
from steadygrad.models.model_plan import ModelPlan
from steadygrad.plans import Count, Seed, read_method
from steadygrad.registry import configure
from steadygrad.training.fit import FitResult, fit
from steadygrad.training.settings import FitSettings

_CHUNK = 256


class TrainPlan(DataPlan, ModelPlan):
    """Everything that a training is made from.

    >>> TrainPlan(defense="adversarial:eps=8/255").objective().eps * 255
    8.0
    """

    what: ClassVar[str] = "a training"

    model: str = Field("digits_cnn", description="Architecture, or a model file to go on from.")
    defense: str | dict[str, Any] = Field("plain", description="Way of training, e.g. trades:eps=0.1; a+b for a sum.")
    settings: dict[str, Any] = Field({}, description="Settings of the training, as in FitSettings.")
    validation: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Share of the training data kept for validation."
    )
    normalize: bool = Field(True, description="Let the model see (x - mean) / std of the training data.")
    seed: Seed = Field(0, description="Seed of everything random.")
    limit: Count | None = Field(None, description="Train on so many samples only.")
    name: str | None = Field(None, description="Name shown in reports, by default the architecture.")

    @classmethod
    def resolve(cls, config: str | Path | None, flags: Mapping[str, Any]) -> TrainPlan:
        """The plan of a configuration file or recipe by name, with flags that win.

        Raises:
            UsageError: a missing or garbled file, or a setting that does not exist or fit.
        """
        file = {} if config is None else read_toml(recipes.find(config)[0])
        cls.read(file, str(config or ""))  # what is wrong in the file is said of the file
        settings = {**file.get("settings", {}), **flags.get("settings", {})}
        return cls.read({**file, **{k: v for k, v in flags.items() if v is not None}, "settings": settings})

    def objective(self) -> Defense:
        """The training objective."""
        if isinstance(self.defense, str):
            return defenses.parse(self.defense)
        found: Defense = read_method("defense", self.defense)
        return found

    def fitting(self, **usual: Any) -> FitSettings:
        """The settings of the training; `usual` are those that hold where the plan says nothing."""
        return configure(FitSettings, "the training", {**usual, **self.settings})

    def samples(self, like: Classifier | None = None) -> Dataset:
        """All samples, those kept for validation among them, in the shape that a classifier takes."""
        full = self.load(training=True, like=like)
        return full if self.limit is None else full.draw(self.limit, self.seed)

    @property
    def new(self) -> bool:
        """Whether a new model is trained, by the name of an architecture."""
        return self.model.partition(":")[0] in models.ARCHITECTURES

    def start(self, training: Dataset) -> Classifier:
        """The model before the training."""
        classifier = self.classifier(self.model, data=training)
        if self.new:
            settings = {**(classifier.architecture or {}), "bounds": training.bounds}
            if self.mean is not None or self.std is not None:
                settings |= {"mean": classifier.mean.tolist(), "std": classifier.std.tolist()}
            elif self.normalize:
                settings["mean"], settings["std"] = moments(training)
            name, classes = settings.pop("name"), classifier.classes or training.classes
            classifier = models.build(name, training.shape, classes, seed=self.seed, **settings)
            classifier.preparation = None if training.form is None else training.form.way()
        classifier.name = readable.name(self.name or classifier.name)
        return classifier

    def train(self, out: str | Path, device: str) -> FitResult:
        """Train, in a folder in which a killed run continues."""
        objective, settings = self.objective(), self.fitting()
        known = None if self.new else self.classifier(self.model, data=self.opened(training=True))
        full = self.samples(like=known)
        training, validation = full.divide(self.validation, self.seed) if self.validation else (full, None)
        start = self.start(training)
        return fit(start, objective, training, validation, settings=settings, out=out, seed=self.seed, device=device)


def moments(data: Dataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, or of all features, from at most 10,000 samples drawn from the data."""
    drawn, count = data.take(10_000, seed=0), 0
    total = squares = torch.zeros((), dtype=torch.float64)
    for inputs, _ in in_order(drawn, _CHUNK):
        x = inputs.double()
        rows = x.transpose(0, 1).flatten(1) if x.ndim > 2 else x.flatten()[None]  # (C, values)
        count += rows.shape[1]
        total, squares = total + rows.sum(1), squares + rows.square().sum(1)
    variance = (squares - total.square() / count).clamp_min(0) / max(count - 1, 1)
    return (total / count).tolist(), variance.sqrt().clamp_min(1e-3).tolist()
