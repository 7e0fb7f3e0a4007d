"""Which modules and operations become which layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.bounds.layers import Add
from steadygrad.bounds.network import At, Builder, linear, times
from steadygrad.bounds.pooling import MaxPool
from steadygrad.errors import UsageError

__all__ = ["CALLS", "MODULES", "SUPPORTED"]

SUPPORTED = (
    "Conv2d, Linear, ReLU, Softplus, AvgPool2d, AdaptiveAvgPool2d, MaxPool2d, BatchNorm in evaluation mode, Flatten, "
    "Dropout, means, sums of two values, and constants"
)


def _mean(x: Tensor, weight: Tensor | None, dims: tuple[int, ...], keep: bool) -> Tensor:
    return x.mean(dims, keepdim=keep)


def _pool(x: Tensor, weight: Tensor | None, function: Callable[..., Tensor], **settings: Any) -> Tensor:
    return function(x, **settings)


def _convolve(x: Tensor, weight: Tensor | None, settings: tuple[Any, ...]) -> Tensor:
    assert weight is not None
    return F.conv2d(x, weight, None, *settings)


def _conv2d(r: Builder, m: nn.Conv2d, at: int) -> int:
    if m.padding_mode != "zeros":
        raise UsageError(f"there is no certified bound for Conv2d with padding mode {m.padding_mode!r}")
    settings = (m.stride, m.padding, m.dilation, m.groups)
    bias = m.bias[:, None, None] if m.bias is not None else None
    return r.affine(at, functools.partial(_convolve, settings=settings), m.weight, bias)


def _batch_norm(r: Builder, m: nn.BatchNorm2d, at: int) -> int:
    if m.running_mean is None or m.running_var is None:
        raise UsageError("there is no certified bound for BatchNorm without running statistics: it mixes samples")
    scale = 1 / torch.sqrt(m.running_var.double() + m.eps)
    scale = scale * m.weight.detach().double() if m.weight is not None else scale
    shift = -m.running_mean.double() * scale
    shift = shift + m.bias.detach().double() if m.bias is not None else shift
    shape = (-1, *[1] * (r.samples[at].ndim - 2))
    return r.affine(at, times, scale.view(shape), shift.view(shape))


def _avg_pool(
    r: Builder,
    at: At,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> At:
    settings = {
        "kernel_size": kernel_size,
        "stride": stride or kernel_size,
        "padding": padding,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor_override,
    }
    return At(r.affine(at.place, functools.partial(_pool, function=F.avg_pool2d, **settings)))


def _max_pool(
    r: Builder,
    at: At,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        return NotImplemented
    kernel, steps = _two(kernel_size), _two(stride or kernel_size)
    return At(r.put(MaxPool(kernel, steps, _two(padding), _two(dilation), ceil_mode), at.place))


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _adaptive(r: Builder, at: At, output_size: Any) -> At:
    return At(r.affine(at.place, functools.partial(_pool, function=F.adaptive_avg_pool2d, output_size=output_size)))


def _softplus(r: Builder, at: At, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return NotImplemented if threshold != 20 else At(r.rectify(at.place, float(beta)))


def _flatten(r: Builder, at: At, start_dim: int = 0, end_dim: int = -1) -> Any:
    shape = tuple(r.samples[at.place].flatten(start_dim, end_dim).shape)
    first = start_dim % r.samples[at.place].ndim
    return NotImplemented if first == 0 else At(r.reshape(at.place, shape[1:]))


def _view(r: Builder, at: At, *shape: Any) -> Any:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    new = tuple(r.samples[at.place].reshape(tuple(sizes)).shape)
    return NotImplemented if new[0] != 1 else At(r.reshape(at.place, new[1:]))


def _average(r: Builder, at: At, dim: Any = None, keepdim: bool = False) -> Any:
    dims = tuple(d % r.samples[at.place].ndim for d in ((dim,) if isinstance(dim, int) else dim or (0,)))
    if 0 in dims:
        return NotImplemented
    return At(r.affine(at.place, functools.partial(_mean, dims=dims, keep=keepdim)))


def _add(r: Builder, a: Any, b: Any, alpha: float = 1) -> Any:
    if alpha != 1:
        return NotImplemented
    if isinstance(a, At) and isinstance(b, At):
        if r.samples[a.place].shape != r.samples[b.place].shape:
            return NotImplemented
        return At(r.put(Add(), a.place, b.place))
    at, constant = (a, b) if isinstance(a, At) else (b, a)
    return _scaled(r, at, 1.0, constant)


def _subtract(r: Builder, a: Any, b: Any) -> Any:
    if isinstance(a, At) and isinstance(b, At):
        return _add(r, a, _scaled(r, b, -1.0, 0.0))
    return _scaled(r, a, 1.0, -b) if isinstance(a, At) else _scaled(r, b, -1.0, a)


def _multiply(r: Builder, a: Any, b: Any) -> Any:
    if isinstance(a, At) and isinstance(b, At):
        return NotImplemented
    return _scaled(r, a, b, 0.0) if isinstance(a, At) else _scaled(r, b, a, 0.0)


def _divide(r: Builder, a: Any, b: Any) -> Any:
    return NotImplemented if isinstance(b, At) else _scaled(r, a, 1 / b, 0.0)


def _scaled(r: Builder, at: At, factor: Any, constant: Any) -> Any:
    like = r.samples[at.place]
    weight, bias = (torch.as_tensor(v, dtype=torch.float64, device=like.device) for v in (factor, constant))
    for value in (weight, bias):
        # One constant per sample would tie the layer to the batch.
        if value.ndim == like.ndim and value.shape[0] != 1:
            return NotImplemented
    weight, bias = (v[0] if v.ndim == like.ndim else v for v in (weight, bias))
    return At(r.affine(at.place, times, weight, bias))


def _same(r: Builder, at: At, *args: Any, **kwargs: Any) -> At:
    return at


def _size(r: Builder, at: At, dim: int | None = None) -> Any:
    shape = r.samples[at.place].shape
    return shape if dim is None else shape[dim]


MODULES: dict[type[nn.Module], Callable[[Builder, Any, int], int]] = {
    nn.Conv2d: _conv2d,
    nn.Linear: lambda r, m, at: r.affine(at, linear, m.weight, m.bias),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda r, m, at: r.rectify(at),
    nn.Softplus: lambda r, m, at: _place(_softplus(r, At(at), m.beta, m.threshold), "Softplus with another threshold"),
    nn.AvgPool2d: lambda r, m, at: (
        _avg_pool(
            r, At(at), m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
        ).place
    ),
    nn.AdaptiveAvgPool2d: lambda r, m, at: _adaptive(r, At(at), m.output_size).place,
    nn.MaxPool2d: lambda r, m, at: _place(
        _max_pool(r, At(at), m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices),
        "MaxPool2d that returns indices",
    ),
    nn.Flatten: lambda r, m, at: _place(_flatten(r, At(at), m.start_dim, m.end_dim), "Flatten over the batch"),
    nn.Identity: lambda r, m, at: at,
    **dict.fromkeys([nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d], lambda r, m, at: at),
}


def _place(value: Any, what: str) -> int:
    if not isinstance(value, At):
        raise UsageError(f"there is no certified bound for {what}")
    return value.place


CALLS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(["add", "iadd", "add_"], _add),
    **dict.fromkeys(["sub", "isub", "sub_"], _subtract),
    **dict.fromkeys(["mul", "imul", "mul_"], _multiply),
    **dict.fromkeys(["truediv", "itruediv", "div", "div_"], _divide),
    **dict.fromkeys(["relu", "relu_"], lambda r, at, inplace=False: At(r.rectify(at.place))),
    "softplus": _softplus,
    "flatten": _flatten,
    **dict.fromkeys(["view", "reshape"], _view),
    "mean": _average,
    "avg_pool2d": _avg_pool,
    **dict.fromkeys(["max_pool2d", "boolean_dispatch", "_max_pool2d"], _max_pool),
    "adaptive_avg_pool2d": _adaptive,
    **dict.fromkeys(["dropout", "dropout2d", "contiguous", "detach_"], _same),
    "size": _size,
}
