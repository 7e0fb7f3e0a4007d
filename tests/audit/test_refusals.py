"""What an audit refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import steadygrad as sg
from steadygrad.attacks import FGSM, DeepFool
from steadygrad.attributions import Saliency
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError

THREAT = sg.linf(0.1)
SMALL: dict[str, Any] = {"attacks": [FGSM()], "attributions": (Saliency(),), "checked": 20, "gallery": 2}


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.take(50)


def _wrong_shape() -> Classifier:
    return sg.models.build("mlp", (1, 4, 4), 10)


def _wrong_classes() -> Classifier:
    return sg.models.build("mlp", (1, 8, 8), 3)


def _right(name: str = "a") -> Classifier:
    model = sg.models.build("mlp", (1, 8, 8), 10, hidden=(4,))
    model.name = name
    return model


class _Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = _right()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.detach()).detach()


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no radius": (_right, {"threat": sg.linf()}, "one positive radius"),
    "radius zero": (_right, {"threat": sg.linf(0.0)}, "one positive radius"),
    "a radius per sample": (_right, {"threat": sg.linf(torch.tensor([0.1] * 50))}, "one positive radius"),
    "unknown suite": (_right, {"attacks": "fats"}, "there is no suite 'fats'; did you mean 'fast'"),
    "no attacks": (_right, {"attacks": []}, "at least one and all different"),
    "an attack twice": (_right, {"attacks": [FGSM(), FGSM()]}, r"all different, got \['FGSM', 'FGSM'\]"),
    "wrong shape": (_wrong_shape, {}, r"takes inputs of shape \(1, 4, 4\), digits has \(1, 8, 8\)"),
    "wrong classes": (_wrong_classes, {}, "has 3 classes, digits has 10"),
    "one name twice": (lambda: [_right("a"), _right("a")], {}, "share the names a"),
    "no models": (dict, {}, "models is empty"),
    "an empty list": (list, {}, "models is empty"),
    "other bounds": (_right, {"threat": sg.linf(0.1, bounds=(-1.0, 1.0))}, "bounds"),
    "a grid that falls": (_right, {"grid": (1.0, 0.5)}, "positive and rising"),
    "no samples": (_right, {"samples": 0}, "samples must be at least 1, got 0"),
    "nothing checked": (_right, {"checked": 0}, "checked must be at least 1, got 0"),
    "an unknown setting": (
        _right,
        {"atacks": [FGSM()]},
        "there is no setting of an audit 'atacks'; did you mean 'attacks'",
    ),
    "a seed below zero": (_right, {"seed": -1}, "seed must be at least 0, got -1"),
    "an attack for other norms": (
        _right,
        {"attacks": [DeepFool()], "threat": sg.l1(1.0)},
        "DeepFool does not work for l1; attacks that do: .*fmn",
    ),
    "a center of another shape": (_right, {"center": torch.zeros(64)}, r"center must be .* got \(64,\)"),
    "no gradient": (_Detached, {}, "gives no gradient, and FGSM would need one"),
    "a batch of none": (_right, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_wrong_calls_are_refused_and_leave_no_folder(some: Dataset, kind: str, tmp_path: Path) -> None:
    make, given, message = REFUSED[kind]
    changes = dict(given)
    with pytest.raises(UsageError, match=message):
        sg.audit(make(), some, changes.pop("threat", THREAT), out=tmp_path / "run", **{**SMALL, **changes})
    assert not (tmp_path / "run").exists()


class _Softmaxed(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.model, self.factor = _right(), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).softmax(1) * self.factor


def test_models_that_return_no_logits_are_refused(some: Dataset) -> None:
    with pytest.raises(UsageError, match="returns probabilities"):
        sg.audit(_Softmaxed(1.0), some, THREAT, **SMALL)
    with pytest.raises(Failure, match="NaN or infinite logits"):
        sg.audit(_Softmaxed(float("nan")), some, THREAT, **SMALL)


def test_a_folder_that_is_a_file_or_cannot_be_written_is_refused(some: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file: choose another --out"):
        sg.audit(_right(), some, THREAT, out=tmp_path / "file", **SMALL)
    with pytest.raises(UsageError, match="is not writable"):
        sg.audit(_right(), some, THREAT, out=tmp_path / "file" / "run", **SMALL)
    assert (tmp_path / "file").read_text() == "mine"
