"""Pushed explanations: numbers from their definitions, bounds that hold, refusals named, work that is kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from evaluation import victims
from oracles import attributions as maps_oracle
from oracles import intervals
from steadygrad.attacks import FGSM, Expectation, worst_similarity
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency, SmoothGrad
from steadygrad.audit.schema import Summary
from steadygrad.bounds import AttributionDeviation
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.evaluation import Audit, Explaining
from steadygrad.evaluation.columns import Columns
from steadygrad.evaluation.explained import push
from steadygrad.evaluation.explained.measured import measure
from steadygrad.evaluation.explained.settings import attacks_on, subject_of
from steadygrad.evaluation.explained.summary import explain
from steadygrad.evaluation.faithfulness import faithfulness
from steadygrad.evaluation.records import Cells
from steadygrad.evaluation.robustness import Bench

COUNT = 5
FEW = Explaining(samples=COUNT, certified=COUNT, steps=4, restarts=1, draws=2, beta=20.0)
SEEDS = torch.arange(COUNT)


def _model(activation: type[nn.Module] = nn.Softplus, kind: str = "conv") -> Classifier:
    return Classifier(nets.build(kind, activation=activation), mean=0.5, std=0.2, name="tiny")


def _data(count: int = COUNT) -> Dataset:
    x = nets.inputs(count)
    return Dataset(x, torch.arange(count) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(count)))


def _measured(model: nn.Module, threat: sg.Threat, attribution: Attribution | None = None) -> Columns:
    x, _ = _data().tensors()
    subject = subject_of(model, x, SEEDS, FEW.beta)
    return measure(model, subject, attribution or Saliency(), x, threat, FEW, SEEDS, COUNT)


def _map(model: nn.Module, x: Tensor, target: int) -> Tensor:
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf[None])[0, target], leaf)
    return slope.double().flatten()


def _far(before: Tensor, after: Tensor) -> dict[str, float]:
    angle = float(before @ after / (before.norm() * after.norm()))
    return {"euclidean": float((after - before).norm() / before.norm()), "cosine": 1 - angle}


def test_deviations_and_excesses_are_those_of_the_points_found() -> None:
    model, threat = _model(), sg.linf(0.2)
    columns = _measured(model, threat)
    x, _ = _data().tensors()
    suite = attacks_on(Saliency(), FEW, True)
    found = worst_similarity(model, x, None, threat, Saliency(), attacks=suite, generator=SEEDS)
    bounds = {
        (kind, d): AttributionDeviation(Saliency(), kind=kind, distance=d, steps=0)(  # type: ignore[arg-type]
            model, x, found.results[0].target, threat, generator=SEEDS
        )
        for kind in ("linearised", "certified")
        for d in ("euclidean", "cosine")
    }
    exceeded = 0
    for n in range(COUNT):
        target = int(model(x[n : n + 1]).argmax())
        before = _map(model, x[n], target)
        points = [p.inputs[n] for r in found.results for p in (r, r.noise) if p is not None and bool(p.moved[n])]
        points += [b.inputs[n] for (kind, d), b in bounds.items() if (kind, d) != ("certified", "cosine")]
        points = [p for p in points if int(model(p[None]).argmax()) == target and not torch.equal(p, x[n])]
        far = [_far(before, _map(model, p, target)) for p in points]
        assert columns["points"][n] == len(points)
        for d in ("euclidean", "cosine"):
            unit = float(before.norm()) if d == "euclidean" else 1.0
            assert columns[f"deviation_{d}_attack"][n] == pytest.approx(max(f[d] for f in far), rel=1e-3)
            for kind in ("linearised", "certified"):
                upper = float(bounds[kind, d].upper[n]) / unit
                assert columns[f"deviation_{d}_{kind}"][n] == pytest.approx(upper, rel=1e-3)
                over = sum(f[d] > upper * (1 + 1e-3) for f in far)
                assert columns[f"over_{d}_{kind}"][n] == over
                exceeded += over
        assert columns["confidence"][n] == pytest.approx(float(model(x[n : n + 1]).detach().softmax(1).max()))
    for name in ("top_k_intersection", "kendall", "cosine"):
        np.testing.assert_allclose(columns[f"similarity_{name}_attack"], found.worst[name].numpy(), rtol=1e-5)
        np.testing.assert_allclose(columns[f"similarity_{name}_noise"], found.noise[name].numpy(), rtol=1e-5)
    assert exceeded > 0  # linearised ones at this radius: the count is not always zero
    assert all(columns[f"over_{d}_certified"].sum() == 0 for d in ("euclidean", "cosine"))


@pytest.mark.parametrize("threat", [sg.linf(0.002), sg.l2(0.004)], ids=str)
@pytest.mark.parametrize("attribution", [Saliency(), IntegratedGradients(3)], ids=str)
def test_what_is_certain_stays_in_the_top_of_every_map_found(threat: sg.Threat, attribution: Attribution) -> None:
    columns = _measured(_model(), threat, attribution)
    assert columns["certain"].sum() > 0
    np.testing.assert_array_equal((columns["marks"] == 4).sum(1), columns["certain"])
    for n in range(COUNT):
        before, after = (columns[f"map_{when}"][n] for when in ("clean", "shown"))
        tops = [set(np.argsort(-m, kind="stable")[:2].tolist()) for m in (before, after)]
        marks = columns["marks"][n]
        for mark, places in ((2, tops[0] - tops[1]), (1, tops[1] - tops[0])):
            assert set(np.flatnonzero(marks == mark).tolist()) == places
        assert set(np.flatnonzero(marks >= 3).tolist()) == tops[0] & tops[1]
        assert columns["similarity_top_k_intersection_attack"][n] == len(tops[0] & tops[1]) / 2
        assert columns["similarity_top_k_intersection_attack"][n] * 2 >= columns["certain"][n]
    assert (columns["deviation_euclidean_attack"] <= columns["deviation_euclidean_certified"]).all()


def test_rectifiers_are_smoothed_and_the_models_own_maps_stand_beside() -> None:
    model, threat = _model(nn.ReLU), sg.linf(0.2)
    columns = _measured(model, threat)
    x, _ = _data().tensors()
    twin = sg.smooth(model, FEW.beta)
    found = worst_similarity(
        twin, x, None, threat, Saliency(), attacks=attacks_on(Saliency(), FEW, True), generator=SEEDS
    )
    np.testing.assert_allclose(columns["similarity_kendall_attack"], found.worst["kendall"].numpy(), rtol=1e-5)
    for n in range(COUNT):
        label, target = int(model(x[n : n + 1]).argmax()), int(twin(x[n : n + 1]).argmax())
        assert columns["own_prediction"][n] == label
        before = _map(model, x[n], target)
        for way, results in (("attack", found.results), ("noise", [r.noise for r in found.results])):
            worst = 1.0
            for result in results:
                point = result.inputs[n]  # type: ignore[union-attr]
                if int(model(point[None]).argmax()) == label:
                    after = _map(model, point, target)
                    worst = min(worst, maps_oracle.top_k_common(before.abs().tolist(), after.abs().tolist(), 2))
            assert columns[f"similarity_top_k_intersection_own_{way}"][n] == pytest.approx(worst)
    assert not any("_own_" in name for name in _measured(_model(), threat))


REFUSED: dict[str, tuple[Any, Attribution, str, str]] = {
    "a layer that is not certified": (
        lambda: _model(kind="attention"),
        Saliency(),
        "why_certified",
        "in tiny|_Attention",
    ),
    "an attribution without bounds": (_model, SmoothGrad(samples=2), "why_linearised", "no bounds for SmoothGrad"),
    "no curvature": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
        Saliency(),
        "why",
        "second derivative of this function is zero",
    ),
    "random numbers": (lambda: Expectation(victims.Noisy(_model(), 1.0), 2), Saliency(), "why", "drawn anew"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_named_and_the_rest_measured(case: str) -> None:
    make, attribution, column, words = REFUSED[case]
    found = explain(Bench(_data()), {"m": make()}, [attribution], sg.linf(0.05), FEW)
    row = found.plain["models"]["m"]["attributions"][0]
    said = row["refused"] if column == "why" else row["why"][column.removeprefix("why_").replace("ised", "ized")]
    assert any(word in said for word in words.split("|")), said
    assert (row["refused"] is None) == (column != "why")
    if column != "why":
        kind = column.removeprefix("why_").replace("ised", "ized")
        assert row["deviation"]["euclidean"][kind] is None
        assert row["similarity"]["cosine"]["attack"]["count"] == COUNT
    if case == "a layer that is not certified":
        assert row["certain"] is None
        assert row["deviation"]["cosine"]["linearized"]["bound"]["value"] > 0
    assert len(found.records) == COUNT


def test_the_summary_follows_from_the_records() -> None:
    settings = dataclasses.replace(FEW, certified=3)
    bench = Bench(_data(), seed=2, batch_size=2)
    found = explain(bench, {"m": _model(nn.ReLU)}, [Saliency()], sg.linf(0.1), settings, 2)
    row, frame = found.plain["models"]["m"]["attributions"][0], pd.DataFrame(found.records)
    assert found.plain["models"]["m"]["beta"] == FEW.beta
    assert list(frame["sample"]) == [f"s{i}" for i in range(COUNT)]
    for name, ways in row["similarity"].items():
        for way, estimate in ways.items():
            values = frame[f"similarity_{name}_{way}"]
            middle, low, high = intervals.student_interval(values.tolist())
            floor = -1.0 if name == "kendall" else 0.0
            expected = (middle, max(floor, low), min(1.0, high))
            assert tuple(estimate[k] for k in ("value", "low", "high")) == pytest.approx(expected, abs=1e-6)
    moved = int((frame["similarity_top_k_intersection_attack"] < 1).sum())
    low, high = intervals.score_interval(moved, COUNT)
    assert row["moved"]["attack"] == {
        "value": moved / COUNT, "low": pytest.approx(low), "high": pytest.approx(high), "count": COUNT,
    }  # fmt: skip
    assert row["points"] == frame["points"].sum()
    for d in ("euclidean", "cosine"):
        for kind, count in (("linearised", COUNT), ("certified", 3)):
            assert frame[f"deviation_{d}_{kind}"].notna().tolist() == [True] * count + [False] * (COUNT - count)
            some = frame[:count]
            ratio = sorted(some[f"deviation_{d}_attack"] / some[f"deviation_{d}_{kind}"])
            bound = row["deviation"][d][kind.replace("ised", "ized")]
            assert (bound["count"], bound["points"]) == (count, some["points"].sum())
            assert bound["largest"] == pytest.approx(ratio[-1])
            assert bound["ratio"]["0.5"]["value"] == pytest.approx(ratio[count // 2])
            assert bound["over"] == some[f"over_{d}_{kind}"].sum()
    assert row["certain"]["mean"]["count"] == 3
    assert {name: a.shape for name, a in found.arrays.items()} == {
        "clean_explained": (2, 1, 4, 4), "adversarial_explained_0_0": (2, 1, 4, 4),
        **{f"map_{kind}_explained_0_0": (2, 4, 4) for kind in ("clean", "adversarial", "marks", "salience")},
    }  # fmt: skip
    for i, caption in enumerate(row["samples"]):
        model = sg.smooth(_model(nn.ReLU), FEW.beta)
        for state in ("clean", "adversarial"):
            image = found.arrays["clean_explained" if state == "clean" else "adversarial_explained_0_0"][i]
            best = model(torch.from_numpy(image)[None]).detach().softmax(1).max(1)
            assert "abc"[int(best.indices)] == caption["prediction"]
            assert caption[f"{state}_confidence"] == pytest.approx(float(best.values), rel=1e-4)
        changed = found.arrays["adversarial_explained_0_0"][i] - found.arrays["clean_explained"][i]
        assert np.abs(changed).max() <= 0.1 + 1e-6


def test_features_have_no_center_of_mass() -> None:
    data = victims.features([[0.2, 0.4, 0.6], [0.8, 0.1, 0.3]], [0, 1])
    net = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2))
    found = explain(Bench(data), {"m": net}, [Saliency()], sg.l2(0.1), FEW)
    assert found.plain["goals"] == ["top-k", "cosine", "euclidean"]
    assert "mass_center_displacement" not in found.plain["models"]["m"]["attributions"][0]["similarity"]
    assert found.arrays["adversarial_explained_0_0"].shape == (2, 1, 1, 3)


def test_neither_batches_nor_cells_nor_more_samples_change_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    def values(batch_size: int, samples: int) -> dict[str, Any]:
        settings = Explaining(samples=samples, certified=3, steps=3, restarts=1, draws=2)
        bench = Bench(_data(), batch_size=batch_size)
        return explain(bench, {"m": _model()}, [Saliency()], sg.linf(0.1), settings).records[2]

    usual = values(200, 5)
    monkeypatch.setattr(push, "CHUNK", 2)
    assert values(1, 3) == {
        name: value if isinstance(value, str | int) else pytest.approx(value, rel=1e-3, abs=1e-6)
        for name, value in usual.items()
    }


@pytest.mark.slow
def test_a_killed_run_continues_and_a_damaged_cell_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(push, "CHUNK", 2)
    calls: list[int] = []

    def counted(*arguments: Any) -> Columns:
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    def run(folder: Path | None) -> dict[str, Any]:
        bench = Bench(_data(), Cells(folder))
        return explain(bench, {"m": _model()}, [Saliency(), IntegratedGradients(2)], sg.linf(0.1), FEW).plain

    whole = run(None)
    monkeypatch.setattr(push, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert run(tmp_path) == whole
    assert len(calls) == 3 + 4  # the one under way, and what was not begun
    assert run(tmp_path) == whole
    assert len(calls) == 7
    cell = min(tmp_path.glob("*.npz"))
    cell.write_bytes(cell.read_bytes()[:100])
    with pytest.raises(Failure, match=rf"{cell.name}.*delete the file to have it made again"):
        run(tmp_path)


def test_the_model_is_left_as_it_was() -> None:
    model = _model(nn.ReLU).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explain(Bench(_data()), {"m": model}, [Saliency()], sg.linf(0.1), FEW)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"samples": 0}, "samples of explanations must be at least 1"), ({"eps": -1.0}, "positive and finite, got -1"),
     ({"beta": math.inf}, "beta of explanations")],
)  # fmt: skip
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Explaining(**settings)


def test_an_audit_writes_what_its_summary_says(digits: Dataset, honest: Classifier, tmp_path: Path) -> None:
    def run(out: Path | None, **changes: Any) -> Audit:
        settings = Explaining(samples=3, eps=0.01, steps=2, restarts=1, draws=1)
        given = {"attacks": [FGSM()], "attributions": (Saliency(),), "checked": 5, "gallery": 2, **changes}
        return sg.audit(
            honest, digits.take(6), changes.pop("threat", sg.linf(0.1)), out=out, explanations=settings, **given
        )

    found = run(tmp_path / "run")
    Summary.model_validate(found.summary)
    explained = found.summary["explained"]
    assert explained["threat"]["eps"] == 0.01
    assert explained["models"]["mlp32"]["beta"] == 50.0
    frame = pd.read_parquet(tmp_path / "run" / "explained.parquet")
    assert list(frame["sample"]) == list(digits.ids[:3])
    with np.load(tmp_path / "run" / "pictures.npz") as file:
        assert file["map_marks_explained_0_0"].shape == (2, 8, 8)
        assert file["map_salience_explained_0_0"].shape == (2, 8, 8)
    (row,) = explained["models"]["mlp32"]["attributions"]
    direct = faithfulness(honest, digits.take(3).tensors()[0], Saliency())
    for name, values in direct.items():
        # Of the model itself, not of the surrogate that was pushed.
        assert row["faithful"][name]["map"]["value"] == pytest.approx(float(values.double().mean()), rel=1e-5)
    assert row["faithful"]["energy inside"]["chance"]["value"] < row["faithful"]["energy inside"]["map"]["value"]
    assert run(tmp_path / "run").summary == found.summary
    assert run(None, gallery=0).summary["gallery"] is None
    with pytest.raises(UsageError, match="within linf or l2, not within l1"):
        sg.audit(honest, digits.take(6), sg.l1(1.0), out=tmp_path / "l1", explanations=Explaining())
    assert not (tmp_path / "l1").exists()
