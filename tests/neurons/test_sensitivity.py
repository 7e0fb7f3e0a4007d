"""Sensitivity equals its formula, whatever the batch, for the layers that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
import steadygrad
from oracles import neurons as oracle
from steadygrad import neurons, smoothing
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError

X, X_ADV = nets.inputs(5, dtype=torch.float64), nets.inputs(5, dtype=torch.float64, seed=2)
PAIR = {"x": X, "x_adv": X_ADV}


def _residual(net: Any) -> dict[str, oracle.Layer]:
    def first(x: Tensor) -> Tensor:
        return net.act(net.norm(net.stem(x)))

    return {"act": first, "act:2": lambda x: net.act(first(x) + net.inner(first(x)))}


def _attention(net: Any) -> dict[str, oracle.Layer]:
    # Tokens (N, T, 8): what the network adds up before its activation is taken from its own output.
    def tokens(x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        original, net.head = net.head, nn.Identity()
        forward, net.act.forward = net.act.forward, lambda value: seen.append(value) or value
        try:
            net(x)
        finally:
            net.head, net.act.forward = original, forward
        return forward(seen[0])

    return {"act": tokens}


BY_HAND: dict[str, Callable[[Any], dict[str, oracle.Layer]]] = {
    "mlp": lambda net: {"2": net[:3], "4": net[:5]},
    "conv": lambda net: {"2": net[:3], "5": net[:6]},
    "residual": _residual,
    "attention": _attention,
}


@pytest.mark.parametrize("kind", nets.KINDS)
def test_it_equals_its_formula_after_every_non_linearity(kind: str) -> None:
    net = nets.build(kind, dtype=torch.float64)
    expected = {name: oracle.sensitivity(layer, X, X_ADV) for name, layer in BY_HAND[kind](net).items()}
    found = neurons.sensitivity(Classifier(net), **PAIR)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-9)
        assert max(values) > 1.2 * min(values) > 0
    assert neurons.curve(found) == {name: pytest.approx(sum(v) / len(v)) for name, v in expected.items()}
    falling = neurons.spectrum(found)
    assert all(falling[name].tolist() == pytest.approx(sorted(v, reverse=True)) for name, v in expected.items())


def test_batches_and_chunks_do_not_show() -> None:
    net = nets.build("conv", dtype=torch.float64)
    whole = neurons.sensitivity(net, **PAIR)
    calls: list[int] = []

    def made() -> Any:
        for start, stop in ((0, 1), (1, 4), (4, 5)):
            calls.append(start)
            yield X[start:stop], X_ADV[start:stop]

    for other in (neurons.sensitivity(net, **PAIR, chunk=2), neurons.stream(net, made())):
        assert all(torch.allclose(other[name], whole[name], rtol=1e-12) for name in whole)
    assert calls == [0, 1, 4]
    single = nets.build("residual")
    gates.assert_batch_invariant(lambda a, b: neurons.changes(single, a, b), X.float(), X_ADV.float())
    rows = neurons.changes(net, **PAIR)
    assert all(torch.allclose(rows[name].mean(0), whole[name]) for name in whole)


def test_a_network_in_training_mode_is_measured_in_evaluation_mode_and_left_alone() -> None:
    net = nets.build("residual")
    expected = neurons.sensitivity(net, X.float(), X_ADV.float())
    found = neurons.sensitivity(net.train(), X.float(), X_ADV.float())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    pair = (X.float(), X_ADV.float())
    gates.assert_leaves_no_trace(net, lambda: neurons.sensitivity(net, *pair), inputs=pair, failing_at=(0, 1))


@pytest.mark.parametrize(
    ("layers", "names"),
    [(("act",), ["act", "act:2"]), (("act:2",), ["act:2"]), (("n*", "in*"), ["norm", "inner"]), (("*m",), None)],
)
def test_layers_are_chosen_by_pattern(layers: tuple[str, ...], names: list[str] | None) -> None:
    net = nets.build("residual", dtype=torch.float64)
    assert list(neurons.sensitivity(net, **PAIR, layers=layers)) == (names or ["stem", "norm"])


def test_names_are_those_of_the_network_in_any_wrapper() -> None:
    net = nets.build("mlp", dtype=torch.float64, activation=nn.ReLU)
    plain = neurons.sensitivity(net, **PAIR)
    wrapped = neurons.sensitivity(smoothing.smooth(Classifier(net), beta=1e6), **PAIR)
    assert list(plain) == list(wrapped) == ["2", "4"]
    assert torch.allclose(plain["4"], wrapped["4"], atol=1e-4)


def test_what_follows_in_place_does_not_change_what_was_recorded() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.rand(6, 3)
    with neurons.recorded(net, ("0", "1")) as outputs:
        net(x)
    assert torch.equal(outputs["0"], net[0](x))
    assert bool((outputs["0"] < 0).any())


def test_the_output_is_no_layer_unless_it_is_asked_for() -> None:
    # As many units as classes: without a graph, memory of one may come to lie where that of the other was.
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Sigmoid())
    for model in (net, nn.Sequential(net, nn.Flatten())):
        with torch.no_grad():
            found = neurons.changes(model, torch.rand(2, 3), torch.rand(2, 3))
        assert [name.rpartition(".")[2] for name in found] == ["1", "3"]
    assert list(neurons.changes(net, torch.rand(2, 3), torch.rand(2, 3), layers=("5",))) == ["5"]


def test_most_least_and_random_neurons() -> None:
    sigma = {"a": torch.tensor([0.3, 0.9, 0.1, 0.9, 0.5]), "b": torch.arange(100.0)}
    most, least = neurons.select(sigma, 0.4), neurons.select(sigma, 0.4, "least")
    assert (most["a"].tolist(), least["a"].tolist()) == ([1, 3], [2, 0])
    assert neurons.select(sigma, 0.01)["a"].tolist() == [1]
    assert neurons.select(sigma, 0.07)["b"].tolist() == list(range(99, 92, -1))
    drawn = [neurons.select(sigma, 0.2, "random", seed=s)["b"] for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(set(drawn[0].tolist())) == 20


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.pair = nn.Linear(3, 3), nn.Linear(3, 2), nn.LSTM(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(torch.relu(self.inner(x) + self.pair(x)[0]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: neurons.changes(m, x, x), r"no activation modules .* layers=\('inner',\)"),
        (lambda m, x: neurons.changes(m, x, x, layers=("inn",)), "no layer 'inn'; did you mean 'inner'"),
        (lambda m, x: neurons.changes(m, x, x[:1], layers=("inner",)), r"one shape, got \(2, 3\) and \(1, 3\)"),
        (lambda m, x: neurons.changes(m, x, x, layers=("inner",), chunk=0), "chunk must be at least 1"),
        (lambda m, x: neurons.changes(Classifier(m), x, x + 1, layers=("inner",)), "must lie within"),
        (lambda m, x: neurons.stream(m, []), "at least one pair"),
        (lambda m, x: neurons.select({"a": x[0]}, 0.0), "share must be a share within"),
        (lambda m, x: neurons.select({"a": x[0]}, 0.5, "mots"), "no which 'mots'; did you mean 'most'"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Callable[[nn.Module, Tensor], object], words: str) -> None:
    model = _Functional()
    before = gates.state_of(model)
    with pytest.raises(UsageError, match=words):
        call(model, torch.full((2, 3), 0.5))
    assert gates.same(before["hooks"], gates.state_of(model)["hooks"])


def test_of_a_layer_that_puts_out_a_tuple_the_first_counts() -> None:
    torch.manual_seed(0)
    x = torch.rand(5, 3)
    model = _Functional()
    wanted = (model.pair(0.9 * x)[0] - model.pair(x)[0]).abs()
    torch.testing.assert_close(neurons.changes(model, x, 0.9 * x, layers=("pair",))["pair"], wanted)
    with neurons.switched_off(model, {"pair": torch.arange(3)}) as off:
        torch.testing.assert_close(off(x), model.outer(torch.relu(model.inner(x))))


def test_tokens_are_averaged_for_each_unit() -> None:
    model, x = steadygrad.models.build("vit", (1, 8, 8), 3, patch=4, width=8, depth=2, heads=2), torch.rand(3, 1, 8, 8)
    seen = []
    handle = model.module.blocks[1].register_forward_hook(lambda _, __, out: seen.append(out))
    model(x)
    model(0.5 * x)
    handle.remove()
    wanted = (seen[1] - seen[0]).abs().mean(1)  # (N, T, D) to (N, D)
    torch.testing.assert_close(neurons.changes(model, x, 0.5 * x, layers=("blocks.1",))["blocks.1"], wanted)
    attention = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), nn.Flatten())
    tokens = torch.rand(3, 4, 8)
    assert neurons.changes(attention, tokens, 0.5 * tokens, layers=("0",))["0"].shape == (3, 8)
