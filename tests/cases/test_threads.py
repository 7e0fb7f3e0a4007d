"""Threads at one model: each gets what it gets alone, and the model and the process are left as they were."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from steadygrad.attacks import PGD, Square
from steadygrad.attributions import IntegratedGradients
from steadygrad.calling import logits_of
from steadygrad.classifier import frozen

CLASSES = 3


class Noisy(nn.Module):
    """Draws from the global generator, also in evaluation mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(nn.functional.dropout(x, 0.3, training=True))


def _together(*calls: Callable[[], Any]) -> list[Any]:
    """What calls return that start at once, each in a thread."""
    found: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(place: int) -> None:
        start.wait()
        try:
            found[place] = calls[place]()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "the threads wait for each other"
    for value in found:
        if isinstance(value, Exception):
            raise value
    return found


def _samples(count: int = 40) -> tuple[Tensor, Tensor]:
    x = nets.inputs(count)
    y = nets.build("conv")(x).argmax(1)
    y[::4] = (y[::4] + 1) % CLASSES
    return x, y


def _kinds() -> dict[str, nn.Module]:
    return {"noisy": Noisy(nets.build("conv")), "batch norm": nets.build("conv")}


def _settled(model: nn.Module) -> dict[str, Any]:
    state = gates.state_of(model)
    return {name: state[name] for name in ("modes", "requires_grad", "hooks", "buffers", "random", "settings")}


@pytest.mark.parametrize(("kind", "count"), [("noisy", 2), ("batch norm", 2), ("noisy", 4)])
def test_audits_in_threads_are_those_made_alone(kind: str, count: int) -> None:
    model, (x, y) = _kinds()[kind], _samples(16)
    gates.unsettle(model)
    data = sg.data.from_arrays(x, y, CLASSES)

    def audit(seed: int) -> Any:
        # Two wrappers around one module share its state.
        judged, attack = model if seed % 2 else sg.Classifier(model, classes=CLASSES), PGD(steps=3, restarts=2)
        if count > 2:
            found = sg.evaluate(judged, data, [attack, Square(queries=10)], sg.linf(0.1), seed=seed)
            return found.frame.drop(columns="model")
        few = {"gallery": 0, "checked": 4, "mapped": 2, "draws": 2}
        return sg.audit({"m": judged}, data, sg.linf(0.1), attacks=[attack], seed=seed, **few).records.frame

    alone, before = [audit(seed) for seed in range(count)], _settled(model)
    found = _together(*(lambda s=seed: audit(s) for seed in range(count)))
    for mine, other in zip(alone, found, strict=True):
        assert mine.equals(other)
    assert gates.same(before, _settled(model))


def test_what_freezes_watches_and_differentiates_twice_runs_beside_each_other() -> None:
    model, (x, y) = nets.build("conv"), _samples(8)
    gates.unsettle(model)
    model.eval()  # the function that is differentiated runs it as it is
    seeds = torch.arange(8)
    calls = (
        lambda: PGD(steps=8)(model, x, y, sg.linf(0.2), generator=seeds).inputs,
        lambda: IntegratedGradients(steps=8)(model, x, y),
        lambda: sg.neurons.sensitivity(model, x, x * 0.9, layers=("2",)),
        lambda: sg.derivatives.hvp(lambda p: logits_of(model, p)[:, 0], x, x),
    )
    alone, before = [call() for call in calls], _settled(model)
    switches = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    for _ in range(3):
        assert gates.same(alone, _together(*calls))
    assert gates.same(before, _settled(model))
    assert switches == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())


def test_a_model_that_fails_in_one_thread_is_left_as_it_was_in_all() -> None:
    model, (x, y) = nets.build("conv"), _samples(8)
    gates.unsettle(model)
    before = _settled(model)
    waiting, entered = threading.Event(), threading.Event()

    def fails() -> None:
        with contextlib.suppress(ZeroDivisionError), frozen(model):
            entered.set()
            waiting.wait(0.3)
            raise ZeroDivisionError

    def attacks() -> Tensor:
        entered.wait(30)
        return PGD(steps=2)(model, x, y, sg.linf(0.1)).inputs

    _together(fails, attacks)
    assert gates.same(before, _settled(model))


def test_an_attack_beside_a_training_of_one_module() -> None:
    net, (x, y) = nets.build("conv"), _samples()
    net.insert(3, nn.Dropout(0.2))
    model, data = (
        sg.Classifier(net, classes=CLASSES, input_shape=x.shape[1:]).train(),
        sg.data.from_arrays(x, y, CLASSES),
    )

    def train() -> Any:
        settings = sg.FitSettings(epochs=2, batch_size=10)
        return sg.fit(
            model, sg.defenses.AdversarialTraining(eps=0.1), data, data, settings=settings
        ).classifier.state_dict()

    def attack() -> Tensor:
        return torch.stack([PGD(steps=3)(model, x, y, sg.linf(0.1)).inputs for _ in range(6)])

    alone, before = (train(), attack()), _settled(model)
    assert gates.same(alone, tuple(_together(train, attack)))
    assert gates.same(before, _settled(model))


def test_trainings_of_models_with_dropout_beside_each_other() -> None:
    x, y = _samples()
    data = sg.data.from_arrays(x, y, CLASSES)

    net = Noisy(nets.build("conv"))
    model = sg.Classifier(net, classes=CLASSES, input_shape=x.shape[1:])

    def train(seed: int) -> Any:
        found = sg.fit(
            model, sg.defenses.Plain(), data, data, settings=sg.FitSettings(epochs=2, batch_size=5), seed=seed
        )
        return found.classifier.state_dict(), [row["validation_accuracy"] for row in found.history]

    before = torch.get_rng_state()
    alone = [train(0), train(1)]
    torch.rand(1)  # the state of the caller's generator changes nothing
    torch.set_rng_state(before)
    assert gates.same(alone, _together(lambda: train(0), lambda: train(1)))
    assert torch.equal(before, torch.get_rng_state())
