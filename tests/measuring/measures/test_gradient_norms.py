"""Norms of input gradients, against autograd one sample at a time."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from measuring.measures.test_map_stability import COUNT, _data, _model
from steadygrad.measuring.measures.gradient_norms import GradientNorms
from steadygrad.measuring.runner import Runner


@pytest.mark.parametrize("batch_size", [200, 5, 1])
def test_gradient_norms_equal_autograd_one_sample_at_a_time(batch_size: int) -> None:
    model, data = _model(), _data()
    table = Runner({"m": model}, data, batch_size=batch_size).run(GradientNorms(), "m")
    for shift, got in ((0, table["norm"]), (1, table["next_norm"])):
        want = []
        for i in range(COUNT):
            x, y = data.batch([i])
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(model(leaf), (y + shift) % 3), leaf)
            want.append(float(slope.square().sum().sqrt()))
        assert got.tolist() == pytest.approx(want, rel=1e-4)
    assert abs(table["norm"] - table["next_norm"]).max() > 1e-6


def test_the_model_is_left_as_it_was() -> None:
    model = _model().train()
    Runner({"m": model}, _data()).run(GradientNorms(), "m")
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
