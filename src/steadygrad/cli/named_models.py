"""The models that a command names: loaded, told apart, and tried before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steadygrad.errors import UsageError


def load_named(
    models: list[str], weights: str | None, dataset: Any, classes: Path | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The classifiers to audit and where they came from, by name.

    Args:
        classes: a file with the names of the outputs of a single model.

    Raises:
        UsageError: not a model, two of one name, random weights, or no logits for these data.
    """
    from steadygrad.classifier import check_model
    from steadygrad.models import ARCHITECTURES, load
    from steadygrad.models.class_names import read_class_names

    for flag, value in (("weights", weights), ("classes", classes)):
        if value is not None and len(models) > 1:
            raise UsageError(f"--{flag} goes with a single model")
    names = None if classes is None else read_class_names(classes)
    named: dict[str, Any] = {}
    files: dict[str, str] = {}
    for text in models:
        name, equals, spec = text.partition("=")
        if not equals or "/" in name or ":" in name:
            name, spec = "", text
        if not spec or (equals and not name and spec != text):
            raise UsageError(f"{text!r} is not a model: give MODEL or NAME=MODEL")
        head = spec.partition(":")[0]
        if head in ARCHITECTURES and weights is None and not Path(spec).is_file():
            raise UsageError(
                f"{spec} is an architecture, and its weights would be random: train it first "
                f"(steadygrad train --model {head} --out runs/{head}, then audit runs/{head}), or give --weights"
            )
        classifier = load(spec, weights=weights, classes=names, data=dataset)
        check_model(classifier, dataset.batch(slice(0, 2))[0], len(classifier.classes or ()), spec)
        name = name or (classifier.name if len(models) == 1 else Path(spec).stem)
        if name in named:
            raise UsageError(f"two models are called {name!r}: name them, e.g. first={spec}")
        named[name], files[name] = classifier, spec
    return named, files
