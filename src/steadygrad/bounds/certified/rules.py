"""Which modules and operations become which layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from steadygrad.bounds.certified import shapes
from steadygrad.bounds.certified.layers import Add, Concatenate
from steadygrad.bounds.certified.network import Builder, Value
from steadygrad.bounds.certified.pooling import MaxPool
from steadygrad.bounds.certified.products import Product
from steadygrad.errors import UsageError

SUPPORTED = (
    "Conv2d, Linear, ReLU, LeakyReLU, ReLU6, Hardtanh, ELU, softplus, tanh, sigmoid, GELU, SiLU, their hard forms, "
    "AvgPool2d, AdaptiveAvgPool2d, MaxPool2d, BatchNorm in evaluation mode, LayerNorm, GroupNorm, Flatten, Dropout, "
    "padding with a number, means, sums, concatenation, entries in another order, and constants"
)

# Builder, what the call takes -> the value, a plain constant, or NotImplemented: there is no such bound.
Rule = Callable[..., Any]


def _conv2d(builder: Builder, m: nn.Conv2d, x: Value) -> Value:
    if m.padding_mode != "zeros":
        raise UsageError(f"there is no certified bound for Conv2d with padding mode {m.padding_mode!r}")
    stride, padding, dilation, groups = m.stride, m.padding, m.dilation, m.groups

    def convolve(v: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(v, weight, None, stride, padding, dilation, groups)

    def back(slope: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        found: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
            shape, weight, slope, stride, padding, dilation, groups
        )
        return found

    bias = m.bias[:, None, None] if m.bias is not None else None
    # An even kernel with padding "same" has a wider border on one side, which the transpose does not know.
    known = None if isinstance(padding, str) else back
    return builder.affine(x, convolve, m.weight, bias, terms=m.weight[0].numel(), transposed=known)


def _batch_norm(builder: Builder, m: nn.BatchNorm2d, x: Value) -> Value:
    if m.running_mean is None or m.running_var is None:
        raise UsageError("there is no certified bound for BatchNorm without running statistics: it mixes samples")
    mean, variance = builder.taken(m.running_mean), builder.taken(m.running_var)
    scale = 1 / torch.sqrt(variance + m.eps)
    scale = scale * builder.taken(m.weight) if m.weight is not None else scale
    bias = torch.zeros_like(scale) if m.bias is None else builder.taken(m.bias)
    moved = mean * scale
    factor, shift, rough = (
        v.view(-1, *[1] * (x.sample.ndim - 2)) for v in (scale, bias - moved, bias.abs() + moved.abs())
    )
    return builder.scale(x, factor, shift, rough)


def _normalized(builder: Builder, x: Value, eps: float) -> Value:
    """Values less their mean over the last dimension, divided by their spread there."""
    size = x.sample.shape[-1]
    centering = torch.eye(size, dtype=x.sample.dtype, device=x.sample.device) - 1 / size
    centered = builder.affine(x, F.linear, centering, terms=size)
    variance = builder.unweighted(builder.curve(centered, shapes.SQUARE), lambda v: v.mean(-1, keepdim=True), size)
    inverse = builder.curve(variance, shapes.inverse_root(eps))
    spread = builder.unweighted(inverse, lambda v: v.expand(*v.shape[:-1], size), terms=0)
    return builder.put(Product(), centered, spread)


def _layer_norm(
    builder: Builder, x: Value, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    if len(tuple(normalized_shape)) != 1:
        return NotImplemented
    found = _normalized(builder, x, eps)
    scale, shift = (builder.constant(1.0, x.sample) if weight is None else builder.taken(weight)), bias
    shift = torch.zeros_like(scale) if shift is None else builder.taken(shift)
    return builder.scale(found, scale, shift)


def _group_norm(builder: Builder, m: nn.GroupNorm, x: Value) -> Value:
    shape = tuple(x.sample.shape[1:])
    found = _normalized(builder, builder.reshape(x, (m.num_groups, x.sample[0].numel() // m.num_groups)), m.eps)
    found = builder.reshape(found, shape)
    if not m.affine:
        return found
    weight, bias = (builder.taken(v).view(-1, *[1] * (len(shape) - 1)) for v in (m.weight, m.bias))
    return builder.scale(found, weight, bias)


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
    return NotImplemented if threshold != 20 or beta <= 0 else builder.curve(x, shapes.softplus(float(beta)))


def _curve(shape: shapes.Shape) -> Rule:
    """The rule of a scalar function without settings."""
    return lambda builder, x, inplace=False: builder.curve(x, shape)


def _relu(builder: Builder, x: Value, inplace: bool = False) -> Value:
    return builder.hinged(x, (0.0,), (0.0, 1.0))


def _leaky(builder: Builder, x: Value, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    return builder.hinged(x, (0.0,), (float(negative_slope), 1.0))


def _prelu(builder: Builder, x: Value, weight: Tensor) -> Any:
    return NotImplemented if weight.numel() != 1 else _leaky(builder, x, float(weight))


def _clamp(builder: Builder, x: Value, min: float | None = None, max: float | None = None) -> Any:
    """Between two numbers, one of which may be missing."""
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return NotImplemented
    if min is None or max is None:
        knot = float(max if max is not None else min or 0.0)
        return builder.hinged(x, (knot,), (1.0, 0.0) if min is None else (0.0, 1.0), knot)
    return builder.hinged(x, (float(min), float(max)), (0.0, 1.0, 0.0), float(min)) if min < max else NotImplemented


def _hardtanh(builder: Builder, x: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return _clamp(builder, x, min_val, max_val)


def _abs(builder: Builder, x: Value) -> Value:
    if builder.beta is None:
        return builder.hinged(x, (0.0,), (-1.0, 1.0))
    # As `sg.smooth` has it: softplus of twice x, less x.
    twice = builder.curve(_scaled(builder, x, 2.0, 0.0), shapes.softplus(builder.beta))
    return builder.put(Add(), twice, _scaled(builder, x, -1.0, 0.0))


def _dropout(builder: Builder, x: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return NotImplemented if training and p and not builder.live else x


def _avg_pool(builder: Builder, x: Value, *args: Any, **settings: Any) -> Any:
    divisor = settings.get("divisor_override", args[5] if len(args) > 5 else None)
    if divisor is not None and divisor < 0:
        return NotImplemented
    return builder.unweighted(x, lambda v: F.avg_pool2d(v, *args, **settings))


def _hardsigmoid(builder: Builder, x: Value, inplace: bool = False) -> Value:
    return builder.hinged(x, (-3.0, 3.0), (0.0, 1 / 6, 0.0))


def _bent(builder: Builder, x: Value, shape: shapes.Shape) -> Any:
    """A function with kinks that are not those of a rectifier: there is no smooth form of it here."""
    return builder.curve(x, shape) if builder.beta is None else NotImplemented


def _elu(builder: Builder, x: Value, alpha: float = 1.0, inplace: bool = False) -> Any:
    return _bent(builder, x, shapes.elu(float(alpha)))


def _gelu(builder: Builder, x: Value, approximate: str = "none") -> Value:
    return builder.curve(x, shapes.GELU if approximate == "none" else shapes.TANH_GELU)


def _pad(builder: Builder, x: Value, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """A border of one number."""
    sizes = tuple(int(size) for size in pad)
    if mode != "constant" or len(sizes) > 2 * (x.sample.ndim - 1):
        return NotImplemented
    padded = builder.unweighted(x, lambda v: F.pad(v, sizes), terms=0)
    if not value:
        return padded
    border = F.pad(torch.zeros_like(x.sample[0]), sizes, value=float(value))
    return builder.scale(padded, torch.ones_like(border), border)


def _cat(builder: Builder, values: Any, dim: int = 0) -> Any:
    if not all(isinstance(value, Value) for value in values) or dim % values[0].sample.ndim == 0:
        return NotImplemented
    return builder.put(Concatenate(dim % values[0].sample.ndim), *values)


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


def _sum(builder: Builder, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
    dims = tuple(d % x.sample.ndim for d in ((dim,) if isinstance(dim, int) else dim or (0,)))
    return NotImplemented if 0 in dims else builder.unweighted(x, lambda v: v.sum(dims, keepdim=keepdim))


def _arranged(name: str) -> Rule:
    """The rule of a method that puts entries in another order and leaves the samples where they are."""

    def rule(builder: Builder, x: Value, *args: Any, **settings: Any) -> Any:
        def move(v: Tensor) -> Tensor:
            moved: Tensor = getattr(v, name)(*args, **settings)
            return moved

        twice = torch.cat([x.sample, x.sample + 1])
        try:
            kept = bool((move(twice)[:1] == move(x.sample)).all()) and len(move(twice)) == 2
        except (RuntimeError, IndexError):
            kept = False
        return builder.unweighted(x, move, terms=0) if kept else NotImplemented

    return rule


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
        value = builder.constant(given, like)
        if value.ndim == like.ndim:
            # One constant per sample would tie the layer to the batch.
            if value.shape[0] != 1:
                return NotImplemented
            value = value[0]
        values.append(value)
    return builder.scale(x, *values)


MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _conv2d,
    nn.Linear: lambda builder, m, x: builder.affine(
        x, F.linear, m.weight, m.bias, terms=m.in_features, transposed=lambda slope, weight, shape: slope @ weight
    ),
    **dict.fromkeys([nn.BatchNorm1d, nn.BatchNorm2d], _batch_norm),
    nn.LayerNorm: lambda builder, m, x: _layer_norm(builder, x, m.normalized_shape, m.weight, m.bias, m.eps),
    nn.GroupNorm: _group_norm,
    nn.ReLU: lambda builder, m, x: _relu(builder, x),
    nn.LeakyReLU: lambda builder, m, x: _leaky(builder, x, m.negative_slope),
    nn.PReLU: lambda builder, m, x: _prelu(builder, x, m.weight),
    **dict.fromkeys([nn.ReLU6, nn.Hardtanh], lambda builder, m, x: _clamp(builder, x, m.min_val, m.max_val)),
    nn.Hardsigmoid: lambda builder, m, x: _hardsigmoid(builder, x),
    nn.Hardswish: lambda builder, m, x: _bent(builder, x, shapes.HARDSWISH),
    nn.ELU: lambda builder, m, x: _elu(builder, x, m.alpha),
    nn.Softplus: lambda builder, m, x: _softplus(builder, x, m.beta, m.threshold),
    nn.Tanh: lambda builder, m, x: builder.curve(x, shapes.TANH),
    nn.Sigmoid: lambda builder, m, x: builder.curve(x, shapes.SIGMOID),
    nn.SiLU: lambda builder, m, x: builder.curve(x, shapes.SILU),
    nn.GELU: lambda builder, m, x: _gelu(builder, x, m.approximate),
    nn.AdaptiveAvgPool2d: lambda builder, m, x: builder.unweighted(x, m.forward),
    nn.AvgPool2d: lambda builder, m, x: _avg_pool(
        builder, x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.MaxPool2d: lambda builder, m, x: _max_pool(
        builder, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.ZeroPad2d: lambda builder, m, x: _pad(builder, x, m.padding),
    nn.ConstantPad2d: lambda builder, m, x: _pad(builder, x, m.padding, value=m.value),
    nn.Flatten: lambda builder, m, x: _flatten(builder, x, m.start_dim, m.end_dim),
    nn.Unflatten: lambda builder, m, x: _arranged("unflatten")(builder, x, m.dim, m.unflattened_size),
    **dict.fromkeys([nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d], lambda builder, m, x: x),
}

CALLS: dict[str, Rule] = {
    **dict.fromkeys(["add", "iadd", "add_"], _add),
    **dict.fromkeys(["sub", "isub", "sub_"], _subtract),
    **dict.fromkeys(["mul", "imul", "mul_"], _multiply),
    **dict.fromkeys(["truediv", "itruediv", "div", "div_"], _divide),
    "neg": lambda builder, x: _scaled(builder, x, -1.0, 0.0),
    **dict.fromkeys(["relu", "relu_"], _relu),
    **dict.fromkeys(["leaky_relu", "leaky_relu_"], _leaky),
    "prelu": _prelu,
    **dict.fromkeys(["relu6", "relu6_"], lambda builder, x, inplace=False: _clamp(builder, x, 0.0, 6.0)),
    **dict.fromkeys(["hardtanh", "hardtanh_"], _hardtanh),
    **dict.fromkeys(["clamp", "clamp_", "clip"], _clamp),
    "clamp_min": lambda builder, x, min: _clamp(builder, x, min),
    "clamp_max": lambda builder, x, max: _clamp(builder, x, max=max),
    "abs": _abs,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda builder, x, inplace=False: _bent(builder, x, shapes.HARDSWISH),
    **dict.fromkeys(["elu", "elu_"], _elu),
    "softplus": _softplus,
    **dict.fromkeys(["tanh", "tanh_"], _curve(shapes.TANH)),
    **dict.fromkeys(["sigmoid", "sigmoid_"], _curve(shapes.SIGMOID)),
    "silu": _curve(shapes.SILU),
    "gelu": _gelu,
    "flatten": _flatten,
    **dict.fromkeys(["view", "reshape"], _view),
    **{name: _arranged(name) for name in ("permute", "transpose", "unflatten", "unsqueeze", "flip", "roll")},
    "layer_norm": _layer_norm,
    "mean": _mean,
    "sum": _sum,
    "squeeze": _squeeze,
    "cat": _cat,
    "concat": _cat,
    **dict.fromkeys(["pad", "_pad"], _pad),
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _unweighted(F.adaptive_avg_pool2d),
    **dict.fromkeys(["max_pool2d", "boolean_dispatch", "_max_pool2d"], _max_pool),
    **dict.fromkeys(["dropout", "dropout2d"], _dropout),
    **dict.fromkeys(["contiguous", "detach_"], lambda builder, x, *args, **settings: x),
    "size": lambda builder, x, dim=None: x.sample.shape if dim is None else x.sample.shape[dim],
}
