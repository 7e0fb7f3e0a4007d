"""Which modules and operations become which layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.bounds.certified.layers import Add, MaxPool
from steadygrad.bounds.certified.network import Builder, Value
from steadygrad.errors import UsageError

SUPPORTED = (
    "Conv2d, Linear, ReLU, Softplus, AvgPool2d, AdaptiveAvgPool2d, MaxPool2d, BatchNorm in evaluation mode, Flatten, "
    "Dropout, means, sums of two values, and constants"
)

# Builder, what the call takes -> the value, a plain constant, or NotImplemented: there is no such bound.
Rule = Callable[..., Any]


def _conv2d(builder: Builder, m: nn.Conv2d, x: Value) -> Value:
    if m.padding_mode != "zeros":
        raise UsageError(f"there is no certified bound for Conv2d with padding mode {m.padding_mode!r}")
    stride, padding, dilation, groups = m.stride, m.padding, m.dilation, m.groups

    def convolve(v: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(v, weight, None, stride, padding, dilation, groups)

    return builder.affine(x, convolve, m.weight, m.bias[:, None, None] if m.bias is not None else None)


def _batch_norm(builder: Builder, m: nn.BatchNorm2d, x: Value) -> Value:
    if m.running_mean is None or m.running_var is None:
        raise UsageError("there is no certified bound for BatchNorm without running statistics: it mixes samples")
    scale = 1 / torch.sqrt(m.running_var.double() + m.eps)
    scale = scale * m.weight.detach().double() if m.weight is not None else scale
    shift = -m.running_mean.double() * scale
    shift = shift + m.bias.detach().double() if m.bias is not None else shift
    shape = (-1, *[1] * (x.sample.ndim - 2))
    return builder.scale(x, scale.view(shape), shift.view(shape))


def _unweighted(function: Callable[..., Tensor]) -> Rule:
    """The rule of a linear function without negative weights that takes settings beside the value."""

    def rule(builder: Builder, x: Value, *args: Any, **settings: Any) -> Value:
        return builder.unweighted(x, lambda v: function(v, *args, **settings))

    return rule


def _max_pool(
    builder: Builder,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        raise UsageError("there is no certified bound for a max pooling that returns indices")
    if builder.soft_pools:
        raise UsageError(
            "there is no certified bound for max pooling as log-sum-exp: use sg.smooth(model, beta, pooling=False)"
        )
    kernel, steps, padding, dilation = (_two(v) for v in (kernel_size, stride or kernel_size, padding, dilation))
    return builder.put(MaxPool(kernel, steps, padding, dilation, ceil_mode), x)


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _softplus(builder: Builder, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return NotImplemented if threshold != 20 else builder.rectify(x, float(beta))


def _flatten(builder: Builder, x: Value, start_dim: int = 0, end_dim: int = -1) -> Any:
    shape = tuple(x.sample.flatten(start_dim, end_dim).shape)
    return NotImplemented if start_dim % x.sample.ndim == 0 else builder.reshape(x, shape[1:])


def _view(builder: Builder, x: Value, *shape: Any) -> Any:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    new = tuple(x.sample.reshape(tuple(sizes)).shape)
    return NotImplemented if new[0] != 1 else builder.reshape(x, new[1:])


def _squeeze(builder: Builder, x: Value, dim: Any = None) -> Any:
    shape = x.sample.shape
    dims = range(1, len(shape)) if dim is None else [d % len(shape) for d in ((dim,) if isinstance(dim, int) else dim)]
    return builder.reshape(x, tuple(size for d, size in enumerate(shape) if d and (d not in dims or size != 1)))


def _mean(builder: Builder, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
    dims = tuple(d % x.sample.ndim for d in ((dim,) if isinstance(dim, int) else dim or (0,)))
    return NotImplemented if 0 in dims else builder.unweighted(x, lambda v: v.mean(dims, keepdim=keepdim))


def _add(builder: Builder, a: Any, b: Any, alpha: float = 1) -> Any:
    if alpha != 1:
        return NotImplemented
    if isinstance(a, Value) and isinstance(b, Value):
        return builder.put(Add(), a, b) if a.sample.shape == b.sample.shape else NotImplemented
    x, constant = (a, b) if isinstance(a, Value) else (b, a)
    return _scaled(builder, x, 1.0, constant)


def _subtract(builder: Builder, a: Any, b: Any) -> Any:
    if isinstance(a, Value) and isinstance(b, Value):
        return _add(builder, a, _scaled(builder, b, -1.0, 0.0))
    return _scaled(builder, a, 1.0, -b) if isinstance(a, Value) else _scaled(builder, b, -1.0, a)


def _multiply(builder: Builder, a: Any, b: Any) -> Any:
    x, factor = (a, b) if isinstance(a, Value) else (b, a)
    return NotImplemented if isinstance(factor, Value) else _scaled(builder, x, factor, 0.0)


def _divide(builder: Builder, a: Any, b: Any) -> Any:
    return NotImplemented if isinstance(b, Value) else _scaled(builder, a, 1 / b, 0.0)


def _scaled(builder: Builder, x: Value, factor: Any, constant: Any) -> Any:
    like, values = x.sample, []
    for given in (factor, constant):
        value = torch.as_tensor(given, dtype=torch.float64, device=like.device)
        if value.ndim == like.ndim:
            # One constant per sample would tie the layer to the batch.
            if value.shape[0] != 1:
                return NotImplemented
            value = value[0]
        values.append(value)
    return builder.scale(x, *values)


MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _conv2d,
    nn.Linear: lambda builder, m, x: builder.affine(x, F.linear, m.weight, m.bias),
    **dict.fromkeys([nn.BatchNorm1d, nn.BatchNorm2d], _batch_norm),
    nn.ReLU: lambda builder, m, x: builder.rectify(x),
    nn.Softplus: lambda builder, m, x: _softplus(builder, x, m.beta, m.threshold),
    **dict.fromkeys([nn.AvgPool2d, nn.AdaptiveAvgPool2d], lambda builder, m, x: builder.unweighted(x, m.forward)),
    nn.MaxPool2d: lambda builder, m, x: _max_pool(
        builder, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.Flatten: lambda builder, m, x: _flatten(builder, x, m.start_dim, m.end_dim),
    **dict.fromkeys([nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d], lambda builder, m, x: x),
}

CALLS: dict[str, Rule] = {
    **dict.fromkeys(["add", "iadd", "add_"], _add),
    **dict.fromkeys(["sub", "isub", "sub_"], _subtract),
    **dict.fromkeys(["mul", "imul", "mul_"], _multiply),
    **dict.fromkeys(["truediv", "itruediv", "div", "div_"], _divide),
    **dict.fromkeys(["relu", "relu_"], lambda builder, x, inplace=False: builder.rectify(x)),
    "softplus": _softplus,
    "flatten": _flatten,
    **dict.fromkeys(["view", "reshape"], _view),
    "mean": _mean,
    "squeeze": _squeeze,
    "avg_pool2d": _unweighted(F.avg_pool2d),
    "adaptive_avg_pool2d": _unweighted(F.adaptive_avg_pool2d),
    **dict.fromkeys(["max_pool2d", "boolean_dispatch", "_max_pool2d"], _max_pool),
    **dict.fromkeys(["dropout", "dropout2d", "contiguous", "detach_"], lambda builder, x, *args, **settings: x),
    "size": lambda builder, x, dim=None: x.sample.shape if dim is None else x.sample.shape[dim],
}
