"""Neurons off, or held at their benign values: as computed by hand, gone after the block, through any failure."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gates
import nets
from steadygrad import neurons
from steadygrad.attacks import FGSM
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError
from steadygrad.threat import linf

X, X_ADV = nets.inputs(4, dtype=torch.float64), nets.inputs(4, dtype=torch.float64, seed=2)
SOME = torch.tensor([0, 3])


def test_a_neuron_that_is_off_is_one_whose_outgoing_weights_are_zero() -> None:
    net = nets.build("mlp", dtype=torch.float64)
    with neurons.switched_off(Classifier(net), {"2": SOME}) as model:
        found = model(X)
        result = FGSM()(model, X, found.argmax(1), linf(0.3))
    by_hand = nets.build("mlp", dtype=torch.float64)
    with torch.no_grad():
        by_hand[3].weight[:, SOME] = 0
    torch.testing.assert_close(found, by_hand(X))
    # An attack within the block sees the network without them.
    assert torch.equal(result.inputs, FGSM()(Classifier(by_hand), X, found.argmax(1), linf(0.3)).inputs)
    assert not torch.allclose(net(X), found)


def test_channels_tokens_and_later_calls() -> None:
    net = nets.build("conv", dtype=torch.float64)
    with neurons.switched_off(net, {"2": SOME}):
        found = net(X)
    hidden = net[:3](X)
    hidden[:, SOME] = 0
    torch.testing.assert_close(found, net[3:](hidden))
    net = nets.build("attention", dtype=torch.float64)
    with neurons.recorded(net) as outputs:
        net(X)
    with neurons.switched_off(net, {"act": SOME}):
        found = net(X)
    kept = outputs["act"].clone()
    kept[..., SOME] = 0
    torch.testing.assert_close(found, net.head(kept.mean(1)))
    net = nets.build("residual", dtype=torch.float64)
    with neurons.switched_off(net, {"act:2": torch.arange(4)}):
        torch.testing.assert_close(net(X), net.head.bias.expand(4, -1))


def test_a_whole_layer_held_gives_the_benign_logits_and_a_part_of_it_a_mixture() -> None:
    net = nets.build("conv", dtype=torch.float64)
    with neurons.patched(net, X, {"5": torch.arange(6)}):
        torch.testing.assert_close(net(X_ADV), net(X))
    with neurons.patched(net, X, {"2": SOME}):
        found = net(X_ADV)
    mixed = net[:3](X_ADV)
    mixed[:, SOME] = net[:3](X)[:, SOME]
    torch.testing.assert_close(found, net[3:](mixed))
    assert not torch.allclose(found, net(X_ADV), rtol=1e-3)
    residual = nets.build("residual", dtype=torch.float64)
    with neurons.patched(residual, X, {"act": torch.arange(4)}):
        torch.testing.assert_close(residual(X_ADV), residual(X))


def test_recorded_outputs_serve_for_several_sets_of_neurons() -> None:
    net = nets.build("residual", dtype=torch.float64)
    with neurons.recorded(net, ("act*",)) as benign, torch.no_grad():
        net(X)
    for chosen in ({"act": SOME}, {"act:2": SOME}, {"act": torch.arange(4), "act:2": SOME}):
        with neurons.patched(net, X, chosen):
            wanted = net(X_ADV)
        with gates.counted(net) as passes, neurons.patched(net, benign, chosen):
            torch.testing.assert_close(net(X_ADV), wanted)
        assert passes["forwards"] == 1
    with pytest.raises(UsageError, match="no call 'act:2': the benign outputs are of"):
        neurons.patched(net, {"act": benign["act"]}, {"act:2": SOME}).__enter__()


def test_the_contexts_leave_no_trace() -> None:
    net = nets.build("residual")
    x, x_adv = X.float(), X_ADV.float()

    def patch() -> None:
        with neurons.patched(net, x, {"act": SOME}):
            net.eval()(x_adv)

    def switch() -> None:
        with neurons.switched_off(net, {"act": SOME}):
            net.eval()(x_adv)

    for call, failing_at in ((patch, (0, 1)), (switch, (0,))):
        gates.assert_leaves_no_trace(net, call, inputs=[x, x_adv], allow=("modes",), failing_at=failing_at)
    hooks = gates.state_of(net)["hooks"]
    with pytest.raises(KeyError), neurons.switched_off(net, {"act": SOME}):
        raise KeyError
    assert gates.same(hooks, gates.state_of(net)["hooks"])


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"5": torch.tensor([6])}, r"neurons of layer '5' must be within 0\.\.5, got 6\.\.6"),
        ({"5": torch.tensor([-1])}, "must be within"),
        ({"acc": SOME}, "there is no layer 'acc'"),
        ({"5:2": SOME}, "the forward makes no call '5:2'"),
    ],
)
def test_neurons_that_are_not_there_are_refused(chosen: dict[str, torch.Tensor], words: str) -> None:
    net: nn.Module = nets.build("conv", dtype=torch.float64)
    with pytest.raises(UsageError, match=words), neurons.switched_off(net, chosen):
        net(X)


def test_another_batch_than_the_benign_one_is_refused() -> None:
    net = nets.build("conv", dtype=torch.float64)
    with pytest.raises(UsageError, match="outputs for 4 inputs, and got 3"), neurons.patched(net, X, {"2": SOME}):
        net(X_ADV[:3])
