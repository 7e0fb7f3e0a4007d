"""Transfer: raw points, judged on the other model; the diagonal is white-box."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from evaluation.victims import Halfspace, features
from steadygrad.attacks import FGSM, PGD
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation import transfer_matrix
from steadygrad.evaluation.records import Cells
from steadygrad.evaluation.robustness import Bench
from steadygrad.evaluation.transfer import NOTE
from steadygrad.registry import describe

POINTS = features([[0.5, 0.5]] * 4, [0, 0, 0, 1])  # the last one is a clean mistake of both half-spaces
RESISTS, FALLS = Halfspace([1.0, 1.0], 1.9), Halfspace([1.0, 1.0], 1.1)  # margins .9 and .1, in l1 of the weights 2


def _three() -> tuple[dict[str, nn.Module], Dataset]:
    models: dict[str, nn.Module] = {
        f"m{i}": Classifier(nets.build(seed=i), mean=0.5, std=0.1, name=f"m{i}") for i in range(3)
    }
    x = nets.inputs(30)
    data = Dataset(x, models["m0"](x).argmax(1), ("a", "b", "c"), tuple(f"s{i}" for i in range(30)))
    return models, data


def test_a_source_that_resists_still_gives_points_that_transfer() -> None:
    matrix = transfer_matrix({"resists": RESISTS, "falls": FALLS}, POINTS, FGSM(), sg.linf(0.1))
    own, other = matrix.accuracy[0]
    assert own.value == 0.75  # only the clean mistake is lost at home ...
    assert other.value == 0.0  # ... and every point breaks the other model
    assert matrix.accuracy[1][1].value == 0.0
    assert matrix.accuracy[1][0].value == 0.75


def test_a_clean_mistake_counts_on_the_judging_model_at_distance_zero() -> None:
    records = Bench(POINTS).run_transfer({"r": RESISTS, "f": FALLS}, "f", FGSM(), sg.linf(0.1))
    frame = records.frame
    assert frame["model"].unique().tolist() == ["r"]
    assert frame["source"].unique().tolist() == ["f"]
    assert frame["success"].tolist() == [False, False, False, True]
    assert frame["distance"].tolist() == [float("inf")] * 3 + [0.0]
    assert (frame["forwards"] == 0).all()


def test_cells_equal_predictions_on_raw_points() -> None:
    models, data = _three()
    attack, threat = PGD(steps=5), sg.linf(0.1)
    bench = Bench(data)
    x, y = data.tensors()
    for source in models:
        records = bench.run_transfer(models, source, attack, threat)
        assert sorted(records.frame["model"].unique()) == sorted(set(models) - {source})
        seeds = bench.seeds(describe(attack), data.ids)
        points = attack.perturb(models[source], x, y, threat, generator=seeds)
        for name in set(models) - {source}:
            want = (models[name](points).argmax(1) != y) | (models[name](x).argmax(1) != y)
            assert records.where(model=name).frame["success"].tolist() == want.tolist()


def test_the_diagonal_is_the_white_box_attack() -> None:
    models, data = _three()
    attack, threat = PGD(steps=5), sg.linf(0.1)
    matrix = transfer_matrix(models, data, attack, threat)
    for i, (name, model) in enumerate(models.items()):
        assert matrix.accuracy[i][i] == Bench(data).run(model, name, attack, threat).accuracy()
    assert matrix.names == ("m0", "m1", "m2")
    assert len({cell.value for row in matrix.accuracy for cell in row}) > 2


def test_points_are_made_once_per_source_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    models, data = _three()
    calls: list[nn.Module] = []
    perturb = FGSM.perturb

    def counted(self: FGSM, model: nn.Module, *args: Any, **keywords: Any) -> Tensor:
        calls.append(model)
        return perturb(self, model, *args, **keywords)

    monkeypatch.setattr(FGSM, "perturb", counted)
    cells = Cells()
    first = transfer_matrix(models, data, FGSM(), sg.linf(0.1), cells=cells)
    assert calls == list(models.values())
    computed = cells.computed
    assert transfer_matrix(models, data, FGSM(), sg.linf(0.1), cells=cells) == first
    assert (cells.computed, len(calls)) == (computed, 3)


def test_the_plain_form_says_what_it_is_worth() -> None:
    plain = transfer_matrix({"r": RESISTS, "f": FALLS}, POINTS, FGSM(), sg.linf(0.1)).plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert (plain["attack"], plain["eps"], plain["names"]) == ("FGSM", 0.1, ["r", "f"])
    assert plain["note"] == NOTE
    assert "weak evidence" in NOTE
    assert "diagonal is white-box" in NOTE
    assert plain["accuracy"][0][1] == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.49, abs=0.01), "count": 4}


def test_one_model_has_a_diagonal_only() -> None:
    matrix = transfer_matrix({"f": FALLS}, POINTS, FGSM(), sg.linf(0.1))
    assert [[cell.value for cell in row] for row in matrix.accuracy] == [[0.0]]


@pytest.mark.parametrize(
    ("models", "threat", "message"),
    [
        ({}, sg.linf(0.1), "models is empty"),
        ({"f": FALLS}, sg.linf(), "a threat with one radius"),
        ({"f": FALLS}, sg.linf(torch.tensor([0.1] * 4)), "a threat with one radius"),
    ],
)
def test_wrong_calls_are_refused(models: dict[str, nn.Module], threat: sg.Threat, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        transfer_matrix(models, POINTS, FGSM(), threat)
