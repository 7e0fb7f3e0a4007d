"""Square against the algorithm written out, and its parts one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import gates
import nets
from oracles import square as oracle
from steadygrad import randomness
from steadygrad.attacks import Square
from steadygrad.attacks.run import Case, Run
from steadygrad.attacks.square import _bumps, _cover, _image, _window
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

EPS = {"linf": 0.12, "l2": 0.7, "l1": 2.5}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_as_many_fall_as_to_the_algorithm(digits, norm):
    model, x, y = digits[0], digits[1][:100], digits[2][:100]
    theirs = [int(oracle.fooled(model, x, y, EPS[norm], norm, queries=300, seed=s).sum()) for s in range(2)]
    found = Square(queries=300)(model, x, y, Threat(norm, EPS[norm]))
    assert 25 < sum(theirs) / 2 < 90
    # Two seeds of the algorithm differ by a few samples, too.
    assert abs(int(found.success.sum()) - sum(theirs) / 2) <= 5


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_needs_no_gradient_and_sees_through_masks(digits, norm):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]

    class Masked(nn.Module):
        def forward(self, z):
            return model((z * 16).round() / 16).detach()

    with gates.counted(model) as passes:
        result = Square(queries=150)(Masked(), x, y, Threat(norm, 1.5 * EPS[norm]))
    assert result.success.float().mean() > 0.5
    assert passes["backwards"] == 0
    assert not result.backwards.any()


def test_a_resisting_sample_pays_its_queries_and_a_fallen_one_leaves(digits):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    none = Square(queries=20)(model, x, y, Threat("linf", 1e-6))
    assert set(none.forwards[~none.success].tolist()) == {21}
    some = Square(queries=100)(model, x, y, Threat("linf", 0.2))
    assert some.forwards[some.success].float().mean() < 60
    assert (some.forwards[~some.success] == 101).all()


def test_more_queries_find_more(digits):
    model, x, y = digits[0], digits[1][:80], digits[2][:80]
    few, many = (Square(queries=q)(model, x, y, Threat("linf", 0.12)).success.sum() for q in (5, 200))
    assert many > few + 5


@pytest.mark.parametrize("shape", [(20,), (2, 15), (3, 9, 6), (2, 3, 4, 5), (1, 1, 1), (1,)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_inputs_of_any_shape_and_batch(shape, norm):
    torch.manual_seed(0)
    entries = torch.Size(shape).numel()
    net = nn.Sequential(nn.Flatten(), nn.Linear(entries, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    x = torch.rand(5, *shape, dtype=torch.float64)
    y, threat = net(x).argmax(1), Threat(norm, EPS[norm])

    def call(x, y, index):
        return Square(queries=70).perturb(net, x, y, threat, generator=gates.generator_at(index))

    gates.assert_batch_invariant(call, x, y, torch.arange(5))
    points = call(x, y, torch.arange(5))
    assert threat.allows(x, points).all()
    assert (points != x).flatten(1).any(1).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targets_are_reached(digits, norm):
    model, x, y = digits[0], digits[1][:30], digits[2][:30]
    with torch.no_grad():
        target = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    result = Square(queries=200)(model, x, y, Threat(norm, 2 * EPS[norm]), target=target)
    assert result.success.float().mean() > 0.5
    assert (model(result.inputs).argmax(1) == target)[result.success].all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_changes_use_the_radius_of_their_sample(digits, norm):
    model, x, y = digits[0], digits[1][:20], digits[2][:20]
    eps = torch.linspace(0.0, 2 * EPS[norm], 20)
    threat = Threat(norm, eps)
    points = Square(queries=30).perturb(model, x, y, threat)
    assert threat.allows(x, points).all()
    size = threat.distance(points - x)
    assert (size >= 0.4 * eps).all()


def test_half_precision_falls_as_well(digits):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    threat = Threat("linf", 0.15)
    wide = Square(queries=100)(model, x, y, threat)
    low = Square(queries=100)(copy.deepcopy(model).bfloat16(), x.bfloat16(), y, threat)
    assert low.inputs.dtype == torch.bfloat16
    assert abs(int(wide.success.sum()) - int(low.success.sum())) <= 5


def test_a_bar_sends_home_only_those_far_behind(digits):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    threat = Threat("linf", 0.05)

    def spent(bar):
        run = Run(Case(model, x, y, threat, None, randomness.sample_seeds(len(x), None)))
        run.begin()
        Square(queries=600).search(run, torch.full((len(run.index),), bar), optimism=2.0)
        return run.forwards

    assert (spent(-1e9) == spent(-torch.inf)).all()
    free, held = spent(-1e9), spent(1e9)
    assert (held <= free).all()
    assert held.sum() < 0.7 * free.sum()
    assert held.max() <= 601


def test_windows_and_shapes():
    assert _image(torch.zeros(2, 3, 8, 6)) == (3, 8, 6)
    assert _image(torch.zeros(2, 20)) == (1, 1, 20)
    assert _image(torch.zeros(2, 4, 20)) == (4, 1, 20)
    assert _image(torch.zeros(2, 3, 2, 4, 5)) == (3, 1, 40)
    assert _window(0.25, 8, 8, 1) == (4, 4)
    assert _window(0.25, 8, 8, 3) == (5, 5)  # odd
    assert _window(0.25, 1, 8, 1) == (1, 2)
    assert _window(1e-9, 8, 8, 1) == (1, 1)
    assert _window(0.8, 4, 20, 1) == (4, 8)


def test_a_cover_is_one_window_within_the_image():
    numbers = torch.tensor([[0.0, 0.0], [0.999999, 0.999999], [1.0, 0.5]])
    cover = _cover(numbers, 2, 3, (1, 5, 7))
    assert (cover >= 0).sum((1, 2)).tolist() == [6, 6, 6]
    assert cover[0, :2, :3].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert cover[1, 3:, 4:].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 5), (3, 3), (4, 6), (7, 7)])
def test_bumps_have_length_one_and_two_signs(size):
    pattern = _bumps(*size, torch.zeros(1, dtype=torch.float64))
    assert pattern.shape == size
    assert torch.linalg.vector_norm(pattern).item() == pytest.approx(1)
    if max(size) > 1:
        assert pattern.min() < 0 < pattern.max()
    if size[0] == size[1] > 1:
        theirs = oracle._eta(size[0], type("Never", (), {"random": lambda self: 0.0})())
        torch.testing.assert_close(pattern, torch.from_numpy(theirs))


def test_the_model_is_left_alone():
    model, x = nets.build("conv"), nets.inputs(3)
    y = torch.tensor([0, 1, 0])
    gates.assert_leaves_no_trace(
        model, lambda: Square(queries=9)(model, x, y, Threat("l2", 0.1)), inputs=[x, y], failing_at=(0, 3)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries must be at least 1, got 0"),
        ({"share": 0.0}, r"share must be a share within \(0, 1\], got 0.0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Square(**settings)
