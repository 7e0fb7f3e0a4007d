"""SuperDeepFool against the paper's algorithm written out, and beside DeepFool."""

from __future__ import annotations

import torch
from torch import nn

import nets
from oracles import super_deepfool as oracle
from steadygrad.attacks import DeepFool, SuperDeepFool
from steadygrad.attacks.losses import margin
from steadygrad.threat import Threat


def test_the_point_lies_on_the_line_to_that_of_the_paper_next_to_the_boundary():
    model, x = nets.build("mlp", classes=4, dtype=torch.float64), nets.inputs(8, dtype=torch.float64)
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
    y = model(x).argmax(1)
    result = SuperDeepFool(candidates=3)(model, x, y, Threat("l2", bounds=(-50.0, 50.0)))
    assert result.success.all()
    assert (margin(model(result.inputs), y) < 2e-3 * margin(model(x), y).abs()).all()
    for n in range(len(x)):
        start = x[n].flatten()
        seen = oracle.attack(lambda flat: model(flat.view(-1, *x.shape[1:])), start.numpy(), int(y[n]))
        nearest = min((torch.from_numpy(point) - start for point in seen), key=torch.linalg.vector_norm)
        ours = result.inputs[n].flatten() - start
        torch.testing.assert_close(ours / ours.norm(), nearest / nearest.norm(), rtol=0, atol=1e-6)
        assert ours.norm() <= nearest.norm()


def test_it_finds_nearer_points_than_deepfool(digits):
    model, x, y = digits
    ours, theirs = (attack(model, x, y, Threat("l2")) for attack in (SuperDeepFool(), DeepFool()))
    assert ours.success.all()
    assert ours.distance.mean() < 0.98 * theirs.distance.mean()
    assert (ours.distance <= 1.01 * theirs.distance).float().mean() > 0.9


def test_a_linear_model_needs_no_turn():
    model = nn.Linear(6, 3).double()
    x = torch.rand(10, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    w, z = model.weight.detach(), model(x).detach()
    gaps = (z.gather(1, y[:, None]) - z) / (w[y][:, None] - w).norm(dim=2)
    exact = torch.where(torch.arange(3) == y[:, None], torch.inf, gaps).amin(1)
    found = SuperDeepFool()(model, x, y, Threat("l2", bounds=(-10.0, 10.0)))
    torch.testing.assert_close(found.distance, exact, rtol=1e-3, atol=1e-6)
