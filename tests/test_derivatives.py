"""First and second derivatives against differences of values in float64; smoothing of rectifiers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import nets
from oracles import differences
from steadygrad import derivatives

KINDS = ("mlp", "conv", "attention")
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def _double(kind, **settings):
    return nets.build(kind, dtype=torch.float64, **settings), nets.inputs(3, dtype=torch.float64)


def _log_probability(model, target=1):
    return lambda x: F.log_softmax(model(x), 1)[:, target]


# Against differences


@pytest.mark.parametrize("kind", nets.KINDS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_gradient_equals_differences(kind, create_graph):
    model, x = _double(kind)
    scalar = _log_probability(model)
    value, slope = derivatives.gradient(scalar, x, create_graph=create_graph)
    torch.testing.assert_close(value, scalar(x), check_dtype=True)
    torch.testing.assert_close(slope, differences.gradient(scalar, x), **CLOSE)
    assert value.requires_grad == slope.requires_grad == create_graph
    assert not x.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_and_its_products_equal_differences(kind):
    model, x = _double(kind)
    full = differences.jacobian(model, x)  # (N, K, *)
    torch.testing.assert_close(derivatives.jacobian(model, x), full, **CLOSE)

    v = torch.randn(3, 3, dtype=torch.float64)
    output, row = derivatives.vjp(model, x, v)
    torch.testing.assert_close(output, model(x).detach())
    torch.testing.assert_close(row, torch.einsum("nk,nkchw->nchw", v, full), **CLOSE)

    u = torch.randn_like(x)
    torch.testing.assert_close(derivatives.jvp(model, x, u), torch.einsum("nkchw,nchw->nk", full, u), **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_products_equal_second_differences(kind):
    model, x = _double(kind)
    scalar, u = _log_probability(model), torch.randn(3, 1, 4, 4, dtype=torch.float64)
    expected = torch.einsum("nij,nj->ni", differences.hessian(scalar, x), u.flatten(1)).view_as(u)
    torch.testing.assert_close(derivatives.hvp(scalar, x, u), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_derivative_passes_through_gradient_vjp_and_jacobian(kind):
    model, x = _double(kind)

    def penalties(inputs):
        _, slope = derivatives.gradient(_log_probability(model), inputs, create_graph=True)
        _, row = derivatives.vjp(model, inputs, torch.ones(len(inputs), 3, dtype=x.dtype), create_graph=True)
        whole = derivatives.jacobian(model, inputs, create_graph=True)
        return torch.stack([part.square().flatten(1).sum(1) for part in (slope, row, whole)], 1)  # (N, 3)

    leaf = x.clone().requires_grad_()
    rows = penalties(leaf)
    for k in range(3):
        (slope,) = torch.autograd.grad(rows[:, k].sum(), leaf, retain_graph=True)
        torch.testing.assert_close(
            slope, differences.gradient(lambda z, k=k: penalties(z)[:, k].detach(), x), rtol=1e-4, atol=1e-6
        )


def test_the_gradient_of_a_gradient_penalty_reaches_the_weights():
    model, x = _double("mlp")
    _, slope = derivatives.gradient(_log_probability(model), x, create_graph=True)
    grads = torch.autograd.grad(slope.square().sum(), list(model.parameters()), allow_unused=True)
    assert all(g is not None and g.abs().sum() > 0 for g in grads[:-1])


def test_derivatives_work_under_no_grad_and_leave_no_grad():
    model, x = _double("mlp")
    with torch.no_grad():
        _, slope = derivatives.gradient(_log_probability(model), x)
        derivatives.hvp(_log_probability(model), x, x)
        derivatives.jvp(model, x, x)
    assert slope.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert x.grad is None


def test_the_curvature_of_a_linear_function_is_zero():
    x = torch.rand(2, 3)
    weight = torch.rand(3)
    assert torch.equal(derivatives.hvp(lambda z: z @ weight, x, torch.ones_like(x)), torch.zeros_like(x))
    weight.requires_grad_()
    assert torch.equal(derivatives.hvp(lambda z: z @ weight, x, torch.ones_like(x)), torch.zeros_like(x))


# Chunks


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7, 100])
def test_chunks_change_nothing_and_let_a_second_derivative_pass(chunk):
    model, x = _double("mlp")
    x = nets.inputs(7, dtype=torch.float64).requires_grad_()
    v = torch.randn(7, 3, dtype=torch.float64)

    def norms(inputs, rows):
        _, product = derivatives.vjp(model, inputs, rows, create_graph=True)
        return product.square().flatten(1).sum(1)

    whole = norms(x, v)
    parts = derivatives.in_chunks(norms, chunk, x, v)
    torch.testing.assert_close(parts, whole)
    (expected,) = torch.autograd.grad(whole.sum(), x)
    (found,) = torch.autograd.grad(parts.sum(), x)
    torch.testing.assert_close(found, expected)


def test_chunks_are_as_small_as_asked():
    sizes = []
    derivatives.in_chunks(lambda x: sizes.append(len(x)) or x, 3, torch.zeros(7, 1))
    assert sizes == [3, 3, 1]


# Attention


def test_a_second_derivative_passes_through_attention_in_float32():
    model = nets.build("attention")
    x = nets.inputs(2)
    product = derivatives.hvp(_log_probability(model), x, torch.randn_like(x))
    assert torch.isfinite(product).all()
    assert product.abs().sum() > 0


def test_math_attention_lets_a_double_backward_pass():
    q = torch.rand(2, 2, 5, 4, requires_grad=True)
    with derivatives.math_attention():
        out = F.scaled_dot_product_attention(q, q, q)
        (slope,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), q)
    assert second.abs().sum() > 0


def test_the_attention_kernels_are_as_before_after_an_exception():
    flags = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    with pytest.raises(KeyError), derivatives.math_attention():
        raise KeyError
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()) == flags
