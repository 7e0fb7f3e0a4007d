"""What stands in for each function with kinks: forms of softplus, and log-sum-exp for maxima over several entries.

Every form takes beta, then what the function takes, and gives NotImplemented where that call has no kink. Beta is a
number, or one for each row of the input, (N, 1, ..., 1).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Beta = float | Tensor
Bound = Tensor | float | None
Sizes = int | Sequence[int]


def _hinge(beta: Beta, x: Tensor) -> Tensor:
    """max(x, 0), softly."""
    return F.softplus(beta * x) / beta if isinstance(beta, Tensor) else F.softplus(x, beta=beta)


def _relu(beta: Beta, input: Tensor, inplace: bool = False) -> Tensor:
    return _hinge(beta, input)


def _clamp(beta: Beta, input: Tensor, min: Bound = None, max: Bound = None, *, out: None = None) -> Any:
    if min is None:
        return NotImplemented if max is None else max - _hinge(beta, max - input)
    risen = min + _hinge(beta, input - min)
    return risen if max is None else risen - _hinge(beta, input - max)


def _hardtanh(beta: Beta, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return _clamp(beta, input, min_val, max_val)


def _leaky_relu(beta: Beta, input: Tensor, negative_slope: float | Tensor = 0.01, inplace: bool = False) -> Tensor:
    return negative_slope * input + (1 - negative_slope) * _hinge(beta, input)


def _prelu(beta: Beta, input: Tensor, weight: Tensor) -> Tensor:
    slope = weight.view(1, -1, *[1] * (input.ndim - 2)) if weight.numel() > 1 else weight.view(())
    return _leaky_relu(beta, input, slope)


def _rrelu(
    beta: Beta,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
    generator: Any = None,
) -> Tensor:
    # In training the slopes are drawn, as in the function itself.
    drawn = torch.empty_like(input).uniform_(lower, upper, generator=generator) if training else (lower + upper) / 2
    return _leaky_relu(beta, input, drawn)


def _threshold(beta: Beta, input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    soft = value + _hinge(beta, input - threshold)
    # Where the value is not the threshold the function has a jump.
    return soft if value == threshold else soft + (threshold - value) * torch.sigmoid(beta * (input - threshold))


def _abs(beta: Beta, input: Tensor, *, out: None = None) -> Tensor:
    return _hinge(beta, 2 * input) - input


def _maximum(beta: Beta, input: Tensor, other: Tensor, *, out: None = None) -> Tensor:
    return other + _hinge(beta, input - other)


def _minimum(beta: Beta, input: Tensor, other: Tensor, *, out: None = None) -> Tensor:
    return input - _hinge(beta, input - other)


def _two(pair: Callable[..., Tensor]) -> Callable[..., Any]:
    """The form of max or min where it is given two tensors."""

    def form(beta: Beta, input: Tensor, dim: Any = None, keepdim: bool = False, **given: Any) -> Any:
        second = given.get("other", dim)
        return pair(beta, input, second) if isinstance(second, Tensor) else NotImplemented

    return form


def _hardsigmoid(beta: Beta, input: Tensor, inplace: bool = False) -> Any:
    return _clamp(beta, input + 3, 0.0, 6.0) / 6


def _hardswish(beta: Beta, input: Tensor, inplace: bool = False) -> Any:
    return input * _hardsigmoid(beta, input)


def _softshrink(beta: Beta, input: Tensor, lambd: float = 0.5) -> Tensor:
    return _hinge(beta, input - lambd) - _hinge(beta, -input - lambd)


def _hardshrink(beta: Beta, input: Tensor, lambd: float = 0.5) -> Tensor:
    return input * (torch.sigmoid(beta * (input - lambd)) + torch.sigmoid(beta * (-input - lambd)))


def _elu(beta: Beta, input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Any:
    return NotImplemented if alpha == 1 else alpha * F.elu(input) + (1 - alpha) * _hinge(beta, input)


def _selu(beta: Beta, input: Tensor, inplace: bool = False) -> Any:
    # The constants of Klambauer et al. 2017.
    return 1.0507009873554805 * _elu(beta, input, 1.6732632423543772)


FORMS: dict[str, Callable[..., Any]] = {
    "relu": _relu,
    "relu6": lambda beta, input, inplace=False: _clamp(beta, input, 0.0, 6.0),
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "rrelu": _rrelu,
    "threshold": _threshold,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "hardshrink": _hardshrink,
    "softshrink": _softshrink,
    "elu": _elu,
    "selu": _selu,
    **dict.fromkeys(["clamp", "clip"], _clamp),
    "clamp_min": lambda beta, input, min, *, out=None: _clamp(beta, input, min),
    "clamp_max": lambda beta, input, max, *, out=None: _clamp(beta, input, None, max),
    **dict.fromkeys(["abs", "absolute"], _abs),
    **dict.fromkeys(["maximum", "fmax"], _maximum),
    **dict.fromkeys(["minimum", "fmin"], _minimum),
    "max": _two(_maximum),
    "min": _two(_minimum),
}
"""Rectifiers, by the name of the function without underscores."""

STEPS = frozenset(["sign", "sgn", "heaviside", "round", "floor", "ceil", "trunc", "fix"])
"""Functions whose derivative is zero: nothing smooth stands in for them."""


def _amax(beta: Beta, input: Tensor, dim: Any = None, keepdim: bool = False, *, out: None = None) -> Tensor:
    dims = tuple(range(input.ndim)) if dim in ((), None, []) else dim
    if isinstance(beta, Tensor) and {0, -input.ndim} & {*(dims if isinstance(dims, tuple | list) else (dims,))}:
        beta = float(beta.mean())  # the rows are mixed
    if not isinstance(beta, Tensor):
        return (beta * input).logsumexp(dims, keepdim=keepdim) / beta
    kept = (beta * input).logsumexp(dims, keepdim=True) / beta
    return kept if keepdim else kept.squeeze(dims)


def _amin(beta: Beta, input: Tensor, dim: Any = None, keepdim: bool = False, *, out: None = None) -> Tensor:
    return -_amax(beta, -input, dim, keepdim)


def _over(name: str, amount: Callable[..., Tensor]) -> Callable[..., Any]:
    """The form of max or min over one dimension, which gives places too, or over all of them."""

    def form(beta: Beta, input: Tensor, dim: Any = None, keepdim: bool = False, **given: Any) -> Any:
        if "other" in given or isinstance(dim, Tensor):
            return FORMS[name](beta, input, dim, **given)
        soft = amount(beta, input, dim, keepdim)
        if dim is None:
            return soft
        return getattr(torch.return_types, name)((soft, getattr(input, name)(dim, keepdim).indices))

    return form


def _in_units(pool: Callable[..., Any]) -> Callable[..., Any]:
    """A pool of windows, which have more dimensions than a beta of every row: the rows are scaled instead."""

    @functools.wraps(pool)
    def form(beta: Beta, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(beta, Tensor):
            return pool(beta, input, *args, **kwargs)
        return pool(1.0, beta * input, *args, **kwargs) / beta

    return form


def _pool(rank: int) -> Callable[..., Any]:
    @_in_units
    def pool(
        beta: Beta,
        input: Tensor,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        hard = getattr(F, f"max_pool{rank}d")(input, kernel_size, stride, padding, dilation, ceil_mode)
        stride = kernel_size if stride is None or stride == [] else stride
        soft = input
        # The logarithm of a sum over a window is that over its rows of that over its columns.
        for i in range(rank):
            dim = i - rank
            size, step, edge, apart = (
                v if isinstance(v, int) else v[i] for v in (kernel_size, stride, padding, dilation)
            )
            reach = (hard.shape[dim] - 1) * step + apart * (size - 1) + 1
            after = max(0, reach - edge - input.shape[dim])
            pads = [0, 0] * (-1 - dim) + [edge, after]
            padded = F.pad(soft, pads, value=-torch.inf).narrow(dim, 0, reach)
            windows = padded.unfold(dim, apart * (size - 1) + 1, step)[..., ::apart]
            soft = _amax(beta, windows, -1)
        return soft

    return pool


def _adaptive_pool(rank: int) -> Callable[..., Any]:
    @_in_units
    def pool(beta: Beta, input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        soft = input
        for i in range(rank):
            dim, count = i - rank, output_size if isinstance(output_size, int) else output_size[i]
            size = input.shape[dim]
            count = size if count is None else count
            spans = [(j * size // count, -(-(j + 1) * size // count)) for j in range(count)]
            soft = torch.stack([_amax(beta, soft.narrow(dim, a, b - a), dim) for a, b in spans], dim)
        return soft

    return pool


def _with_indices(pool: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The form of a pool that gives the places of its maxima, too."""

    @functools.wraps(pool)
    def form(beta: Beta, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        return pool(beta, input, *args, **kwargs), getattr(F, name)(input, *args, **kwargs)[1]

    return form


_PLAIN = {
    **{f"max_pool{rank}d": _pool(rank) for rank in (1, 2, 3)},
    **{f"adaptive_max_pool{rank}d": _adaptive_pool(rank) for rank in (1, 2, 3)},
}

POOLS: dict[str, Callable[..., Any]] = {
    "amax": _amax,
    "amin": _amin,
    "max": _over("max", _amax),
    "min": _over("min", _amin),
    **_PLAIN,
    **{name: _with_indices(pool, name) for name, pool in ((f"{n}_with_indices", p) for n, p in _PLAIN.items())},
}
"""Maxima over several entries, which choose one."""

DISPATCHED: dict[Any, str] = {getattr(F, name): name for name in _PLAIN}
"""The names of functions that do not say their own."""
