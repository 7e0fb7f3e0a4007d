"""Square asks the model as often as it says, and hardly ever about a point that it has seen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import steadygrad as sg
from steadygrad.attacks.square import _flips


class _Memory(nn.Module):
    """Notes every point that it is asked about."""

    def __init__(self, entries):
        super().__init__()
        self.net, self.seen = nn.Sequential(nn.Flatten(), nn.Linear(entries, 10)), []

    def forward(self, x):
        self.seen += [row.numpy().tobytes() for row in x]
        return self.net(x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 12, 12), (2, 8, 8), (3, 8, 8), (64,), (1, 64), (20, 6, 6)])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.3), ("l1", 1.0)])
def test_few_points_are_asked_about_twice(shape, norm, eps):
    torch.manual_seed(0)
    entries = torch.Size(shape).numel()
    model, x = _Memory(entries), torch.rand(6, *shape)
    y = model.net(x).argmax(1)
    result = sg.attacks.Square(queries=150)(model, x, y, sg.Threat(norm, eps))
    assert len(model.seen) == int(result.forwards.sum())
    assert int(result.forwards.max()) <= 150 + 1 + 2
    # A square of single pixels may come back, and 64 pixels have but 64 such squares.
    assert len(set(model.seen)) > (0.8 if entries >= 64 else 0.5) * len(model.seen)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images_are_changed_by_every_query(value):
    torch.manual_seed(0)
    model, x = _Memory(144), torch.full((4, 1, 12, 12), value)
    y = model.net(x).argmax(1)
    sg.attacks.Square(queries=60)(model, x, y, sg.linf(0.01))
    assert len(set(model.seen)) > 0.35 * len(model.seen)  # the four images are alike


@pytest.mark.parametrize("channels", [1, 2, 3, 40])
def test_some_sign_is_turned_and_every_way_is_as_likely(channels):
    signs = _flips(torch.rand(7000, generator=torch.Generator().manual_seed(0)), channels).flatten(1)
    assert set(signs.unique().tolist()) == {-1.0, 1.0} or channels == 1
    assert bool((signs < 0).any(1).all())
    if channels <= 3:
        ways, counts = signs.unique(dim=0, return_counts=True)
        assert len(ways) == 2**channels - 1
        assert float((counts - 7000 / len(ways)).abs().max()) < 150
