"""DeepFool: exact on affine models, equal to the algorithm written out, cheaper than all classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import deepfool as oracle
from steadygrad.attacks import DeepFool
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

WIDE = (-50.0, 50.0)
DUAL = {"linf": 1, "l2": 2}


def _affine(classes: int = 4, entries: int = 6, dtype: torch.dtype = torch.float64) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(entries, classes)).to(dtype).eval()


def _smooth(classes: int = 4) -> nn.Module:
    net = nets.build("mlp", classes=classes, dtype=torch.float64)
    with torch.no_grad():
        net[1].weight *= 6
        net[-1].bias -= net(nets.inputs(40, dtype=torch.float64)).mean(0)
    return net


def _to_hyperplanes(model: nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str) -> torch.Tensor:
    """Distances (N, K) to the boundary with each class, from the weights; infinite for the label itself."""
    weight, z = model[-1].weight, model(x)
    gaps = (z.gather(1, y[:, None]) - z).detach()
    size = torch.linalg.vector_norm(weight[None] - weight[y][:, None], ord=DUAL[norm], dim=2).detach()
    return torch.where(size > 0, gaps / size, torch.inf)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_is_exact_for_an_affine_model_up_to_the_overshoot(norm):
    model, x = _affine(), torch.rand(20, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    exact = _to_hyperplanes(model, x, y, norm).amin(1)
    for overshoot in (0.001, 0.02, 0.5):
        result = DeepFool(steps=1, candidates=3, overshoot=overshoot)(model, x, y, Threat(norm, bounds=WIDE))
        assert result.success.all()
        torch.testing.assert_close(result.distance, (1 + overshoot) * exact)
        # The clean look, the step, the look at its end and the two of the judge.
        assert set(result.forwards.tolist()) == {5}
        assert set(result.backwards.tolist()) == {3}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_target_is_reached_where_its_boundary_is(norm):
    model, x = _affine(3), torch.rand(20, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    target = (y + 1) % 3
    result = DeepFool()(model, x, y, Threat(norm, bounds=WIDE), target=target)
    assert (model(result.inputs).argmax(1) == target).all()
    exact = _to_hyperplanes(model, x, y, norm).gather(1, target[:, None]).squeeze(1)
    direct = _to_hyperplanes(model, x, y, norm).argmin(1) == target
    assert direct.sum() > 3
    torch.testing.assert_close(result.distance[direct], 1.005 * exact[direct])
    assert (result.distance > exact).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_the_algorithm_of_the_paper(norm):
    model, x = _smooth(), nets.inputs(12, dtype=torch.float64)
    y = model(x).argmax(1)
    assert len(y.unique()) > 1
    result = DeepFool(candidates=3, overshoot=0.02)(model, x, y, Threat(norm, bounds=WIDE))
    assert result.success.all()
    for n in range(len(x)):
        change = oracle.change(model, x[n].flatten().numpy(), int(y[n]), norm, least=1e-4)
        torch.testing.assert_close((result.inputs - x)[n].flatten(), torch.from_numpy(change))
    # More than one step, or nothing beyond the affine case would be shown.
    assert result.forwards.amax() > 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_overshoot_lengthens_the_whole_change_not_the_last_step(norm):
    # Class 1 is a ball: each step falls short of it, the later ones by ever less.
    class Ball(nn.Module):
        def forward(self, z):
            far = (z**2).sum(1)
            return torch.stack([torch.zeros_like(far), 0.25 - far], 1)

    x = torch.tensor([[0.9, 0.8], [0.6, 0.7]], dtype=torch.float64)
    for overshoot in (0.001, 0.02):
        result = DeepFool(overshoot=overshoot)(Ball(), x, torch.zeros(2).long(), Threat(norm))
        assert result.success.all()
        assert result.forwards.amin() > 5
        # Lengthening each step by itself would leave a hundredth of this, or less.
        depth = Ball()(result.inputs)[:, 1]
        assert (depth > 0.1 * overshoot * result.distance).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_three_candidates_are_as_good_as_all_for_a_third_of_the_backwards(digits, norm):
    model, x, y = digits
    few, every = (DeepFool(candidates=c)(model, x, y, Threat(norm)) for c in (3, 9))
    assert few.success.all()
    assert every.success.all()
    assert few.distance.mean() <= 1.01 * every.distance.mean()
    share = float(few.backwards.sum() / every.backwards.sum())
    assert 0.2 < share < 0.34


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("smooth", [False, True])
def test_success_holds_in_other_batches_and_in_float64(digits, norm, smooth):
    layers, x, y = digits
    model = nn.Sequential(*(nn.Softplus(beta=3) if smooth and isinstance(m, nn.ReLU) else m for m in layers))
    double = nn.Sequential(*(_double(layer) for layer in model))
    y = model(x).argmax(1) if smooth else y
    for overshoot in (0.02, 1e-3, 1e-4):
        result = DeepFool(overshoot=overshoot)(model, x, y, Threat(norm))
        assert result.success.all()
        for size in (1, 7, 200):
            wrong = torch.cat([model(part).argmax(1) for part in result.inputs.split(size)]) != y
            assert wrong.all()
        assert (double(result.inputs.double()).argmax(1) != y).all()


def _double(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return layer
    twin = nn.Linear(layer.in_features, layer.out_features).double()
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_range_of_the_inputs_is_a_matter_of_units(digits, norm):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]

    class Bytes(nn.Module):
        def forward(self, z):
            return model(z / 255)

    ours = DeepFool()(model, x, y, Threat(norm))
    theirs = DeepFool()(Bytes(), 255 * x, y, Threat(norm, bounds=(0.0, 255.0)))
    assert torch.equal(ours.success, theirs.success)
    assert torch.equal(ours.backwards, theirs.backwards)
    torch.testing.assert_close(theirs.distance / 255, ours.distance, rtol=1e-3, atol=1e-5)


def test_a_step_costs_one_forward_and_a_backward_per_candidate(digits):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    for candidates, each in ((1, 1), (3, 3), (9, 9), (50, 9)):
        with gates.counted(model) as spent:
            result = DeepFool(candidates=candidates)(model, x, y, Threat("l2"))
        searched = result.backwards > 0  # all but the clean mistakes
        assert torch.equal(searched, result.distance > 0)
        # One clean forward and two of the judge are no steps.
        assert torch.equal(result.backwards[searched], each * (result.forwards[searched] - 3))
        assert (result.forwards[~searched] == 3).all()
        assert spent["samples"] == int(result.forwards.sum())
        assert result.forwards.unique().numel() > 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_entries_at_a_bound_take_no_part(norm):
    # Down to class 1 along the first two entries, of which the first has no room.
    model = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 2.0, 0.0], [0.0, 0.0, 0.5]]))
    x = torch.tensor([[0.0, 0.6, 0.5]], dtype=torch.float64)
    y = model(x).argmax(1)
    result = DeepFool(steps=1)(model, x, y, Threat(norm))
    gap = 2 * 0.6 - 0.5 * 0.5
    exact = gap / 2.5 if norm == "linf" else gap / (2**2 + 0.5**2) ** 0.5
    assert result.success.all()
    assert result.inputs[0, 0] == 0
    torch.testing.assert_close(result.distance, torch.tensor([1.005 * exact], dtype=torch.float64))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_stay_within_bounds_that_bite(digits, norm):
    model, x, y = digits
    bounds = (0.0, 1.0)
    assert (x == 0).float().mean() > 0.3
    looked = []
    handle = model.register_forward_hook(lambda module, args, out: looked.append(args[0].detach()))
    result = DeepFool()(model, x, y, Threat(norm, bounds=bounds))
    handle.remove()
    assert min(float(p.min()) for p in looked) >= 0
    assert max(float(p.max()) for p in looked) <= 1
    # The bounds cost something, so they were met.
    free = DeepFool()(model, x, y, Threat(norm, bounds=WIDE))
    assert result.distance.median() > 1.05 * free.distance.median()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("target", [None, "least-likely"])
def test_two_and_three_classes_of_a_table(classes, norm, target):
    model, x = _affine(classes), torch.rand(12, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    result = DeepFool(candidates=5)(model, x, y, Threat(norm, bounds=WIDE), target=target)
    assert result.success.all()
    assert result.inputs.shape == x.shape
    wrong = model(result.inputs).argmax(1)
    assert (wrong != y).all()
    if target:
        assert torch.equal(wrong, model(x).argmin(1))


def test_a_radius_decides_success_and_changes_nothing_else(digits):
    model, x, y = digits
    free = DeepFool()(model, x, y, Threat("l2"))
    eps = 1.001 * float(free.distance.median())
    held = DeepFool()(model, x, y, Threat("l2", eps))
    assert torch.equal(held.success, free.distance <= eps)
    assert torch.equal(held.distance[held.success], free.distance[held.success])


def test_no_gradient_is_said_and_ends_without_a_change():
    class Stairs(nn.Module):
        def forward(self, z):
            return torch.stack([z.flatten(1).sum(1) * 0 + 2, z.flatten(1).sum(1) * 0], 1)

    x = torch.rand(4, 3)
    result = DeepFool(steps=3)(Stairs(), x, torch.tensor([0, 0, 0, 1]), Threat("l2"))
    assert result.zero_gradient.tolist() == [True, True, True, False]
    assert result.success.tolist() == [False, False, False, True]
    assert torch.equal(result.inputs, x)


def test_gradients_beyond_the_boundary_are_not_asked_for():
    class Cliff(nn.Module):
        def forward(self, z):
            gap = (0.5 - z.sum(1)).relu()
            return torch.stack([gap - 0.1, torch.zeros_like(gap)], 1)

    x = torch.full((2, 2), 0.05)
    result = DeepFool(overshoot=0.5)(Cliff(), x, torch.zeros(2).long(), Threat("l2"))
    assert result.success.all()
    assert not result.zero_gradient.any()


def test_a_tie_is_stepped_over():
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    x = torch.full((1, 2), 0.4)
    for norm in ("linf", "l2"):
        result = DeepFool()(model, x, torch.tensor([0]), Threat(norm))
        assert result.success.all()
        assert 0 < result.distance[0] < 1e-4


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"candidates": 0}, {"overshoot": -0.1}, {"overshoot": 1.0}, {"overshoot": float("nan")}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        DeepFool(**settings)


@pytest.mark.parametrize("norm", ["l1", "l0"])
def test_other_norms_are_refused(norm):
    with pytest.raises(UsageError, match="works for linf, l2"):
        DeepFool()(_affine(), torch.rand(2, 6).double(), torch.tensor([0, 1]), Threat(norm))
