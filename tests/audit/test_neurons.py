"""What an audit finds out about neurons: against hooks and loops written by hand, one sample at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from oracles import intervals
from steadygrad.attacks import JSMA, PGD, Expectation
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.audit.neurons import neurons
from steadygrad.audit.schema_maps import Neurons
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.measures.neuron_changes import NeuronChanges
from steadygrad.measuring.measures.neurons_held import NeuronsHeld
from steadygrad.measuring.paired import mean_difference
from steadygrad.measuring.runner import Runner, SavedTables
from steadygrad.measuring.store import Store

COUNT, EPS = 24, 0.2
ATTACK = PGD(steps=4)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return sg.data.load("digits", "test").take(COUNT)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    train = sg.data.load("digits", "train").take(400)
    built = sg.models.build("digits_cnn", train.shape, train.classes, seed=1)
    return sg.fit(built, sg.defenses.Plain(), train, settings=sg.FitSettings(epochs=4, lr=3e-3)).classifier


def _plan(eps: float = EPS, **changes: Any) -> AuditPlan:
    settings = {"samples": COUNT, "share": 0.25, "draws": 3, "attack": ATTACK} | changes
    return AuditPlan.of(sg.linf(eps), {"neurons": True, **{f"neuron_{name}": v for name, v in settings.items()}})


def _section(runner: Runner, eps: float = EPS) -> dict[str, Any]:
    return neurons(runner, ["net"], _plan(eps), {"samples": len(runner.data)})[0]


def _row(model: nn.Module, data: Dataset, **settings: Any) -> dict[str, Any]:
    row: dict[str, Any] = _section(Runner({"net": model}, data, **settings))["models"]["net"]
    return row


@pytest.fixture(scope="module")
def found(model: nn.Module, data: Dataset) -> dict[str, Any]:
    return _section(Runner({"net": model}, data))


def _outputs(model: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What the rectifiers put out for one input, and its logits."""
    kept: list[Tensor] = []
    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    handles = [m.register_forward_hook(lambda m, a, out: kept.append(out[0].clone())) for m in relus]
    with torch.no_grad():
        logits = model(x[None])[0]
    for handle in handles:
        handle.remove()
    return kept, logits


def _held(model: nn.Module, layer: int, index: list[int], x: Tensor, x_adv: Tensor) -> int:
    """The prediction at x_adv with channels of one rectifier as they are at x."""
    benign = _outputs(model, x)[0][layer]

    def hold(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        out = out.clone()
        for neuron in index:
            out[0, neuron] = benign[neuron]
        return out

    handle = [m for m in model.modules() if isinstance(m, nn.ReLU)][layer].register_forward_hook(hold)
    with torch.no_grad():
        answer = int(model(x_adv[None]).argmax())
    handle.remove()
    return answer


def test_equals_loops_written_by_hand(model: nn.Module, data: Dataset, found: dict[str, Any]) -> None:
    row = found["models"]["net"]
    x, y = data.tensors()
    seeds = Runner({}, data).seeds({"neurons": sg.registry.describe(ATTACK)}, data.ids)
    x_adv = ATTACK.perturb(model, x, y, sg.linf(EPS), generator=seeds)
    pairs = [(_outputs(model, a), _outputs(model, b)) for a, b in zip(x, x_adv, strict=True)]
    layers = len(pairs[0][0][0])
    fooled = [int(a[1].argmax()) == int(t) != int(b[1].argmax()) for (a, b), t in zip(pairs, y, strict=True)]
    assert row["fooled"] == sum(fooled)
    assert row["judged"] == sum(fooled[1::2]) > 2
    assert [layer["name"] for layer in row["layers"]] == ["1", "3"]
    assert len(row["layers"]) == layers
    for place, layer in enumerate(row["layers"]):
        moves = np.array([(a[0][place] - b[0][place]).abs().flatten(1).mean(1).numpy() for a, b in pairs])
        sizes = np.array([a[0][place].abs().mean().item() for a, _ in pairs])
        assert layer["neurons"] == moves.shape[1]
        assert layer["change"]["value"] == pytest.approx(moves.mean(), rel=1e-5)
        assert layer["relative"]["value"] == pytest.approx(moves.mean() / sizes.mean(), rel=1e-5)
        sigma = moves[::2].mean(0)
        order = np.argsort(-sigma, kind="stable")
        assert [m["neuron"] for m in layer["most"]] == order[:5].tolist()
        assert layer["most"][0]["sensitivity"] == pytest.approx(sigma.max(), rel=1e-5)
        count = int(np.ceil(len(sigma) / 4))
        back = {}
        assert layer["held"] == count
        judged = [i for i in range(1, COUNT, 2) if fooled[i]]
        for choice, index in (("most", order[:count]), ("least", np.argsort(sigma, kind="stable")[:count])):
            back[choice] = [_held(model, place, index.tolist(), x[i], x_adv[i]) == int(y[i]) for i in judged]
            restored = layer["restored"][choice]
            assert restored["value"] == pytest.approx(np.mean(back[choice]))
            low, high = intervals.score_interval(sum(back[choice]), len(judged))
            assert (restored["low"], restored["high"]) == pytest.approx((low, high), abs=1e-9)
        draws = [
            [_held(model, place, index.tolist(), x[i], x_adv[i]) == int(y[i]) for i in judged]
            for seed in range(3)
            for index in [sg.neurons.select({"": torch.from_numpy(sigma)}, 0.25, "random", seed=seed)[""]]
        ]
        random = layer["restored"]["random"]
        assert random["value"] == pytest.approx(np.mean(draws))
        low, high = intervals.score_interval(round(np.mean(draws, 0).sum()), len(judged))
        assert (random["low"], random["high"]) == pytest.approx((low, high), abs=1e-9)
        value, low, high = intervals.student_interval(list(np.array(back["most"], float) - np.mean(draws, 0)))
        gain = layer["gain"]
        assert (gain["value"], gain["low"], gain["high"]) == pytest.approx((value, low, high))
        # The ratio of two means, to first order.
        per = moves.mean(1)
        ratio = per.mean() / sizes.mean()
        _, low, high = intervals.student_interval(list((per - ratio * sizes) / sizes.mean() + ratio))
        assert (layer["relative"]["low"], layer["relative"]["high"]) == pytest.approx((low, high), rel=1e-4)


def test_sensitive_neurons_carry_more_than_others(found: dict[str, Any]) -> None:
    # Summed over the layers: on so few samples a single layer proves nothing.
    restored = [layer["restored"] for layer in found["models"]["net"]["layers"]]
    totals = {choice: sum(r[choice]["value"] for r in restored) for choice in ("most", "random", "least")}
    assert totals["most"] > totals["random"] > totals["least"]


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_batches_do_not_show(batch_size: int, model: nn.Module, data: Dataset, found: dict[str, Any]) -> None:
    mine = _row(model, data, batch_size=batch_size)
    theirs = found["models"]["net"]
    assert mine["fooled"] == theirs["fooled"]
    for a, b in zip(mine["layers"], theirs["layers"], strict=True):
        assert a["restored"] == b["restored"]
        assert a["change"]["value"] == pytest.approx(b["change"]["value"], rel=1e-5)
        assert [m["neuron"] for m in a["most"]] == [m["neuron"] for m in b["most"]]


def test_tables_are_kept(
    model: nn.Module, data: Dataset, found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner({"net": model}, data, Store(tmp_path))
    assert _section(runner) == found
    assert len(list(tmp_path.rglob("*.parquet"))) == 3  # what moves, and each of two layers
    monkeypatch.setattr(PGD, "perturb", None)
    assert _section(Runner({"net": model}, data, Store(tmp_path))) == found
    assert neurons(SavedTables(tmp_path, COUNT), ["net"], _plan(), {"samples": COUNT})[0] == found
    with pytest.raises(Failure, match=r"net: neurons under PGD.* samples 'digits/.*NoneType"):
        _section(runner, EPS / 2)


def test_an_interrupt_loses_one_layer(
    model: nn.Module, data: Dataset, found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = NeuronsHeld.__call__, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(NeuronsHeld, "__call__", interrupted)
    runner = Runner({"net": model}, data, Store(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        _section(runner)
    assert _section(runner) == found
    assert len(calls) == 3


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.head(x.flatten(1)))


class _Blind(nn.Module):
    """One linear layer, and after it whatever a subclass makes of it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.act, self.head = nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.first(x.flatten(1))))

    def middle(self, h: Tensor) -> Tensor:
        return torch.relu(h)


class _Twice(_Blind):
    def middle(self, h: Tensor) -> Tensor:
        h = self.act(h)
        return self.act(h) if h.mean() > 0.1 else h


class _Infinite(_Blind):
    def middle(self, h: Tensor) -> Tensor:
        return self.act(h / (h.abs() > 0.2)).nan_to_num(posinf=1.0)


class _Table(_Blind):
    """An activation that sees a table and not the samples, and one that sees their tokens."""

    def middle(self, h: Tensor) -> Tensor:
        self.act(torch.ones(1, 2))
        return self.act(h.reshape(-1, 2)).reshape(h.shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_Functional, "no activation modules"),
        (_Blind, "no activation module ran before the logits"),
        (_Table, "no activation module ran before the logits"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU()), "no activation module ran"),
        (lambda: Expectation(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), "drawn anew"),
        (_Infinite, "layer 'act' puts out values that are not finite"),
    ],
)
def test_what_cannot_be_looked_at_is_said(make: Callable[[], nn.Module], message: str, data: Dataset) -> None:
    row = _row(make(), data)
    assert message in row["refused"]
    assert (row["fooled"], row["judged"], row["layers"]) == (None, None, [])


def test_layers_that_are_called_as_the_data_wants_are_refused(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data.tensors()[0]
    model = _Twice()
    with torch.no_grad():
        means = model.act(model.first(x.flatten(1))).mean(1).tolist()
    assert min(means) < 0.1 < max(means)
    assert _row(model, data, batch_size=1)["refused"] == "its layers are not called equally often for every input"
    # Changes too small to matter: the inputs themselves differ, within a batch, between batches and between files.
    monkeypatch.setattr(NeuronChanges, "_part", lambda *_: 1)
    for batch_size, shard, words in (
        (200, 200, "its layers are not called equally often for every input"),
        (1, 200, "these differ: change: act:2, size: act:2"),
        (1, 1, "these differ: change: act:2, size: act:2"),
    ):
        monkeypatch.setattr(NeuronChanges, "shard", shard)
        row = _section(Runner({"net": model}, data, batch_size=batch_size), eps=1e-6)["models"]["net"]
        assert words in row["refused"]


class _Crowded(_Blind):
    """Uses its activation twice in a full batch, and once in what is left of it."""

    def middle(self, h: Tensor) -> Tensor:
        h = self.act(h)
        return self.act(h) if len(h) == COUNT else h


def test_layers_that_are_called_as_the_batch_wants_are_refused(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NeuronChanges, "_part", lambda *_: COUNT)
    x = data.tensors()[0]
    model = _Crowded()
    # Its own predictions as labels: all are right before the attack.
    with torch.no_grad():
        own = Dataset(x, model(x).argmax(1), data.classes, data.ids)
    row = _row(model, own)
    assert "the forward makes no call 'act:2'" in row["refused"]
    assert row["layers"] == []


@pytest.mark.parametrize(("size", "part"), [(2**16, 200), (2**20, 85), (2**24, 5), (2**34, 1)])
def test_parts_are_as_large_as_their_activations_allow(
    size: int, part: int, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three copies of what one sample makes may take 2^28 bytes.
    made = torch.empty(1, device="meta").expand(size // 4)
    monkeypatch.setattr(NeuronChanges, "_outputs", lambda *_: {"a": made[: size // 8], "b": made[size // 8 :]})
    measure = NeuronChanges(ATTACK, sg.linf(EPS))
    assert measure._part(nn.Identity(), data.tensors()[0][:1]) == part


class _ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.act, self.head = nn.Linear(1, 32), nn.GELU(), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.mix(x.permute(0, 2, 3, 1))).mean((1, 2)))


def test_channels_behind_a_linear_layer_lie_last(data: Dataset) -> None:
    model, x = _ChannelsLast(), data.tensors()[0]
    with sg.neurons.recorded(model) as outputs:
        logits = model(x)
    assert outputs["act"].shape == (COUNT, 32, 8, 8)
    with sg.neurons.switched_off(model, {"act": torch.arange(32)}):
        torch.testing.assert_close(model(x), model.head.bias.expand(COUNT, 10))
    with sg.neurons.patched(model, x, {"act": torch.arange(32)}):
        torch.testing.assert_close(model(1 - x), logits)
    (layer,) = _row(model, data)["layers"]
    assert layer["neurons"] == 32


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0], [-1.0, 1.0, 0.4]])
def test_few_samples_prove_little(values: list[float]) -> None:
    gain = mean_difference(np.array(values), np.zeros(len(values))).within(-1.0, 1.0).plain()
    assert -1 <= gain["low"] < gain["high"] <= 1
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert gain["high"] - gain["low"] > 0.5


def test_a_dead_layer_and_nobody_fooled(data: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(-1.0)
    row = _row(net, data)
    assert (row["fooled"], row["judged"]) == (0, 0)
    (layer,) = row["layers"]
    assert layer["relative"] is None
    assert layer["restored"] is None
    assert layer["gain"] is None
    assert layer["change"]["value"] == 0


def test_the_settings_and_the_facts_are_in_the_section(found: dict[str, Any]) -> None:
    assert Neurons.model_validate(found).plain() == found
    assert {name: found[name] for name in found if name != "models"} == {
        "attack": "PGD, 4 steps",
        "threat": {"norm": "linf", "eps": EPS, "bounds": [0.0, 1.0], "mask": None},
        "samples": COUNT,
        "share": 0.25,
        "draws": 3,
    }


def test_no_more_samples_are_looked_at_than_there_are(model: nn.Module, data: Dataset) -> None:
    assert _section(Runner({"net": model}, data.take(12)))["samples"] == 12


@pytest.mark.parametrize("settings", [{"samples": 1}, {"draws": 0}, {"share": 0.0}, {"share": 1.5}])
def test_settings_are_refused(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(UsageError, match=rf"neuron_{name} must be [a-z]+ .*, got {value}$"):
        _plan(**settings)


def test_a_norm_that_the_attack_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="neuron_attack works within linf, l2, l1, not within l0"):
        AuditPlan.of(sg.Threat("l0", 3), {"attacks": [JSMA()], "neurons": True, "neuron_attack": ATTACK})
