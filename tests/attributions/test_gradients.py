"""Passes, settings, graphs and errors of the gradient attributions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from steadygrad import registry, smoothing
from steadygrad.attributions import (
    ATTRIBUTIONS,
    Attribution,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
    score,
)
from steadygrad.classifier import Classifier
from steadygrad.errors import Failure, UsageError

OF_GRADIENTS = [row for row in ATTRIBUTIONS if row.order > 0]
TARGET = torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize(
    ("method", "passes", "calls"),
    [
        (Saliency(), 1, 1),
        (InputXGradient(), 1, 1),
        (IntegratedGradients(steps=6, chunk=8), 6, 3),  # two steps of four samples at once
        (IntegratedGradients(steps=6, chunk=3), 6, 8),  # samples 0-2 step by step, sample 3 three steps at once
        (SmoothGrad(samples=5, chunk=64), 5, 1),
    ],
)
def test_passes_per_sample(method: Attribution, passes: int, calls: int) -> None:
    model, x = nets.build("conv"), nets.inputs(4)
    with gates.counted(model) as count:
        method(model, x, TARGET)
    assert count == {
        "forwards": calls,
        "samples": 4 * passes,
        "backwards": calls,
        "samples_back": 4 * passes,
    }


def test_memory_is_bounded_by_the_chunk() -> None:
    sizes: list[int] = []
    model = nets.build("mlp")
    model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    IntegratedGradients(steps=50, chunk=7)(model, nets.inputs(10), torch.zeros(10, dtype=torch.long))
    assert max(sizes) <= 7


@pytest.mark.parametrize(
    "method",
    [
        Saliency(),
        InputXGradient(),
        IntegratedGradients(steps=5, baseline=0.3),
        IntegratedGradients(steps=5, baseline="blur", of="log_probability"),
        SmoothGrad(samples=5),
    ],
    ids=str,
)
@pytest.mark.parametrize("chunk", [1, 3, 8, 64])
def test_pulled_back_a_few_points_at_a_time_is_the_derivative_of_the_whole(method: Attribution, chunk: int) -> None:
    model, x = nets.build("conv", dtype=torch.float64), nets.inputs(4, dtype=torch.float64)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    leaf = x.clone().requires_grad_()
    (whole,) = torch.autograd.grad(method(model, leaf, TARGET, create_graph=True), leaf, v)
    few = replace(method, chunk=chunk) if hasattr(method, "chunk") else method
    with gates.counted(model) as count:
        product = few.pulled_back(model, x, TARGET, v)
    points = 1 if few is method else 5
    assert count["samples"] == 4 * points
    torch.testing.assert_close(product, whole, rtol=1e-9, atol=1e-12)


def test_integrated_gradients_are_complete_and_delta_says_how_much() -> None:
    model, x = nets.build("residual", dtype=torch.float64), nets.inputs(4, dtype=torch.float64)
    method = IntegratedGradients(steps=24, baseline=0.5)
    maps = method(model, x, TARGET)
    rise = (model(x) - model(torch.full_like(x, 0.5))).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(maps.sum((1, 2, 3)), rise, rtol=1e-5, atol=1e-7)
    assert method.delta(model, x, TARGET, maps).abs().max() < 1e-6
    torch.testing.assert_close(method.delta(model, x, TARGET, 2 * maps), rise, rtol=1e-4, atol=1e-6)


def test_delta_shrinks_with_the_steps_on_a_network_with_kinks() -> None:
    model, x = nets.build("conv", activation=nn.ReLU), nets.inputs(4)
    few, many = (IntegratedGradients(steps=s) for s in (4, 256))
    errors = [m.delta(model, x, TARGET, m(model, x, TARGET)).abs().mean() for m in (few, many)]
    assert errors[1] < errors[0] / 8


def test_the_one_step_path_is_its_middle() -> None:
    model, x = nets.build("mlp", dtype=torch.float64), nets.inputs(4, dtype=torch.float64)
    torch.testing.assert_close(
        IntegratedGradients(steps=1)(model, x, TARGET), x * Saliency()(model, x / 2, TARGET), rtol=1e-9, atol=1e-12
    )


def test_noise_follows_from_the_seed_alone() -> None:
    model, x = nets.build("mlp"), nets.inputs(4)
    one, again, other = (SmoothGrad(samples=4, seed=s)(model, x, TARGET) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    shuffled = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(SmoothGrad(samples=4, seed=1)(model, x[shuffled], TARGET[shuffled]), one[shuffled])


def test_antithetic_noise_cancels_what_is_linear_in_it() -> None:
    class Quadratic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([(x.flatten(1) ** 2).sum(1), -x.flatten(1).sum(1)], 1)

    x, target = nets.inputs(2, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    plain, paired = (SmoothGrad(samples=2, antithetic=a)(Quadratic(), x, target) for a in (False, True))
    torch.testing.assert_close(paired, 2 * x)
    assert not torch.allclose(plain, 2 * x, atol=1e-3)


def test_the_loss_is_minus_the_log_probability() -> None:
    model, x = nets.build("attention"), nets.inputs(4)
    torch.testing.assert_close(Saliency("loss")(model, x, TARGET), -Saliency("log_probability")(model, x, TARGET))


@pytest.mark.parametrize("lead", [20.0, 90.0])
@pytest.mark.parametrize("of", ["probability", "log_probability", "loss", "log_odds"])
def test_maps_of_a_certain_model_are_not_rounded_away(of: Any, lead: float) -> None:
    logits = torch.tensor([[lead, 0.0, 1.0], [0.5, lead, -1.0]], dtype=torch.float64)
    target = torch.tensor([0, 1])

    def slope(values: Tensor) -> Tensor:
        values = values.clone().requires_grad_()
        (found,) = torch.autograd.grad(score(values, target, of).sum(), values)
        return found

    # By hand: 1 - p is the sum of the other shares, so that nothing is taken from one.
    shares = logits.softmax(1).scatter(1, target[:, None], 0.0)
    rest = shares.sum(1, keepdim=True)
    want = (-shares).scatter(1, target[:, None], rest) * {"loss": -1}.get(of, 1)
    want = want * {"log_odds": 1 / rest, "probability": 1 - rest}.get(of, 1)
    torch.testing.assert_close(slope(logits), want, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(slope(logits.float()).double(), want, rtol=1e-4, atol=0.0)
    odds = torch.log1p(-rest[:, 0]) - rest[:, 0].log()
    torch.testing.assert_close(score(logits.float(), target, "log_odds").double(), odds, rtol=1e-6, atol=0.0)


def test_inference_works_under_no_grad_and_carries_no_graph() -> None:
    model, x = nets.build("conv"), nets.inputs(4).requires_grad_()
    for row in ATTRIBUTIONS:
        with torch.no_grad():
            maps = row.method()(model, x, TARGET)
        assert not maps.requires_grad
        torch.testing.assert_close(maps, row.method()(model, x, TARGET))


def test_with_a_graph_the_mode_is_the_callers() -> None:
    model, x = nets.build("conv").train(), nets.inputs(4)
    statistics = model[1].running_mean.clone()
    maps = Saliency()(model, x, TARGET, create_graph=True)
    assert not torch.equal(statistics, model[1].running_mean)
    model.eval()
    assert not torch.allclose(maps, Saliency()(model, x, TARGET))


def test_the_graph_of_x_is_kept() -> None:
    model = nets.build("conv", dtype=torch.float64)
    base = nets.inputs(4, dtype=torch.float64)
    for row in OF_GRADIENTS:
        shift = torch.zeros_like(base, requires_grad=True)
        maps = row.method()(model, base + shift, TARGET, create_graph=True)
        (slope,) = torch.autograd.grad(maps.square().sum(), shift)
        assert slope.abs().max() > 0


def test_a_network_without_curvature_is_refused_for_x_only() -> None:
    model, x = nets.build("mlp", activation=nn.ReLU), nets.inputs(4)
    for row in OF_GRADIENTS:
        with pytest.raises(UsageError, match=r"second derivative .*sg\.smooth"):
            row.method()(model, x.clone().requires_grad_(), TARGET, create_graph=True)
        with gates.counted(model) as count:
            row.method()(model, x, TARGET, create_graph=True).square().sum().backward()
        assert count["samples"] == 4 * getattr(row.method(), "steps", getattr(row.method(), "samples", 1))
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
        model.zero_grad()


def test_the_probe_disturbs_neither_the_mode_nor_the_callers_graph() -> None:
    model, x = nets.build("conv", activation=nn.ReLU).train(), nets.inputs(4)
    loss = model(x).square().sum()
    before = gates.state_of(model)
    with pytest.raises(UsageError, match="second derivative"):
        Saliency()(model, x.clone().requires_grad_(), TARGET, create_graph=True)
    after = gates.state_of(model)
    assert all(gates.same(before[part], after[part]) for part in before)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_probability_of_a_rectifier_network_has_curvature_where_that_is_smooth() -> None:
    model, x = nets.build("mlp", activation=nn.ReLU, dtype=torch.float64), nets.inputs(4, dtype=torch.float64)
    smooth = smoothing.smooth(model, 20.0)
    gates.assert_gradient(lambda p: Saliency("probability")(smooth, p, TARGET, create_graph=True), x)
    with pytest.raises(UsageError, match="relu in"):
        Saliency("probability")(model, x.clone().requires_grad_(), TARGET, create_graph=True)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 1, 3, 0]), r"target must be within 0\.\.2 .*got 0\.\.3"),
        (torch.tensor([0, -1, 2, 0]), r"target must be within 0\.\.2 .*got -1\.\.2"),
        (torch.tensor([0.0, 1.0, 2.0, 0.0]), r"integer labels of shape \(N,\), got torch\.float32"),
        (torch.tensor([0, 1, 2]), r"integer labels of shape \(4,\)"),
    ],
)
def test_wrong_targets_are_refused(target: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Saliency()(nets.build("conv"), nets.inputs(4), target)


def test_wrong_inputs_are_refused() -> None:
    model = Classifier(nets.build("conv"), classes=3)
    x = nets.inputs(4)
    for wrapped in (model, smoothing.smooth(model)):
        with pytest.raises(UsageError, match="did you normalize"):
            Saliency()(wrapped, 3 * x - 1, TARGET)
    with pytest.raises(UsageError, match="must be finite"):
        Saliency()(nets.build("conv"), torch.full_like(x, float("nan")), TARGET)
    with pytest.raises(UsageError, match="empty"):
        Saliency()(model, x[:0], TARGET[:0])


def test_a_plain_module_has_no_bounds() -> None:
    assert Saliency()(nets.build("conv"), 3 * nets.inputs(4) - 1, TARGET).shape == (4, 1, 4, 4)


class _Fixed(nn.Module):
    def __init__(self, output: str) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)[:, :3]
        return {"probabilities": rows.softmax(1), "nan": rows / 0 * 0, "flat": rows[:, 0], "root": rows.sqrt()}[
            self.output
        ]


def test_models_without_logits_are_refused() -> None:
    x = nets.inputs(4)
    with pytest.raises(UsageError, match="probabilities"):
        Saliency()(_Fixed("probabilities"), x, TARGET)
    with pytest.raises(Failure, match="NaN or infinite logits"):
        Saliency()(_Fixed("nan"), x, TARGET)
    with pytest.raises(UsageError, match=r"logits \(N, K\)"):
        Saliency()(_Fixed("flat"), x, TARGET)
    x[1] = 0  # where the root has no finite slope
    with pytest.raises(Failure, match="infinite maps for 1 of 4"):
        Saliency()(_Fixed("root"), x, TARGET)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("saliency", {"of": "logits"}, "did you mean 'logit'"),
        ("integrated_gradients", {"steps": 0}, "steps must be at least 1"),
        ("integrated_gradients", {"chunk": 0}, "chunk must be at least 1"),
        ("integrated_gradients", {"baseline": float("inf")}, "baseline must be a finite number"),
        ("smooth_grad", {"samples": 0}, "samples must be at least 1"),
        ("smooth_grad", {"sigma": 0.0}, "sigma must be finite and positive"),
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ATTRIBUTIONS[name].method(**settings)
    with pytest.raises(UsageError):
        registry.build("attribution", name, settings)


def test_methods_are_values_that_go_to_plain_data_and_back() -> None:
    for row in ATTRIBUTIONS:
        method = row.method()
        data = registry.describe(method)
        assert data.pop("name") == row.name
        assert registry.build("attribution", row.name, data) == method
        assert hash(method) == hash(row.method())
    assert registry.parse("attribution", "integrated_gradients:steps=4,of=loss") == IntegratedGradients(4, of="loss")


def test_a_graph_is_built_under_no_grad_and_for_more_samples_than_are_probed() -> None:
    model, x = nets.build("attention", dtype=torch.float64), nets.inputs(6, dtype=torch.float64)
    target = torch.arange(6) % 3
    for row in OF_GRADIENTS:
        leaf = x.clone().requires_grad_()
        with torch.no_grad():
            maps = row.method()(model, leaf, target, create_graph=True)
        (slope,) = torch.autograd.grad(maps.sum(), leaf)
        (want,) = torch.autograd.grad(row.method()(model, leaf, target, create_graph=True).sum(), leaf)
        torch.testing.assert_close(slope, want)
