"""Everything that a user can call, found by looking, with a valid value for each parameter by its name.

A new public callable is found without being added anywhere. A parameter of a new name needs a line in `VALID`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import nets
import steadygrad as sg
from steadygrad.measuring import paired as sg_paired
from steadygrad.measuring.paired import PairedDifference
from steadygrad.measuring.statistics import Estimate
from steadygrad.measuring.table import Table
from steadygrad.registry import Method

ROOMS = (
    *("", "attacks", "attributions", "bounds", "data", "defenses", "models", "neurons", "recipes", "report"),
    "training",
)
"""Packages: all names that they show."""
FILES = (
    *(f"attributions.{name}" for name in ("faithfulness", "sanity", "similarity", "stability", "structure")),
    *(f"measuring.{name}" for name in ("paired", "statistics", "table")),
    "derivatives",
)
"""Files without a package that shows their names: the functions and classes written there."""

HOOKS = frozenset(
    "forward forwards admits bound_batch check check_finite check_model complete distances extra_repr follow maps "  # noqa: SIM905
    "pulled_back check_graph points remember require_curvature search terms AttackResult.take".split()
)
"""What subclasses write and the engine calls with checked arguments."""
MADE_BY_US = frozenset(
    "Architecture AttackResult AttributionResult Curve DeviationBound Estimate FitResult Kept Loss MarginBound Movers "  # noqa: SIM905
    "PairedDifference Randomization Recipe Similarity Source StabilityEstimate State Step Table".split()
)
"""Classes that are results or rows: their constructors are not called by users, their methods are."""
ENGINE = frozenset(["Kept", "Similarity", "Source", "Architecture", "Recipe", "Step"])
"""Of these, those whose methods are called by the engine alone."""


def x(count: int = 2) -> torch.Tensor:
    """Images (N, 1, 4, 4)."""
    return nets.inputs(count)


def data(count: int = 12, seed: int = 5) -> sg.data.Dataset:
    """Three classes of noisy images (1, 4, 4)."""
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return sg.data.from_arrays(images, torch.arange(count) % 3, 3, name=f"noise{seed}")


def model() -> nn.Module:
    """A smooth network of three classes, with activation modules."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Softplus(), nn.Linear(6, 3))
    for i, parameter in enumerate(net.parameters()):
        torch.nn.init.uniform_(parameter.data, -1, 1, generator=torch.Generator().manual_seed(i))
    return net.eval()


def classifier() -> sg.Classifier:
    """The model as a classifier."""
    return sg.Classifier(model(), classes=("0", "1", "2"), input_shape=(1, 4, 4))


def scalar(points: torch.Tensor) -> torch.Tensor:
    """A function with a second derivative, one number per sample."""
    return (points**3).flatten(1).sum(1)


def outputs(points: torch.Tensor) -> torch.Tensor:
    """A function to (N, 2)."""
    return torch.stack([scalar(points), scalar(points) ** 2], 1)


def records() -> Table:
    """Records of one attack on the data."""
    return sg.evaluate(model(), data(), sg.attacks.FGSM(), sg.linf(0.1))


def _table_file(folder: Path) -> Path:
    Table({"sample": np.array(["a", "b"])}).write(folder / "table.parquet")
    return folder / "table.parquet"


def _run_folder(folder: Path) -> Path:
    audited(folder / "run")
    return folder / "run"


SMALL: dict[str, Any] = {"attacks": [sg.attacks.FGSM()], "gallery": 0, "checked": 2, "attributions": ()}
"""Settings of an audit that costs little."""


def audited(out: Path | None = None) -> Any:
    """A small audit."""
    return sg.audit(classifier(), data(6), sg.linf(0.1), out=out, **SMALL)


def _remembered() -> sg.defenses.State:
    defense, state = method(sg.defenses.StableNeurons), sg.defenses.State()
    return sg.defenses.State(memory=defense.remember(0, model(), data(), state))


@functools.cache
def summary() -> Any:
    """What that audit says."""
    from steadygrad.audit.schema import Summary

    return Summary.model_validate(audited().summary)


def weights_file(folder: Path) -> Path:
    """A file of weights that fit the classifier."""
    classifier().save(folder / "model.safetensors")
    return folder / "model.safetensors"


class Call(NamedTuple):
    """One public callable with valid arguments; `more` stands for those that have no name."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    more: tuple[Any, ...] = ()


X = x()
Y = torch.tensor([0, 2])
MAPS = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))

VALID: dict[str, Callable[[Path], Any]] = {
    "a": lambda _: MAPS,
    "b": lambda _: MAPS.flip(0),
    "adversarial": lambda _: MAPS.flip(0),
    "after": lambda _: [1.0, 2.5, 3.5],
    "aim": lambda _: None,
    "architecture": lambda _: None,
    "arrays": lambda _: {},
    "at": lambda _: (0.25, 0.5),
    "attack": lambda _: sg.attacks.FGSM(),
    "attacks": lambda _: [sg.attacks.FGSM()],
    "attribution": lambda _: sg.attributions.Saliency(),
    "before": lambda _: [1.0, 2.0, 3.0],
    "binary": lambda _: False,
    "probabilities": lambda _: False,
    "batch_size": lambda _: 5,
    "benign": lambda _: MAPS,
    "bounds": lambda _: (0.0, 1.0),
    "boxes": lambda _: [torch.tensor([[0, 0, 2, 2]])] * 2,
    "calls": lambda _: 2,
    "center": lambda _: None,
    "change": lambda _: MAPS - 0.5,
    "channels": lambda _: None,
    "order": lambda _: "most",
    "points": lambda _: X,
    "rows": lambda _: torch.tensor([0]),
    "shape": lambda _: (1, 4, 4),
    "signed": lambda _: False,
    "chunk": lambda _: 4,
    "verify": lambda _: False,
    "classes": lambda _: 3,
    "classifier": lambda _: classifier(),
    "color": lambda _: None,
    "columns": lambda _: {"sample": np.array(["a"])},
    "command": lambda _: "",
    "count": lambda _: 4,
    "create_graph": lambda _: False,
    "data": lambda _: data(),
    "defense": lambda _: sg.defenses.Plain(),
    "delta": lambda _: MAPS - 0.5,
    "device": lambda _: "cpu",
    "draw": lambda _: 0,
    "draws": lambda _: 2,
    "eps": lambda _: 0.1,
    "files": lambda _: None,
    "fill": lambda _: 0.0,
    "first": lambda _: [1.0, 2.0, 3.0],
    "folder": lambda folder: folder,
    "form": lambda _: None,
    "preparation": lambda _: None,
    "positions": lambda _: [0, 1, 2],
    "notes": lambda _: (),
    "fraction": lambda _: 0.5,
    "function": lambda _: outputs,
    "generator": lambda _: None,
    "given": lambda _: "pgd",
    "gradient": lambda _: MAPS - 0.5,
    "hardened": lambda _: None,
    "high": lambda _: 1.0,
    "hits": lambda _: [True, False],
    "ids": lambda _: None,
    "images": lambda _: X,
    "index": lambda _: [0, 1],
    "indices": lambda _: [0, 1],
    "input_shape": lambda _: (1, 4, 4),
    "k": lambda _: 0.2,
    "layer": lambda _: "2",
    "layers": lambda _: ("2",),
    "level": lambda _: 0.05,
    "like": lambda _: X,
    "logits": lambda _: torch.rand(2, 3),
    "low": lambda _: 0.0,
    "maps": lambda _: MAPS,
    "mask": lambda _: None,
    "mean": lambda _: 0.0,
    "measure": lambda _: sg.attributions.similarity.cosine,
    "model": lambda _: model(),
    "models": lambda _: model(),
    "module": lambda _: model(),
    "n": lambda _: 4,
    "name": lambda _: None,
    "neuron": lambda _: 0,
    "neurons": lambda _: {"2": torch.tensor([0])},
    "noise_draws": lambda _: 1,
    "norm": lambda _: "linf",
    "normalize": lambda _: True,
    "number": lambda _: 0.5,
    "of": lambda _: "logit",
    "other": lambda _: sg.defenses.Plain(),
    "ours": lambda _: Estimate(0.5, 0.4, 0.6),
    "outputs": lambda _: [2, 0, 1],
    "out": lambda _: None,
    "parts": lambda _: [Table({"sample": np.array(["a"])})],
    "pairs": lambda _: [(X, X.flip(0))],
    "path": lambda folder: folder / "file",
    "people": lambda _: None,
    "pictures": lambda _: True,
    "picture": lambda _: MAPS[:, 0],
    "pixels": lambda _: False,
    "pooling": lambda _: True,
    "place": lambda _: 0,
    "places": lambda _: [0],
    "radius": lambda _: 1,
    "reference": lambda _: None,
    "region": lambda _: MAPS[:, 0] > 0.5,
    "relative": lambda _: True,
    "resize": lambda _: None,
    "restarts": lambda _: 1,
    "salience": lambda _: MAPS,
    "samples": lambda _: ["a"],
    "scalar": lambda _: scalar,
    "second": lambda _: [1.0, 2.5, 3.5],
    "seed": lambda _: 0,
    "seeds": lambda _: torch.tensor([1, 2]),
    "settings": lambda _: None,
    "share": lambda _: 0.25,
    "sigma": lambda _: {"2": torch.rand(6)},
    "similarities": lambda _: ("cosine",),
    "size": lambda _: None,
    "split": lambda _: "test",
    "state": lambda _: None,
    "statistic": lambda _: np.mean,
    "std": lambda _: 1.0,
    "step": lambda _: 1,
    "steps": lambda _: 2,
    "trials": lambda _: 2,
    "successes": lambda _: 2,
    "summary": lambda _: summary(),
    "table": lambda _: records(),
    "target": lambda _: Y,
    "test": lambda _: data(9),
    "text": lambda _: "plain",
    "theirs": lambda _: 0.5,
    "threat": lambda _: sg.linf(0.1),
    "tolerance": lambda _: 0,
    "total": lambda _: 10,
    "train": lambda _: data(),
    "training": lambda _: None,
    "u": lambda _: MAPS,
    "v": lambda _: torch.ones(2, 2),
    "validation": lambda _: None,
    "values": lambda _: [1.0, 2.0, 3.0],
    "watch": lambda _: None,
    "weights": lambda _: None,
    "which": lambda _: "most",
    "x": lambda _: X,
    "x_adv": lambda _: (X + 0.05).clamp(0, 1),
    "y": lambda _: Y,
}
"""A valid value by the name of its parameter."""


def _function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).flatten(1).sum(1)


SPECIAL: dict[str, Any] = {
    "AttributionResult.similarity.function": lambda _: _function,
    "CarliniWagner.__call__.threat": lambda _: sg.l2(0.1),
    "CarliniWagner.perturb.threat": lambda _: sg.l2(0.1),
    "DDN.__call__.threat": lambda _: sg.l2(0.1),
    "DDN.perturb.threat": lambda _: sg.l2(0.1),
    "SigmaZero.__call__.threat": lambda _: sg.l0(2),
    "SigmaZero.perturb.threat": lambda _: sg.l0(2),
    "SparseSwaps.__call__.threat": lambda _: sg.l0(2),
    "SparseSwaps.perturb.threat": lambda _: sg.l0(2),
    "SuperDeepFool.__call__.threat": lambda _: sg.l2(0.1),
    "SuperDeepFool.perturb.threat": lambda _: sg.l2(0.1),
    "JSMA.__call__.threat": lambda _: sg.l0(2),
    "JSMA.perturb.threat": lambda _: sg.l0(2),
    "StableNeurons.loss.state": lambda _: _remembered(),
    "Distillation.loss.state": lambda _: sg.defenses.State(teacher=model()),
    "harden.data": lambda _: data(12, seed=1),
    "harden.validation": lambda _: 0.5,
    "harden.settings": lambda _: sg.FitSettings(epochs=1),
    "fit.settings": lambda _: sg.FitSettings(epochs=1),
    "worst_similarity.attacks": lambda _: [sg.attacks.IFIA(steps=1, restarts=1, noise_draws=1)],
    "ratio_values.first": lambda _: np.array([1.0, 2.0]),
    "ratio_values.second": lambda _: np.array([1.0, 2.0]),
    "Table.__getitem__.name": lambda _: "sample",
    "Table.read.path": _table_file,
    "breaks_off.value": lambda _: X,
    "at_once.most": lambda _: 20,
    "at_once.shape": lambda _: (3, 32, 32),
    "at_once.device": lambda _: None,
    "Table.decoded.data": lambda folder: _table_file(folder).read_bytes(),
    "write.folder": _run_folder,
    "Smooth.beta": lambda _: 20.0,
    "Classifier.load_weights.path": weights_file,
    "Dataset.classes": lambda _: ("a", "b", "c"),
    "Dataset.__getitem__.index": lambda _: 0,
    "Dataset.ids": lambda _: ("p", "q"),
    "Dataset.images": lambda _: X,
    "Dataset.labels": lambda _: Y,
    "Dataset.take.seed": lambda _: None,
    "Sum.parts": lambda _: (sg.defenses.Plain(),),
    "Table.columns": lambda _: {"sample": np.array(["a", "b"])},
    "Table.kept.name": lambda _: "sample",
    "audit.data": lambda _: data(6),
    "change.benign": lambda _: MAPS,
    "choosing.classes": lambda _: ["c", "a", "b"],
    "relabeled.classes": lambda _: ["c", "a", "b"],
    "deletion_gain.sigma": lambda _: 1.0,
    "deletion.sigma": lambda _: 1.0,
    "deviation.after": lambda _: MAPS,
    "deviation.before": lambda _: MAPS.flip(0),
    "deviation.distance": lambda _: "cosine",
    "faithfulness.attribution": lambda _: None,
    "from_arrays.name": lambda _: "arrays",
    "in_chunks.function": lambda _: scalar,
    "in_chunks.order": lambda _: 1,
    "insertion.sigma": lambda _: 1.0,
    "models.build.name": lambda _: "mlp",
    "models.load.spec": lambda _: "mlp",
    "movers.layer": lambda _: "2",
    "pixel_maps.name": lambda _: "maps",
    "data.load.name": lambda _: "digits",
    "data.from_arrays.x": lambda _: x(6),
    "data.from_arrays.y": lambda _: [0, 1, 2, 0, 1, 2],
    "random.seeds": lambda _: torch.tensor([1, 2]),
    "smooth.beta": lambda _: 20.0,
    "select.seed": lambda _: 0,
    "neurons.select.share": lambda _: 0.5,
    "wilson.count": lambda _: 4,
    "critical_count.count": lambda _: 10,
}
"""A valid value where the name of the parameter means something else: by callable and parameter."""

MORE: dict[str, tuple[Any, ...]] = {"bootstrap": ([1.0, 2.0, 4.0],), "in_chunks": (X,)}
"""Arguments without a name."""

PLAIN = ("Threat", "Dataset", "Table")
"""Dataclasses that are made from values, not from settings."""

SETTINGS: dict[str, Any] = {"eps": 0.1, "sigma": 0.1, "weight": 0.1, "parts": (sg.defenses.Plain(),), "projections": 1}
CHEAP: dict[str, int] = {
    "steps": 1,
    "queries": 3,
    "restarts": 1,
    "draws": 1,
    "search_steps": 1,
    "samples": 1,
    "grid": 2,
    "n0": 5,
    "n": 10,
}


def instances() -> dict[type, Callable[[], Any]]:
    """How to get an instance of a class whose methods are walked."""
    net, images = model(), X
    bound = sg.bounds.CertifiedDeviation(steps=0, restarts=1)
    return {
        sg.Classifier: classifier,
        sg.Threat: lambda: sg.linf(0.1),
        sg.FitSettings: sg.FitSettings,
        sg.data.Dataset: data,
        sg.attacks.AttackResult: lambda: sg.attacks.FGSM()(net, images, Y, sg.linf(0.1)),
        sg.attacks.AttributionResult: lambda: sg.attacks.AttributionNoise(draws=1)(net, images, Y, sg.linf(0.1)),
        sg.bounds.MarginBound: lambda: sg.bounds.CertifiedMargin()(net, images, Y, sg.linf(0.01)),
        sg.bounds.DeviationBound: lambda: bound(net, images, Y, sg.linf(0.01)),
        sg.neurons.Movers: lambda: sg.neurons.movers(net, images, 1 - images, "2", 0, count=1),
        Estimate: lambda: Estimate(0.5, 0.4, 0.6),
        PairedDifference: lambda: sg_paired.difference_of_shares([True, False], [True, True]),
        Table: lambda: Table({"sample": np.array(["a", "b"])}),
    }


def method(kind: type[Method]) -> Method:
    """A method with settings that cost little."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    cheap = {name: value for name, value in CHEAP.items() if name in fields}
    needed = {n: SETTINGS[n] for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    return kind(**needed, **cheap)


def _named() -> Iterator[tuple[str, str, Any]]:
    """Room, name and object of everything public."""
    seen: set[int] = set()
    for place in (*ROOMS, *FILES):
        module = importlib.import_module(f"steadygrad.{place}".rstrip("."))
        for name in sorted(dir(module)):
            found = getattr(module, name)
            origin = getattr(found, "__module__", None) or ""
            ours = origin == module.__name__ if place in FILES else origin.startswith(module.__name__)
            shown = callable(found) and ours and not isinstance(found, types.ModuleType)
            if name.startswith("_") or not shown or id(found) in seen:
                continue
            seen.add(id(found))
            yield place, name, found


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self" and p.kind not in variable]


def names() -> list[str]:
    """All public callables: functions, constructors, and the methods of their classes."""
    found = []
    for place, name, value in _named():
        full = f"{place}.{name}".lstrip(".")
        if not isinstance(value, type):
            found.append(full)
            continue
        if issubclass(value, Exception) or inspect.isabstract(value) or name in ENGINE:
            continue
        if name not in MADE_BY_US:
            found.append(full)
        for verb, function in inspect.getmembers(value, inspect.isfunction):
            ours = function.__module__.startswith("steadygrad")
            hidden = verb.startswith("_") and verb not in ("__call__", "__getitem__")
            if ours and not hidden and not {verb, f"{name}.{verb}"} & HOOKS:
                found.append(f"{full}.{verb}")
    return found


def parameters(name: str) -> list[inspect.Parameter]:
    """The parameters of a public callable that have a name of their own."""
    return _parameters(_resolved(name)[0])


def call(name: str, folder: Path) -> Call:
    """A public callable by its name in `names`, with valid arguments."""
    function, owner = _resolved(name)
    arguments = {}
    fields = owner is not None and dataclasses.is_dataclass(owner) and owner.__name__ not in PLAIN
    for parameter in _parameters(function):
        if fields:  # settings: the required ones, and what is tried is set one at a time
            default = parameter.default
            arguments[parameter.name] = SETTINGS[parameter.name] if default is inspect.Parameter.empty else default
            continue
        keys = [".".join([*name.split(".")[i:], parameter.name]) for i in range(len(name.split(".")))]
        special = next((SPECIAL[key] for key in keys if key in SPECIAL), None)
        make = special or VALID.get(parameter.name)
        assert make is not None, f"add a valid value for {parameter.name!r} of {name} to tests/public.py"
        value = make(folder)
        if value is None and special is None and parameter.default is not inspect.Parameter.empty:
            value = parameter.default
        arguments[parameter.name] = value
    return Call(name, function, arguments, MORE.get(name.rpartition(".")[2], ()))


def _resolved(name: str) -> tuple[Callable[..., Any], type | None]:
    for place, short, value in _named():
        full = f"{place}.{short}".lstrip(".")
        if name == full:
            return value, value if isinstance(value, type) else None
        if isinstance(value, type) and name.startswith(f"{full}."):
            made = method(value) if issubclass(value, Method) else instances()[value]()
            return getattr(made, name.rpartition(".")[2]), None
    raise AssertionError(f"there is no public {name}")


def run(called: Call, **changed: Any) -> Any:
    """Call it, with some arguments changed; a context is entered and left."""
    arguments = {**called.arguments, **changed}
    few = SMALL if called.name in ("audit", "harden") else {}
    if called.more:  # they follow what has a place, and what has a name only keeps it
        known = inspect.signature(called.function).parameters
        named = {n: v for n, v in arguments.items() if known[n].kind is inspect.Parameter.KEYWORD_ONLY}
        result = called.function(*(v for n, v in arguments.items() if n not in named), *called.more, **named)
    else:
        result = called.function(**arguments, **few)
    if isinstance(result, contextlib._GeneratorContextManager):
        with result as inner:
            return inner
    return result
