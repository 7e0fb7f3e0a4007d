"""Sparse swaps against the fewest entries there are, and beside sigma-zero at as many passes."""

from __future__ import annotations

import itertools

import torch
from torch import nn

import nets
from steadygrad.attacks import SigmaZero, Smallest, SparseSwaps
from steadygrad.threat import Threat


def test_it_finds_the_fewest_entries_of_a_linear_model():
    torch.manual_seed(0)
    model, x = nn.Linear(30, 2).double(), torch.rand(40, 30, dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)
        slope = (model.weight[1] - model.weight[0]) * (1 - 2 * y[:, None])
        gap = (model(x)[:, 1] - model(x)[:, 0]).abs()
        worth = (slope * ((slope > 0).double() - x)).sort(1, descending=True).values.cumsum(1)
        fewest = (worth < gap[:, None]).sum(1) + 1
    found = SparseSwaps(60)(model, x, y, Threat("l0"))
    possible = worth[:, -1] > gap
    assert possible.double().mean() > 0.5
    assert torch.equal(found.success, possible)
    assert torch.equal(found.distance[possible], fewest[possible].to(found.distance))


def test_it_finds_nearly_the_fewest_entries_of_a_network():
    model, x = nets.build("mlp", classes=3, dtype=torch.float64), nets.inputs(12, dtype=torch.float64).sigmoid()
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
        y = model(x).argmax(1)
        flat = x.flatten(1)
        count = min(flat.shape[1], 9)  # only these entries may change, of which all corners can be tried
        ways = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=count)), dtype=torch.float64)
        fewest = []
        for n in range(len(x)):
            points = flat[n].repeat(len(ways), 1)
            points[:, :count] = torch.where(ways == 0, points[:, :count], ways.clamp_min(0))
            wrong = model(points.view(-1, *x.shape[1:])).argmax(1) != y[n]
            fewest.append(float((ways[wrong] != 0).sum(1).min()) if wrong.any() else float("inf"))
    least, mask = torch.tensor(fewest), torch.zeros_like(flat[0], dtype=torch.bool)
    mask[:count] = True
    found = SparseSwaps(60)(model, x, y, Threat("l0", mask=mask.view(x.shape[1:])))
    assert torch.isfinite(least).double().mean() > 0.4
    assert torch.equal(found.success, torch.isfinite(least))
    assert (found.distance <= least).double().mean() > 0.8


def test_it_changes_fewer_entries_than_sigma_zero_in_as_many_passes(digits):
    model, x, y = digits
    ours, theirs, half = (a(model, x, y, Threat("l0")) for a in (SparseSwaps(60), SigmaZero(60), SigmaZero(30)))
    assert ours.success.all()
    assert (ours.distance <= half.distance).all()
    assert ours.distance.mean() < theirs.distance.mean()
    assert torch.equal(ours.backwards, theirs.backwards)


def test_it_is_what_the_smallest_change_in_l0_comes_from(digits):
    model, x, y = digits[0], digits[1][:40], digits[2][:40]
    ours, theirs = (attack(model, x, y, Threat("l0")) for attack in (Smallest(steps=30), SparseSwaps(30)))
    assert torch.equal(ours.inputs, theirs.inputs)
