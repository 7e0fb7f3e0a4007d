"""The section on explanations: from tables alone, with intervals, pictures and refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nets
import steadygrad as sg
from oracles import intervals
from steadygrad.attacks import FGSM
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency, SmoothGrad
from steadygrad.attributions.sanity import parameter_randomization
from steadygrad.audit.audit import read
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.audit.explained import explained
from steadygrad.audit.schema_maps import Explained
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.map_attacks import MapAttacks
from steadygrad.measuring.runner import Runner, SavedTables
from steadygrad.measuring.store import Store

COUNT = 5
BETA = 20.0
FACTS = {"shape": [1, 4, 4], "classes": ["a", "b", "c"], "samples": COUNT}


def _model(activation: type[nn.Module] = nn.ReLU, kind: str = "conv") -> Classifier:
    return Classifier(nets.build(kind, activation=activation), mean=0.5, std=0.2, name="tiny")


def _data(count: int = COUNT) -> Dataset:
    x = nets.inputs(count)
    return Dataset(x, torch.arange(count) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(count)))


def _plan(threat: sg.Threat, *attributions: Attribution, **changes: Any) -> AuditPlan:
    few = {"samples": COUNT, "certified": 3, "steps": 4, "restarts": 1, "draws": 2, "beta": BETA}
    settings = {f"explanation_{name}": value for name, value in few.items()}
    given = {"explanations": True, "attributions": attributions or (Saliency(),), "gallery": 2}
    return AuditPlan.of(threat, settings | given | changes)


def test_the_summary_follows_from_the_table() -> None:
    runner, threat = Runner({"m": _model()}, _data(), seed=2, batch_size=2), sg.linf(0.1)
    plain, arrays = explained(runner, ["m"], _plan(threat), FACTS)
    assert Explained.model_validate(plain).plain() == plain
    row = plain["models"]["m"]["attributions"][0]
    given = {"certify": np.arange(COUNT) < 3}
    measure = MapAttacks(Saliency(), threat, steps=4, restarts=1, draws=2, beta=BETA)
    table = runner.run(measure, "m", given=given, rows=range(COUNT), keep=range(2)).frame
    assert runner.store.computed == 2  # with the table of random layers: nothing is measured again
    assert plain["models"]["m"]["beta"] == BETA
    assert (plain["samples"], plain["pixels"]) == (COUNT, {"all": 16, "top": 2})
    assert plain["threat"] == {"norm": "linf", "eps": 0.1, "bounds": [0.0, 1.0], "mask": None}
    assert plain["goals"] == ["top-k", "mass-center", "cosine", "euclidean"]
    assert list(row["similarity"]) == ["top_k_intersection", "kendall", "cosine", "mass_center_displacement"]
    for name, ways in row["similarity"].items():
        assert list(ways) == ["attack", "noise", "own_attack", "own_noise"]
        for way, estimate in ways.items():
            values = table[f"similarity_{name}_{way}"]
            middle, low, high = intervals.student_interval(values.tolist())
            floor = -1.0 if name == "kendall" else 0.0
            expected = (middle, max(floor, low), min(1.0, high))
            assert tuple(estimate[k] for k in ("value", "low", "high")) == pytest.approx(expected, abs=1e-6)
    moved = int((table["similarity_top_k_intersection_attack"] < 1).sum())
    low, high = intervals.score_interval(moved, COUNT)
    assert row["moved"]["attack"] == {
        "value": moved / COUNT, "low": pytest.approx(low), "high": pytest.approx(high), "count": COUNT,
    }  # fmt: skip
    assert row["points"] == table["points"].sum()
    for d in ("euclidean", "cosine"):
        for kind, count in (("linearized", COUNT), ("certified", 3)):
            assert table[f"deviation_{d}_{kind}"].notna().tolist() == [True] * count + [False] * (COUNT - count)
            some = table[:count]
            ratio = sorted(some[f"deviation_{d}_attack"] / some[f"deviation_{d}_{kind}"])
            bound = row["deviation"][d][kind]
            assert (bound["count"], bound["points"]) == (count, some["points"].sum())
            assert bound["largest"] == pytest.approx(ratio[-1])
            assert bound["ratio"]["0.5"]["value"] == pytest.approx(ratio[count // 2])
            assert bound["over"] == some[f"over_{d}_{kind}"].sum()
    assert row["certain"]["mean"]["count"] == 3
    for name in row["faithful"]:
        assert row["faithful"][name]["map"]["value"] == pytest.approx(table[f"{name}_map"].mean())
    assert {name: a.shape for name, a in arrays.items()} == {
        "clean_explained": (2, 1, 4, 4), "adversarial_explained_0_0": (2, 1, 4, 4),
        **{f"map_{kind}_explained_0_0": (2, 4, 4) for kind in ("clean", "adversarial", "marks", "salience")},
    }  # fmt: skip
    assert [(s["id"], s["label"], s["index"]) for s in row["samples"]] == [("s0", "a", 0), ("s1", "b", 1)]
    for i, caption in enumerate(row["samples"]):
        model = sg.smooth(_model(), BETA)
        for state in ("clean", "adversarial"):
            image = arrays["clean_explained" if state == "clean" else "adversarial_explained_0_0"][i]
            best = model(torch.from_numpy(image)[None]).detach().softmax(1).max(1)
            assert "abc"[int(best.indices)] == caption["prediction"]
            assert caption[f"{state}_confidence"] == pytest.approx(float(best.values), rel=1e-4)
        changed = arrays["adversarial_explained_0_0"][i] - arrays["clean_explained"][i]
        assert np.abs(changed).max() <= 0.1 + 1e-6


def test_random_layers_are_compared_beside() -> None:
    model = _model()
    plain, _ = explained(Runner({"m": model}, _data()), ["m"], _plan(sg.linf(0.1)), FACTS)
    found = plain["models"]["m"]["attributions"][0]["randomization"]
    direct = parameter_randomization(Saliency(), model, _data().tensors()[0])
    assert (found["refused"], found["layers"]) == (None, list(direct.layers))
    for estimate, values in zip(found["similarity"], direct.similarity, strict=True):
        middle, low, high = intervals.student_interval(values.double().tolist())
        expected = (middle, max(-1.0, low), min(1.0, high))
        assert tuple(estimate[k] for k in ("value", "low", "high")) == pytest.approx(expected, abs=1e-6)
        assert estimate["count"] == COUNT


def test_saved_tables_give_the_same_without_a_model(tmp_path: Path) -> None:
    models = {"m": _model(), "linear": nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "own": _model(nn.Softplus)}
    plan = _plan(sg.linf(0.1), Saliency(), IntegratedGradients(2))
    plain, arrays = explained(Runner(models, _data(), Store(tmp_path)), list(models), plan, FACTS)
    again, pictures = explained(SavedTables(tmp_path, FACTS["samples"]), list(models), plan, FACTS)
    assert again == plain
    assert Explained.model_validate(plain).plain() == plain
    assert pictures.keys() == arrays.keys()
    assert all(np.array_equal(pictures[name], arrays[name]) for name in arrays)
    linear, own = plain["models"]["linear"], plain["models"]["own"]
    assert (linear["beta"], own["beta"]) == (None, None)
    for row in linear["attributions"]:
        assert "second derivative of this function is zero" in row["refused"]
        assert row["samples"] == []
        # Its maps say what it has learned all the same.
        assert row["randomization"]["layers"] == ["1"]
    assert [row["surrogate"] for row in own["attributions"]] == [None, None]
    assert not any(name.endswith(("1_0", "1_1")) for name in arrays)


@pytest.mark.parametrize(
    ("model", "attribution", "kind"),
    [(_model(nn.Softplus, "attention"), Saliency(), "certified"), (_model(), SmoothGrad(samples=2), "linearized")],
)
def test_a_bound_that_does_not_exist_is_named(model: nn.Module, attribution: Attribution, kind: str) -> None:
    plain, _ = explained(Runner({"m": model}, _data()), ["m"], _plan(sg.linf(0.05), attribution), FACTS)
    row = plain["models"]["m"]["attributions"][0]
    assert row["refused"] is None
    assert row["why"][kind]
    assert row["deviation"]["euclidean"][kind] is None
    assert row["certain"] is None
    assert row["similarity"]["cosine"]["attack"]["count"] == COUNT


def test_no_pictures_leave_no_arrays_and_a_radius_of_their_own_counts() -> None:
    plan = _plan(sg.linf(0.1), explanation_samples=3, explanation_eps=0.01, gallery=0)
    plain, arrays = explained(Runner({"m": _model()}, _data()), ["m"], plan, FACTS)
    assert arrays == {}
    assert plain["threat"]["eps"] == 0.01
    assert plain["models"]["m"]["attributions"][0]["samples"] == []


def test_features_have_no_center_of_mass() -> None:
    data = Dataset(torch.tensor([[0.2, 0.4, 0.6], [0.8, 0.1, 0.3]]), torch.tensor([0, 1]), ("a", "b"), ("s0", "s1"))
    net = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2))
    facts = {"shape": [3], "classes": ["a", "b"], "samples": 2}
    plain, arrays = explained(Runner({"m": net}, data), ["m"], _plan(sg.l2(0.1)), facts)
    assert plain["goals"] == ["top-k", "cosine", "euclidean"]
    assert "mass_center_displacement" not in plain["models"]["m"]["attributions"][0]["similarity"]
    assert plain["models"]["m"]["attributions"][0]["faithful"] is None
    assert arrays["adversarial_explained_0_0"].shape == (2, 1, 1, 3)


@pytest.mark.parametrize(
    "settings",
    [{"samples": 0}, {"steps": 0}, {"restarts": 0}, {"draws": 0}, {"certified": -1}, {"eps": -1.0}, {"beta": math.inf}],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(UsageError, match=rf"explanation_{name} must be [a-z]+ .*, got {value}$"):
        _plan(sg.linf(0.1), **{f"explanation_{name}": value})


def test_other_norms_are_refused() -> None:
    with pytest.raises(UsageError, match="within linf or l2, not within l1"):
        _plan(sg.l1(1.0))


@pytest.mark.slow
def test_an_audit_takes_in_maps_and_neurons_and_is_read_again(tmp_path: Path) -> None:
    data = _data(12)
    found = sg.audit(
        _model(), data, sg.linf(0.1), attacks=[FGSM()], attributions=(Saliency(),), checked=4, gallery=2,
        explanations=True, explanation_samples=3, explanation_eps=0.01, explanation_steps=2, neurons=True,
        out=tmp_path / "run",
    )  # fmt: skip
    assert found.summary["explained"]["threat"]["eps"] == 0.01
    assert found.summary["explained"]["models"]["tiny"]["beta"] == 50.0
    assert [s["id"] for s in found.summary["explained"]["models"]["tiny"]["attributions"][0]["samples"]] == [
        *data.draw().ids[:2]
    ]
    assert found.summary["neurons"]["samples"] == 12
    assert found.arrays["map_marks_explained_0_0"].shape == (2, 4, 4)
    again = read(tmp_path / "run")
    assert again.summary == found.summary
    assert all(np.array_equal(again.arrays[name], found.arrays[name]) for name in found.arrays)
    with pytest.raises(UsageError, match="within linf or l2, not within l1"):
        sg.audit(_model(), data, sg.l1(1.0), out=tmp_path / "l1", explanations=True)
    assert not (tmp_path / "l1").exists()
