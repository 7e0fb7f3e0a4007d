"""FAB-T: its projections against a solver, its distances against the algorithm written out."""

from __future__ import annotations

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy import optimize
from torch import nn

import gates
import nets
from oracles import fab as oracle
from steadygrad.attacks import FAB
from steadygrad.attacks.fab import onto_hyperplane
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def _solve(x: np.ndarray, w: np.ndarray, gain: float, norm: str) -> float:
    """The size of the smallest change with w d = gain and x + d in [0, 1], by a solver; inf if there is none."""
    count = len(x)
    if norm == "l2":
        # A general solver needs a start that it can repair: that of l1.
        start = _split(x, w, gain, count)
        if start is None:
            return math.inf
        found = optimize.minimize(
            lambda d: d @ d,
            start,
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x)),
            constraints=[{"type": "eq", "fun": lambda d: w @ d - gain, "jac": lambda d: w}],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return float(np.sqrt(found.fun))
    if norm == "l1":
        start = _split(x, w, gain, count)
        return math.inf if start is None else float(np.abs(start).sum())
    # Variables d and t: smallest t with |d| <= t.
    eye, one = np.eye(count), np.ones((count, 1))
    found = optimize.linprog(
        np.r_[np.zeros(count), 1],
        A_ub=np.block([[eye, -one], [-eye, -one]]),
        b_ub=np.zeros(2 * count),
        A_eq=np.r_[w, 0][None],
        b_eq=[gain],
        bounds=[*zip(-x, 1 - x), (0, None)],
    )
    return float(found.fun) if found.success else math.inf


def _split(x, w, gain, count):
    found = optimize.linprog(
        np.ones(2 * count),
        A_eq=np.r_[w, -w][None],
        b_eq=[gain],
        bounds=[*((0, 1 - v) for v in x), *((0, v) for v in x)],
    )
    return found.x[:count] - found.x[count:] if found.success else None


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@hypothesis.given(seed=st.integers(0, 10_000), share=st.floats(-1.2, 1.2), count=st.integers(1, 8))
@hypothesis.settings(max_examples=30)
def test_projections_are_those_of_a_solver(norm, seed, share, count):
    rng = np.random.default_rng(seed)
    x, w = rng.random(count), rng.normal(size=count) * rng.integers(0, 4, count)
    x[rng.random(count) < 0.3] = rng.integers(0, 2)
    most = float(np.where(w * np.sign(share or 1) > 0, np.abs(w) * (1 - x), np.abs(w) * x).sum())
    gain = share * most
    xs, ws = torch.from_numpy(x)[None], torch.from_numpy(w)[None]
    d = onto_hyperplane(Threat(norm), xs, ws, torch.tensor([gain], dtype=torch.float64))[0].numpy()
    assert ((x + d > -1e-9) & (x + d < 1 + 1e-9)).all()
    reached = float(w @ d)
    if abs(share) > 1:
        assert reached == pytest.approx(math.copysign(most, gain), abs=1e-9)
    else:
        assert reached == pytest.approx(gain, abs=1e-9)
        assert np.linalg.norm(d, ORDER[norm]) == pytest.approx(_solve(x, w, gain, norm), abs=2e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_projections_of_a_batch_are_those_of_the_yardstick_whatever_the_scale(norm):
    torch.manual_seed(1)
    x, w = torch.rand(30, 40, dtype=torch.float64), torch.randn(30, 40, dtype=torch.float64) ** 3
    x[:, ::5] = 0
    for scale in (1e-20, 1.0, 1e20):
        gain = scale * torch.linspace(-2, 2, 30, dtype=torch.float64)
        ours = onto_hyperplane(Threat(norm), x, scale * w, gain)
        theirs = oracle.project(x, w, -gain / scale - (w * x).sum(1), norm) - x
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_no_slope_and_no_gain_are_no_change():
    x = torch.rand(2, 5)
    for norm in ("linf", "l2", "l1"):
        assert torch.equal(onto_hyperplane(Threat(norm), x, torch.zeros(2, 5), torch.ones(2)), torch.zeros(2, 5))
        assert torch.equal(onto_hyperplane(Threat(norm), x, torch.ones(2, 5), torch.zeros(2)), torch.zeros(2, 5))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_distances_are_those_of_the_algorithm_for_a_part_of_its_passes(digits, norm):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    targets, steps = (3, 25) if norm == "l1" else (9, 40)
    with gates.counted(model) as spent:
        theirs = oracle.distances(model, x, y, norm, targets=targets, steps=steps)
    result = FAB(steps=steps, targets=targets)(model, x, y, Threat(norm))
    assert result.success.all()
    assert result.distance.median() <= 1.01 * theirs.median()
    assert (result.distance > 1.02 * theirs).float().mean() < 0.08
    assert int(result.forwards.sum() + result.backwards.sum()) < (0.6 if norm == "l1" else 0.3) * (
        spent["samples"] + spent["samples_back"]
    )


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_affine_models_are_solved_exactly(norm):
    torch.manual_seed(0)
    net = nn.Linear(10, 2).double()
    x = 0.4 + 0.2 * torch.rand(6, 10, dtype=torch.float64)
    with torch.no_grad():
        net.bias += net.weight.new_tensor([0.1, 0.0]) * 0.1
        z = net(x)
        y = z.argmax(1)
        gap = z.gather(1, y[:, None]) - z.gather(1, 1 - y[:, None])
        w = (net.weight[0] - net.weight[1]).abs()
        dual = {"linf": w.sum(), "l2": w.norm(), "l1": w.max()}[norm]
    result = FAB(steps=3)(net, x, y, Threat(norm))
    assert result.success.all()
    # Within what float arithmetic leaves of the boundary after the final search, or the overshoot of one step.
    exact = gap.squeeze(1) / dual
    if bool((exact < 0.3).all()):
        assert (result.distance >= exact * (1 - 1e-9)).all()
        assert (result.distance <= exact * 1.06).all()


def test_within_a_radius_samples_leave_and_only_they_count(digits):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    near = FAB(steps=20, targets=3)(model, x, y, Threat("linf", 0.08))
    full = FAB(steps=20, targets=3)(model, x, y, Threat("linf"))
    assert 0 < near.success.sum() < len(x)
    assert (near.distance[near.success] <= 0.08 + 1e-5).all()
    assert not near.success[full.distance > 0.081].any()
    assert (full.distance[~near.success] > 0.079).all()
    assert near.forwards[near.success].float().mean() < 0.5 * full.forwards.float().mean()


def test_giving_up_saves_passes_and_loses_nothing(digits):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    threat = Threat("linf", 0.08)
    full, short = (FAB(steps=60, targets=4, optimism=o)(model, x, y, threat) for o in (None, 2.0))
    assert abs(int(full.success.sum()) - int(short.success.sum())) <= 1
    assert short.forwards.sum() < 0.6 * full.forwards.sum()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_classes_that_lead_no_nearer_are_given_up_and_no_distance_changes(digits, norm):
    model, x, y = digits[0], digits[1][:30], digits[2][:30]
    full, short = (FAB(steps=40, optimism=o)(model, x, y, Threat(norm)) for o in (None, 2.0))
    assert (short.distance <= 1.001 * full.distance).float().mean() > 0.95
    assert short.forwards.sum() < 0.5 * full.forwards.sum()


def test_every_step_costs_one_forward_and_one_backward():
    model, x = nets.build("mlp", classes=5), nets.inputs(4)
    y = model(x).argmax(1)
    result = FAB(steps=6, targets=2, restarts=2)(model, x, y, Threat("linf"))
    assert result.backwards.tolist() == [24] * 4
    # The clean look, the last point of each run, the final search and the judge.
    assert (result.forwards <= 1 + 24 + 4 + 4 + 2).all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_few_classes_and_tabular_inputs(classes, norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, classes))
    x = torch.rand(8, 20)
    result = FAB(steps=20)(net, x, net(x).argmax(1), Threat(norm))
    assert result.success.float().mean() > 0.8


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_target_is_the_only_class_that_counts(digits, norm):
    model, x, y = digits[0], digits[1][:20], digits[2][:20]
    target = (y + 3) % 10
    result = FAB(steps=30)(model, x, y, Threat(norm), target=target)
    assert result.success.float().mean() > 0.7
    assert (model(result.inputs).argmax(1) == target)[result.success].all()
    free = FAB(steps=30)(model, x, y, Threat(norm))
    assert result.distance.median() > free.distance.median()


def test_half_precision_finds_as_much_and_radii_belong_to_samples(digits):
    import copy

    model, x, y = digits[0], digits[1][:40], digits[2][:40]
    half = copy.deepcopy(model).bfloat16()
    wide = FAB(steps=15, targets=3)(model, x, y, Threat("l2"))
    low = FAB(steps=15, targets=3)(half, x.bfloat16(), y, Threat("l2"))
    assert low.inputs.dtype == torch.bfloat16
    assert low.success.float().mean() > 0.9
    assert not low.zero_gradient.any()
    eps = wide.distance * torch.where(torch.arange(40) % 2 == 0, 1.05, 0.5)
    mixed = FAB(steps=15, targets=3)(model, x, y, Threat("l2", eps))
    assert mixed.success[::2].float().mean() > 0.9
    assert mixed.success[1::2].float().mean() < 0.15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"eta": 0.9}, "eta must be at least 1"),
        ({"beta": 1.0}, r"beta must be within \(0, 1\)"),
        ({"optimism": 0.0}, "optimism must be positive"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        FAB(**settings)
