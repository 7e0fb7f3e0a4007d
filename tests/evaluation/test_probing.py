"""What an audit finds out about neurons: against hooks and loops written by hand, one sample at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from evaluation import schema
from oracles import intervals
from steadygrad.attacks import FGSM, PGD, Expectation
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation import Probing
from steadygrad.evaluation.probing import probe
from steadygrad.evaluation.records import Cells
from steadygrad.evaluation.robustness import Bench

COUNT, EPS = 24, 0.2
SETTINGS = Probing(samples=COUNT, share=0.25, draws=3, attack=PGD(steps=4))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return sg.data.load("digits", "test").take(COUNT)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    train = sg.data.load("digits", "train").take(400)
    built = sg.models.build("digits_cnn", train.shape, train.classes, seed=1)
    return sg.fit(built, sg.defenses.Plain(), train, settings=sg.FitSettings(epochs=4, lr=3e-3)).classifier


@pytest.fixture(scope="module")
def found(model: nn.Module, data: Dataset) -> dict[str, Any]:
    return probe(Bench(data), {"net": model}, sg.linf(EPS), SETTINGS)


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
    bench, row = Bench(data), found["models"]["net"]
    x, y = data.tensors()
    seeds = bench.seeds({"neurons": sg.registry.describe(SETTINGS.attack)}, data.ids)
    x_adv = SETTINGS.attack.perturb(model, x, y, sg.linf(EPS), generator=seeds)
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
        assert layer["relative"]["low"] < layer["relative"]["value"] < layer["relative"]["high"]
        sigma = moves[::2].mean(0)
        order = np.argsort(-sigma, kind="stable")
        assert [m["neuron"] for m in layer["most"]] == order[:5].tolist()
        assert layer["most"][0]["sensitivity"] == pytest.approx(sigma.max(), rel=1e-5)
        count = int(np.ceil(len(sigma) / 4))
        back = {}
        for choice, index in (("most", order[:count]), ("least", np.argsort(sigma, kind="stable")[:count])):
            judged = [i for i in range(1, COUNT, 2) if fooled[i]]
            back[choice] = [_held(model, place, index.tolist(), x[i], x_adv[i]) == int(y[i]) for i in judged]
            restored = layer["restored"][choice]
            assert restored["value"] == pytest.approx(np.mean(back[choice]))
            low, high = intervals.score_interval(sum(back[choice]), len(judged))
            assert (restored["low"], restored["high"]) == pytest.approx((low, high), abs=1e-9)
        random = layer["restored"]["random"]
        assert random["low"] <= random["value"] <= random["high"]
        assert layer["gain"]["value"] == pytest.approx(np.mean(back["most"]) - random["value"])


def test_sensitive_neurons_carry_more_than_others(found: dict[str, Any]) -> None:
    # Summed over the layers: on so few samples a single layer proves nothing.
    restored = [layer["restored"] for layer in found["models"]["net"]["layers"]]
    totals = {choice: sum(r[choice]["value"] for r in restored) for choice in ("most", "random", "least")}
    assert totals["most"] > totals["random"] > totals["least"]


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_batches_do_not_show(batch_size: int, model: nn.Module, data: Dataset, found: dict[str, Any]) -> None:
    mine = probe(Bench(data, batch_size=batch_size), {"net": model}, sg.linf(EPS), SETTINGS)["models"]["net"]
    theirs = found["models"]["net"]
    assert mine["fooled"] == theirs["fooled"]
    for a, b in zip(mine["layers"], theirs["layers"], strict=True):
        assert a["restored"] == b["restored"]
        assert a["change"]["value"] == pytest.approx(b["change"]["value"], rel=1e-5)
        assert [m["neuron"] for m in a["most"]] == [m["neuron"] for m in b["most"]]


def test_cells_are_kept(model: nn.Module, data: Dataset, found: dict[str, Any], tmp_path: Path) -> None:
    for _ in range(2):
        assert probe(Bench(data, Cells(tmp_path)), {"net": model}, sg.linf(EPS), SETTINGS) == found
        assert len(list(tmp_path.glob("*.npz"))) == 1
    probe(Bench(data, Cells(tmp_path)), {"net": model}, sg.linf(EPS / 2), SETTINGS)
    assert len(list(tmp_path.glob("*.npz"))) == 2


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.head(x.flatten(1)))


def test_what_cannot_be_looked_at_is_said(data: Dataset) -> None:
    models = {"functional": _Functional(), "random": Expectation(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))}
    rows = probe(Bench(data), models, sg.linf(EPS), SETTINGS)["models"]
    assert "no activation modules" in rows["functional"]["refused"]
    assert "drawn anew" in rows["random"]["refused"]
    assert all(row["layers"] == [] for row in rows.values())


def test_a_dead_layer_and_nobody_fooled(data: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.fill_(-1.0)
    row = probe(Bench(data), {"net": net}, sg.linf(EPS), SETTINGS)["models"]["net"]
    assert (row["fooled"], row["judged"]) == (0, 0)
    (layer,) = row["layers"]
    assert layer["relative"] is None
    assert layer["restored"] is None
    assert layer["gain"] is None
    assert layer["change"]["value"] == 0


def test_an_audit_takes_it_in(model: nn.Module, data: Dataset, tmp_path: Path) -> None:
    tokens = Classifier(nets.build("conv"), name="conv")
    x = Dataset(nets.inputs(12), torch.arange(12) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(12)))
    found = sg.audit(
        tokens, x, sg.linf(0.1), attacks=[FGSM()], attributions=(), checked=4, gallery=0, neurons=SETTINGS, out=tmp_path
    )
    schema.check(found.summary)
    assert found.summary["config"]["neurons"] == json.loads(json.dumps(SETTINGS.plain()))
    assert found.summary["neurons"]["samples"] == 12
    again = sg.audit(
        tokens, x, sg.linf(0.1), attacks=[FGSM()], attributions=(), checked=4, gallery=0, neurons=SETTINGS, out=tmp_path
    )
    assert again.summary == found.summary


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "samples of neurons must be at least 2, got 1"),
        ({"draws": 0}, "draws of neurons must be at least 1, got 0"),
        ({"share": 0.0}, r"share of neurons must be within \(0, 1\], got 0.0"),
        ({"share": 1.5}, r"share of neurons must be within \(0, 1\], got 1.5"),
    ],
)
def test_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Probing(**settings)


def test_a_norm_that_the_attack_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="neurons are looked at under PGD, 4 steps: linf, l2, l1, not l0"):
        SETTINGS.check(sg.Threat("l0", 3))
