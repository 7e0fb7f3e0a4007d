"""The models that an audit takes: by name, tried on the data, and what is written down about them."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad import readable
from steadygrad.attacks.expectation import base_of, draws_of, expected, network_of
from steadygrad.classifier import Classifier, bounds_of, check_inputs, check_logits, classifier_in, frozen
from steadygrad.data import Dataset
from steadygrad.errors import UsageError, out_of_memory
from steadygrad.measuring.runner import borrowed
from steadygrad.models.class_names import match_classes
from steadygrad.models.units import within
from steadygrad.randomized_smoothing import SmoothedModel
from steadygrad.threat import Threat


def named(model: nn.Module) -> str:
    """The name of a model: that of a classifier, else its class."""
    return str(getattr(model, "name", type(model).__name__))


def named_models(models: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module]) -> dict[str, nn.Module]:
    """Models by name; a plain module is called after its class."""
    if isinstance(models, Mapping):
        found = dict(models)
    else:
        listed = [models] if isinstance(models, nn.Module) else list(models)
        names = [named(m) for m in listed]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise UsageError(f"models share the names {', '.join(repeated)}: give a mapping of names to models")
        found = dict(zip(names, listed, strict=True))
    shown = {readable.name(name): model for name, model in found.items()}
    if len(shown) < len(found):
        raise UsageError(f"models have names that are shown alike: {', '.join(shown)}")
    found = shown
    if not found:
        raise UsageError("models is empty: give at least one classifier")
    return found


@dataclass(frozen=True)
class Note:
    """Something to know before the numbers of a model are read, as in the summary."""

    about: str
    warning: bool
    text: str


_PAIRS = 4  # of samples on which a model is tried


BLIND = Note(
    "gradients",
    True,
    "the model's output carries no gradient to its input: it was searched blind only, which finds less; if there is a "
    "detach, a no_grad or a conversion to NumPy in its forward that can go, audit it without",
)


@dataclass(frozen=True)
class Fitted:
    """A model as it is judged: it takes the inputs of the data, and its first outputs are the classes of the data.

    Attributes:
        classes: what its outputs mean: those of the data, then the others of the model.
        notes: what was done to that end, and has to be told.
        gradients: whether its logits carry a gradient to the inputs; without, it is searched blind.
    """

    model: nn.Module
    classes: tuple[str, ...]
    notes: tuple[Note, ...] = ()
    gradients: bool = True

    def told(self) -> Fitted:
        """Itself, after its notes were logged, for results that have no place for them."""
        for note in self.notes:
            logging.getLogger("steadygrad").warning(note.text)
        return self


def agreeing(
    model: nn.Module,
    data: Dataset,
    threat: Threat,
    device: str | None = None,
    *,
    name: str | None = None,
    of_data_only: bool = False,
) -> Fitted:
    """The model with its outputs in the order of the classes of the data, after it was tried on two samples.

    Args:
        name: of the model, in errors and notes.
        of_data_only: whether to judge it among the classes of the data only, where it has more.

    Raises:
        UsageError: shape, bounds or classes do not fit the data or the threat.
    """
    name = name or named(model)
    if isinstance(model, SmoothedModel):
        found = agreeing(model.model, data, threat, device, name=name, of_data_only=of_data_only)
        # Its noise is in the units of its inputs, which may be scaled for it.
        (low, high), (first, last) = bounds_of(model) or data.bounds, data.bounds
        smoothing = dataclasses.replace(model.smoothing, sigma=model.smoothing.sigma * (last - first) / (high - low))
        return dataclasses.replace(found, model=smoothing(found.model))
    known = classifier_in(model)
    if known is not None and known.input_shape is not None and known.input_shape != data.shape:
        raise UsageError(f"{name} takes inputs of shape {known.input_shape}, {data.name} has {data.shape}")
    if threat.bounds != data.bounds:
        raise UsageError(
            f"the threat has the bounds {threat.bounds}, and {data.name} lies within {data.bounds}: give them to the "
            f"threat, as in sg.{threat.norm}(eps, bounds={data.bounds}), or to the data (bounds=...)"
        )
    model, scaled = within(model, data, name)
    check_inputs(*data.batch(slice(0, 2)), data.bounds)
    threat.for_all(data.shape)
    with borrowed([model], device) as where:
        x, logits = _tried(model, data, where)
        check_logits(logits, len(x))
        names, count = None if known is None else known.classes, logits.shape[1]
        names = None if names is None else readable.names(names)
        if names is not None and len(names) != count:
            raise UsageError(
                f"{name} gives {count} logits for its {len(names)} classes: name each of its outputs "
                "in their order (classes=[...], --classes FILE)"
            )
        match = match_classes(names, count, data.classes, who=name, where=data.name)
        others = () if of_data_only else match.rest()
        classes = (*data.classes, *(names[place] for place in others if names is not None))
        order, note = (*match.positions, *others), match.text
        if order != tuple(range(count)):
            # A wrapper around a classifier is taken as it is.
            whole = model if isinstance(model, Classifier) else Classifier(model, bounds=threat.bounds)
            model = whole.choosing(order, classes)
    if match.outputs > len(data.classes):
        note = f"{note}: judged among {f'these {len(classes)}' if of_data_only else f'all {count:,}'}"
    notes = {"bounds": scaled, "classes": note}
    return Fitted(model, classes, tuple(Note(about, False, text) for about, text in notes.items() if text))


def _tried(model: nn.Module, data: Dataset, where: torch.device, *, graph: bool = False) -> tuple[Tensor, Tensor]:
    """The first two samples that a model answers, with its logits; of some pairs, for single samples may fail."""
    found: list[tuple[Tensor, Tensor]] = []
    raised: list[Exception] = []
    for start in range(0, min(len(data), 2 * _PAIRS), 2):
        x = data.batch(slice(start, start + 2))[0].to(where).requires_grad_(graph)
        try:
            with frozen(model) as as_called, torch.set_grad_enabled(graph):
                found.append((x, as_called(x)))
        except Exception as error:
            if out_of_memory(error):
                raise
            raised.append(error)
        else:
            logits = found[-1][1]
            if not isinstance(logits, Tensor) or bool(torch.isfinite(logits).all()):
                return found[-1]
    if found:
        return found[0]
    raise raised[0]


def fitting(model: nn.Module, data: Dataset, threat: Threat, draws: int, device: str | None, **how: Any) -> Fitted:
    """A model as an audit judges it, a randomized one as its mean over draws; other arguments as for `agreeing`.

    Raises:
        UsageError: it does not fit the data or the threat, or its gradient cannot be computed.
    """
    found = agreeing(model, data, threat, device, **how)
    with borrowed([found.model], device) as where:
        x, logits = _tried(found.model, data, where, graph=True)
        gradients = _gives_gradient(logits, x)
        model = expected(found.model, x.detach(), draws)
        notes = found.notes if gradients else (*found.notes, BLIND)
        return dataclasses.replace(found, model=model, notes=notes, gradients=gradients)


def _gives_gradient(logits: Tensor, x: Tensor) -> bool:
    """Whether there is a gradient from logits (N, K) to inputs (N, *)."""
    if not logits.requires_grad:
        return False
    try:
        with warnings.catch_warnings():  # of quantized layers, that their gradients are none
            warnings.simplefilter("ignore")
            return torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] is not None
    except RuntimeError as error:
        # It has one that cannot be had: a blind search would be the poorer way.
        raise UsageError(
            f"the model's output carries no gradient to its input ({str(error).strip().splitlines()[0]}): mend its "
            "forward; what searches without takes it: sg.evaluate(model, data, sg.attacks.Square(), threat)"
        ) from error


def fitting_all(models: Mapping[str, nn.Module], data: Dataset, **how: Any) -> dict[str, Fitted]:
    """Several models as they are judged on data, with equal classes in one order; arguments as for `fitting`.

    Raises:
        UsageError: as `fitting`, and models of different classes.
    """
    found: dict[str, Fitted] = {}
    for name, model in models.items():
        fitted = fitting(model, data, name=name, **how)
        first = next(iter(found.values()), fitted)
        if fitted.classes != first.classes:
            if len(fitted.classes) != len(first.classes):
                raise UsageError(
                    f"{next(iter(found))} and {name} have {len(first.classes)} and {len(fitted.classes)} classes, so "
                    "that their numbers do not compare: audit them one by one, or among the classes of the data only "
                    "(classes_of_data_only=True, --classes-of-data-only)"
                )
            alike = dataclasses.replace(data, classes=first.classes)
            again = fitting(model, alike, name=name, **how)
            fitted = dataclasses.replace(again, notes=fitted.notes)
        found[name] = fitted
    return found


def about_model(fitted: Fitted, weights: str, file: str | None) -> dict[str, Any]:
    """What the summary says of a model besides numbers."""
    model = fitted.model
    averaged = base_of(model)
    return {
        "file": file,
        "architecture": getattr(network_of(model)[0], "architecture", None),
        "smoothed": dataclasses.asdict(averaged.smoothing) if isinstance(averaged, SmoothedModel) else None,
        "draws": draws_of(model),
        "gradients": fitted.gradients,
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": weights,
        "notes": [dataclasses.asdict(note) for note in fitted.notes],
    }
