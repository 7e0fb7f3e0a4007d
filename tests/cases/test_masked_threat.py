"""Only some pixels may change: every attack, bound and measure keeps to the mask of its threat."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import nets
import steadygrad as sg
from oracles import projections
from steadygrad import randomness
from steadygrad.attacks import ATTACKS, CarliniWagner
from steadygrad.attacks.maps.attribution_attacks import ATTRIBUTION_ATTACKS
from steadygrad.measuring.measure import settings_of
from steadygrad.measuring.measures.attacked import Attacked

SHAPE = (2, 6, 6)
EPS = {"linf": 0.3, "l2": 1.0, "l1": 4.0, "l0": 8.0}


def _mask(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) > 0.6


MASKS = {
    "(H, W)": _mask(6, 6),
    "(1, H, W)": _mask(1, 6, 6),
    "(C, 1, 1)": torch.tensor([True, False]).view(2, 1, 1),
    "(C, H, W)": _mask(*SHAPE),
    "(N, C, H, W)": _mask(5, *SHAPE),
    "(N, 1, H, W)": _mask(5, 1, 6, 6),
}


@pytest.fixture(scope="module")
def victim():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 24), nn.ReLU(), nn.Linear(24, 4)).double()
    x = torch.rand(5, *SHAPE, dtype=torch.float64)
    return net, x, net(x).argmax(1)


def _short(method):
    wanted = {"steps": 12, "queries": 40, "search_steps": 2, "targets": 2}
    names = {f.name for f in dataclasses.fields(method)} & set(wanted)
    return dataclasses.replace(method, **{name: wanted[name] for name in names})


def _unchanged(points, x, mask):
    return bool(((points == x) | mask.expand_as(x)).all())


CALLS = [(row, norm) for row in ATTACKS for norm in row.norms]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("row", "norm"), CALLS, ids=[f"{row.name}-{norm}" for row, norm in CALLS])
def test_every_attack_leaves_what_is_outside_the_mask(victim, row, norm, mask):
    net, x, y = victim
    attack, mask = _short(row.method()), MASKS[mask]
    threat = sg.Threat(norm, EPS[norm], mask=mask)
    points = attack.perturb(net, x, y, threat)
    assert _unchanged(points, x, mask)
    assert bool((points != x).any())
    assert threat.allows(x, points).all()
    result = attack(net, x, y, threat)
    assert _unchanged(result.inputs, x, mask)
    if row.name not in ("random_noise", "universal", "fgsm"):
        assert result.success.float().mean() >= 0.6


@pytest.mark.parametrize("row", [row for row in ATTACKS if row.method.minimum_norm], ids=lambda row: row.name)
def test_the_smallest_change_is_within_the_mask_too(victim, row):
    net, x, y = victim
    for mask in (MASKS["(H, W)"], MASKS["(N, C, H, W)"]):
        for norm in row.norms:
            attack = dataclasses.replace(row.method(), steps=40)
            free, held = attack(net, x, y, sg.Threat(norm)), attack(net, x, y, sg.Threat(norm, mask=mask))
            assert _unchanged(held.inputs, x, mask)
            assert held.success.all()
            # Fewer ways lead out: what is left cannot be nearer, up to what a search misses.
            assert float(held.distance.mean()) > 0.9 * float(free.distance.mean())


def test_a_mask_is_an_attack_on_the_function_of_what_may_change(victim):
    """The independent right value: the masked pixels as inputs of their own."""
    net, x, y = victim
    mask = MASKS["(C, H, W)"]
    inside = mask.flatten()

    class Part(nn.Module):
        def __init__(self, whole):
            super().__init__()
            self.net, self.whole = net, whole

        def forward(self, part):
            # Rows of other batches are found by what they are next to: one sample at a time.
            full = self.whole.repeat(len(part), 1)
            full[:, inside] = part
            return self.net(full.view(-1, *SHAPE))

    for n in range(3):
        part = Part(x[n].flatten()[None])
        for norm in ("l2", "linf"):
            alone = sg.attacks.FMN(steps=60)(part, x[n].flatten()[None, inside], y[n : n + 1], sg.Threat(norm))
            held = sg.attacks.FMN(steps=60)(net, x[n : n + 1], y[n : n + 1], sg.Threat(norm, mask=mask))
            torch.testing.assert_close(held.distance, alone.distance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("row", list(ATTRIBUTION_ATTACKS), ids=lambda row: row.name)
@pytest.mark.parametrize("mask", ["(H, W)", "(N, 1, H, W)"])
def test_attacks_on_maps_leave_what_is_outside_the_mask(row, mask):
    model = nets.build("conv", shape=SHAPE)
    x, mask = nets.inputs(5, shape=SHAPE), MASKS[mask]
    attack = _short(row.method(sg.attributions.Saliency()))
    result = attack(model, x, None, sg.linf(0.1, mask=mask))
    assert _unchanged(result.inputs, x, mask)
    assert result.moved.any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_projections_are_those_of_the_entries_that_may_change(norm):
    mask, delta = _mask(12), torch.randn(4, 12, dtype=torch.float64)
    threat = sg.Threat(norm, EPS[norm] / 2 if norm != "l0" else 2, mask=mask)
    found = threat.project(delta)
    assert not found[:, ~mask].any()
    bare = sg.Threat(norm, threat.eps).project(delta[:, mask])
    torch.testing.assert_close(found[:, mask], bare)
    x = torch.rand(4, 12, dtype=torch.float64)
    for draw in range(3):
        points = threat.random(x, randomness.sample_seeds(4, None), draw)
        assert torch.equal(points[:, ~mask], x[:, ~mask])
        assert threat.allows(x, points).all()
    assert not threat.allows(x, x + 1e-6 * (~mask)).any()
    assert not threat.steepest(delta)[:, ~mask].any()
    assert int(threat.entries(x)[0]) == int(mask.sum())


def test_random_points_fill_the_ball_of_what_may_change():
    # The share of the largest radius in d dimensions: E r^d is 1/2 for uniform points.
    x, mask = torch.full((4000, 10), 0.5, dtype=torch.float64), torch.arange(10) < 3
    threat = sg.l2(0.2, mask=mask)
    length = threat.distance(threat.random(x, randomness.sample_seeds(4000, None)) - x) / 0.2
    assert float((length**3).mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bounds_hold_on_the_mask_and_are_tighter_for_it(norm):
    model = nets.build("mlp", shape=(1, 4, 4), dtype=torch.float64)
    x, target = nets.inputs(4, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    mask, eps = _mask(4, 4), 0.01 if norm == "linf" else 0.02
    saliency = sg.attributions.Saliency()
    held, free = sg.Threat(norm, eps, mask=mask), sg.Threat(norm, eps)
    before = saliency(model, x, target)
    for method in (sg.bounds.LinearizedDeviation(saliency), sg.bounds.CertifiedDeviation(saliency)):
        inside, whole = method(model, x, target, held), method(model, x, target, free)
        assert (inside.upper < whole.upper).all()
        assert _unchanged(inside.inputs, x, mask)
        assert (inside.upper <= 1.3 * inside.lower).all()
        slack = 1.02 if inside.kind == "linearized" else 1 + 1e-9
        for draw in range(20):
            points = held.random(x, randomness.sample_seeds(4, None), draw)
            moved = (saliency(model, points, target) - before).flatten(1).norm(dim=1)
            assert (moved <= slack * inside.upper).all()


def test_a_per_sample_mask_follows_its_sample_in_bounds():
    model = nets.build("mlp", shape=(1, 4, 4), dtype=torch.float64)
    x, target, mask = nets.inputs(4, dtype=torch.float64), torch.tensor([0, 1, 2, 0]), _mask(4, 1, 4, 4)
    bound = sg.bounds.LinearizedDeviation(sg.attributions.Saliency(), chunk=2)
    whole = bound(model, x, target, sg.l2(0.02, mask=mask))
    alone = [bound(model, x[n : n + 1], target[n : n + 1], sg.l2(0.02, mask=mask[n : n + 1])) for n in range(4)]
    torch.testing.assert_close(whole.upper, torch.cat([b.upper for b in alone]), rtol=1e-2, atol=1e-9)


# What a mask is


def test_a_mask_is_a_part_of_what_a_threat_is():
    mask = _mask(6, 6)
    held, same, other = sg.linf(0.1, mask=mask), sg.linf(0.1, mask=mask.clone()), sg.linf(0.1, mask=~mask)
    assert held == same
    assert hash(held) == hash(same)
    assert len({held, other, sg.linf(0.1), sg.linf(0.1, mask=mask[None])}) == 4
    assert len({str(t) for t in (held, other, sg.linf(0.1))}) == 3
    assert held.at(0.2).mask is held.mask
    keys = [settings_of(Attacked(CarliniWagner(), sg.l2(0.1, mask=m))) for m in (None, mask, ~mask)]
    assert keys[0] != keys[1] != keys[2]


def test_the_mask_of_a_threat_is_its_own():
    mask = torch.ones(4, 4, dtype=torch.bool)
    threat = sg.linf(0.1, mask=mask)
    mask[:] = False
    assert threat.changeable(torch.zeros(1, 1, 4, 4)).all()


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(4, dtype=bool),
        np.eye(4, dtype=np.float32),
        np.eye(4, dtype=np.uint8),
        np.eye(4).tolist(),
        torch.eye(4),
        torch.eye(4, dtype=torch.int64),
        torch.eye(4, dtype=torch.bool),
    ],
    ids=lambda m: f"{type(m).__name__} {getattr(m, 'dtype', '')}",
)
def test_masks_of_any_kind_are_taken(mask):
    allowed = sg.l2(1.0, mask=mask).changeable(torch.zeros(2, 3, 4, 4))
    assert torch.equal(allowed, torch.eye(4, dtype=torch.bool).expand(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(4, 4), "lets no entry change"),
        (torch.zeros(0, 4), "lets no entry change"),
        (torch.tensor(True), "lets no entry change"),
        (torch.full((4, 4), 0.5), r"1 and 0, got torch.float32 from 0.5 to 0.5.*mask > 0.5"),
        (torch.full((4, 4), 255, dtype=torch.uint8), "1 and 0, got torch.uint8 from 255 to 255"),
        (torch.full((4, 4), torch.nan), "1 and 0"),
        ("face", "mask must be a tensor"),
        ([[1, 0], [1]], "mask must be a tensor"),
        (object(), "mask must be a tensor"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(sg.UsageError, match=message):
        sg.linf(0.1, mask=mask)


@pytest.mark.parametrize("shape", [(5, 5), (3, 6, 6), (4, 2, 6, 6), (1, 5, 2, 6, 6), (6, 1, 6, 6)])
def test_a_mask_of_another_shape_is_refused_with_both_shapes(victim, shape):
    net, x, y = victim
    threat = sg.linf(0.1, mask=torch.ones(shape))
    message = rf"the mask has shape \({shape[0]}, .*inputs of shape \(5, 2, 6, 6\).*\(2, 6, 6\)"
    for call in (
        lambda: sg.attacks.PGD(steps=2)(net, x, y, threat),
        lambda: threat.project(x),
        lambda: sg.bounds.LinearizedDeviation(sg.attributions.Saliency())(net, x, y, threat),
    ):
        with pytest.raises(sg.UsageError, match=message):
            call()


def test_a_sample_that_may_not_change_stays_as_it_is(victim):
    net, x, y = victim
    mask = torch.ones(5, 1, 6, 6)
    mask[2] = 0
    for attack in (sg.attacks.PGD(steps=10), sg.attacks.FMN(steps=20), sg.attacks.Square(queries=20)):
        for threat in (sg.linf(0.5, mask=mask), sg.linf(mask=mask)):
            result = attack(net, x, y, threat)
            assert result.success.tolist() == [True, True, False, True, True]
            assert torch.equal(result.inputs[2], x[2])


def test_the_simplex_projection_of_l1_is_the_oracle_s():
    mask, delta = _mask(9), torch.randn(3, 9, dtype=torch.float64)
    found = sg.l1(0.7, mask=mask).project(delta)[:, mask]
    expected = [torch.from_numpy(projections.l1(row.numpy(), 0.7)) for row in delta[:, mask]]
    torch.testing.assert_close(found, torch.stack(expected))
