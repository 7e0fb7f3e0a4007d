"""Ways to run a model in a search: a narrower type, or compiled; what it finds is judged as usual."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from steadygrad.attacks import PGD
from steadygrad.attacks.expectation import Expectation
from steadygrad.quick import USUAL, Way, taking, way_of


class _Watched(nn.Module):
    """A linear model that notes in which type it is run, and that is wrong in the narrow one beside the inputs."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.inner, self.narrow, self.clean = nn.Linear(4, 2), [0, 0], x

    def forward(self, x: Tensor) -> Tensor:
        narrow = torch.is_autocast_enabled("cpu")
        self.narrow[narrow] += 1
        logits = self.inner(x)
        moved = not any(torch.equal(row, one) for row in x[:1] for one in self.clean)
        return -logits if narrow and moved else logits


@pytest.fixture
def watched() -> tuple[_Watched, Tensor, Tensor]:
    x = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    model = _Watched(x)
    with torch.no_grad():
        model.inner.weight.copy_(torch.tensor([[1.0, 2.0, -1.0, 0.5], [-1.0, 0.0, 1.0, 1.0]]))
        model.inner.bias.zero_()
    return model, x, model(x).argmax(1)


def test_what_only_a_narrow_type_takes_for_wrong_is_searched_again(watched: tuple[_Watched, Tensor, Tensor]) -> None:
    model, x, y = watched
    attack, threat = PGD(steps=10, restarts=1), sg.linf(0.3)
    usual = attack(model, x, y, threat)
    model.narrow = [0, 0]
    with taking([(model, Way("bfloat16"))]):
        found = attack(model, x, y, threat)
    assert model.narrow[1] > 0
    assert bool(usual.success.any())
    assert not bool(usual.success.all())
    assert torch.equal(found.success, usual.success)
    assert bool((found.forwards > usual.forwards).all())  # those of both searches
    assert bool((model(found.inputs).argmax(1) != y)[found.success].all())


def test_searches_alone_run_in_the_narrow_type(watched: tuple[_Watched, Tensor, Tensor]) -> None:
    model, x, y = watched
    with taking([(model, Way("bfloat16"))]):
        model.narrow = [0, 0]
        sg.attributions.Saliency()(model, x, y)
        sg.attacks.DDN(steps=3)(model, x, y, sg.l2())  # whose points lie at the boundary
        assert model.narrow[1] == 0
        PGD(steps=3).perturb(model, x, y, sg.linf(0.1))
        assert model.narrow[1] == 3
    assert way_of(model) is USUAL


def test_a_way_is_found_inside_wrappers() -> None:
    model, way = sg.Classifier(nets.build("mlp")), Way("bfloat16")
    with taking([(model, way)]):
        assert way_of(Expectation(model, 2)) is way
        assert way_of(model.module) is USUAL


def test_channels_come_last_in_memory_and_stay_in_their_places() -> None:
    x, seen = torch.rand(2, 3, 4, 4), []

    class Net(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            seen.append((given.is_contiguous(memory_format=torch.channels_last), torch.equal(given, x)))
            return given.flatten(1)

    for way in (Way(), Way(channels_last=True)):
        way.run(Net(), x)
    assert seen == [(False, True), (True, True)]


def test_tf32_is_set_for_the_search_alone() -> None:
    before, seen = torch.get_float32_matmul_precision(), []

    class Net(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return super().forward(x)

    model, x = Net(4, 2), torch.rand(3, 4)
    with taking([(model, Way("tf32"))]):
        PGD(steps=2, restarts=1)(model, x, model(x).argmax(1), sg.linf(1.0))
    assert "high" in seen
    assert seen[-1] == seen[0] == before == torch.get_float32_matmul_precision()


def _state(model: nn.Module) -> list[Any]:
    return [(name, sorted(vars(m)), m.training, len(m._forward_hooks)) for name, m in model.named_modules()]


@pytest.mark.slow
def test_a_compiled_model_is_left_as_it_was_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, made = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda m, **how: made.append(m) or compiler(m, backend="aot_eager", **how))
    model, x = sg.Classifier(nets.build("conv")), nets.inputs(4)
    model.module[0].register_forward_hook(lambda *given: None)
    y, before, weights = model(x).argmax(1), _state(model), copy.deepcopy(model.state_dict())
    attack, threat = PGD(steps=3, restarts=1), sg.linf(0.1)
    way = Way()
    way.compile(model)
    assert [one.model for one in made] == [model]
    usual = attack(model, x, y, threat)
    with taking([(model, way)]):
        found = attack(model, x, y, threat)
    assert way._compiled is not None
    torch.testing.assert_close(found.inputs, usual.inputs)
    assert _state(model) == before
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_model_that_fails_compiled_is_run_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(x: Tensor) -> Tensor:
        raise NotImplementedError("no kernel for this size\nand more")

    monkeypatch.setattr(torch, "compile", lambda m, **how: fails)
    model, x = sg.Classifier(nets.build("mlp")), nets.inputs(4)
    y, way, attack = model(x).argmax(1), Way(), PGD(steps=3, restarts=1)
    way.compile(model)
    with taking([(model, way)]):
        found = attack(model, x, y, sg.linf(0.1))
    assert torch.equal(found.inputs, attack(model, x, y, sg.linf(0.1)).inputs)
    assert [r.message for r in caplog.records] == [
        "a compiled model fails and is run as it is written: NotImplementedError: no kernel for this size"
    ]
