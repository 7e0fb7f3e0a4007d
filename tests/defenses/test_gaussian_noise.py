"""Training under noise: the loss of shifted inputs, drawn anew for every batch, and what is certified afterwards."""

from __future__ import annotations

import torch
from torch import nn

import nets
import steadygrad as sg
from oracles import defenses as oracle
from steadygrad.defenses import GaussianNoise, State


def test_it_is_the_cross_entropy_at_unclipped_noise() -> None:
    net, x, y = nets.build(dtype=torch.float64), nets.inputs(4, dtype=torch.float64), torch.tensor([0, 2, 1, 0])
    seen: list[torch.Tensor] = []

    class Watching(nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            seen.append(points.detach().clone())
            return net(points)

    losses = [GaussianNoise(0.5).loss(Watching(), x, y, State(seed=seed)).total.detach() for seed in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]
    points = next(p for p in seen if not torch.equal(p, x))
    assert abs(float(losses[0]) - oracle.cross_entropy(net, points, y)) < 1e-12
    assert bool((points < 0).any())
    assert 0.4 < float((points - x).std()) < 0.6


def test_a_network_that_knows_the_noise_is_certified_further() -> None:
    train, test = sg.data.load("digits", "train"), sg.data.load("digits", "test").draw(60)
    start = sg.models.build("mlp", train.shape, train.classes, hidden=(64,))
    smoothing, shares = sg.RandomizedSmoothing(0.5, n=500), []
    for defense in (sg.defenses.Plain(), GaussianNoise(0.5)):
        model = sg.fit(start, defense, train, settings=sg.FitSettings(epochs=20)).classifier
        shares.append(float(smoothing.certify(model, test.images).holds(test.labels, 0.5).double().mean()))
    assert shares[1] > shares[0] + 0.1
