"""Distances, projections, steps and random points, against slow oracles and the laws of a ball."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from oracles import projections
from steadygrad import randomness
from steadygrad.errors import UsageError
from steadygrad.threat import Threat, l0, l1, l2, linf

NORMS = ("linf", "l2", "l1", "l0")
BALLS = ("linf", "l2", "l1")


def _vectors(entries: int = 6, limit: float = 3.0) -> st.SearchStrategy[np.ndarray]:
    # Rounded values give ties and zeros, where sorting algorithms break.
    values = st.floats(-limit, limit, width=32).map(lambda v: round(v, 1)) | st.floats(-limit, limit)
    return arrays.arrays(np.float64, (3, entries), elements=values)


_radii = st.floats(0.0, 8.0)


def _eps(norm: str, eps: float) -> float:
    return float(math.floor(eps)) if norm == "l0" else eps


# Distances


@pytest.mark.parametrize(
    ("norm", "expected"), [("linf", [4.0, 0.0]), ("l2", [5.0, 0.0]), ("l1", [7.0, 0.0]), ("l0", [2.0, 0.0])]
)
def test_distance_is_the_norm_of_each_sample(norm, expected):
    delta = torch.tensor([[[3.0, 0.0, -4.0]], [[0.0, 0.0, 0.0]]])
    assert Threat(norm).distance(delta).tolist() == expected


@pytest.mark.parametrize("norm", NORMS)
def test_the_largest_radius_allows_opposite_corners(norm):
    x = torch.full((2, 3, 2, 2), -1.0)
    threat = Threat(norm, bounds=(-1.0, 2.0))
    largest = threat.largest(x)
    torch.testing.assert_close(threat.distance(torch.full_like(x, 3.0)), largest)
    assert threat.at(largest).allows(x, torch.full_like(x, 2.0)).all()
    assert not threat.at(largest * 0.99).allows(x, torch.full_like(x, 2.0)).any()


# Projections


@given(_vectors(), _radii)
def test_projection_equals_its_oracle(u, eps):
    for norm, oracle in (("linf", projections.linf), ("l2", projections.l2), ("l1", projections.l1)):
        found = Threat(norm, eps).project(torch.from_numpy(u)).numpy()
        for row, expected in zip(found, (oracle(v, eps) for v in u), strict=True):
            np.testing.assert_allclose(row, expected, atol=1e-9, err_msg=norm)


@given(_vectors(), st.integers(0, 7))
def test_l0_projection_is_as_near_as_the_best_subset(u, count):
    found = l0(count).project(torch.from_numpy(u)).numpy()
    for row, v in zip(found, u, strict=True):
        assert (row != 0).sum() <= count
        assert ((row == 0) | (row == v)).all()
        assert ((row - v) ** 2).sum() == pytest.approx(projections.l0_distance(v, count))


@pytest.mark.parametrize("norm", NORMS)
@given(u=_vectors(), eps=_radii)
def test_projection_lands_in_the_ball_and_stays_there(norm, u, eps):
    threat, delta = Threat(norm, _eps(norm, eps)), torch.from_numpy(u)
    once = threat.project(delta)
    assert (threat.distance(once) <= _eps(norm, eps) + 1e-9).all()
    torch.testing.assert_close(threat.project(once), once)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_leaves_a_change_inside_the_ball_untouched(norm, dtype):
    delta = torch.randn(5, 2, 3, 3, dtype=dtype)
    delta[:, 0] = 0
    distance = Threat(norm).distance(delta)
    slightly = 1.0 if norm == "l0" else 1.001
    assert torch.equal(Threat(norm, distance * slightly).project(delta), delta)


@pytest.mark.parametrize("norm", BALLS)
def test_projection_keeps_float32_within_rounding_of_the_radius(norm):
    delta = torch.randn(8, 3, 32, 32)
    for eps in (1e-4, 0.03, 1.0, 20.0):
        assert (Threat(norm, eps).distance(Threat(norm, eps).project(delta)) <= eps * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_radius_per_sample_equals_one_by_one(norm):
    delta, x = torch.randn(4, 1, 3, 3), torch.rand(4, 1, 3, 3)
    eps = torch.tensor([0.0, 1.0, 2.0, 5.0])
    together, seeds = Threat(norm, eps), randomness.sample_seeds(4, None)
    for i in range(4):
        alone, row = Threat(norm, float(eps[i])), slice(i, i + 1)
        torch.testing.assert_close(together.project(delta)[row], alone.project(delta[row]))
        torch.testing.assert_close(together.constrain(x, x + delta)[row], alone.constrain(x[row], (x + delta)[row]))
        assert torch.equal(together.random(x, seeds)[row], alone.random(x[row], seeds[row]))


# Projections within the bounds


def _point_and_target(u: np.ndarray) -> tuple[Tensor, Tensor]:
    # Points in [0, 1] spread over corners and interior, targets up to 3 away.
    x = (torch.arange(u.size, dtype=torch.float64).view(u.shape) * 0.37 % 1.25 - 0.125).clamp(0, 1)
    return x, x + torch.from_numpy(u)


@pytest.mark.parametrize("norm", NORMS)
@given(u=_vectors(), eps=_radii)
def test_constrained_points_are_in_the_ball_and_in_the_bounds(norm, u, eps):
    x, target = _point_and_target(u)
    threat = Threat(norm, _eps(norm, eps))
    found = threat.constrain(x, target)
    assert threat.allows(x, found).all()
    assert ((found >= 0) & (found <= 1)).all()
    torch.testing.assert_close(threat.constrain(x, found), found)


@given(_vectors(), _radii)
def test_l1_constraint_is_the_nearest_allowed_point(u, eps):
    x, target = _point_and_target(u)
    found = (l1(eps).constrain(x, target) - x).numpy()
    for row, v, base in zip(found, (target - x).numpy(), x.numpy(), strict=True):
        np.testing.assert_allclose(row, projections.l1_box(v, eps, -base, 1 - base), atol=1e-9)


@given(_vectors(), st.integers(0, 7))
def test_l0_constraint_is_the_nearest_allowed_point(u, count):
    x, target = _point_and_target(u)
    found = (l0(count).constrain(x, target) - x).numpy()
    for row, v, base in zip(found, (target - x).numpy(), x.numpy(), strict=True):
        best = projections.l0_box_distance(v, count, -base, 1 - base)
        assert ((row - v) ** 2).sum() == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_the_answer_scales_with_the_range_of_the_inputs(norm):
    x, target = torch.rand(4, 3, 4, 4), torch.randn(4, 3, 4, 4)
    small, factor = Threat(norm, 2.0), 1.0 if norm == "l0" else 255.0
    large = Threat(norm, 2.0 * factor, bounds=(0.0, 255.0))
    torch.testing.assert_close(
        small.constrain(x, target) * 255, large.constrain(x * 255, target * 255), rtol=1e-5, atol=1e-3
    )


# What is allowed


def test_allows_refuses_what_is_not_finite_outside_the_bounds_or_too_far():
    x = torch.full((4, 2), 0.5)
    points = torch.tensor([[0.6, 0.5], [0.7, 0.5], [torch.nan, 0.5], [0.5, 0.5]])
    assert linf(0.1).allows(x, points).tolist() == [True, False, False, True]
    assert linf(2.0).allows(x, torch.tensor([[1.001, 0.5]]).expand(4, 2)).tolist() == [False] * 4
    assert linf().allows(x, torch.ones_like(x)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("norm", NORMS)
def test_allows_forgives_the_rounding_of_its_own_constraint(norm, dtype):
    x, target = torch.rand(6, 3, 8, 8).to(dtype), (3 * torch.randn(6, 3, 8, 8)).to(dtype)
    threat = Threat(norm, {"linf": 8 / 255, "l2": 0.5, "l1": 5.0, "l0": 10.0}[norm])
    assert threat.allows(x, threat.constrain(x, target)).all()


# Steps


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_steepest_direction_rises_more_than_any_other_of_norm_one(norm):
    gradient = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    threat = Threat(norm)
    best = threat.steepest(gradient)
    torch.testing.assert_close(threat.distance(best), torch.ones(3, dtype=torch.float64))
    rise = (best * gradient).flatten(1).sum(1)
    for _ in range(200):
        other = torch.randn_like(gradient)
        other = other / threat.distance(other).view(-1, 1, 1, 1)
        assert ((other * gradient).flatten(1).sum(1) <= rise).all()


def test_the_l1_and_l0_steps_move_the_entries_with_the_largest_gradient():
    gradient = torch.tensor([[4.0, -3.0, 2.0, 1.0]])
    assert l1().steepest(gradient, share=0.25).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert l1().steepest(gradient, share=0.5).tolist() == [[0.5, -0.5, 0.0, 0.0]]
    assert l0().steepest(gradient, share=0.5).tolist() == [[1.0, -1.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_gives_a_zero_direction(norm, dtype):
    assert torch.equal(Threat(norm).steepest(torch.zeros(2, 5, dtype=dtype)), torch.zeros(2, 5, dtype=dtype))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e25])
@pytest.mark.parametrize("norm", NORMS)
def test_the_direction_does_not_depend_on_the_size_of_the_gradient(norm, scale):
    gradient = torch.tensor([[3.0, -4.0, 0.0, 1.0]])
    torch.testing.assert_close(Threat(norm).steepest(gradient * scale), Threat(norm).steepest(gradient))


# Random points


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_are_allowed_and_differ(norm):
    x = torch.rand(16, 1, 5, 5)
    eps = {"linf": 0.2, "l2": 0.7, "l1": 1.5, "l0": 4.0}[norm]
    threat, seeds = Threat(norm, eps), randomness.sample_seeds(16, None)
    first, second = threat.random(x, seeds), threat.random(x, seeds, draw=1)
    for points in (first, second):
        assert threat.allows(x, points).all()
        assert ((points >= 0) & (points <= 1)).all()
    assert (first != second).flatten(1).any(1).all()
    assert (threat.distance(first - x) > 0.3 * eps).float().mean() > 0.5


@pytest.mark.parametrize("norm", BALLS)
def test_random_points_fill_the_ball_evenly(norm):
    # In d dimensions a share 2^-d of a ball's volume lies within half its radius.
    x = torch.zeros(4000, 2)
    threat = Threat(norm, 1.0, bounds=(-1.0, 1.0))
    distance = threat.distance(threat.random(x, randomness.sample_seeds(4000, None)))
    assert (distance < 0.5).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_equals_its_samples_one_by_one(norm):
    x, target = torch.rand(5, 2, 3, 3), torch.rand(5, 2, 3, 3)
    threat, seeds = Threat(norm, 2.0), randomness.sample_seeds(5, None)
    for i in range(5):
        row = slice(i, i + 1)
        assert torch.equal(threat.random(x, seeds)[row], threat.random(x[row], seeds[row]))
        torch.testing.assert_close(threat.constrain(x, target)[row], threat.constrain(x[row], target[row]))
        torch.testing.assert_close(threat.steepest(target - x)[row], threat.steepest((target - x)[row]))


# Values and errors


def test_threats_are_values():
    assert linf(0.1) == Threat("linf", 0.1)
    assert hash(linf(0.1)) == hash(linf(0.1))
    assert linf(0.1) != linf(0.2)
    assert linf(0.1) != l2(0.1)
    assert linf(0.1) != 0.1
    assert linf(torch.tensor([0.1])) == linf(torch.tensor([0.1]))
    assert linf(0.1).at(0.3) == linf(0.3)
    assert str(l2()) == "l2, smallest"
    assert str(l2(0.5)) == "l2, eps 0.5"
    assert str(l2(torch.ones(2))) == "l2, eps per sample"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("l3", 0.1), "no norm 'l3'; did you mean"),
        (("linf", -0.1), "eps must be finite and not negative, got -0.1"),
        (("linf", math.nan), "eps must be finite"),
        (("linf", math.inf), "eps must be finite"),
        (("linf", torch.ones(2, 2)), r"one per sample \(N,\), got shape \(2, 2\)"),
        (("linf", 0.1, (1.0, 1.0)), r"low < high, got \(1.0, 1.0\)"),
        (("linf", 0.1, (0.0, 1.0, 2.0)), "bounds must be"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        Threat(*arguments)


def test_a_missing_or_misfitting_radius_is_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(UsageError, match="has no radius"):
        linf().project(x)
    with pytest.raises(UsageError, match="eps has 2 entries for a batch of 3"):
        linf(torch.ones(2)).project(x)
