"""Derivatives with respect to inputs, of first and second order.

A scalar function here maps inputs (N, *) to one number per sample (N,); the samples must not
depend on each other (a model in evaluation mode does not mix them).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from steadygrad import randomness
from steadygrad.classifier import frozen
from steadygrad.errors import UsageError

Function = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def math_attention() -> Iterator[None]:
    """Attention by plain matrix products: the fused kernels have no second derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield


def _leaf(x: Tensor, create_graph: bool) -> Tensor:
    # x itself when the result is to be differentiated with respect to x.
    return x if create_graph and x.requires_grad else x.detach().requires_grad_()


def gradient(scalar: Function, x: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Values (N,) of a scalar function and its input gradients (N, *): one forward, one backward.

    With create_graph the gradients can be differentiated again, with respect to the weights and,
    if x requires a gradient, to x.

    >>> value, slope = gradient(lambda x: (x**2).sum(1), torch.tensor([[1.0, 2.0]]))
    >>> slope
    tensor([[2., 4.]])
    """
    with torch.enable_grad():
        x = _leaf(x, create_graph)
        with math_attention() if create_graph else contextlib.nullcontext():
            value = scalar(x)
            (slope,) = torch.autograd.grad(value.sum(), x, create_graph=create_graph)
        return value if create_graph else value.detach(), slope


def vjp(function: Function, x: Tensor, v: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Output (N, K) of a function and v^T J (N, *) for rows v (N, K): one forward, one backward."""
    output: Tensor | None = None

    def scalar(inputs: Tensor) -> Tensor:
        nonlocal output
        output = function(inputs)
        return (output * v).flatten(1).sum(1)

    _, product = gradient(scalar, x, create_graph=create_graph)
    assert output is not None
    return (output if create_graph else output.detach()), product


def jvp(function: Function, x: Tensor, u: Tensor) -> Tensor:
    """J u, of the shape of the output, for directions u of the shape of x: one forward, two backwards.

    Taken as the derivative of v -> v^T J, which any network with first derivatives allows.
    """
    with torch.enable_grad(), math_attention():
        x = x.detach().requires_grad_()
        output = function(x)
        v = torch.zeros_like(output, requires_grad=True)
        (row,) = torch.autograd.grad(output, x, v, create_graph=True)
        (product,) = torch.autograd.grad(row, v, u)
    return product


def hvp(scalar: Function, x: Tensor, u: Tensor) -> Tensor:
    """Hessian times u (N, *) of a scalar function: one forward, two backwards.

    Zero where the function is piecewise linear; see `require_curvature`.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        _, slope = gradient(scalar, x, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(x)
        (product,) = torch.autograd.grad((slope * u).sum(), x, allow_unused=True)
    return product.detach() if product is not None else torch.zeros_like(x)


def jacobian(function: Function, x: Tensor, *, create_graph: bool = False) -> Tensor:
    """The full Jacobian (N, K, *) of outputs (N, K): one forward, K backwards."""
    with torch.enable_grad(), math_attention():
        x = _leaf(x, create_graph)
        output = function(x)
        last = output.shape[1] - 1
        rows = [
            torch.autograd.grad(column.sum(), x, retain_graph=create_graph or k < last, create_graph=create_graph)[0]
            for k, column in enumerate(output.unbind(1))
        ]
    return torch.stack(rows, 1)  # (N, K, *)


def in_chunks(function: Callable[..., Tensor], chunk: int | None, *tensors: Tensor) -> Tensor:
    """Apply a per-sample function to slices of `chunk` samples: the same values in less memory."""
    count = len(tensors[0])
    if chunk is None or count <= chunk:
        return function(*tensors)
    return torch.cat([function(*(t[i : i + chunk] for t in tensors)) for i in range(0, count, chunk)])


class _Softplus(TorchFunctionMode):
    """Replace rectifiers by softplus while the mode is on, in modules and functional calls alike."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _RECTIFIERS:
            return _RECTIFIERS[func](self.beta, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _relu(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _put(input, F.softplus(input.clone() if inplace else input, beta=beta), inplace)


def _hardtanh(beta: float, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    x = input.clone() if inplace else input
    value = min_val + F.softplus(x - min_val, beta=beta) - F.softplus(x - max_val, beta=beta)
    return _put(input, value, inplace)


def _relu6(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _hardtanh(beta, input, 0.0, 6.0, inplace)


def _leaky_relu(beta: float, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    x = input.clone() if inplace else input
    return _put(input, negative_slope * x + (1 - negative_slope) * F.softplus(x, beta=beta), inplace)


def _put(target: Tensor, value: Tensor, inplace: bool) -> Tensor:
    # An in-place function changes the tensor it is given; the caller may keep using that one.
    return target.copy_(value) if inplace else value


_RECTIFIERS: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys([torch.relu, F.relu, Tensor.relu], _relu),
    **dict.fromkeys([torch.relu_, F.relu_, Tensor.relu_], functools.partial(_relu, inplace=True)),
    F.relu6: _relu6,
    # What nn.ReLU6 calls.
    F.hardtanh: _hardtanh,
    F.hardtanh_: functools.partial(_hardtanh, inplace=True),
    F.leaky_relu: _leaky_relu,
    F.leaky_relu_: functools.partial(_leaky_relu, inplace=True),
}


class Smooth(nn.Module):
    """A model whose rectifiers act as softplus; `.model` is the original, with the same weights."""

    same_inputs = True

    def __init__(self, model: nn.Module, beta: float) -> None:
        super().__init__()
        self.model, self.beta = model, beta

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of the smoothed model."""
        with _Softplus(self.beta):
            logits: Tensor = self.model(x)
        return logits


def smooth(model: nn.Module, beta: float = 50.0) -> Smooth:
    """The model with ReLU, ReLU6, hard tanh and leaky ReLU as softplus(beta), sharing its parameters.

    A piecewise linear network has no second derivative; softplus has one, and comes within log(2) / beta of the
    rectifier. The original is untouched.

    >>> smooth(nn.ReLU(), beta=1.0)(torch.zeros(1)).item() > 0.69
    True
    """
    if not beta > 0:
        raise UsageError(f"beta must be positive, got {beta}")
    return Smooth(model, beta)


class _Rectifiers(TorchFunctionMode):
    """Notes whether one of the functions is called that `smooth` replaces."""

    seen: bool = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen |= func in _RECTIFIERS
        return func(*args, **(kwargs or {}))


def has_rectifiers(model: nn.Module, x: Tensor) -> bool:
    """Whether the model calls a function that `smooth` replaces, at the first of the inputs (N, *); one forward.

    >>> has_rectifiers(nn.ReLU(), torch.ones(1, 2)), has_rectifiers(nn.Tanh(), torch.ones(1, 2))
    (True, False)
    """
    # With a gradient to follow: without one, fused layers hide what they call.
    watch = _Rectifiers()
    with frozen(model), torch.enable_grad(), watch:
        model(x[:1].detach().requires_grad_().clone())
    return watch.seen


def require_curvature(scalar: Function, x: Tensor) -> None:
    """Refuse a scalar function whose second derivative with respect to x is zero everywhere, by four samples.

    The gradient of such a function (a logit of an all-ReLU network) cannot be changed by following
    derivatives, and explanations attacked so would seem robust.

    Raises:
        UsageError: with the way out, `sg.smooth(model, beta)`.
    """
    probe = x[:4].detach()
    u = randomness.normal(randomness.sample_seeds(len(probe), None), probe)
    if not bool(hvp(scalar, probe, u).abs().max() > 0):
        raise UsageError(
            "the second derivative of this function is zero everywhere (an all-ReLU network?), so its gradient "
            "seems impossible to move: use sg.smooth(model, beta=50), or an activation with curvature"
        )
