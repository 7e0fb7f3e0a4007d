"""Sigma-zero against the paper's algorithm written out, and beside FMN at as many passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nets
from oracles import sigma_zero as oracle
from steadygrad.attacks import FMN, SigmaZero
from steadygrad.threat import Threat


def _net() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model, x = nets.build("mlp", classes=4, dtype=torch.float64), nets.inputs(6, dtype=torch.float64).sigmoid()
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("target", [None, "second-best"])
def test_it_is_the_algorithm_of_the_paper(target):
    model, x, y = _net()
    result = SigmaZero(steps=40)(model, x, y, Threat("l0"), target=target)
    aims = model(x).argsort(1)[:, -2]
    for n in range(len(x)):
        aim = int(aims[n]) if target else None
        best, found = oracle.attack(
            lambda flat: model(flat.view(-1, *x.shape[1:])), x[n].flatten().numpy(), int(y[n]), aim, steps=40
        )
        assert float(result.distance[n]) == best
        if best < float("inf"):
            torch.testing.assert_close(result.inputs[n].flatten(), torch.from_numpy(found))
    assert result.success.float().mean() > 0.6


def test_it_changes_fewer_entries_than_fmn_in_as_many_passes(digits):
    model, x, y = digits
    ours, theirs = (attack(model, x, y, Threat("l0")) for attack in (SigmaZero(), FMN()))
    assert ours.success.all()
    assert ours.distance.mean() <= theirs.distance.mean()
    assert torch.equal(ours.backwards, theirs.backwards)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_logits_and_the_units_of_the_inputs_do_not_matter(digits, scale):
    model, x, y = digits[0], digits[1][:60], digits[2][:60]

    class Scaled(nn.Module):
        def forward(self, z):
            return scale * model(z / 255)

    ours = SigmaZero(steps=40)(model, x, y, Threat("l0")).distance
    theirs = SigmaZero(steps=40)(Scaled(), 255 * x, y, Threat("l0", bounds=(0.0, 255.0))).distance
    assert (theirs == ours).float().mean() > 0.9
