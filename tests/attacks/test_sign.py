"""FGSM, BIM and random noise against the formulas, sample by sample."""

from __future__ import annotations

import pytest
import torch

from oracles import sign_attacks as oracle
from steadygrad import randomness
from steadygrad.attacks import BIM, FGSM, RandomNoise
from steadygrad.errors import UsageError
from steadygrad.threat import Threat

EPS = {"linf": 0.04, "l2": 0.13}


@pytest.fixture
def setup(lively):
    model, x, y = lively()
    with torch.no_grad():
        target = model(x).argsort(1, descending=True)[:, 1]
    return model, x, y, target


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("attack", "lengths"),
    [
        (FGSM(loss="margin"), [1.0]),
        (BIM(steps=4, loss="margin"), [0.25] * 4),
        (BIM(steps=3, step=0.5, loss="margin"), [0.5] * 3),
    ],
)
def test_points_equal_the_formula(setup, attack, lengths, norm, targeted):
    model, x, y, target = setup
    aim = target if targeted else None
    found = attack.perturb(model, x, y, Threat(norm, EPS[norm]), target=aim)
    result = attack(model, x, y, Threat(norm, EPS[norm]), target=aim)
    fooled: list[bool] = []
    for i, row in enumerate(x.numpy()):
        goal = int(target[i]) if targeted else None
        points = oracle.climb(model, row, int(y[i]), row, EPS[norm], norm, lengths, goal)
        torch.testing.assert_close(found[i], torch.from_numpy(points[-1]))
        fooled.append(oracle.wrong(model, points, int(y[i]), goal))
    assert result.success.tolist() == fooled


def test_some_of_these_samples_fall_and_some_resist(setup):
    model, x, y, _ = setup
    success = BIM()(model, x, y, Threat("linf", EPS["linf"])).success
    assert 0 < success.sum() < len(x)


def test_bim_with_one_step_is_fgsm(setup):
    model, x, y, _ = setup
    threat = Threat("l2", 0.3)
    assert torch.equal(BIM(steps=1).perturb(model, x, y, threat), FGSM().perturb(model, x, y, threat))


def test_random_noise_succeeds_where_any_of_its_draws_does(setup):
    model, x, y, _ = setup
    seeds, threat = randomness.sample_seeds(len(x), None), Threat("linf", 0.1)
    with torch.no_grad():
        hits = torch.stack([model(threat.random(x, seeds, draw)).argmax(1) != y for draw in range(6)]).any(0)
    assert torch.equal(RandomNoise(draws=6)(model, x, y, threat).success, hits)
    assert 0 < hits.sum() < len(x)


def test_an_l1_step_does_not_push_entries_out_of_their_bounds():
    # The entry with the largest gradient already lies at its bound: the next one moves.
    model = torch.nn.Linear(40, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(40), torch.arange(40.0)]))
    x, y = torch.full((1, 40), 0.5), torch.tensor([0])
    x[0, 38:] = 1.0
    moved = (FGSM().perturb(model, x, y, Threat("l1", 0.4)) - x)[0]
    assert moved.nonzero().flatten().tolist() == [36, 37]
    assert moved.sum().item() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BIM(steps=0), "steps must be at least 1, got 0"),
        (lambda: BIM(step=-0.1), "step must be positive"),
        (lambda: RandomNoise(draws=0), "draws must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
