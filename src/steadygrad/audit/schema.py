"""The summary of an audit, `summary.json`, and of a hardening, `harden.json`: one typed model, read and written here.

`docs/summary.md` and `docs/summary.schema.json` are made from it by `python docs/make_summary.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen
from pydantic import Field, model_validator
from typing_extensions import Self

from steadygrad.audit.schema_certified import Certified
from steadygrad.audit.schema_distances import Curve, Distances, Rho2
from steadygrad.audit.schema_maps import Explained, Neurons
from steadygrad.audit.schema_smoothed import Smoothed
from steadygrad.audit.schema_values import (
    AttackVerdict,
    Count,
    Difference,
    Document,
    Estimate,
    Flag,
    Machine,
    Mean,
    Number,
    Pair,
    Part,
    Passes,
    Positive,
    Quantiles,
    Share,
    Some,
    Triple,
    at_most,
    square,
)


class Check(Part):
    """One check of a robust accuracy."""

    name: str = Field(description="what is looked at")
    passed: Flag | None = Field(description="null where the check does not apply")
    value: Number | None = Field(description="what was measured")
    limit: str = Field(description="what it must be")
    text: str = Field(description="what it means, in one sentence")


class Verdict(AttackVerdict):
    """Whether a robust accuracy may be believed: every check that applies must pass."""

    text: str = Field(
        description='"number holds", "number holds, by blind search only", "number refuted, because ..." '
        '"too few samples to judge: ..." or "not checked: ..."'
    )
    checks: list[Check] = Field(description="the [checks](concepts/validity.md) behind it")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.state == "refuted") is not any(check.passed is False for check in self.checks):
            raise ValueError(f"state: does not follow from the checks, found {self.state}")
        return self


class AttackRow(Passes):
    """One attack of the suite on one model."""

    name: str = Field(description="name in the registry")
    label: str = Field(description="the name that is shown")
    settings: dict[str, Any] = Field(description="its settings")
    accuracy: Estimate = Field(description="accuracy under this attack alone")
    success_rate: Estimate | None = Field(description="share that it turned of those right before; null for none")
    after_rounding: Estimate = Field(description="accuracy when the inputs are rounded to 8 bits")
    zero_gradient: Share = Field(description="share of the samples on which it saw no gradient")
    median_distance: Positive | None = Field(description="median size of its changes; null where half found nothing")
    verdict: AttackVerdict = Field(description="whether its number may be believed by itself")


class BrokenBy(Part):
    """How many samples that were right before one attack broke, or one member of `Standard`."""

    attack: str = Field(description="label of the attack")
    member: str | None = Field(description="null, or the member; members run one after the other")
    samples: Count = Field(description="samples that it broke")
    alone: Count = Field(description="those of them that no other attack of the suite broke")
    _alone = at_most("alone", "samples")


class ClassRow(Part):
    """What was found for the samples of one class."""

    name: str = Field(description="name of the class")
    clean: Estimate = Field(description="accuracy without attack")
    robust: Estimate = Field(description="samples that nothing changed")


class Further(Part):
    """What a measure of every audit adds by itself, on the checked samples."""

    settings: dict[str, Any] = Field(description="its settings")
    means: dict[str, Mean] = Field(description="means over samples, by name")


class Corrupted(Part):
    """One kind of corrupted data."""

    corruption: str = Field(description="what was done to the images")
    severity: Some = Field(description="how strongly, from 1 to 5")
    accuracy: Estimate = Field(description="accuracy on them")


class Corruptions(Part):
    """Accuracy under common corruptions, in the layout of CIFAR-10-C."""

    mean_error: Share = Field(description="the mean of 1 - accuracy over all kinds and severities")
    rows: list[Corrupted] = Field(description="each kind at each severity")


class MapSimilarity(Mean):
    """How alike maps are before and after a change of the input, 1 for equal maps: a mean with its 95 % interval."""

    attribution: str = Field(description="label of the attribution")
    under: Literal["attack on the prediction", "random noise"] = Field(description="what changed the input")
    measure: str = Field(description="name of the similarity")


class Finding(Part):
    """Something to know before the numbers are read."""

    about: Literal[
        "bounds",
        "classes",
        "gradients",
        "answers",
        "accuracy",
        "class order",
        "normalization",
        "precision",
        "compiled",
        "certified",
    ] = Field(description="what it is about")
    warning: Flag = Field(description="whether the numbers may be wrong; otherwise it says how the model was taken")
    text: str = Field(description="what was found, in one sentence")


class Model(Part):
    """What was found for one model."""

    name: str = Field(description="the name that is shown")
    file: str | None = Field(description="where it came from, or null")
    architecture: dict[str, Any] | None = Field(description='{"name", ...}, or null for a module of your own')
    draws: Some = Field(description="over which the logits of a model that draws random numbers were averaged, or 1")
    gradients: Flag = Field(description="whether it gives gradients; one that gives none is searched blind only")
    parameters: Count = Field(description="how many it has")
    weights: str = Field(description="hash of the weights")
    findings: list[Finding] = Field(description="what to know before the numbers are read")
    samples: Count = Field(description="samples that it was audited on")
    clean: Estimate = Field(description="accuracy without attack")
    robust: Estimate = Field(description="samples that neither an attack nor the curve's search changed: worst case")
    verdict: Verdict = Field(description="whether the robust accuracy may be believed")
    by_class: Annotated[list[ClassRow], MinLen(1)] = Field(description="each class that was drawn, the worst first")
    eligibility: Triple[Literal["deterministic", "gradients", "no_optimization"], Flag | None] = Field(
        description="what RobustBench asks of a defense, as far as the [checks](concepts/validity.md) see it: the same "
        "output for the same input, gradients that are not zero, no optimization in the forward pass; null: not seen"
    )
    attacks: Annotated[list[AttackRow], MinLen(1)] = Field(description="the suite, the leading attack first")
    broken_by: list[BrokenBy] = Field(description="what each attack, or member of a suite, broke")
    curve: Curve | None = Field(description="accuracy against the radius")
    distances: Distances | None = Field(description="the smallest changes found; null without gradients")
    rho2: Rho2 | None = Field(description="the mean relative size of DeepFool's change; null without gradients")
    gradient_norm: Pair[Literal["quantiles", "next_class"], Quantiles] | None = Field(
        description="l2 norm of the loss's input gradient, clean: for the class of the label, and the class after it; "
        "null without gradients"
    )
    confidence: Pair[Literal["clean", "adversarial"], Quantiles] | None = Field(
        description="probability of the prediction, without and under attack"
    )
    further: dict[str, Further] = Field(
        description='further measures by their name in `steadygrad list measures`: "noise_insensitivity" (within linf)'
    )
    certified: Certified | None = Field(
        None, description="null, or what `--certify` found: the lower border of robust accuracy"
    )
    smoothed: Smoothed | None = Field(
        None, description="what is certified of a smoothed classifier; null for a model without noise"
    )
    corruptions: Corruptions | None = Field(description="null, or what `--corruptions` found")
    explanations: list[MapSimilarity] = Field(description="how far explanations move with the prediction's attack")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        counted = {"clean": self.clean, "robust": self.robust}
        for i, attack in enumerate(self.attacks):
            counted[f"attacks[{i}].accuracy"] = attack.accuracy
            counted[f"attacks[{i}].after_rounding"] = attack.after_rounding
        for name, found in counted.items():
            if found.count != self.samples:
                raise ValueError(f"{name}.count: expected samples, {self.samples}, found {found.count}")
        if self.distances is not None and self.distances.count > self.samples:
            raise ValueError(f"distances.count: expected at most {self.samples}, found {self.distances.count}")
        for name in ("clean", "robust"):
            if sum(getattr(row, name).count for row in self.by_class) != self.samples:
                raise ValueError(f"by_class.{name}.count: expected {self.samples} in all")
        fallen = self.samples - round(self.robust.value * self.samples)
        borders = None if self.certified is None else self.certified.borders
        if borders is not None and (borders.attacked, borders.accuracy.count) != (fallen, self.samples):
            raise ValueError(f"certified.borders.attacked: expected {fallen} of {self.samples}, as robust says")
        if self.robust.value > self.clean.value:
            raise ValueError(f"robust.value: expected at most clean.value, found {self.robust.value}")
        if {row.attack for row in self.broken_by} != {attack.label for attack in self.attacks}:
            raise ValueError("broken_by: expected the labels of the attacks")
        return self


class Transfer(Part):
    """Adversarial inputs of one model tried on another; the diagonal is white-box, all else is weak evidence."""

    attack: str = Field(description="label of the attack")
    eps: Positive = Field(description="its radius")
    names: list[str] = Field(description="names of the models")
    accuracy: list[list[Estimate]] = Field(description="accuracy of the target (column) on inputs of the source (row)")
    note: str = Field(description="what the matrix can show")

    @model_validator(mode="after")
    def _square(self) -> Self:
        square("accuracy", self.accuracy, len(self.names))
        return self


class Step(Part):
    """Where the search of an attack on a pictured sample ends at another radius, whether it fools the model or not."""

    eps: Positive = Field(description="the radius")
    prediction: str = Field(description="name of the predicted class")
    confidence: Share = Field(description="its probability")


class PicturedSample(Part):
    """A pictured sample under attack."""

    index: Count = Field(description="its place among the pictured samples")
    id: str = Field(description="its name in the data")
    label: str = Field(description="name of its class")
    clean_prediction: str = Field(description="name of the predicted class before")
    adversarial_prediction: str = Field(description="name of the predicted class after")
    clean_confidence: Share = Field(description="probability of the prediction before")
    adversarial_confidence: Share = Field(description="probability of the prediction after")
    distance: Positive | None = Field(description="size of the change; null where nothing was found")
    attack: str | None = Field(description="label of the attack that made it; null where none did")
    steps: list[Step] = Field([], description="along the slider of the page; empty without one")


class Grid(Part):
    """One sample per class changed towards every other class."""

    model: str = Field(description="name of the model")
    attack: str = Field(description="label of the attack")
    classes: list[str] = Field(description="names of rows (original) and columns (target)")
    success: list[list[Flag | None]] = Field(description="whether the target was reached; null on the diagonal")

    @model_validator(mode="after")
    def _square(self) -> Self:
        square("success", self.success, len(self.classes))
        if any((flag is None) != (r == k) for r, row in enumerate(self.success) for k, flag in enumerate(row)):
            raise ValueError("success: expected null on the diagonal, true or false elsewhere")
        return self


class Gallery(Part):
    """What is pictured."""

    models: dict[str, list[PicturedSample]] = Field(description="by name of the model: its samples")
    attributions: list[str] = Field(description="labels of the attributions whose maps are shown")
    grid: Grid | None = Field(description="every class towards every class; null where a class has no sample")


class Summary(Document):
    """Everything that an audit found."""

    FILE: ClassVar[str] = "summary.json"
    AGAIN: ClassVar[str] = "run the audit again"

    machines: list[Machine] = Field([], description="one of each kind, where machines of several kinds computed it")
    seconds: Positive = Field(description="run time")
    config: dict[str, Any] = Field(description="the resolved settings, as in `config.toml`")
    models: Annotated[list[Model], MinLen(1)] = Field(description="one entry per model")
    transfer: Transfer | None = Field(description="null for a single model")
    explained: Explained | None = Field(description="null, or what `--explanations` found")
    neurons: Neurons | None = Field(description="null, or what `--neurons` found")
    gallery: Gallery | None = Field(description="null without pictures")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [model.name for model in self.models]
        named: dict[str, Iterable[str]] = {
            "transfer.names": self.transfer.names if self.transfer is not None else names,
            "explained.models": self.explained.models if self.explained is not None else names,
            "neurons.models": self.neurons.models if self.neurons is not None else names,
        }
        for where, found in named.items():
            if list(found) != names:
                raise ValueError(f"{where}: expected {', '.join(names)}")
        for place, model in enumerate(self.models):
            if not {row.name for row in model.by_class} <= set(self.data.classes):
                raise ValueError(f"models[{place}].by_class: expected names of classes of the data")
        for name, rows in self.gallery.models.items() if self.gallery is not None else ():
            if name not in names:
                raise ValueError(f"gallery.models: expected {', '.join(names)}, found {name}")
            for place, row in enumerate(rows):
                for key in ("label", "clean_prediction", "adversarial_prediction"):
                    if (value := getattr(row, key)) not in self.data.classes:
                        raise ValueError(f"gallery.models.{name}[{place}].{key}: {value!r} is no class of the data")
        return self


class Side(Part):
    """What an audit found before or after the hardening."""

    clean: Estimate = Field(description="accuracy without attack")
    robust: Estimate = Field(description="robust accuracy")
    median_distance: Positive | None = Field(description="median smallest change; null is beyond reach")
    distances: Count = Field(description="samples on which smallest changes were looked for")
    verdict: AttackVerdict = Field(description="whether the robust accuracy may be believed")


class Training(Part):
    """How it was trained."""

    defense: dict[str, Any] = Field(description='the objective: {"name", settings ...}')
    settings: dict[str, Any] = Field(description="the settings of the training")
    seed: int = Field(description="its seed")
    samples: Count = Field(description="samples that it was trained on")
    validation_samples: Count = Field(description="samples that chose the epoch")
    epochs: Count = Field(description="epochs that were trained")
    chosen_epoch: Count = Field(description="the one that was kept")
    history: list[dict[str, Any]] = Field(description="what each epoch gave")


class FurtherChange(Part):
    """How far an attack moves maps or neurons, before and after."""

    name: str = Field(description="which attribution, or the neurons")
    refused: str | None = Field(description="null, or why it could not be measured on both sides")
    before: Positive | None = Field(description="median: cosine distance of maps, relative change of neurons")
    after: Positive | None = Field(description="likewise")
    difference: Difference | None = Field(description="the median of the samples' own differences")


class HardenSummary(Document):
    """What a hardening changed."""

    FILE: ClassVar[str] = "harden.json"
    AGAIN: ClassVar[str] = "run the hardening again"

    model: Triple[Literal["name", "file", "hardened"], str] = Field(
        description="its name, where it came from, and where the hardened one lies"
    )
    training: Training = Field(description="how it was trained")
    outcome: Literal["better", "worse", "not shown", "too few", "refuted"] = Field(
        description='"not shown": the interval of the difference includes zero; "too few": samples to judge; '
        '"refuted": a check failed'
    )
    text: str = Field(description="the verdict in one sentence")
    before: Side = Field(description="the model as it was")
    after: Side = Field(description="the hardened model")
    difference: Triple[Literal["clean", "robust", "distance"], Difference] = Field(
        description="after minus before: accuracies (Tango's score interval), the median of the distances' differences"
    )
    further: list[FurtherChange] = Field(description="how far maps and neurons are moved, where that was measured")
