"""A training of a paper is fit's own, measured at its checkpoints, and continued rather than repeated."""

from __future__ import annotations

import logging
import signal

import numpy as np
import pytest
import torch

from steadygrad import models
from steadygrad.data import load
from steadygrad.defenses import Distillation, Plain
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.store import Store
from steadygrad.papers.training import Training, _Watch, train
from steadygrad.training import FitSettings, fit
from steadygrad.training.loop import Loop

SETTINGS = FitSettings(epochs=2, batch_size=50, lr=5e-3, checkpoint_steps=2)


@pytest.fixture
def data():
    return load("digits", "train").take(200)


def start(data):
    return models.build("mlp", data.shape, data.classes, hidden=(16,))


def first_weight(model):
    return next(model.parameters()).detach().clone()


def trained(data, folder, defense=Plain()):  # noqa: B008
    training = Training(defense, SETTINGS, "start", watch=Predicted(), watched="held out")
    store = Store(folder / "tables")
    model = train(training, start(data), data, data.take(60), folder / "model", store, "p", seed=0, device="cpu")
    return model, store.table("p")


def test_what_is_watched_does_not_change_the_training(data, tmp_path):
    found, record = trained(data, tmp_path)
    plain = fit(start(data), Plain(), data, settings=SETTINGS, seed=0)
    assert torch.equal(first_weight(found), first_weight(plain.classifier))
    # Four steps an epoch, a checkpoint every two.
    assert record["step"].tolist() == [2, 4, 6, 8]
    x, y = data.take(60).tensors()
    assert record["right"][-1] == pytest.approx(float((found(x).argmax(1) == y).double().mean()))
    assert len(np.unique(record["confidence"])) == 4
    assert record.about["seconds"] > 0


def test_a_finished_training_is_not_repeated_and_keeps_its_record(data, tmp_path):
    _, first = trained(data, tmp_path)
    kept = (tmp_path / "model" / "checkpoint.safetensors", *tmp_path.rglob("*.parquet"))
    before = {p: p.stat().st_mtime_ns for p in kept}
    _, again = trained(data, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert again.about == first.about


@pytest.mark.parametrize("damage", [b"", b"PAR1 other"])
def test_a_damaged_record_is_made_again_with_all_its_rows(data, tmp_path, damage, caplog):
    found, first = trained(data, tmp_path)
    (path,) = tmp_path.rglob("*.parquet")
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING, "steadygrad"):
        again, record = trained(data, tmp_path)
    assert f"{path} is damaged and is made again" in caplog.text
    assert torch.equal(first_weight(found), first_weight(again))
    assert record.frame.equals(first.frame)


def _stopping(monkeypatch, at):
    """Ctrl-C at one call of the watch."""
    call, count = _Watch.__call__, 0

    def stops(self, model, steps):
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        call(self, model, steps)

    monkeypatch.setattr(_Watch, "__call__", stops)


def test_a_stopped_training_continues_with_its_record(data, tmp_path, monkeypatch):
    _stopping(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path)
    kept = Store(tmp_path / "tables").table("p")
    assert kept["step"].tolist() == [2, 4]
    found, record = trained(data, tmp_path)
    whole = fit(start(data), Plain(), data, settings=SETTINGS, seed=0)
    assert torch.equal(first_weight(found), first_weight(whole.classifier))
    assert record["step"].tolist() == [2, 4, 6, 8]
    assert record["confidence"][:2].tolist() == kept["confidence"].tolist()
    assert record.about["seconds"] >= kept.about["seconds"]


def test_a_step_at_which_ctrl_c_came_is_no_row_of_the_record(data, tmp_path, monkeypatch):
    step, count = Loop.step, 0

    def pressed(loop, *batches):
        nonlocal count
        count += 1
        step(loop, *batches)
        if count == 3:
            loop.stop.number = signal.SIGINT

    monkeypatch.setattr(Loop, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path)
    _, record = trained(data, tmp_path)
    assert record["step"].tolist() == [2, 4, 6, 8]
    assert count == 8


def test_the_record_of_a_student_is_not_its_teachers(data, tmp_path):
    _, record = trained(data, tmp_path, Distillation(5.0))
    assert record["step"].tolist() == [2, 4, 6, 8]
