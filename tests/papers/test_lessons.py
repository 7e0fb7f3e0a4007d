"""A training of a paper is fit's own, scored at its checkpoints, and continued rather than repeated."""

from __future__ import annotations

import json

import pytest
import torch

from steadygrad import models
from steadygrad.data import load
from steadygrad.defenses import Distillation, Plain
from steadygrad.papers.lessons import Lesson, learn
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


def test_scores_at_every_checkpoint_do_not_change_the_training(data, tmp_path):
    seen = []

    def score(model):
        seen.append(first_weight(model))
        return {"norm": float(first_weight(model).norm())}

    found = learn(Lesson("a", start(data), Plain(), SETTINGS), data, None, tmp_path, seed=0, device="cpu", score=score)
    plain = fit(start(data), Plain(), data, settings=SETTINGS, seed=0)
    assert torch.equal(first_weight(found.classifier), first_weight(plain.classifier))
    # Four steps an epoch, a checkpoint every two.
    assert [row["step"] for row in found.curve] == [2, 4, 6, 8]
    assert torch.equal(seen[-1], first_weight(found.classifier))
    assert not torch.equal(seen[0], seen[1])
    assert found.classifier.name == "a"
    assert found.seconds > 0


def test_a_finished_training_is_not_repeated_and_keeps_its_curve(data, tmp_path):
    lesson = Lesson("a", start(data), Plain(), SETTINGS)
    options = {"seed": 0, "device": "cpu", "score": lambda model: {"one": 1.0}}
    first = learn(lesson, data, None, tmp_path, **options)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = learn(lesson, data, None, tmp_path, **options)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    assert again.curve == first.curve
    assert again.seconds == pytest.approx(first.seconds, abs=0.06)


def test_a_stopped_training_continues_with_its_curve(data, tmp_path):
    lesson = Lesson("a", start(data), Plain(), SETTINGS)
    count = 0

    def stops(model):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return {"one": 1.0}

    with pytest.raises(KeyboardInterrupt):
        learn(lesson, data, None, tmp_path, seed=0, device="cpu", score=stops)
    assert [row["step"] for row in json.loads((tmp_path / "curve.json").read_text())] == [2, 4]
    found = learn(lesson, data, None, tmp_path, seed=0, device="cpu", score=stops)
    whole = fit(start(data), Plain(), data, settings=SETTINGS, seed=0)
    assert torch.equal(first_weight(found.classifier), first_weight(whole.classifier))
    assert [row["step"] for row in found.curve] == [2, 4, 6, 8]


def test_a_step_at_which_ctrl_c_came_is_no_point_of_the_curve(data, tmp_path, monkeypatch):
    lesson = Lesson("a", start(data), Plain(), SETTINGS)
    options = {"seed": 0, "device": "cpu", "score": lambda model: {"one": 1.0}}
    step, count = Loop.step, 0

    def pressed(loop, batch):
        nonlocal count
        count += 1
        step(loop, batch)
        if count == 3:
            loop.interrupted = True

    monkeypatch.setattr(Loop, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        learn(lesson, data, None, tmp_path, **options)
    found = learn(lesson, data, None, tmp_path, **options)
    assert [row["step"] for row in found.curve] == [2, 4, 6, 8]
    assert count == 8


def test_the_curve_of_a_student_is_not_its_teachers(data, tmp_path):
    lesson = Lesson("a", start(data), Distillation(5.0), SETTINGS)
    found = learn(lesson, data, None, tmp_path, seed=0, device="cpu", score=lambda model: {"one": 1.0})
    assert [row["step"] for row in found.curve] == [2, 4, 6, 8]
