"""Few large samples at once, whatever the batch size: the layers of a network hold many times the inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from steadygrad.attacks import PGD
from steadygrad.attributions import BlurSaliency, IntegratedGradients, SmoothGrad
from steadygrad.derivatives import at_once, gradient, in_chunks
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.store import Store

SHAPE = (3, 224, 224)


class Seen(nn.Module):
    """Means of the channels to logits; notes how many samples it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.most = nn.Linear(3, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x))
        found: Tensor = self.last(x.flatten(2).mean(2).sin())
        return found


@pytest.fixture
def images() -> Tensor:
    return torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "method", [IntegratedGradients(steps=3), SmoothGrad(samples=3), BlurSaliency(grid=2)], ids=repr
)
def test_maps_take_few_large_images_at_once_and_stay_the_same(method: Any, images: Tensor) -> None:
    model, target = Seen(), torch.arange(20) % 4
    found = method(model, images, target)
    assert model.most <= 13
    one = torch.cat([method(model, images[i : i + 1], target[i : i + 1]) for i in (0, 19)])
    torch.testing.assert_close(found[[0, 19]], one, rtol=1e-4, atol=1e-9)


def test_attacks_take_few_large_images_at_once(images: Tensor) -> None:
    model = Seen()
    data = sg.data.from_arrays(images, torch.arange(20) % 4, 4)
    Runner({"m": model}, data, shard=20).run(Attacked(PGD(steps=1), sg.linf(0.1)), "m")
    assert 13 <= model.most <= 14  # a verdict puts one more beside them


def test_pieces_of_large_images_are_small(images: Tensor, tmp_path: Path) -> None:
    data = sg.data.from_arrays(images, torch.arange(20) % 4, 4)
    tables = []
    for shard, pieces in ((None, 7), (20, 1)):
        runner = Runner({"m": Seen()}, data, Store(tmp_path / str(shard)), shard=shard)
        tables.append(runner.run(Attacked(PGD(steps=1), sg.linf(0.1)), "m"))
        assert len(list((tmp_path / str(shard)).rglob("*.parquet"))) == pieces
    assert (tables[0]["success"] == tables[1]["success"]).all()
    assert tables[0]["distance"].tolist() == pytest.approx(tables[1]["distance"].tolist())


def test_more_at_once_where_they_are_small_and_never_fewer_than_one() -> None:
    assert at_once(200, (3, 32, 32)) == 200
    assert at_once(1, SHAPE) == 1
    assert at_once(200, (3, 4000, 4000)) == 1
    assert at_once(200, ()) == 200
    assert at_once(200, SHAPE, torch.device("cuda")) == 55


def test_chunks_are_as_many_as_were_asked_for_where_they_fit() -> None:
    seen = []

    def function(x: Tensor) -> Tensor:
        seen.append(len(x))
        return gradient(lambda z: z.square().flatten(1).sum(1), x)[1]

    x = torch.rand(7, 3)
    assert torch.equal(in_chunks(function, 3, x), 2 * x)
    assert seen == [3, 3, 1]
