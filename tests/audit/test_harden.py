"""harden() leaves what it was given, compares on the same images, continues after a kill, and is not easily pleased."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fits
import gates
import steadygrad as sg
from steadygrad.attacks import FGSM, PGD, RandomNoise
from steadygrad.audit.harden import Hardening, usual_settings
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError
from steadygrad.files import read_json
from steadygrad.measuring.runner import Runner
from steadygrad.training import FitSettings

THREAT = sg.linf(0.15)
TRAIN, TEST = fits.dataset(120), fits.dataset(30, seed=1)
DEFENSE = fits.DEFENSES["fgsm"]
SETTINGS = usual_settings(THREAT, epochs=6, lr=0.01, batch_size=30, robust_steps=3)
AUDIT: dict[str, Any] = {"attacks": [PGD(steps=4), FGSM()], "checked": 30}


@pytest.fixture(scope="module")
def trained() -> Classifier:
    settings = FitSettings(epochs=8, lr=0.01, batch_size=20)
    return sg.fit(fits.classifier("norm"), sg.defenses.Plain(), TRAIN, settings=settings).classifier


def run(model: nn.Module, out: Path | None = None, **changed: Any) -> Hardening:
    given: dict[str, Any] = {"test": TEST, "settings": SETTINGS, "out": out, "seed": 3, **AUDIT, **changed}
    return sg.harden(model, given.pop("data", TRAIN), given.pop("defense", DEFENSE), THREAT, **given)


@pytest.fixture(scope="module")
def whole(trained: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Hardening:
    return run(trained, tmp_path_factory.mktemp("whole") / "run", files="mine")


def _forwards(model: nn.Module, **more: Any) -> int:
    """How many samples pass through a model and the copies that harden makes of it."""
    rows = 0

    def count(module: nn.Module, given: Any, found: torch.Tensor) -> None:
        nonlocal rows
        if module.training is False:
            rows += len(found)

    with torch.nn.modules.module.register_module_forward_hook(
        lambda module, given, found: count(module, given, found) if isinstance(module, Classifier) else None
    ):
        run(model, settings=FitSettings(epochs=1), attacks=[FGSM()], **more)
    return rows


@pytest.mark.slow
def test_nothing_is_attacked_twice_without_a_folder(trained: Classifier, tmp_path: Path) -> None:
    without, within = _forwards(trained), _forwards(trained, out=tmp_path / "run")
    assert without == within > 0
    # A second run in the folder tries the models on two samples each, a few times, and measures nothing.
    assert _forwards(trained, out=tmp_path / "run") <= 28


def _lasting(folder: Path) -> dict[str, Any]:
    summary = read_json(folder / "harden.json")[0]
    summary["model"].pop("hardened")
    return {k: v for k, v in summary.items() if k not in ("created", "machine")}


@pytest.mark.slow
def test_the_folder_holds_the_model_both_audits_and_the_comparison(whole: Hardening, trained: Classifier) -> None:
    folder = whole.folder
    assert folder is not None
    assert read_json(folder / "harden.json")[0] == whole.summary
    again = fits.classifier("norm").load_weights(folder / "model.safetensors")
    assert gates.same(again.state_dict(), whole.classifier.state_dict())
    assert not gates.same(again.state_dict(), trained.state_dict())
    assert whole.summary["training"]["chosen_epoch"] >= 1
    assert whole.summary["training"]["defense"]["name"] == "adversarial"
    assert (whole.summary["training"]["samples"], whole.summary["training"]["validation_samples"]) == (108, 12)
    assert whole.summary["model"]["file"] == "mine"


@pytest.mark.slow
def test_each_side_is_what_an_audit_of_its_own_finds(whole: Hardening, trained: Classifier) -> None:
    summary = whole.summary
    for name, model in (("before", trained), ("after", whole.classifier)):
        alone = sg.audit({name: model}, TEST, THREAT, seed=3, gallery=0, **AUDIT).summary["models"][0]
        assert summary[name]["clean"] == alone["clean"]
        assert summary[name]["robust"] == alone["robust"]
        assert summary[name]["verdict"]["text"] == alone["verdict"]["text"]
    for measure in ("clean", "robust"):
        found = summary["difference"][measure]
        shares = [summary[name][measure]["value"] for name in ("before", "after")]
        assert found["value"] == pytest.approx(shares[1] - shares[0])
        assert found["gained"] - found["lost"] == round(30 * (shares[1] - shares[0]))
    frame = whole.audit.records.frame
    right = {
        name: rows.groupby("sample").apply(lambda r: (r["clean_prediction"] == r["label"]).all(), include_groups=False)
        for name, rows in frame[frame["source"] == frame["model"]].groupby("model")
    }
    assert int((right["after"] & ~right["before"]).sum()) == summary["difference"]["clean"]["gained"]


@pytest.mark.slow
def test_the_distances_are_paired_sample_by_sample(whole: Hardening, trained: Classifier) -> None:
    distances = []
    for model in (trained, whole.classifier):
        x, y = TEST.tensors()
        distances.append(sg.attacks.Smallest()(model, x, y, sg.linf()).distance)
    for name, found in zip(("before", "after"), distances):
        # Other attacks may have come nearer, never less near.
        assert (
            whole.summary[name]["median_distance"] <= float(found.double().quantile(0.5, interpolation="lower")) + 1e-6
        )
        assert whole.summary[name]["distances"] == 30
    shift = (distances[1] - distances[0]).double().median()
    assert whole.comparison.distance.value == pytest.approx(float(shift), abs=0.03)


@pytest.mark.slow
def test_the_given_model_stays_and_a_plain_module_will_do(trained: Classifier) -> None:
    before = gates.state_of(trained)
    found = run(trained.module, settings=FitSettings(epochs=1), attacks=[FGSM()])
    after = gates.state_of(trained)
    assert all(gates.same(value, after[part]) for part, value in before.items())
    assert found.folder is None
    assert found.summary["model"]["hardened"] == "in memory"
    assert found.classifier.classes == TRAIN.classes


@pytest.mark.slow
def test_training_that_changes_nothing_is_not_called_better(trained: Classifier) -> None:
    settings = FitSettings(epochs=1, optimizer="sgd", lr=1e-12, freeze_norms=True)
    found = run(trained, defense=sg.defenses.Plain(), settings=settings)
    assert found.comparison.outcome == "not shown"
    assert (found.comparison.robust.value, found.comparison.robust.gained) == (0, 0)
    assert found.comparison.text.startswith("no difference in robust accuracy is shown: +0.0 points [-11.4, +11.4]")


@pytest.mark.slow
def test_an_attack_that_is_no_judge_allows_no_verdict(trained: Classifier) -> None:
    found = run(trained, attacks=[RandomNoise(draws=1)])
    assert found.comparison.outcome == "refuted"
    assert "hardening: number refuted, because" in found.comparison.text


@pytest.mark.slow
@pytest.mark.parametrize("steps", [7, 100])
def test_a_run_that_was_stopped_ends_as_if_undisturbed(
    steps: int, trained: Classifier, whole: Hardening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if steps < 100:  # in training
        with contextlib.suppress(fits.Stopped), fits.stopped_at(steps):
            run(trained, tmp_path, files="mine")
        assert not (tmp_path / "model.safetensors").exists()
    else:  # in the second audit
        original, calls = Runner.run, 0

        def stop(self: Runner, measure: Any, model: str, **more: Any) -> Any:
            nonlocal calls
            calls += model == "after"
            if calls > 2:
                raise fits.Stopped
            return original(self, measure, model, **more)

        with monkeypatch.context() as patch, contextlib.suppress(fits.Stopped):
            patch.setattr(Runner, "run", stop)
            run(trained, tmp_path, files="mine")
        assert calls > 2
    assert not (tmp_path / "harden.json").exists()
    run(trained, tmp_path, files="mine")
    assert whole.folder is not None
    assert _lasting(tmp_path) == _lasting(whole.folder)
    names = ("model.safetensors", "training/model.safetensors")
    assert all((tmp_path / name).read_bytes() == (whole.folder / name).read_bytes() for name in names)


@pytest.mark.slow
def test_another_configuration_in_the_folder_is_refused(trained: Classifier, whole: Hardening) -> None:
    with pytest.raises(UsageError, match="from another configuration"):
        run(trained, whole.folder, seed=4, files="mine")
    with pytest.raises(UsageError, match="from another configuration"):
        run(trained, whole.folder, checked=9, files="mine")


def test_the_usual_settings_choose_the_epoch_by_the_threat() -> None:
    settings = usual_settings(sg.l2(0.5), epochs=2)
    assert (settings.select, settings.robust_eps, settings.robust_norm, settings.epochs) == ("robust", 0.5, "l2", 2)


def test_what_cannot_be_judged_is_refused_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fits.classifier("norm")

    def refused(words: str, *, data: Any = TRAIN, threat: Any = THREAT, **more: Any) -> None:
        with pytest.raises(UsageError, match=words):
            sg.harden(model, data, DEFENSE, threat, **{"test": TEST, "out": tmp_path / "run", **more})

    refused("one positive radius", threat=sg.linf())
    refused("one positive radius", threat=sg.linf(torch.tensor([0.1, 0.2])))
    refused(r"3 of 30 test samples are among those that are trained on, the first is '1/0'", data=_with(TEST))
    refused(r"30 of 30 test samples are among", validation=TEST)
    renamed = dataclasses.replace(TEST, ids=tuple(f"other/{i}" for i in range(30)))
    refused(r"30 of 30 test samples have the content of samples that are trained on, under other ids", data=renamed)
    refused("fraction=0 of 120 samples", validation=0.0)
    refused("there is no suite 'fats'", attacks="fats")
    refused("harden trains in one process", engine="shared")
    refused("JSMA does not work for linf; attacks that do: .*pgd", attacks=[sg.attacks.JSMA()])
    refused("test data must be like the training data", test=fits.dataset(30, classes=2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused("harden audits in one process")
    assert not (tmp_path / "run").exists()


def _with(other: sg.data.Dataset) -> sg.data.Dataset:
    """The training data with three samples of another set, and three of its names on other pixels."""
    images = torch.cat([TRAIN.images, other.images[:3], 255 - other.images[3:6]])
    labels = torch.cat([TRAIN.labels, other.labels[:6]])
    return sg.data.Dataset(images, labels, TRAIN.classes, (*TRAIN.ids, *other.ids[:6]))
