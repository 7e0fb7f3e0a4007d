"""Sensitive neuron stabilizing: its formula, its gradient, what it remembers, and training that holds neurons still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fits
import gates
import nets
from oracles import defenses as losses
from oracles import neurons as oracle
from steadygrad import neurons, registry
from steadygrad.attacks import FGSM, PGD, RandomNoise
from steadygrad.defenses import AdversarialTraining, Defense, InputGradientPenalty, StableNeurons, State, Step
from steadygrad.errors import UsageError
from steadygrad.training import FitSettings, fit
from steadygrad.training.train_plan import TrainPlan

X, Y = nets.inputs(5, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
DATA = fits.dataset(40, shape=(1, 4, 4))
# With points that do not follow the weights, differences of the loss are its derivative.
FIXED = StableNeurons(eps=0.2, weight=0.7, alpha=0.3, share=0.3, attack=RandomNoise(draws=1))
USUAL = replace(FIXED, attack=PGD(steps=2, loss="ce"))


def _state(defense: StableNeurons, kind: str) -> State:
    """A state with the sensitive neurons of the network of that kind."""
    return State(seed=3, memory=defense.remember(0, nets.build(kind), DATA, State(seed=1)))


def _layers(net: Any) -> dict[str, oracle.Layer]:
    return {"2": net[:3], "5": net[:6]}


def test_the_loss_equals_its_formula() -> None:
    net = nets.build("conv", dtype=torch.float64)
    state = _state(FIXED, "conv")
    points = Step(net, X, Y, state, input_gradients=False).perturb(FIXED.attack, "linf", 0.2, Y)
    chosen = {name.rpartition("/")[2]: index.tolist() for name, index in state.memory.items()}
    assert {name: len(index) for name, index in chosen.items()} == {"2": 2, "5": 2}
    loss = FIXED.loss(net, X, Y, state)
    assert float(loss.parts["neuron_change"]) == pytest.approx(
        0.7 * oracle.penalty(_layers(net), chosen, X, points), rel=1e-9
    )
    assert float(loss.parts["adversarial"]) == pytest.approx(0.3 * losses.cross_entropy(net, points, Y))
    assert float(loss.parts["cross_entropy"]) == pytest.approx(losses.cross_entropy(net, X, Y))
    assert float(loss.total.detach()) == pytest.approx(sum(float(v) for v in loss.parts.values()))
    without = replace(FIXED, alpha=0.0)
    assert set(without.loss(net, X, Y, _state(without, "conv")).parts) == {"cross_entropy", "neuron_change"}


def test_it_remembers_the_neurons_that_move_most_and_only_when_it_is_time() -> None:
    net = nets.build("conv")
    defense = replace(USUAL, refresh=2, samples=40)
    found = defense.remember(0, net, DATA, State(seed=1))
    x, y = DATA.batch(torch.randperm(40, generator=torch.Generator().manual_seed(1)))
    points = Step(net, x, y, State(seed=1), input_gradients=False).perturb(defense.attack, "linf", 0.2, y)
    for name, layer in _layers(net).items():
        (index,) = (v.tolist() for k, v in found.items() if k.endswith(f"/{name}"))
        assert index == oracle.most(oracle.sensitivity(layer, x, points), 0.3)
    assert [bool(defense.remember(e, net, DATA, State(seed=1))) for e in (1, 2, 3)] == [False, True, False]
    # Another defense has another place.
    assert replace(defense, samples=3).remember(0, net, DATA, State()).keys().isdisjoint(found)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", nets.KINDS)
def test_the_weight_gradient_equals_differences(kind: str, training: bool) -> None:
    net = nets.build(kind, dtype=torch.float64)
    state = _state(FIXED, kind)
    nets.still(net).train(training)
    gates.assert_weight_gradient(lambda: FIXED.loss(net, X, Y, state).total, net)


def test_the_loss_is_the_mean_over_samples() -> None:
    net = nets.build("residual", dtype=torch.float64)
    state = _state(USUAL, "residual")
    whole = USUAL.loss(net, X, Y, state)
    for start, stop in ((0, 2), (2, 5)):
        part = USUAL.loss(net, X[start:stop], Y[start:stop], replace(state, offset=start))
        alone = [USUAL.loss(net, X[n : n + 1], Y[n : n + 1], replace(state, offset=n)) for n in range(start, stop)]
        for name, value in part.parts.items():
            torch.testing.assert_close(value, torch.stack([a.parts[name] for a in alone]).mean())
    alone = [USUAL.loss(net, X[n : n + 1], Y[n : n + 1], replace(state, offset=n)).total for n in range(5)]
    torch.testing.assert_close(torch.stack(alone).mean(), whole.total)


def test_what_dropout_draws_is_no_change() -> None:
    net = torch.nn.Sequential(nets.build("conv")[:3], torch.nn.Dropout(0.5), nets.build("conv")[3:]).train()
    defense = replace(FIXED, eps=1e-7)
    memory = defense.remember(0, net, DATA, State(seed=1))
    before = torch.get_rng_state()
    loss = defense.loss(net, X.float(), Y, State(seed=3, memory=memory))
    assert len(memory) == 2
    assert float(loss.parts["neuron_change"]) < 1e-5
    # The next step draws anew.
    assert not torch.equal(torch.get_rng_state(), before)


def test_it_leaves_no_trace() -> None:
    net, x = nets.build("attention"), X.float()
    state = State(seed=3, memory=USUAL.remember(0, net, DATA, State()))
    gates.assert_leaves_no_trace(net, lambda: USUAL.loss(net, x, Y, state), inputs=[x, Y], failing_at=(0, 2, 3))
    gates.assert_leaves_no_trace(net, lambda: USUAL.remember(0, net, DATA, State()), failing_at=(0, 3))


@pytest.mark.parametrize(
    ("others", "forwards", "backwards"),
    [
        ((), 3, 1),
        ((InputGradientPenalty(0.1),), 3, 2),
        ((AdversarialTraining(eps=0.2, attack=FGSM("ce"), clean_weight=0.5),), 5, 2),
        ((StableNeurons(eps=0.2, attack=FGSM("ce")),), 5, 2),
    ],
)
def test_it_composes_and_the_clean_pass_is_made_once(others: Any, forwards: int, backwards: int) -> None:
    net, x = nets.build("conv"), X.float()
    defense = replace(USUAL, attack=FGSM("ce"))
    both: Defense = defense
    for other in others:
        both = other + both
    memory = {k: v for member in both.members for k, v in member.remember(0, net, DATA, State()).items()}
    with gates.counted(net) as passes:
        loss = both.loss(net, x, Y, State(memory=memory))
    assert (passes["forwards"], passes["backwards"]) == (forwards, backwards)
    if not others or not isinstance(others[0], AdversarialTraining):
        alone = defense.loss(net, x, Y, State(memory=memory)).parts
        assert float(loss.parts["cross_entropy"]) == pytest.approx(float(alone["cross_entropy"]))


def test_one_line_of_a_configuration_makes_a_combination() -> None:
    made = TrainPlan(defense="stable_neurons:eps=0.1,share=0.2+input_gradient:weight=0.5").objective()
    assert made.members == (StableNeurons(eps=0.1, share=0.2), InputGradientPenalty(0.5))
    built = registry.build("defense", "stable_neurons", {"eps": 0.1, "layers": ["act*"], "attack": "fgsm"})
    assert built == StableNeurons(eps=0.1, layers=("act*",), attack=FGSM())


def test_half_precision_leaves_the_changes_in_float32() -> None:
    net, x = nets.build("conv"), X.float()
    state = State(memory=USUAL.remember(0, net, DATA, State()))
    with torch.autocast("cpu", torch.bfloat16):
        half = USUAL.loss(net, x, Y, state)
    assert all(value.dtype == torch.float32 for value in half.parts.values())
    whole = USUAL.loss(net, x, Y, state).parts
    assert float(half.parts["neuron_change"]) == pytest.approx(float(whole["neuron_change"]), rel=0.05)


def _sensitivity(result: Any) -> float:
    x, y = fits.dataset(60, seed=1).tensors()
    points = Step(result.classifier, x, y, State(), input_gradients=False).perturb(PGD(steps=5), "linf", 0.1, y)
    return sum(neurons.curve(neurons.sensitivity(result.classifier, x, points)).values())


def test_training_holds_the_neurons_still() -> None:
    found = {}
    for defense in ("plain", "stable_neurons:eps=0.1,weight=3,alpha=0"):
        result = fits.run(None, defense, kind="linear", epochs=15, lr=0.01, augment="none")
        assert result.history[-1]["validation_accuracy"] > 0.8
        found[defense] = _sensitivity(result)
    assert found["stable_neurons:eps=0.1,weight=3,alpha=0"] < 0.5 * found["plain"]


@pytest.mark.slow
@pytest.mark.parametrize("every", [None, 3])
def test_a_continued_run_ends_as_an_undisturbed_one(every: int | None, tmp_path: Path) -> None:
    # What was learned in the first epoch is used in the second, in which the run is stopped twice.
    defense = "stable_neurons:eps=0.1,refresh=2,samples=20"
    whole = fits.run(tmp_path / "whole", defense)
    for stop in (5, 2, 3):
        with pytest.raises(fits.Stopped), fits.stopped_at(stop):
            fits.run(tmp_path / "parts", defense, checkpoint_steps=every)
    parts = fits.run(tmp_path / "parts", defense, checkpoint_steps=every)
    for name, weight in whole.classifier.state_dict().items():
        assert torch.equal(weight, parts.classifier.state_dict()[name]), name
    assert whole.history == parts.history


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eps": 0.0}, "eps must be positive"),
        ({"weight": -1.0}, "weight must be at least 0"),
        ({"alpha": float("nan")}, "alpha must be at least 0"),
        ({"share": 1.5}, "share must be a share within"),
        ({"refresh": 0}, "refresh must be at least 1, got 0"),
        ({"layers": "act"}, r"write \('act',\)"),
        ({"norm": "l0"}, "PGD works for linf, l2, l1, not for 'l0'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        StableNeurons(**{"eps": 0.1, **settings})


def test_what_cannot_be_known_is_refused() -> None:
    net = nets.build("conv", dtype=torch.float64)
    with pytest.raises(UsageError, match=r"sensitive neurons of layer '2': give State\(memory="):
        USUAL.loss(net, X, Y)
    with pytest.raises(UsageError, match="there is no layer 'cov'"):
        fit(fits.classifier(), StableNeurons(eps=0.1, layers=("cov",)), fits.dataset(), settings=FitSettings(epochs=1))
