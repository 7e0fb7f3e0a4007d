"""Few large samples at once, whatever the batch size: the layers of a network hold many times the inputs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from steadygrad import memory
from steadygrad.attacks import FGSM, PGD
from steadygrad.attributions import BlurSaliency, IntegratedGradients, SmoothGrad
from steadygrad.derivatives import gradient, hvp, in_chunks
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.noise import boundary_distance
from steadygrad.measuring.measures.pictured import EveryTarget
from steadygrad.measuring.runner import Runner
from steadygrad.memory import at_once, room_for

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
    assert model.most <= 10
    one = torch.cat([method(model, images[i : i + 1], target[i : i + 1]) for i in (0, 19)])
    torch.testing.assert_close(found[[0, 19]], one, rtol=1e-4, atol=1e-9)


def test_attacks_take_few_large_images_at_once(images: Tensor) -> None:
    model = Seen()
    data, one = sg.data.from_arrays(images, torch.arange(20) % 4, 4), memory.need(model, images[:2])
    assert one
    Runner({"m": model}, data, memory=10.5 * one, shard=20).run(Attacked(PGD(steps=1), sg.linf(0.1)), "m")
    assert 10 <= model.most <= 11  # a verdict puts one more beside them


def test_what_asks_for_many_points_of_a_sample_takes_few_at_once() -> None:
    model, x = Seen(), torch.rand(2, 3, 8, 8)
    data = sg.data.from_arrays(x, torch.tensor([0, 1]), 4)
    runner = Runner({"m": model}, data)
    whole = runner.run(EveryTarget(FGSM(), sg.linf(0.1), 4), "m")
    assert model.most >= 8
    model.most = 0
    with room_for(3):
        distance = boundary_distance(model, x, count=20, steps=2)
    assert 2 <= model.most <= 3
    torch.testing.assert_close(distance, boundary_distance(model, x, count=20, steps=2))
    model.most, tight = 0, Runner({"m": model}, data, memory=1)
    few = tight.run(EveryTarget(FGSM(), sg.linf(0.1), 4), "m")
    assert model.most <= 2
    assert all((few[name] == whole[name]).all() for name in ("success", "changed"))


@pytest.mark.parametrize("kind", ["conv", "residual", "attention"])
def test_a_pass_holds_at_most_what_the_probe_says(kind: str) -> None:
    shape = (3, 8, 8) if kind == "attention" else (3, 32, 32)
    model, x = nets.build(kind, shape=shape, activation=nn.GELU), nets.inputs(8, shape=shape)
    one = memory.graph_of(model, x[:2]) / 2
    need, twice = (memory.need(model, x[:2], order=order) for order in (1, 2))
    first = gates.peak(lambda: gradient(lambda p: model(p)[:, 0], x))
    second = gates.peak(lambda: hvp(lambda p: model(p)[:, 0], x, x))
    assert need
    assert twice
    assert one / 2 < first / 8 <= need
    assert one < second / 8 <= twice


def test_a_budget_sets_how_many_are_taken_and_no_record() -> None:
    model = nets.build("conv", activation=nn.ReLU)
    x = nets.inputs(12)
    sizes: list[int] = []
    model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    data = sg.data.from_arrays(x, torch.arange(12) % 3, 3)
    tables = []
    one = memory.need(model, x[:2])
    assert one
    for budget, most in ((None, 13), (5.5 * one, 6), (1, 2)):  # a verdict puts one more beside them
        sizes.clear()
        tables.append(Runner({"m": model}, data, memory=budget).run(Attacked(PGD(steps=3), sg.linf(0.1)), "m"))
        assert most - 1 <= max(sizes) <= most
    for other in tables[1:]:
        pd.testing.assert_frame_equal(other.frame, tables[0].frame, rtol=1e-4)


def test_a_model_without_a_graph_is_given_as_many_as_its_inputs_allow() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)[:, :3]

    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("not for these")

    x = torch.rand(2, 4)
    assert memory.fitting(Blind(), x, 1e9) is None
    assert memory.fitting(Failing(), x, 1e9) is None


@pytest.mark.parametrize("said", ["", "2 TB", "GB", "-1GB", "1e3", "nan"])
def test_no_size_of_memory(said: str) -> None:
    with pytest.raises(UsageError, match="memory must be a number of bytes such as 2GB"):
        memory.size_of(said)


def test_the_default_budget_is_a_share_of_the_machine() -> None:
    device = torch.device("cpu")
    assert memory.budget(device, 5.0) == 5
    assert 0 < memory.budget(device) <= min(1.25 * 2**30, memory.installed(device) / 4)


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
