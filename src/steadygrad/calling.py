"""How the library calls a model, whoever made it: `logits_of` is the one place.

Inputs come in the type of the model's weights, and as a copy where the model writes into what it is given. The logits
are taken out of what is returned, and come in float32 or wider. A batch of a size that the model does not take, such as
a single row, is filled up or cut. A model that cannot take the inputs at all is refused with its own message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steadygrad.errors import Failure, UsageError, out_of_memory
from steadygrad.turns import TURN

_RAISED = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
_ENTRIES = 2**27  # of inputs that are tried at once, when a size of batch is looked for: half a gigabyte
# By module: in training or not, in which size of batch a number of rows is given to it.
_TAKEN: MutableMapping[nn.Module, dict[tuple[bool, int], int]] = WeakKeyDictionary()
# By module: the first sample that it answered, on which it is tried again where another one fails.
_ANSWERED: MutableMapping[nn.Module, Tensor] = WeakKeyDictionary()
_failing: ContextVar[bool] = ContextVar("failing", default=False)
AGAIN: list[Callable[[], None]] = []
"""Called before a model is tried again, by what watches its layers."""
# By module: in training or not, whether it writes into its inputs.
_WRITES: MutableMapping[nn.Module, dict[bool, bool]] = WeakKeyDictionary()


class Called(nn.Module):
    """A model as the library calls it, see `logits_of`; `.model` is the model itself."""

    same_inputs = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *)."""
        return logits_of(self.model, x)


def called(model: nn.Module) -> nn.Module:
    """The model, wrapped so that a call gives logits; one of the library's own, which does so already, as it is.

    >>> called(nn.Linear(2, 3).double())(torch.zeros(4, 2)).shape
    torch.Size([4, 3])

    Raises:
        UsageError: not a module, or one whose weights are not there yet.
    """
    check_weights(model)
    return model if getattr(model, "same_inputs", False) or _gives_logits(type(model)) else Called(model)


def _gives_logits(kind: type) -> bool:
    """Whether the forward of a class is one of the library's own, and not what a user's subclass has in its place."""
    first = next((c for c in kind.__mro__ if "gives_logits" in vars(c) or "forward" in vars(c)), kind)
    return "gives_logits" in vars(first)


def check_weights(model: nn.Module) -> None:
    """Refuse what is no module, and a module whose weights have no values yet."""
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"a model must be a torch.nn.Module from inputs (N, *) to logits (N, K), got {type(model).__name__}"
        )
    for name, weight in itertools.chain(model.named_parameters(), model.named_buffers()):
        if isinstance(weight, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise UsageError(
                f"the weights of {name} are made in the first forward (a lazy module), which has not been yet: "
                "call the model on one batch first"
            )
        if weight.is_meta:
            raise UsageError(
                f"the weights of {name} are on the meta device, without values: load them first "
                "(model.to_empty(device='cpu'), then model.load_state_dict(...))"
            )


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside the wrappers of distribution and compilation."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = cast(nn.Module, model._orig_mod)
        else:
            return model


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """What a model says of inputs (N, *), in float32 or wider: logits (N, K), if it is as it should be.

    Raises:
        UsageError: the model raises an error itself, or returns several things that may be the logits.
    """
    model = model.module if isinstance(model, nn.DataParallel) else model
    if torch.compiler.is_compiling():
        return _once(model, x)
    count, known, mode = len(x), _TAKEN.setdefault(model, {}), model.training
    logits: Tensor | None = None
    problem: Exception | None = None
    size = known.get((mode, count), count)
    caught = (Exception,) if _failing.get() else _RAISED
    try:
        logits = _once(model, x) if size == count else _in_batches_of(model, x, size)
        fits = logits.ndim > 0 and len(logits) == count
        if fits and _has_values(x):
            known[mode, count] = size
            if model not in _ANSWERED and bool(logits[0].isfinite().all()):
                _ANSWERED[model] = x[:1].detach().clone()
        # One row may be lost among the axes of length one: as one of two it is not.
        if fits or count != 1:
            return logits
    except caught as error:
        # Of what a file or a service fails at, no sample is the cause.
        if out_of_memory(error) or isinstance(error, OSError | UsageError | Failure):
            raise
        problem = error
    for size in _others(model, x, [taken for (at, _), taken in known.items() if at == mode]):
        for begin in AGAIN:
            begin()
        try:
            found = _in_batches_of(model, x, size)
        except caught:
            continue
        known[mode, count] = size
        return found
    if problem is None:
        assert logits is not None
        return logits[None] if logits.ndim == 1 else logits
    if _failing.get() and not mode and (row := _ANSWERED.get(model)) is not None and _takes(model, row):
        if count > 1:
            return torch.cat([logits_of(model, half) for half in x.chunk(2)])
        nothing = x.flatten(1)[:, :1] * 0 + torch.nan  # with a graph, of which nothing comes
        with torch.no_grad():
            like = logits_of(model, row)
        return nothing.to(like.dtype).expand_as(like)
    if not isinstance(problem, _RAISED):
        raise problem
    raise _refused(model, x, problem) from problem


@contextlib.contextmanager
def samples_may_fail(yes: bool = True) -> Iterator[None]:
    """Within the block a sample at which a model raises has NaN as logits, if the model still answers others.

    `check_logits` then lets NaN and infinite logits pass: whoever opens the block counts them.
    """
    token = _failing.set(yes)
    try:
        yield
    finally:
        _failing.reset(token)


def may_fail() -> bool:
    """Whether samples may fail here, see `samples_may_fail`."""
    return _failing.get()


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Runs compiled models as they were written: what was compiled has no second derivative, and sees no new hooks."""
    if "torch._dynamo" not in sys.modules:  # which takes seconds to load
        yield
        return
    with TURN, torch.compiler.set_stance("force_eager"):
        yield


def _once(model: nn.Module, x: Tensor) -> Tensor:
    kind = _type_of(model)
    narrow = kind == torch.float16 and x.requires_grad and not any(p.requires_grad for p in model.parameters())
    # A tensor of our own, since the caller's may have hooks already.
    inputs = x.view_as(x) if narrow else x
    given = inputs if kind is None else inputs.to(kind)
    if _has_values(given) and (writes := _WRITES.setdefault(model, {})).get(model.training, True):
        before, given = given, given.clone()
        output = model(given)
        # A tensor counts what is written into it, but not what goes past autograd (`.data`, NumPy).
        if model.training not in writes:
            changed = not given.is_inference() and given._version > 0
            writes[model.training] = changed or not torch.equal(given, before)
    else:
        output = model(given)
    logits: Tensor = unwrapped(output, len(x))
    logits = logits.float() if logits.is_floating_point() and logits.dtype.itemsize < 4 else logits
    if narrow and logits.requires_grad:
        _scale_gradients(inputs, logits)
    return logits


def _has_values(x: Tensor) -> bool:
    """Whether the values of inputs can be looked at: not where the call is exported, traced, mapped or compiled."""
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, nn.Parameter)
        and not x.is_meta
        and not torch._C._is_tracing()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch._C._len_torch_dispatch_stack()
    )


def _scale_gradients(inputs: Tensor, logits: Tensor) -> None:
    """Have gradients go through the model as if their largest entry at the logits were 1, for each sample.

    Half precision takes entries below 6e-8 as zero, and so those of a sample that is classified with confidence.
    """
    size = torch.ones(len(logits))

    def before(gradient: Tensor) -> Tensor:
        nonlocal size
        size = gradient.detach().abs().flatten(1).amax(1)
        size = torch.where(size > 0, size, 1.0)
        return gradient / size.view(-1, *[1] * (gradient.ndim - 1))

    def after(gradient: Tensor) -> Tensor:
        return (gradient * size.view(-1, *[1] * (gradient.ndim - 1))).to(gradient.dtype)

    logits.register_hook(before)  # type: ignore[no-untyped-call]
    inputs.register_hook(after)  # type: ignore[no-untyped-call]


def _type_of(model: nn.Module) -> torch.dtype | None:
    """The type of the first weights, which are those that meet the inputs; None where there are none."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), None)


def _others(model: nn.Module, x: Tensor, taken: list[int]) -> Iterator[int]:
    """Sizes of batches that are tried in place of one that failed; `taken` are those that the model is known to take.

    None, where it fails for what is in the batch: so it seems where it takes as many copies of one of the samples.
    """
    count = len(x)
    if model.training:
        # A sample counts in the statistics of its batch there, and may not be in it twice.
        mixes = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules())
        return iter((2,) if count == 1 and not mixes else ())
    if count > 1 and any(_takes(model, row.expand_as(x)) for row in (x[:1], x[-1:])):
        return iter(())
    if taken:
        larger, smaller = sorted(t for t in taken if t > count), sorted(t for t in taken if t < count)
        return iter(dict.fromkeys([*(2,) * (count == 1), *larger[:1], *smaller[-1:]]))
    return _sizes(x)


def _takes(model: nn.Module, x: Tensor) -> bool:
    try:
        return len(_once(model, x)) == len(x)
    except Exception as error:
        if out_of_memory(error):
            raise
        return False


def _sizes(x: Tensor) -> Iterator[int]:
    """Sizes of batches that are tried: larger ones first, since these are filled up and called once."""
    count, most = len(x), max(len(x), _ENTRIES // max(1, x[:1].numel()))
    powers = [2**k for k in range(11)]
    larger = [*(p for p in powers if p > count), *range(count + 1, count + 33), 100, 200, 250, 500, 1000]
    smaller = [*(p for p in reversed(powers) if p < count), *range(min(count - 1, 64), 0, -1)]
    return (size for size in dict.fromkeys([s for s in larger if count < s <= most] + smaller))


def _in_batches_of(model: nn.Module, x: Tensor, size: int) -> Tensor:
    """Logits of inputs, called `size` at a time; the last sample, without a gradient, fills up what is missing."""
    parts = []
    for part in torch.split(x, size):
        last = part[-1:].detach().expand(size - len(part), *part.shape[1:])
        logits = _once(model, torch.cat([part, last]) if len(last) else part)
        if logits.ndim not in (1, 2) or len(logits) != size:
            raise UsageError(f"the model returns {tuple(logits.shape)} for a batch of {size}")
        parts.append(logits[: len(part)])
    return torch.cat(parts)


def _refused(model: nn.Module, x: Tensor, error: Exception) -> UsageError:
    home = next((t.device for t in itertools.chain(model.parameters(), model.buffers())), x.device)
    if home != x.device:
        return UsageError(
            f"the model is on {home} and the inputs are on {x.device}: move one to the other, x.to({str(home)!r})"
        )
    reason = str(error).strip().splitlines()
    name = type(error).__name__ + (f": {reason[-1]}" if reason else "")
    alone = model.training and len(x) == 1
    advice = "train with batches of two and more" if alone else "give data of another size, or correct the model"
    return UsageError(
        f"{type(model).__name__} cannot take samples of shape {tuple(x.shape[1:])} ({len(x)} of them, {x.dtype}): "
        f"{name}; {advice}"
    )


def unwrapped(output: Any, count: int, is_value: Callable[[Any], bool] = lambda v: isinstance(v, Tensor)) -> Any:
    """The logits in what a model returns for `count` inputs: a tensor; something with `logits`; the only one (N, K).

    Args:
        is_value: tells a tensor, or what stands for one.

    Raises:
        UsageError: no tensor, or several that may be the logits.

    >>> unwrapped({"loss": None, "logits": torch.zeros(5, 3)}, 5).shape
    torch.Size([5, 3])
    """
    if is_value(output):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if is_value(named):
        return named
    parts = _parts(output)
    values = {name: value for name, value in parts.items() if is_value(value)}
    rows = {name: v for name, v in values.items() if not isinstance(v, Tensor) or (v.ndim == 2 and len(v) == count)}
    if len(rows) == 1:
        return next(iter(rows.values()))
    if len(values) == 1:
        return next(iter(values.values()))
    what = type(output).__name__
    if parts:
        inside = (f"{n}: {tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__}" for n, v in parts.items())
        what += f" ({', '.join(inside)})"
    raise UsageError(
        f"the model must return logits (N, K), or something in which `logits` or a single tensor (N, K) is them, got "
        f"{what} for {count} inputs: wrap the model so that its forward returns the logits alone"
    )


def _parts(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):
        return {repr(name): value for name, value in output.items()}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    if isinstance(output, tuple | list):
        return {str(place): value for place, value in enumerate(output)}
    if dataclasses.is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {}
