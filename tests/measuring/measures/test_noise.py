"""Noise insensitivity and the boundary in random directions, against loops and a network whose boundary is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from steadygrad import randomness
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.noise import (
    BoundaryDistance,
    NoiseInsensitivity,
    boundary_distance,
    directions,
    noise_insensitivity,
)
from steadygrad.measuring.runner import Runner
from steadygrad.threat import linf


def test_noise_insensitivity_is_that_of_loops_for_the_true_label_of_each_sample() -> None:
    model, x, y = nets.build("conv"), nets.inputs(4), torch.tensor([0, 2, 1, 1])
    x[0] = 0.0  # half of the noise is cut off at the bound
    seeds = randomness.sample_seeds(4, randomness.fresh(3))
    found = noise_insensitivity(model, x, y, 0.2, draws=3, generator=randomness.fresh(3))
    for n in range(4):
        total = 0.0
        for draw in range(3):
            point = linf(0.2).random(x[n : n + 1], seeds[n : n + 1], draw)
            losses = [-float(model(p).detach().double().log_softmax(1)[0, int(y[n])]) for p in (x[n : n + 1], point)]
            total += abs(losses[0] - losses[1]) / float((x[n] - point[0]).abs().max())
        assert float(found[n]) == pytest.approx(total / 3, rel=1e-3)
    assert not torch.allclose(found, noise_insensitivity(model, x, (y + 1) % 3, 0.2, draws=3))
    index = torch.arange(4)
    gates.assert_batch_invariant(
        lambda p, t, i: noise_insensitivity(model, p, t, 0.2, draws=2, generator=gates.generator_at(i)), x, y, index
    )
    model = nn.Sequential(nn.Dropout(0.5), model)
    gates.assert_leaves_no_trace(model, lambda: noise_insensitivity(model, x, y, 0.2), inputs=[x, y], failing_at=(0, 3))


def test_the_noise_stays_within_the_bounds_of_the_model() -> None:
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return torch.stack([x.sum(1), -x.sum(1)], 1)

    model = Classifier(Watching(), bounds=(-1.0, 1.0))
    noise_insensitivity(model, torch.full((5, 3), -1.0), torch.zeros(5, dtype=torch.long), 0.5)
    assert float(torch.cat(seen).min()) == -1.0
    assert 0.4 < float(torch.cat(seen).max()) + 1 <= 0.5


def test_directions_are_orthogonal_and_random() -> None:
    x = nets.inputs(2, shape=(2, 3, 3), dtype=torch.float64)
    basis = directions(18, x, seed=1).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(18, dtype=torch.float64))
    assert directions(5, x, seed=1).shape == (5, 2, 3, 3)
    assert not torch.equal(directions(18, x, seed=1), directions(18, x, seed=2))
    # Without a sign of its own an entry would lean to one side.
    first = torch.stack([directions(3, x, seed=s).flatten() for s in range(400)])
    assert float(first.mean(0).abs().max()) < 5 * math.sqrt(1 / 18 / 400)


def test_the_distance_is_exact_for_a_linear_boundary() -> None:
    model = nn.Linear(8, 4).double()
    x = torch.rand(6, 8, dtype=torch.float64)
    x[5] = x[5] * 0 + 0.5
    basis = directions(7, x, seed=2)
    found = boundary_distance(model, x, count=7, limit=40.0, steps=300, seed=2, chunk=50)
    for n in range(6):
        logits = model(x[n]).detach()
        own = int(logits.argmax())
        lengths = []
        for v in basis:
            for k in range(4):
                slope = float((model.weight[k] - model.weight[own]).detach() @ v)
                if k != own and slope > 0:
                    lengths.append(float(logits[own] - logits[k]) / slope)
        nearest = min(lengths)
        assert float(found[n]) == (pytest.approx(nearest, rel=1e-4, abs=1e-4) if nearest <= 40 else math.inf)
    gates.assert_batch_invariant(lambda p: boundary_distance(model, p, count=7, limit=40.0, steps=30, chunk=9), x)
    assert torch.isinf(boundary_distance(model, x, count=7, limit=1e-6, steps=2)).all()
    net = nn.Sequential(nn.Dropout(0.5), nets.build("mlp"))
    points = nets.inputs(2)
    gates.assert_leaves_no_trace(
        net, lambda: boundary_distance(net, points, count=3, limit=5.0, steps=4), inputs=[points], failing_at=(0, 1)
    )


def test_bad_input_is_refused() -> None:
    model, x, y = nets.build("mlp"), nets.inputs(3), torch.tensor([0, 2, 1])
    with pytest.raises(UsageError, match="at most 16 orthogonal directions"):
        boundary_distance(model, x, count=17)
    assert boundary_distance(model, x, limit=20.0, steps=20).equal(
        boundary_distance(model, x, count=16, limit=20.0, steps=20)
    )
    with pytest.raises(UsageError, match="limit positive"):
        boundary_distance(model, x, count=3, limit=0.0)
    with pytest.raises(UsageError, match="draws must be at least 1 and eps positive"):
        noise_insensitivity(model, x, y, 0.1, draws=0)


def test_the_measures_are_the_functions() -> None:
    x, y, model = nets.inputs(4), torch.tensor([0, 2, 1, 1]), nets.build("conv")
    data = Dataset(x, y, ("a", "b", "c"), ("s0", "s1", "s2", "s3"))
    runner = Runner({"m": model}, data, batch_size=3)
    measure = NoiseInsensitivity(0.2, draws=3)
    expected = noise_insensitivity(model, x, y, 0.2, draws=3, generator=runner.seeds(measure.draws_as, data.ids))
    torch.testing.assert_close(torch.from_numpy(runner.run(measure, "m")["insensitivity"]), expected, rtol=1e-3, atol=0)
    far = runner.run(BoundaryDistance(count=4, limit=20.0, steps=20), "m")["distance"]
    direct = boundary_distance(model, x, count=4, limit=20.0, steps=20)
    torch.testing.assert_close(torch.from_numpy(far), direct, rtol=1e-3, atol=0)
