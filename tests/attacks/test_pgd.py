"""PGD against the formula from the same starts, its restarts, and l1 against APGD."""

from __future__ import annotations

import copy

import pytest
import torch

from oracles import apgd_l1
from oracles import sign_attacks as oracle
from steadygrad import randomness
from steadygrad.attacks import PGD
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

EPS = {"linf": 0.06, "l2": 0.2}


@pytest.fixture
def setup(lively):
    model, x, y = lively()
    with torch.no_grad():
        target = model(x).argsort(1, descending=True)[:, 1]
    return model, x, y, target


def _lengths(steps: int, first: float) -> list[float]:
    return [first * (1 - i / steps) for i in range(steps)]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("steps", "step", "first"), [(5, None, 5 / 6), (30, None, 0.25), (4, 0.4, 0.4)])
def test_points_equal_the_formula_from_the_same_start(setup, norm, targeted, steps, step, first):
    model, x, y, target = setup
    threat, aim = Threat(norm, EPS[norm]), target if targeted else None
    starts = threat.random(x, randomness.sample_seeds(len(x), None))
    found = PGD(steps=steps, step=step, loss="margin").perturb(model, x, y, threat, target=aim)
    for i, row in enumerate(x.numpy()):
        goal = int(target[i]) if targeted else None
        points = oracle.climb(model, row, int(y[i]), starts[i].numpy(), EPS[norm], norm, _lengths(steps, first), goal)
        torch.testing.assert_close(found[i], torch.from_numpy(points[-1]))


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 0.5)])
def test_the_worst_over_restarts_is_the_worst_over_separate_runs(digits, norm, eps):
    net, x, y = digits
    model, x = copy.deepcopy(net).double(), x.double()
    threat, seeds, lengths = Threat(norm, eps), randomness.sample_seeds(len(x), None), _lengths(2, 0.3)
    separate = []
    for draw in range(4):
        starts = threat.random(x, seeds, draw).numpy()
        rows = zip(x.numpy(), y.tolist(), starts)
        visited = [
            (oracle.climb(model, row, label, start, eps, norm, lengths, None), label) for row, label, start in rows
        ]
        clean = model(x).argmax(1) != y
        separate.append([bool(c) or oracle.wrong(model, p, label, None) for (p, label), c in zip(visited, clean)])
    for restarts in (1, 2, 4):
        expected = [any(column) for column in zip(*separate[:restarts])]
        found = PGD(steps=2, step=0.3, restarts=restarts, loss="margin")(model, x, y, threat)
        assert found.success.tolist() == expected
    assert 0 < sum(separate[0]) < sum(map(any, zip(*separate))) < len(x)
    # The last is not the worst, so a loop that kept the last run would differ.
    assert separate[3] != [any(column) for column in zip(*separate)]


def test_restarts_never_lose_a_sample_and_gain_some(digits):
    model, x, y = digits
    threat = Threat("linf", 0.08)
    few, many = (PGD(steps=2, step=0.3, restarts=r)(model, x, y, threat).success for r in (1, 6))
    assert (many | ~few).all()
    assert many.sum() > few.sum()


def test_more_steps_are_stronger(digits):
    model, x, y = digits
    left = [int((~PGD(steps=s)(model, x, y, Threat("linf", 0.08)).success).sum()) for s in (1, 40)]
    assert left[1] < left[0]


# Eps from a third to two thirds of accuracy: l1 steps along the plain gradient leave 16 points more here.
@pytest.mark.slow
@pytest.mark.parametrize("eps", [1.3, 1.8])
def test_l1_comes_within_two_points_of_apgd(digits, eps):
    model, x, y = digits
    left = 1 - PGD()(model, x, y, Threat("l1", eps)).success.float().mean().item()
    yardstick = 1 - apgd_l1.fooled(model, x, y, eps, steps=100).float().mean().item()
    assert 0.2 < yardstick < 0.7
    assert left <= yardstick + 0.02


def test_the_yardstick_projects_onto_ball_and_box():
    x, point = torch.rand(5, 12), 3 * torch.randn(5, 12)
    torch.testing.assert_close(apgd_l1.project(x, point, 1.3), Threat("l1", 1.3).constrain(x, point))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"step": 0.0}, "step must be positive"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        PGD(**settings)
