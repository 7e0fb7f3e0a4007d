"""The memory of a training step is told before it is spent."""

from __future__ import annotations

import logging

import pytest
import torch

import nets
import steadygrad as sg
from steadygrad import memory
from steadygrad.defenses import InputGradientPenalty, Plain
from steadygrad.training.need import step_bytes


def test_the_need_of_a_step_grows_with_its_samples_and_with_the_order() -> None:
    model = sg.Classifier(nets.build("conv"))
    x = nets.inputs(2)
    plain = step_bytes(model, Plain(), x, 10)
    assert step_bytes(model, Plain(), x, 20) == pytest.approx(2 * plain, rel=0.05)
    assert step_bytes(model, Plain() + InputGradientPenalty(weight=1.0), x, 10) == pytest.approx(5 * plain, rel=0.05)


@pytest.mark.parametrize(("share", "told"), [(1.9, True), (2.1, False)])
def test_a_step_that_may_not_fit_is_told(
    share: float, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, x = sg.Classifier(nets.build("conv")), nets.inputs(12)
    need = step_bytes(model, Plain(), x[:2], 4)
    monkeypatch.setattr(memory, "installed", lambda device: share * need)
    data = sg.data.from_arrays(x, torch.arange(12) % 3, 3)
    with caplog.at_level(logging.WARNING, "steadygrad"):
        sg.fit(model, Plain(), data, settings=sg.FitSettings(epochs=1, batch_size=4))
    assert any("a step of 4 samples may hold about" in record.message for record in caplog.records) == told
    if told:
        assert "take at most 3 at once (accumulate=N" in caplog.text
