"""The model under audit: a module with its normalization, input range and class names."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.arguments import Inputs, Integers, check_batch, check_labels, public
from steadygrad.calling import called, logits_of, may_fail, unwrap
from steadygrad.errors import Failure, UsageError
from steadygrad.files import write_tensors
from steadygrad.kinds import ClassNames
from steadygrad.precision import widened
from steadygrad.turns import TURN, drawing
from steadygrad.weights import read_weights


class Classifier(nn.Module):
    """A module that maps inputs within `bounds` (N, *) to logits (N, K).

    The module sees (x - mean) / std, so inputs, radii and perturbations stay in the units of the
    data. Everything in the library also takes a plain module that does the same.

    Args:
        module: maps normalized inputs to logits.
        mean, std: a number, or one per channel.
        bounds: smallest and largest value of an input.
        classes: class names, or their number.
        input_shape: shape of one sample, e.g. (1, 28, 28); checked if given.
        architecture: what rebuilds the module: {"name": ..., **settings}.
        name: shown in reports.
        binary: the module gives one logit z, (N, 1) or (N,), of the second of two classes: taken as (-z/2, z/2), whose
            softmax is (1 - sigmoid(z), sigmoid(z)).
        preparation: how images were brought to the input shape, as `steadygrad.data.form.Form.way` says it.

    >>> model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), mean=0.5, std=0.5, classes=3)
    >>> model(torch.rand(2, 1, 2, 2)).shape
    torch.Size([2, 3])
    """

    gives_logits = True
    mean: Tensor
    std: Tensor
    outputs: Tensor | None

    @public
    def __init__(
        self,
        module: nn.Module,
        *,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        bounds: tuple[float, float] = (0.0, 1.0),
        classes: ClassNames | None = None,
        input_shape: Sequence[int] | None = None,
        architecture: dict[str, Any] | None = None,
        name: str | None = None,
        preparation: dict[str, Any] | None = None,
        binary: bool = False,
    ) -> None:
        super().__init__()
        self.module = module
        # Not persistent: they are written as settings, so that weights hold the module's tensors only.
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.get_default_dtype()), persistent=False)
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.get_default_dtype()), persistent=False)
        self.register_buffer("outputs", None, persistent=False)
        if not bool((self.std > 0).all()):
            raise UsageError(f"std must be positive, got {std}")
        if not bounds[0] < bounds[1]:
            raise UsageError(f"bounds must be (low, high) with low < high, got {bounds}")
        self.bounds = (float(bounds[0]), float(bounds[1]))
        named = [str(i) for i in range(classes)] if isinstance(classes, int) else classes
        self.classes: tuple[str, ...] | None = tuple(named) if named is not None else None
        self.input_shape = tuple(int(s) for s in input_shape) if input_shape is not None else None
        self.architecture, self.preparation, self.binary = architecture, preparation, binary
        if binary and self.classes is not None and len(self.classes) != 2:
            raise UsageError(f"a binary classifier has two classes, got {len(self.classes)}")
        if self.input_shape is not None:
            for value in (self.mean, self.std):
                _check_channels(value, self.input_shape)
        self.name = name or (architecture or {}).get("name") or type(module).__name__

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *) within the bounds."""
        if self.input_shape is not None and tuple(x.shape[1:]) != self.input_shape:
            raise UsageError(
                f"{self.name} takes inputs of shape (N, {', '.join(map(str, self.input_shape))}), got {tuple(x.shape)}"
            )
        logits = logits_of(self.module, (x - self._per_channel(self.mean, x)) / self._per_channel(self.std, x))
        if self.binary:
            logits = _of_two(logits, len(x))
        return logits if self.outputs is None else logits.index_select(1, self.outputs)

    @staticmethod
    def _per_channel(value: Tensor, x: Tensor) -> Tensor:
        _check_channels(value, tuple(x.shape[1:]))
        value = value.to(x.dtype)
        return value.view(1, -1, *[1] * (x.ndim - 2)) if value.ndim else value

    def extra_repr(self) -> str:
        return f"name={self.name}, bounds={self.bounds}, classes={len(self.classes or ())}"

    @property
    def settings(self) -> dict[str, Any]:
        """All but the weights, as plain data; `Classifier(module, **rest)` takes it back."""
        return {
            "architecture": self.architecture,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "bounds": list(self.bounds),
            "classes": list(self.classes) if self.classes is not None else None,
            "input_shape": list(self.input_shape) if self.input_shape is not None else None,
            "name": self.name,
            "preparation": self.preparation,
            "binary": self.binary,
        }

    @public
    def choosing(self, outputs: Sequence[int], classes: Sequence[str]) -> Classifier:
        """The same model with some of its outputs as classes, in this order; the module is shared.

        >>> model = Classifier(nn.Linear(4, 3), classes=["cat", "dog", "bird"])
        >>> model.choosing([2, 0], ["bird", "cat"])(torch.rand(5, 4)).shape
        torch.Size([5, 2])
        """
        if len(outputs) != len(classes) or not outputs or min(outputs) < 0:
            raise UsageError(
                f"outputs must be places of outputs, one for each of {len(classes)} classes, got {outputs}"
            )
        plain = type(self) is Classifier  # a subclass may have a forward of its own
        # The very tensors, so that they move to another device together.
        mean, std = (self.mean, self.std) if plain else (self.mean.new_zeros(()), self.std.new_ones(()))
        two = plain and self.binary
        settings = {**self.settings, "mean": mean, "std": std, "classes": classes, "binary": two}
        chosen = Classifier(self.module if plain else self, **settings)
        index = torch.as_tensor(outputs, dtype=torch.int64, device=self.mean.device)
        chosen.outputs = self.outputs[index] if plain and self.outputs is not None else index
        chosen.training = self.training
        return chosen

    @public
    def rescaled(self, bounds: tuple[float, float]) -> Classifier:
        """The same model of inputs in other units: what was at its bounds is at these; the module is shared.

        >>> model = Classifier(nn.Linear(4, 3), mean=127.5, std=127.5, bounds=(0, 255)).rescaled((0, 1))
        >>> model.mean, model.std
        (tensor(0.5000), tensor(0.5000))
        """
        if not bounds[0] < bounds[1]:
            raise UsageError(f"bounds must be (low, high) with low < high, got {bounds}")
        (low, high), plain = self.bounds, type(self) is Classifier
        factor = (high - low) / (bounds[1] - bounds[0])
        shift = low - factor * bounds[0]
        mean, std = (self.mean, self.std) if plain else (self.mean.new_zeros(()), self.std.new_ones(()))
        two = plain and self.binary
        units = {"mean": (mean - shift) / factor, "std": std / factor, "bounds": bounds, "binary": two}
        settings = {**self.settings, **units}
        moved = Classifier(self.module if plain else self, **settings)
        moved.outputs, moved.training = self.outputs if plain else None, self.training
        return moved

    @public
    def save(self, path: str | Path) -> None:
        """Write weights and settings to one safetensors file, whole or not at all."""
        if self.outputs is not None:
            raise UsageError(f"{self.name} has some outputs of its module as classes: save the model it is made from")
        write_tensors(path, unwrap(self.module).state_dict(), self.settings)

    @public
    def load_weights(self, path: str | Path) -> Classifier:
        """Read the weights of a safetensors file or a PyTorch checkpoint into this classifier; returns itself.

        Raises:
            UsageError: no such file, one that holds more than tensors, or weights of another architecture (first
                differing keys named).
            Failure: a truncated file.
        """
        unwrap(self.module).load_state_dict(read_weights(path).of(self.module, self.name))
        return self


def _check_channels(value: Tensor, shape: tuple[int, ...]) -> None:
    if value.ndim > 1 or value.numel() not in (1, *shape[:1]):
        what = "features" if len(shape) == 1 else "channels"
        raise UsageError(
            f"mean and std have {value.numel()} values, and inputs of shape {shape} have {shape[0]} {what}: give one "
            f"number, or one for each of the {what}, or inputs with as many"
        )


@public
@contextlib.contextmanager
def frozen(model: nn.Module, seeds: Integers | None = None) -> Iterator[nn.Module]:
    """The model, called as `logits_of` does, in evaluation mode without weight gradients; left as it was.

    What the model itself draws (noise in its forward) follows from the seeds (N,), if given, and not
    from the global generators.

    Training flags, `requires_grad`, buffers and the global random state are restored, after errors too; `.grad` is
    never touched, since gradients are taken with `torch.autograd.grad` for the inputs alone. Within the block other
    threads wait that freeze a model, or draw under seeds.

    >>> with frozen(nn.Linear(2, 3).double()) as model:
    ...     model(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """
    inner, model = model, called(model)
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    first = None if seeds is None else int(seeds[0]) if len(seeds) else 0
    with drawing(devices, first), evaluating(model):
        # A module may write its buffers in evaluation mode too, or put others in their place; a version tells of a
        # change, without a look at the values.
        places = [m._buffers for m in inner.modules()]
        buffers = [(p, n, b, b.clone(), b._version) for p in places for n, b in p.items() if b is not None]
        gradients = [(p, p.requires_grad) for p in model.parameters()]
        try:
            for parameter, _ in gradients:
                parameter.requires_grad_(False)
            yield model
        finally:
            for parameter, required in gradients:
                parameter.requires_grad_(required)
            with torch.no_grad():
                for place, name, buffer, value, version in buffers:
                    if place[name] is not buffer:
                        place[name] = buffer
                    if buffer._version != version:
                        buffer.copy_(value)


def _of_two(logit: Tensor, count: int) -> Tensor:
    if tuple(logit.shape) not in ((count,), (count, 1)):
        raise UsageError(f"a binary model must return one logit (N, 1) for {count} inputs, got {tuple(logit.shape)}")
    if "Sigmoid" in type(logit.grad_fn).__name__:
        raise UsageError(
            "the binary model returns a probability (it ends with a sigmoid), not a logit: remove the sigmoid; "
            "gradients through it vanish where it is certain"
        )
    z = logit.view(count, 1)
    return torch.cat([-z, z], 1) / 2


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode, with the weights as they are; its modes are restored."""
    with TURN:
        modes = [(module, module.training) for module in model.modules()]
        try:
            try:
                model.eval()
            except NotImplementedError:  # of an exported program, which has no modes
                for module, _ in modes:
                    module.training = False
            yield model
        finally:
            for module, training in modes:
                module.training = training


@public
def predict(model: nn.Module, x: Inputs, seeds: Integers | None = None) -> tuple[Tensor, Tensor]:
    """Predicted classes (N,) and their probabilities (N,); what the model itself draws follows from the seeds.

    Where samples may fail (`calling.samples_may_fail`), those without finite logits have the class -1.
    """
    with frozen(model, seeds) as model, torch.no_grad():
        logits = model(x)
    check_logits(logits, len(x))
    best = widened(logits).softmax(1).max(1)
    return torch.where(torch.isfinite(logits).all(1), best.indices, -1), best.values


def classifier_in(model: nn.Module) -> Classifier | None:
    """The classifier inside wrappers that leave its inputs, and the order of its outputs, as they are, if there is one.

    Such a wrapper keeps the model in `.model`, calls it by `logits_of` and says `same_inputs = True`.
    """
    inner = unwrap(model)
    while getattr(inner, "same_inputs", False):
        inner = unwrap(inner.model)  # type: ignore[arg-type]
    return inner if isinstance(inner, Classifier) else None


def bounds_of(model: nn.Module) -> tuple[float, float] | None:
    """The bounds of a classifier, also inside wrappers that leave its inputs as they are; None for another module."""
    inner = classifier_in(model)
    return None if inner is None else inner.bounds


def check_inputs(
    x: Tensor, y: Tensor | None, bounds: tuple[float, float], classes: int | None = None, name: str = "y"
) -> None:
    """Refuse inputs outside the bounds and labels, of that name, outside the classes, saying what came."""
    x = check_batch("x", x)
    low, high = bounds
    smallest, largest = torch.stack(x.detach().aminmax()).tolist()
    if not -math.inf < smallest <= largest < math.inf:
        bad = (~torch.isfinite(x.detach())).flatten(1).any(1).nonzero().flatten().tolist()
        found = f"in {len(bad)} of {len(x)}, the first at place {bad[0]}"
        raise UsageError(f"inputs must be finite, got NaN or infinite values {found}: correct the data")
    slack = 1e-4 * (high - low)
    if not (smallest >= low - slack and largest <= high + slack):
        advice = "give the threat and the classifier the bounds that they have"
        if x.ndim == 4:
            advice = f"did you normalize them? Give the mean and std to sg.Classifier instead, or {advice}"
        raise UsageError(f"inputs must lie within [{low:g}, {high:g}], got [{smallest:.4g}, {largest:.4g}]: {advice}")
    if y is None:
        return
    check_labels(name, y, len(x))
    if classes is not None:
        check_classes(y, classes, name)


def check_classes(y: Tensor, classes: int, name: str = "y") -> None:
    """Refuse labels (N,), of that name, outside the classes; looks at their values."""
    if not bool(((y >= 0) & (y < classes)).all()):
        raise UsageError(
            f"{name} must hold labels within 0..{classes - 1} (the model has {classes} classes), "
            f"got {int(y.min())}..{int(y.max())}"
        )


def check_model(model: nn.Module, x: Tensor, classes: int, name: str) -> None:
    """Refuse a model that does not give one finite logit per class for inputs x (N, *)."""
    with frozen(model) as model, torch.no_grad():
        logits = model(x)
    check_logits(logits, len(x))
    if logits.shape[1] != classes:
        raise UsageError(
            f"{name} gives {logits.shape[1]} logits for {classes} classes: take the data that it was made for, or give "
            "the names of its outputs in their order (sg.Classifier(module, classes=[...]), --classes FILE)"
        )


def check_logits(logits: Tensor, count: int) -> None:
    """Refuse outputs that are not finite logits (N, K) with K of at least 2, saying what came.

    Those that are not finite pass where samples may fail.
    """
    if not isinstance(logits, Tensor):
        raise UsageError(f"the model must return a tensor of logits (N, K), got {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        one = tuple(logits.shape) in ((count,), (count, 1))
        raise UsageError(
            f"the model must return logits (N, K) with K of at least 2 for {count} inputs, "
            f"got shape {tuple(logits.shape)}"
            + (
                ": one logit of two classes is taken by sg.Classifier(module, binary=True), or with --binary"
                if one
                else ""
            )
        )
    values = logits.detach()
    finite = torch.isfinite(values).all(1)
    if not bool(finite.all()):
        if may_fail():
            return
        bad = (~finite).nonzero().flatten().tolist()
        where = "" if len(bad) == count else f", the first at place {bad[0]}"
        raise Failure(
            f"the model returns NaN or infinite logits for {len(bad)} of {count} inputs{where}: check its weights"
        )
    sums = values.sum(1)
    if bool((values >= 0).all()) and bool((sums - 1).abs().max() < 1e-3):
        raise UsageError(
            "the model returns probabilities (rows are not negative and sum to 1), not logits: "
            "remove its last softmax; gradients through it vanish where it is certain"
        )
