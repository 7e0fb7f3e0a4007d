"""Transfer: raw points, judged on the other model; the diagonal is white-box."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from audit.victims import Halfspace, features
from steadygrad.attacks import FGSM, PGD, Attack
from steadygrad.audit.records import accuracy
from steadygrad.audit.summary import NOTE
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.measuring.measures.attacked import Attacked, Transferred
from steadygrad.measuring.runner import Runner

POINTS = features([[0.5, 0.5]] * 4, [0, 0, 0, 1])  # the last one is a clean mistake of both half-spaces
RESISTS, FALLS = Halfspace([1.0, 1.0], 1.9), Halfspace([1.0, 1.0], 1.1)  # margins .9 and .1, in l1 of the weights 2
BOTH: dict[str, nn.Module] = {"resists": RESISTS, "falls": FALLS}


def _three() -> tuple[dict[str, nn.Module], Dataset]:
    models: dict[str, nn.Module] = {
        f"m{i}": Classifier(nets.build(seed=i), mean=0.5, std=0.1, name=f"m{i}") for i in range(3)
    }
    x = nets.inputs(30)
    data = Dataset(x, models["m0"](x).argmax(1), ("a", "b", "c"), tuple(f"s{i}" for i in range(30)))
    return models, data


def _audited(models: dict[str, nn.Module], data: Dataset, attack: Attack) -> dict[str, Any]:
    settings: dict[str, Any] = {"attacks": [attack], "attributions": (), "gallery": 0, "checked": 4, "grid": (1.0,)}
    return sg.audit(models, data, sg.linf(0.1), **settings).summary


def test_a_source_that_resists_still_gives_points_that_transfer() -> None:
    found = _audited(BOTH, POINTS, FGSM())["transfer"]
    values = [[cell["value"] for cell in row] for row in found["accuracy"]]
    # Only the clean mistake is lost at home, and every point breaks the other model.
    assert values == [[0.75, 0.0], [0.75, 0.0]]


def test_a_clean_mistake_counts_on_the_judging_model_at_distance_zero() -> None:
    runner = Runner(BOTH, POINTS)
    found = runner.run(Transferred(FGSM(), sg.linf(0.1)), "resists", beside=("falls",))
    assert found["success"].tolist() == [False, False, False, True]
    assert found["distance"].tolist() == [float("inf")] * 3 + [0.0]
    assert (found["forwards"] == 0).all()
    assert found["broken_by"].tolist() == [""] * 4
    other = runner.run(Transferred(FGSM(), sg.linf(0.1)), "falls", beside=("resists",))
    assert other["success"].tolist() == [True] * 4
    assert other["broken_by"].tolist() == ["FGSM"] * 3 + [""]
    assert other["distance"].tolist() == pytest.approx([0.1] * 3 + [0.0])


@pytest.mark.parametrize("batch_size", [200, 7])
def test_tables_equal_predictions_on_raw_points(batch_size: int) -> None:
    models, data = _three()
    attack, threat = PGD(steps=5), sg.linf(0.1)
    runner = Runner(models, data, batch_size=batch_size)
    x, y = data.tensors()
    for source in models:
        seeds = runner.seeds(Attacked(attack, threat).draws_as, data.ids)
        points = attack.perturb(models[source], x, y, threat, generator=seeds)
        for name in set(models) - {source}:
            want = (models[name](points).argmax(1) != y) | (models[name](x).argmax(1) != y)
            found = runner.run(Transferred(attack, threat), name, beside=(source,), title=f"made on {source}")
            assert found["success"].tolist() == want.tolist()


def test_the_diagonal_is_the_white_box_attack() -> None:
    models, data = _three()
    attack, threat = PGD(steps=5), sg.linf(0.1)
    summary = _audited(models, data, attack)
    matrix = summary["transfer"]["accuracy"]
    for i, (name, model) in enumerate(models.items()):
        own = Runner({name: model}, data).run(Attacked(attack, threat), name)
        assert matrix[i][i] == accuracy(own).plain() == summary["models"][i]["attacks"][0]["accuracy"]
    assert summary["transfer"]["names"] == ["m0", "m1", "m2"]
    assert len({cell["value"] for row in matrix for cell in row}) > 2


def test_points_are_made_once_per_pair_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    models, data = _three()
    calls: list[nn.Module] = []
    perturb = FGSM.perturb

    def counted(self: FGSM, model: nn.Module, *args: Any, **keywords: Any) -> Tensor:
        calls.append(model)
        return perturb(self, model, *args, **keywords)

    monkeypatch.setattr(FGSM, "perturb", counted)
    runner, measure = Runner(models, data), Transferred(FGSM(), sg.linf(0.1))
    for _ in range(2):
        for source in models:
            for name in set(models) - {source}:
                runner.run(measure, name, beside=(source,), title=f"made on {source}")
    assert len(calls) == 6
    assert {id(model) for model in calls} == {id(model) for model in models.values()}


def test_the_summary_says_what_it_is_worth() -> None:
    found = _audited(BOTH, POINTS, FGSM())["transfer"]
    assert (found["attack"], found["eps"], found["names"]) == ("FGSM", 0.1, ["resists", "falls"])
    assert found["note"] == NOTE
    assert "weak evidence" in NOTE
    assert "diagonal is white-box" in NOTE
    cell = found["accuracy"][0][1]
    assert cell == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.49, abs=0.01), "count": 4}


def test_one_model_has_no_matrix() -> None:
    assert _audited({"falls": FALLS}, POINTS, FGSM())["transfer"] is None


def test_the_models_are_left_as_they_were() -> None:
    models, data = _three()
    state = torch.get_rng_state()
    Runner(models, data).run(Transferred(PGD(steps=2), sg.linf(0.1)), "m0", beside=("m1",))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for model in models.values() for p in model.parameters())
