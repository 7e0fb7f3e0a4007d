"""`steadygrad train`: train or harden a model from flags or a configuration file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from steadygrad.cli.common import LARGEST_SEED, Debug, Device, Json, emit, pick_device, shown, within_seeds
from steadygrad.errors import UsageError, unknown_name

__all__ = ["train"]

_KEYS: dict[str, tuple[type, ...]] = {
    "model": (str,), "data": (str,), "defense": (str, dict), "settings": (dict,), "validation": (int, float),
    "normalize": (bool,), "size": (int,), "seed": (int,), "limit": (int,), "name": (str,),
}  # fmt: skip
_RANGES: dict[str, tuple[float, float]] = {
    "size": (1, math.inf),
    "limit": (1, math.inf),
    "seed": (0, LARGEST_SEED),
    "validation": (0, 1),
}
_WORDS = {
    str: "a text", dict: "a table", int: "a whole number", float: "a number with a point", bool: "true or false",
}  # fmt: skip


def train(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file, or a recipe by name; flags given beside it win.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Architecture, or a model file to go on from.", show_default="digits_cnn")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data by name, hub:owner/name or path.", show_default="digits")
    ] = None,
    defense: Annotated[
        str | None, typer.Option(help="Way of training, e.g. trades:eps=0.1; a+b for a sum.", show_default="plain")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the training, e.g. epochs=5 or lr=1e-3; may be repeated."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Short for --set epochs=N.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the training data kept for validation.", show_default="0.1")
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(metavar="", help="Let the model see (x - mean) / std of the training data.", show_default="yes"),
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Side to which images are resized.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Train on so many samples only.")] = None,
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run continues there.")] = Path("runs/train"),
    name: Annotated[str | None, typer.Option(help="Name shown in reports.", show_default="the architecture")] = None,
    seed: Annotated[
        int | None,
        typer.Option(callback=within_seeds, metavar="N", help="Seed of everything random.", show_default="0"),
    ] = None,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model, plain or with a defense; killed or interrupted, the same command continues.

    Examples:

      steadygrad train --model lenet --data mnist --epochs 3 --out runs/lenet

      steadygrad train --defense input_gradient:weight=10 --out runs/hard

      steadygrad train --defense adversarial:eps=0.1,attack=fgsm --out runs/fgsm

      steadygrad train pgd --model lenet --data mnist --out runs/pgd

      steadygrad train recipe.toml --set lr=5e-4
    """
    from steadygrad.data import load

    where = pick_device(device)
    flags = {
        "model": model,
        "data": data,
        "defense": defense,
        "validation": validation,
        "normalize": normalize,
        "size": size,
        "seed": seed,
        "limit": limit,
        "name": name,
        "settings": {**pairs(set_ or []), **({"epochs": epochs} if epochs is not None else {})},
    }
    plan = resolve(config, flags)
    with shown():
        # Before the training, so that data without a test split are not found out after it.
        test = load(plan["data"], "test", size=plan["size"])
        result = run(plan, out, where)
        found_accuracy = accuracy(result.classifier, test, where)
    found = {
        "out": str(out),
        "model": str(out / "model.safetensors"),
        "epochs": result.epochs_done,
        "best_epoch": result.best_epoch,
        "test_accuracy": found_accuracy.plain(),
        "history": result.history,
    }
    if json:
        emit(found)
        return
    print(f"test accuracy {found_accuracy} on {found_accuracy.count} samples\nmodel: {found['model']}")


def resolve(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """The plan of a run: defaults, then the configuration file or recipe, then flags.

    Raises:
        UsageError: a missing or garbled file, or a key that does not exist (near ones named).
    """
    from steadygrad import recipes
    from steadygrad.files import read_toml

    plan: dict[str, Any] = {
        "model": "digits_cnn", "data": "digits", "defense": "plain", "settings": {},
        "validation": 0.1, "normalize": True, "size": None, "seed": 0, "limit": None, "name": None,
    }  # fmt: skip
    given = read_toml(recipes.find(config)[0]) if config is not None else {}
    for key, value in given.items():
        if key not in _KEYS:
            raise unknown_name(f"key of {config}", key, _KEYS)
        if not isinstance(value, _KEYS[key]) or (isinstance(value, bool) and bool not in _KEYS[key]):
            kinds = " or ".join(_WORDS[kind] for kind in _KEYS[key])
            raise UsageError(f"{key} of {config} must be {kinds}, got {value!r}")
        least, most = _RANGES.get(key, (-math.inf, math.inf))
        if isinstance(value, int | float) and not least <= value <= most:
            raise UsageError(f"{key} of {config} must be within {least} to {most}, got {value!r}")
    plan.update(given)
    settings = {**plan["settings"], **flags["settings"]}
    plan.update({k: v for k, v in flags.items() if v is not None and k != "settings"})
    return {**plan, "settings": settings}


def run(plan: dict[str, Any], out: Path, device: str) -> Any:
    """Train by a plan; returns the result of `fit`."""
    from steadygrad.registry import configure
    from steadygrad.training import FitSettings, fit

    defense = defense_of(plan["defense"])
    fitting = configure(FitSettings, "the training", plan["settings"])
    full = training_data(plan)
    training, validation = full.divide(plan["validation"], plan["seed"]) if plan["validation"] else (full, None)
    classifier = _start(plan, training)
    classifier.name = plan["name"] or classifier.name
    return fit(classifier, defense, training, validation, settings=fitting, out=out, seed=plan["seed"], device=device)


def defense_of(written: str | dict[str, Any]) -> Any:
    """The defense that a flag or the table of a configuration file names."""
    from steadygrad import defenses
    from steadygrad.registry import build

    if isinstance(written, str):
        return defenses.parse(written)
    if "name" not in written:
        raise UsageError(f"the defense {written} needs a name, e.g. name = 'input_gradient'")
    return build("defense", str(written["name"]), {k: v for k, v in written.items() if k != "name"})


def training_data(plan: dict[str, Any]) -> Any:
    """All samples of a plan, those kept for validation among them."""
    from steadygrad.data import load

    full = load(plan["data"], "train", size=plan["size"])
    return full if plan["limit"] is None else full.take(plan["limit"], seed=plan["seed"])


def accuracy(classifier: Any, data: Any, device: str) -> Any:
    """Clean accuracy with its interval."""
    from steadygrad.measuring.measures.predicted import Predicted
    from steadygrad.measuring.runner import Runner
    from steadygrad.measuring.statistics import share_of

    table = Runner({"model": classifier}, data, device=device, batch_size=500).run(Predicted(), "model")
    return share_of(table["prediction"] == table["label"])


def _start(plan: dict[str, Any], training: Any) -> Any:
    from steadygrad import models

    name = str(plan["model"])
    if name.partition(":")[0] not in models.ARCHITECTURES:
        return models.load(name, data=training)
    architecture = models.load(name, data=training).architecture or {}
    settings = {k: v for k, v in architecture.items() if k != "name"}
    mean, std = _moments(training) if plan["normalize"] else (None, None)
    return models.build(
        architecture["name"], training.shape, training.classes, seed=plan["seed"], mean=mean, std=std, **settings
    )


def _moments(data: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, from at most 10,000 samples spread over the data."""
    x, _ = data.take(10_000, seed=0).tensors()
    rows = x.transpose(0, 1).flatten(1) if x.ndim == 4 else x.flatten()[None]
    return rows.mean(1).tolist(), rows.std(1).clamp_min(1e-3).tolist()


def pairs(items: list[str]) -> dict[str, Any]:
    """Settings as they are written after --set."""
    from steadygrad.registry import parse_settings

    return {k: v for item in items for k, v in parse_settings(item, "--set takes key=value", "lr=1e-3").items()}
