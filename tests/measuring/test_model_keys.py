"""What computes something else has another key; names and modes do not count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import nets
from audit import victims
from steadygrad.classifier import Classifier
from steadygrad.measuring.sources import model_key, weights_key


def _classifier(activation: type[nn.Module] = nn.ReLU, **settings: Any) -> Classifier:
    return Classifier(nets.build(activation=activation), **{"classes": 3, "name": "a", **settings})


DIFFERENT: dict[str, tuple[nn.Module, nn.Module]] = {
    "weights": (nets.build(), nets.build(seed=1)),
    "layers without tensors": (_classifier(), _classifier(nn.Tanh)),
    "a setting of a layer": (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
    "normalization": (_classifier(), _classifier(mean=0.5)),
    "bounds": (_classifier(), _classifier(bounds=(-1.0, 1.0))),
    "a plain attribute": (victims.Sharp(nets.build(), 2.0), victims.Sharp(nets.build(), 3.0)),
    "type of the numbers": (nets.build(), nets.build(dtype=torch.float64)),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_models_that_compute_something_else_have_other_keys(kind: str) -> None:
    a, b = DIFFERENT[kind]
    assert model_key(a).value != model_key(b).value


@pytest.mark.parametrize("of", [weights_key, lambda model: model_key(model).value], ids=["weights", "model"])
def test_a_buffer_that_is_not_saved_counts(of: Any) -> None:
    a, b = nn.Module(), nn.Module()
    a.register_buffer("mask", torch.zeros(2), persistent=False)
    b.register_buffer("mask", torch.ones(2), persistent=False)
    assert of(a) != of(b)


def test_name_and_mode_do_not_count() -> None:
    assert model_key(_classifier()) == model_key(_classifier(name="b"))
    assert model_key(_classifier().train()) == model_key(_classifier().eval())
