"""Derivatives with respect to inputs, of first and second order.

A scalar function here maps inputs (N, *) to one number per sample (N,); the samples must not
depend on each other (a model in evaluation mode does not mix them).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from steadygrad.arguments import Inputs, arithmetic
from steadygrad.calling import eagerly
from steadygrad.errors import UsageError
from steadygrad.memory import at_once
from steadygrad.turns import TURN
from steadygrad.values import Count

Function = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def math_attention() -> Iterator[None]:
    """What second derivatives need: attention by plain matrix products, and nothing compiled."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with TURN, sdpa_kernel(SDPBackend.MATH), eagerly():
        yield


def _leaf(x: Tensor, create_graph: bool) -> Tensor:
    # x itself when the result is to be differentiated with respect to x.
    return x if create_graph and x.requires_grad else x.detach().requires_grad_()


def _same_shape(name: str, value: Tensor, of: str, like: Tensor) -> None:
    if value.shape != like.shape:
        raise UsageError(f"{name} must have the shape of {of} {tuple(like.shape)}, got {tuple(value.shape)}")


@arithmetic
def gradient(scalar: Function, x: Inputs, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
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


@arithmetic
def breaks_off(value: Tensor) -> bool:
    """Whether some function on the way to a value can be differentiated once only.

    PyTorch then leaves the way through it out of a further derivative, without a word.
    """
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            return True
        seen.add(node)
        waiting += [parent for parent, _ in node.next_functions]
    return False


@arithmetic
def vjp(function: Function, x: Inputs, v: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Output (N, K) of a function and v^T J (N, *) for rows v (N, K): one forward, one backward."""
    output: Tensor | None = None

    def scalar(inputs: Tensor) -> Tensor:
        nonlocal output
        output = function(inputs)
        _same_shape("v", v, "the output", output)
        return (output * v).flatten(1).sum(1)

    _, product = gradient(scalar, x, create_graph=create_graph)
    assert output is not None
    return (output if create_graph else output.detach()), product


@arithmetic
def jvp(function: Function, x: Inputs, u: Tensor) -> Tensor:
    """J u, of the shape of the output, for directions u of the shape of x: one forward, two backwards.

    Taken as the derivative of v -> v^T J, which any network with first derivatives allows.
    """
    _same_shape("u", u, "x", x)
    with torch.enable_grad(), math_attention():
        x = x.detach().requires_grad_()
        output = function(x)
        v = torch.zeros_like(output, requires_grad=True)
        (row,) = torch.autograd.grad(output, x, v, create_graph=True)
        (product,) = torch.autograd.grad(row, v, u)
    return product


@arithmetic
def hvp(scalar: Function, x: Inputs, u: Tensor) -> Tensor:
    """Hessian times u (N, *) of a scalar function: one forward, two backwards.

    Zero where the function is piecewise linear; see `curvature.require_curvature`.
    """
    _same_shape("u", u, "x", x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        _, slope = gradient(scalar, x, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(x)
        (product,) = torch.autograd.grad((slope * u).sum(), x, allow_unused=True)
    return product.detach() if product is not None else torch.zeros_like(x)


@arithmetic
def jacobian(function: Function, x: Inputs, *, create_graph: bool = False) -> Tensor:
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


@arithmetic
def in_chunks(function: Callable[..., Tensor], chunk: Count | None, *tensors: Tensor, order: int = 1) -> Tensor:
    """Apply a per-sample function to slices of at most `chunk` samples, the first tensor: the same in less memory."""
    count = len(tensors[0])
    if chunk is not None:
        chunk = at_once(chunk, tensors[0].shape[1:], tensors[0].device, order=order)
    if chunk is None or count <= chunk:
        return function(*tensors)
    return torch.cat([function(*(t[i : i + chunk] for t in tensors)) for i in range(0, count, chunk)])
