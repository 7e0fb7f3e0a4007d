"""Raw points of searches for the smallest change: there is one for every sample, found or not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steadygrad import Threat
from steadygrad.attacks import ATTACKS

NATIVE = [(row.name, norm) for row in ATTACKS if row.method.minimum_norm for norm in row.norms]


class Fixed(nn.Module):
    """Class 0 wins everywhere, by more the brighter the input."""

    def forward(self, x):
        return torch.stack([5 + x.sum(1), x.sum(1) * 0.5], 1)


@pytest.mark.parametrize(("name", "norm"), NATIVE)
def test_where_nothing_is_wrong_the_point_nearest_to_it_is_given(name, norm):
    settings = {"search_steps": 2, "steps": 20, "lr": 0.5} if name == "carlini_wagner" else {"steps": 20}
    x, y = torch.full((3, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    attack = ATTACKS[name].method(**settings)
    assert not attack(Fixed(), x, y, Threat(norm)).success.any()
    points = attack.perturb(Fixed(), x, y, Threat(norm))
    assert (points.sum(1) < x.sum(1) - 0.4).all()
    eps = 1.0 if norm == "l0" else 0.25
    near = attack.perturb(Fixed(), x, y, Threat(norm, eps))
    assert Threat(norm, eps).allows(x, near).all()
    assert (near.sum(1) < x.sum(1) - 0.05).all()


@pytest.mark.parametrize(("name", "norm"), NATIVE)
def test_where_something_is_wrong_it_is_what_the_judged_call_finds(digits, name, norm):
    model, x, y = digits
    settings = {"search_steps": 2, "steps": 20} if name == "carlini_wagner" else {"steps": 20}
    attack = ATTACKS[name].method(**settings)
    judged = attack(model, x[:20], y[:20], Threat(norm))
    raw = attack.perturb(model, x[:20], y[:20], Threat(norm))
    assert judged.success.sum() > 15
    assert torch.equal(raw[judged.success], judged.inputs[judged.success])
