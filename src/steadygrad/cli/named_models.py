"""The models that a command names: loaded, told apart, and tried before any work is done."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadygrad.errors import Failure, UsageError
from steadygrad.readable import readable
from steadygrad.run_folders import RECORD, is_ours, read_record

_LIBRARIES = ("timm", "torchvision", "hf")

if TYPE_CHECKING:
    from steadygrad.classifier import Classifier
    from steadygrad.data import Dataset
    from steadygrad.data.data_plan import DataPlan
    from steadygrad.models.model_plan import ModelPlan


@dataclass(frozen=True)
class Named:
    """A model as it is written: NAME=MODEL, where NAME may be left out, and what is before the @ of MODEL@WEIGHTS."""

    text: str
    name: str
    spec: str

    @staticmethod
    def of(text: str) -> Named:
        """The parts of a text.

        >>> Named.of("a=nets:make@a.safetensors").maker, Named.of("runs/a=b").name
        ('nets:make', '')
        """
        name, equals, spec = text.partition("=")
        if not equals or "/" in name or ":" in name:
            name, spec = "", text
        if not spec or (equals and not name and spec != text):
            raise UsageError(f"{text!r} is not a model: give MODEL or NAME=MODEL")
        return Named(text, name, spec)

    @property
    def maker(self) -> str:
        """Without the weights."""
        return self.spec if Path(self.spec).exists() else self.spec.partition("@")[0]

    @property
    def usual_name(self) -> str:
        """What it is called besides others: after its weights, its file or its folder."""
        return Path(self.spec.rpartition("@")[2] or self.spec).stem


def load_named(
    models: list[str],
    weights: list[str] | None,
    source: DataPlan,
    module: ModelPlan,
    *,
    trust: bool = False,
) -> tuple[dict[str, Any], dict[str, str], Dataset]:
    """The classifiers to audit and where they came from, by name, and the data to judge on, in the shape they take.

    Args:
        weights: none, or one for each model.
        source: of the data.
        module: what is said of a single model.
        trust: whether run folders may say which code of the user is imported for them.

    Raises:
        UsageError: not a model, two of one name, random weights, or no logits for these data.
    """
    from steadygrad.classifier import check_model
    from steadygrad.models import ARCHITECTURES

    if weights and len(weights) != len(models):
        raise UsageError(
            f"--weights is given once for each model, in their order: got {len(weights)} for {len(models)} models "
            "(or write MODEL@WEIGHTS)"
        )
    if module.said() and len(models) > 1:
        raise UsageError(f"--{module.said()[0]} goes with a single model")
    asked = [Named.of(text) for text in models]
    makers = {model.maker for model in asked}
    seen = source.opened()
    named: dict[str, Any] = {}
    files: dict[str, str] = {}
    load = functools.partial(module.classifier, data=seen)
    given: list[str | None] = [*weights] if weights else [None] * len(asked)
    for model, file in zip(asked, given, strict=True):
        spec, head = model.spec, model.spec.partition(":")[0]
        if head in ARCHITECTURES and file is None and model.maker == spec and not Path(spec).is_file():
            raise UsageError(
                f"{spec} is an architecture, and its weights would be random: train it first "
                f"(steadygrad train --model {head} --out runs/{head}, then audit runs/{head}), or give --weights"
            )
        classifier = _load(spec, file, load, makers, trust)
        name = model.name or (classifier.name if len(asked) == 1 else model.usual_name)
        if name in named:
            raise UsageError(f"two models are called {name!r}: name them, e.g. first={spec}")
        named[name], files[name] = classifier, readable(spec)
    dataset = source.load(like=next(iter(named.values())))
    for name, classifier in named.items():
        check_model(classifier, dataset.batch(slice(0, 2))[0], len(classifier.classes or ()), files[name])
    return named, files, dataset


def _load(
    spec: str, weights: str | None, load: Callable[..., Classifier], makers: Collection[str], trust: bool
) -> Classifier:
    """The classifier; a run folder brings back a module of the user's own where that is safe.

    What a file says must not make us import code: of the user's modules, those alone are imported that the command
    names, unless it says --trust.
    """
    from steadygrad.measuring.code_keys import model_code

    maker, code = _remembered(Path(spec).expanduser()) if weights is None else ("", "")
    if not maker:
        return load(spec, weights=weights)
    again = f"{maker}@{spec}"
    if maker.partition(":")[0] not in _LIBRARIES and not trust and maker not in makers:
        raise UsageError(
            f"{spec} holds the weights of {maker}, whose code is imported only if you say so: "
            f"write {again}, or add --trust"
        )
    classifier = load(maker, weights=spec)
    # A model of transformers holds how it was loaded, and code that is not read: its hash is another in each process.
    if code and not maker.startswith("hf:") and model_code(classifier.module) != code:
        raise UsageError(
            f"the code of {maker} is not what it was when {spec} was made: write {again} to take it as it is now"
        )
    return classifier


def _remembered(folder: Path) -> tuple[str, str]:
    """What made the model of a run folder, where that is no architecture of the library, and the hash of its code."""
    for place in (folder / "training", folder):
        if (place / RECORD).is_file():
            try:
                config = read_record(place)
            except Failure:
                if not is_ours(place):
                    continue  # somebody else's file of that name
                raise
            made = config.get("classifier")
            architecture = made.get("architecture") if isinstance(made, dict) else None
            maker = architecture.get("name") if isinstance(architecture, dict) else None
            if isinstance(maker, str) and ":" in maker:
                return maker, str(config.get("model code", ""))
    return "", ""
