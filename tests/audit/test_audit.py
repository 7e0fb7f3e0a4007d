"""The audit: its summary as documented, its numbers from its records, its folder, its refusals."""

from __future__ import annotations

import copy
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import nets
import steadygrad as sg
from audit import victims
from oracles import intervals
from steadygrad.attacks import FGSM, PGD, Attack, RandomNoise, Standard
from steadygrad.attacks.suites import SUITES
from steadygrad.attributions import Saliency
from steadygrad.audit.audit import read
from steadygrad.audit.checks.validity import validity
from steadygrad.audit.findings import Audit
from steadygrad.audit.schema import Summary
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.mean_image import mean_image
from steadygrad.errors import UsageError
from steadygrad.files import read_json, read_toml
from steadygrad.measuring.measures.attacked import RECORDS
from steadygrad.measuring.measures.rho2 import Rho2, mean_ratio
from steadygrad.measuring.runner import Runner
from steadygrad.registry import describe, label_of

pytestmark = pytest.mark.slow

SUITE = (PGD(steps=8), PGD(steps=8, loss="ce"), FGSM(), RandomNoise(draws=3))
LABELS = tuple(label_of(attack) for attack in SUITE)
SAMPLES = 50
THREAT = sg.linf(0.1)
SMALL: dict[str, Any] = {"attacks": [FGSM()], "attributions": (Saliency(),), "checked": 20, "gallery": 2}


@pytest.fixture(scope="module")
def models(honest: Classifier, other: Classifier) -> dict[str, nn.Module]:
    # The distilled one must be found out; a plain module has no name, shape or classes of its own.
    return {"honest": honest, "other": other, "distilled": victims.Sharp(honest, 100.0)}


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.take(SAMPLES)


@pytest.fixture(scope="module")
def done(models: dict[str, nn.Module], some: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return _audit(models, some, tmp_path_factory.mktemp("audit") / "run")


def _audit(models: Any, data: Dataset, out: Path | None, **changes: Any) -> Audit:
    settings: dict[str, Any] = {
        "attacks": SUITE, "attributions": (Saliency(), Saliency(of="loss")), "checked": 30, "gallery": 4, "seed": 1,
        "files": {"honest": "runs/h.safetensors"}, "command": "steadygrad audit runs/h.safetensors",
    }  # fmt: skip
    return sg.audit(models, data, changes.pop("threat", THREAT), out=out, **{**settings, **changes})


def _without_times(summary: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in summary.items() if k not in ("created", "seconds", "machine")}


def _folder(found: Audit) -> Path:
    assert found.folder is not None
    return found.folder


def test_the_summary_is_as_documented(done: Audit) -> None:
    Summary.model_validate(done.summary)
    written = read_json(_folder(done) / "summary.json")[0]
    assert written == done.summary


def _damaged(summary: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    copied = copy.deepcopy(summary)
    *path, last = [int(p) if p.isdigit() else p for p in place.split("/")]
    inner: Any = copied
    for step in path:
        inner = inner[step]
    inner[last] = value
    return copied


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema", 2),
        ("extra", 1),
        ("seconds", float("nan")),
        ("models/0/clean/low", 0.999),
        ("models/0/robust/count", 49),
        ("models/1/verdict/state", None),
        ("models/0/curve/points/0/eps", 0.01),
        ("models/0/attacks/0/median_distance", float("inf")),
        ("transfer/names", ["honest"]),
        ("gallery/grid", {"model": "honest"}),
        ("gallery/models/other/0/label", "none"),
    ],
)
def test_the_schema_sees_what_is_not_as_documented(done: Audit, place: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Summary.model_validate(_damaged(done.summary, place, value))


def test_the_records_hold_every_model_attack_and_sample_once(done: Audit, some: Dataset) -> None:
    frame = done.records.frame
    assert list(frame) == list(RECORDS)
    assert len(frame) == 3 * (len(SUITE) + 1) * SAMPLES
    assert not frame.duplicated(["model", "attack", "sample"]).any()
    assert set(frame["attack"]) == {*LABELS, f"{LABELS[0]} (curve)"}
    assert set(frame["sample"]) == set(some.ids)
    assert (frame["eps"] == 0.1).all()


def test_every_number_follows_from_the_records(done: Audit) -> None:
    for model in done.summary["models"]:
        frame = done.records.where(model=model["name"]).frame
        standing = ~frame.groupby("sample")["success"].any()
        clean = frame.groupby("sample").first()
        clean_right = clean["clean_prediction"] == clean["label"]
        _is_share(model["robust"], standing.to_numpy())
        _is_share(model["clean"], clean_right.to_numpy())
        assert model["robust"]["value"] < min(a["accuracy"]["value"] for a in model["attacks"]) + 1e-12
        for attack, label, method in zip(model["attacks"], LABELS, SUITE, strict=True):
            mine = frame[frame["attack"] == label]
            right = mine[mine["clean_prediction"] == mine["label"]]
            assert attack["label"] == label
            assert sg.registry.build("attack", attack["name"], attack["settings"]) == method
            _is_share(attack["accuracy"], ~mine["success"].to_numpy())
            _is_share(attack["after_rounding"], ~mine["rounded_success"].to_numpy())
            _is_share(attack["success_rate"], right["success"].to_numpy())
            for key in ("zero_gradient", "forwards", "backwards"):
                assert attack[key] == pytest.approx(mine[key].mean())
            median = intervals.quantile(mine["distance"].tolist(), Fraction(1, 2))
            assert attack["median_distance"] == (median if np.isfinite(median) else None)


def _is_share(estimate: dict[str, Any], flags: Any) -> None:
    low, high = intervals.score_interval(int(flags.sum()), len(flags))
    assert estimate["count"] == len(flags)
    assert (estimate["value"], estimate["low"], estimate["high"]) == pytest.approx((flags.mean(), low, high), abs=1e-9)


def test_the_curve_starts_clean_and_leaves_no_more_than_its_attack_at_the_audited_radius(done: Audit) -> None:
    for model in done.summary["models"]:
        points = {p["eps"]: p["accuracy"]["value"] for p in model["curve"]["points"]}
        assert points[0.0] == model["clean"]["value"]
        # A sample that falls at a smaller radius counts at all larger ones; seeds differ, so one may escape.
        assert points[0.1] <= model["attacks"][0]["accuracy"]["value"] + 0.021
        assert list(points) == pytest.approx([0.1 * g for g in (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1, 1.5, 2)])


def test_verdicts_are_those_of_the_checks_and_find_the_distilled_number(
    done: Audit, models: dict[str, nn.Module], some: Dataset
) -> None:
    for model in done.summary["models"]:
        alone = validity(models[model["name"]], some, SUITE[0], THREAT, count=30, seed=1)
        assert model["verdict"] == json.loads(json.dumps(alone.plain()))
    by_name = {m["name"]: {a["label"]: a for a in m["attacks"]} for m in done.summary["models"]}
    masked = by_name["distilled"][LABELS[1]]
    assert masked["verdict"]["state"] == "refuted"
    assert masked["verdict"]["text"].startswith("number refuted, because ")
    assert masked["zero_gradient"] > 0.5
    same = [by_name[name][LABELS[0]]["accuracy"] for name in ("honest", "distilled")]
    assert same[0] == same[1]


def test_transfer_is_the_matrix_of_the_leading_attack(done: Audit, models: dict[str, nn.Module], some: Dataset) -> None:
    runner, (x, y) = Runner(models, some, seed=1), some.tensors()
    seeds = runner.seeds(describe(SUITE[0]), some.ids)
    for row, source in zip(done.summary["transfer"]["accuracy"], models, strict=True):
        points = SUITE[0].perturb(models[source], x, y, THREAT, generator=seeds)
        for cell, name in zip(row, models, strict=True):
            if name != source:
                stood = (models[name](points).argmax(1) == y) & (models[name](x).argmax(1) == y)
                _is_share(cell, stood.numpy())
    for i, model in enumerate(done.summary["models"]):
        assert done.summary["transfer"]["accuracy"][i][i] == model["attacks"][0]["accuracy"]


def test_what_is_written_down_about_models_and_run(done: Audit, models: dict[str, nn.Module]) -> None:
    first, _, last = done.summary["models"]
    assert (first["name"], first["file"], last["file"]) == ("honest", "runs/h.safetensors", None)
    assert first["architecture"]["name"] == "mlp"
    assert last["architecture"] is None
    assert first["parameters"] == sum(p.numel() for p in models["honest"].parameters())
    assert first["weights"] != last["weights"]
    assert done.summary["command"] == "steadygrad audit runs/h.safetensors"
    assert done.summary["version"] == sg.__version__
    assert done.summary["data"]["samples"] == SAMPLES


def test_the_folder_holds_what_the_design_says(done: Audit) -> None:
    folder = _folder(done)
    assert sorted(p.name for p in folder.iterdir()) == [
        ".steadygrad.json",
        ".steadygrad.lock",
        "config.toml",
        "summary.json",
        "tables",
    ]
    assert (folder / "tables" / "facts.json").is_file()
    places = [p for p in (folder / "tables").iterdir() if p.is_dir()]
    assert sorted(p.name.rpartition("-")[0] for p in places) == ["distilled", "honest", "other"]
    shards = [p for place in places for p in place.rglob("*") if p.is_file()]
    assert shards
    assert all(p.suffix == ".parquet" and p.name[0] != "." for p in shards)
    config = read_toml(folder / "config.toml")
    assert config["seed"] == done.summary["config"]["seed"] == 1
    assert {name: config.get(name) for name in done.summary["threat"]} == done.summary["threat"]
    assert config == done.summary["config"]
    assert list(config["models"].values()) == [m["weights"] for m in done.summary["models"]]


def test_the_arrays_hold_what_the_summary_promises(done: Audit) -> None:
    arrays = done.arrays
    assert all(a.dtype in (np.float16, np.float32) and np.isfinite(a).all() for a in arrays.values())
    expected = {"grid"}
    for i, model in enumerate(done.summary["models"]):
        pictures, side = len(done.summary["gallery"]["models"][model["name"]]), (8, 8)
        assert pictures == 4
        for kind in ("clean", "adversarial"):
            assert arrays[f"{kind}_{i}"].shape == (pictures, 1, *side)
            for a in range(len(done.summary["gallery"]["attributions"])):
                assert arrays[f"map_{kind}_{i}_{a}"].shape == (pictures, *side)
                assert arrays[f"along_map_{i}_{a}"].shape == (pictures, 8, *side)
                expected |= {f"map_{kind}_{i}_{a}", f"along_map_{i}_{a}"}
        assert arrays[f"along_{i}"].shape == (pictures, 8, 1, *side)
        distributions = {
            "gradient_norms": model["gradient_norm"]["quantiles"],
            "next_gradient_norms": model["gradient_norm"]["next_class"],
            "confidence_clean": model["confidence"]["clean"],
            "confidence_adversarial": model["confidence"]["adversarial"],
        }
        for name, levels in distributions.items():
            values = arrays[f"{name}_{i}"]
            assert values.shape == (SAMPLES,)
            for level, value in levels.items():
                assert value == pytest.approx(intervals.quantile(values.tolist(), Fraction(level)), rel=1e-6)
        expected |= {f"clean_{i}", f"adversarial_{i}", f"along_{i}", *(f"{name}_{i}" for name in distributions)}
    assert set(arrays) == expected
    classes = len(done.summary["gallery"]["grid"]["classes"])
    assert arrays["grid"].shape == (classes, classes, 1, 8, 8)


def test_pictures_are_found_and_captioned_by_sample(done: Audit, some: Dataset) -> None:
    frame = done.records.where(model="honest", attack=LABELS[0]).frame.set_index("sample")
    captions, drawn = done.summary["gallery"]["models"]["honest"], some.draw(seed=done.summary["data"]["seed"])
    assert len({c["label"] for c in captions}) == 4  # one class after the other
    for caption in captions:
        row = frame.loc[caption["id"]]
        assert drawn.ids[caption["index"]] == caption["id"]
        assert caption["adversarial_confidence"] == row["confidence"]
        assert caption["distance"] == row["distance"]
        assert some.classes[row["label"]] == caption["label"]
        assert some.classes[row["clean_prediction"]] == caption["clean_prediction"]
        assert row["success"]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("something was attacked again")

    monkeypatch.setattr(Attack, "__call__", refuse)
    monkeypatch.setattr(Attack, "perturb", refuse)


@pytest.mark.usefixtures("no_work")
def test_a_second_run_attacks_nothing(done: Audit, models: dict[str, nn.Module], some: Dataset) -> None:
    shards = {p: p.stat().st_mtime_ns for p in _folder(done).rglob("*.parquet")}
    before = {p: p.read_bytes() for p in _folder(done).rglob("*") if p.is_file()}
    again = _audit(models, some, _folder(done))
    assert again.summary == done.summary
    assert {p: p.stat().st_mtime_ns for p in _folder(done).rglob("*.parquet")} == shards
    assert {p: p.read_bytes() for p in _folder(done).rglob("*") if p.is_file()} == before
    assert again.records.frame.equals(done.records.frame)


CHANGES: dict[str, dict[str, Any]] = {
    "data, seed": {"seed": 2},
    "eps": {"threat": sg.linf(0.05)},
    "norm": {"threat": sg.l2(0.1)},
    "draws": {"draws": 3},
    "keep_inputs": {"keep_inputs": True},
    "attacks": {"attacks": [FGSM()]},
    "data, samples": {"samples": 20},
    "checked": {"checked": 10},
    "gallery": {"gallery": 1},
    "sliders": {"sliders": 0},
    "grid": {"grid": (1.0,)},
    "attributions": {"attributions": (Saliency(),)},
    "transfer": {"transfer": False},
}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("what", CHANGES)
def test_another_configuration_in_the_same_folder_is_refused(
    done: Audit, models: dict[str, nn.Module], some: Dataset, what: str
) -> None:
    with pytest.raises(UsageError, match=rf"from another configuration \(differs in: {what}\)"):
        _audit(models, some, _folder(done), **CHANGES[what])


@pytest.mark.usefixtures("no_work")
def test_other_weights_in_the_same_folder_are_refused(done: Audit, models: dict[str, nn.Module], some: Dataset) -> None:
    changed = copy.deepcopy(models)
    with torch.no_grad():
        next(changed["other"].parameters()).add_(1e-6)
    with pytest.raises(UsageError, match=r"differs in: models"):
        _audit(changed, some, _folder(done))


def test_another_setting_of_a_module_is_measured_anew_in_the_same_folder(
    honest: Classifier, some: Dataset, tmp_path: Path
) -> None:
    # The weights are the same; what is computed is not.
    sharp, sharper = victims.Sharp(honest, 100.0), victims.Sharp(honest, 2.0)
    sg.audit(sharp, some, THREAT, out=tmp_path / "run", **SMALL)
    again = sg.audit(sharper, some, THREAT, out=tmp_path / "run", **SMALL)
    alone = sg.audit(sharper, some, THREAT, **SMALL)
    assert _without_times(again.summary) == _without_times(alone.summary)
    assert read(tmp_path / "run").summary == again.summary


def test_one_model_without_a_folder_or_pictures(honest: Classifier, some: Dataset) -> None:
    found = sg.audit(honest, some, THREAT, **{**SMALL, "gallery": 0})
    Summary.model_validate(found.summary)
    assert found.folder is None
    assert found.summary["gallery"] is None
    assert found.summary["transfer"] is None
    assert [m["name"] for m in found.summary["models"]] == [honest.name]


def test_samples_are_drawn_and_equal_auditing_them_alone(honest: Classifier, some: Dataset) -> None:
    by_samples = sg.audit(honest, some, THREAT, samples=20, **SMALL)
    alone = sg.audit(honest, some.draw(20), THREAT, **SMALL)
    frames = [found.records.frame.sort_values(["attack", "sample"], ignore_index=True) for found in (by_samples, alone)]
    pd.testing.assert_frame_equal(*frames)
    about = by_samples.summary["data"]
    assert (about["samples"], about["available"], about["seed"]) == (20, len(some), 0)
    assert about["samples_of_classes"] == [2] * 10
    assert about["available_of_classes"] == some.labels.bincount(minlength=10).tolist()


def test_the_batch_size_moves_no_decision(honest: Classifier, some: Dataset) -> None:
    whole, pieces = (sg.audit(honest, some, THREAT, batch_size=b, **SMALL).summary["models"][0] for b in (200, 7))
    for key in ("clean", "robust", "verdict", "curve"):
        assert whole[key] == pieces[key]


def test_several_classifiers_in_a_list_and_no_transfer(honest: Classifier, other: Classifier, some: Dataset) -> None:
    found = sg.audit([honest, other], some, THREAT, transfer=False, **SMALL)
    assert [m["name"] for m in found.summary["models"]] == ["mlp32", "mlp24"]
    assert found.summary["transfer"] is None


def test_a_plain_module_goes_by_its_class(some: Dataset) -> None:
    found = sg.audit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), some, THREAT, **SMALL)
    Summary.model_validate(found.summary)
    assert found.summary["models"][0]["name"] == "Sequential"


@pytest.mark.parametrize("threat", [sg.l2(0.5), sg.l1(2.0)], ids=str)
def test_other_norms(honest: Classifier, some: Dataset, threat: sg.Threat) -> None:
    summary = sg.audit(honest, some, threat, **SMALL).summary
    Summary.model_validate(summary)
    assert summary["threat"]["norm"] == threat.norm


def test_a_change_that_does_not_survive_rounding_is_told_apart() -> None:
    data = victims.features([[100 / 255], [100.6 / 255]], [0, 1])
    summary = sg.audit(
        victims.Halfspace([1.0], 100.2 / 255), data, sg.linf(0.45 / 255), **{**SMALL, "gallery": 0}
    ).summary
    Summary.model_validate(summary)
    attack = summary["models"][0]["attacks"][0]
    assert (attack["accuracy"]["value"], attack["after_rounding"]["value"]) == (0.0, 0.5)


def test_color_images_and_many_channels() -> None:
    x = nets.inputs(12, shape=(3, 4, 4))
    data = Dataset(x, torch.arange(12) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(12)))
    found = sg.audit(nets.build("conv", shape=(3, 4, 4)), data, THREAT, **SMALL)
    Summary.model_validate(found.summary)


def test_models_are_left_as_they_were(some: Dataset) -> None:
    model = sg.models.build("digits_cnn", some.shape, some.classes, width=4).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    sg.audit(model, some.take(20), THREAT, **SMALL)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_fast_suite_leads_with_restarts_and_is_all_different() -> None:
    assert len(SUITES["fast"]) == len(set(SUITES["fast"]))
    lead = SUITES["fast"][0]
    assert isinstance(lead, PGD)
    assert lead.restarts > 1
    assert lead.loss not in ("ce", "kl")  # their gradients vanish where the model is certain


def test_the_curve_never_contradicts_the_headline(done: Audit) -> None:
    for model in done.summary["models"]:
        at = {round(p["eps"], 9): p["accuracy"]["value"] for p in model["curve"]["points"]}
        assert at[0.1] == model["robust"]["value"]
        assert list(at.values()) == sorted(at.values(), reverse=True)


def test_who_broke_what_is_counted_from_the_records(done: Audit) -> None:
    for model in done.summary["models"]:
        frame = done.records.where(model=model["name"]).frame
        broken = {
            label: set(part.loc[part["success"] & (part["distance"] > 0), "sample"])
            for label, part in frame.groupby("attack")
            if label in LABELS
        }
        assert [row["attack"] for row in model["broken_by"]] == list(LABELS)
        for row in model["broken_by"]:
            others = set().union(*(ids for label, ids in broken.items() if label != row["attack"]))
            assert row["samples"] == len(broken[row["attack"]])
            assert row["alone"] == len(broken[row["attack"]] - others)
        assert sum(row["samples"] for row in model["broken_by"]) > 0


def test_the_smallest_changes_do_not_contradict_the_accuracies(done: Audit) -> None:
    for model in done.summary["models"]:
        broken = done.records.where(model=model["name"]).frame.groupby("sample")["success"].any()
        distances = done.distances.where(model=model["name"]).frame.set_index("sample")["distance"]
        assert len(distances) > 5
        assert ((distances <= 0.1 * 1.001) == broken[distances.index]).all()


def test_a_suite_leads_to_a_worst_case_with_its_members_by_name(honest: Classifier, some: Dataset) -> None:
    short = (PGD(steps=5), Standard(steps=5, queries=50, targets=2))
    found = sg.audit(honest, some, THREAT, **{**SMALL, "attacks": short, "gallery": 0})
    Summary.model_validate(found.summary)
    model = found.summary["models"][0]
    assert [(row["attack"], row["member"]) for row in model["broken_by"]] == [
        ("PGD, 5 steps", None),
        *((label_of(short[1]), name) for name, _ in short[1].members()),
    ]
    members = found.records.where(attack=label_of(short[1])).frame["broken_by"]
    counts = {row["member"]: row["samples"] for row in model["broken_by"] if row["member"]}
    assert {name: int((members == name).sum()) for name in counts} == counts
    assert sum(counts.values()) > 0
    assert model["robust"]["value"] <= min(a["accuracy"]["value"] for a in model["attacks"])


def test_the_suites_lead_with_the_same_attack() -> None:
    assert SUITES["standard"][0] == SUITES["fast"][0]
    assert Standard() in SUITES["standard"]


def test_a_center_gives_the_centered_score_and_belongs_to_the_configuration(
    honest: Classifier, some: Dataset, tmp_path: Path
) -> None:
    center = mean_image(some)
    data = some.take(20)
    settings: dict[str, Any] = {**SMALL, "gallery": 0, "out": tmp_path / "run"}
    row = sg.audit(honest, data, THREAT, center=center, **settings).summary["models"][0]["rho2"]
    table = Runner({"m": honest}, data.draw()).run(Rho2(), "m", shared={"center": center.numpy()})
    want = mean_ratio(table, "centered_norm")
    assert want is not None
    assert row["centered"] == want.plain()
    with pytest.raises(UsageError, match=r"differs in: center"):
        sg.audit(honest, data, THREAT, center=center + 0.1, **settings)
