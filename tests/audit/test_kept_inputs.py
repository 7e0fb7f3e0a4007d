"""Adversarial inputs that are kept load again as data and do what their records say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import steadygrad as sg
from steadygrad.attacks import FGSM, PGD


@pytest.mark.slow
def test_kept_inputs_are_data_on_which_the_model_fails_as_often_as_the_records_say(tmp_path: Path) -> None:
    train, test = sg.data.load("digits").take(400), sg.data.load("digits", "test").take(60)
    drawn = test.draw()
    settings = sg.FitSettings(epochs=3, lr=5e-3, batch_size=32)
    start = sg.models.build("mlp", train.shape, train.classes)
    model = sg.fit(start, sg.defenses.Plain(), train, settings=settings).classifier
    found = sg.audit(
        model, test, sg.linf(0.08), attacks=[FGSM(), PGD(steps=5)], checked=5, gallery=2, keep_inputs=True,
        out=tmp_path / "run",
    )  # fmt: skip
    [file] = (tmp_path / "run" / "inputs").glob("*.npz")
    kept = sg.data.load(str(file), "test")
    assert (kept.shape, kept.classes, len(kept)) == (test.shape, test.classes, len(test))
    x, y = kept.tensors()
    with torch.no_grad():
        standing = model(x).argmax(1) == y
    suite = found.records.frame[~found.records.frame["attack"].str.contains("curve")]
    broken = suite.groupby("sample")["success"].any()
    assert 0 < standing.sum() < len(test)
    assert standing.tolist() == [not broken[sample] for sample in drawn.ids]
    # Within the threat, but for rounding.
    assert float((x - drawn.tensors()[0]).abs().max()) <= 0.08 + 1e-6
