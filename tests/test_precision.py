"""The widest type of a device: all that is computed on one without float64 does without."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

import nets
import steadygrad as sg
from attacks.cheap import cheap
from elsewhere import DEVICE, Elsewhere
from steadygrad import precision
from steadygrad.attacks import ATTACKS
from steadygrad.attributions import ATTRIBUTIONS
from steadygrad.bounds import BOUNDS
from steadygrad.defenses import DEFENSES
from steadygrad.measuring.measures.map_bounds import DISTANCES, KINDS
from steadygrad.measuring.measures.map_points import MapPoints
from steadygrad.measuring.runner import Runner


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(precision, "NARROW", frozenset({DEVICE.type}))
    with Elsewhere():
        yield


def there(kind: str = "conv") -> tuple[sg.Classifier, Tensor, Tensor]:
    model, x = sg.Classifier(nets.build(kind)), nets.inputs(3)
    y = model(x).argmax(1)
    return model.to(DEVICE), x.to(DEVICE), y.to(DEVICE)


def test_the_device_has_no_float64_and_takes_no_tensors_of_the_cpu():
    x = torch.zeros(2).to(DEVICE)
    with pytest.raises(TypeError, match="float64"):
        x.double()
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(2, dtype=torch.float64, device=DEVICE)
    with pytest.raises(RuntimeError, match="two devices"):
        x + torch.ones(2)


CASES = [
    pytest.param(row.name, norm, marks=[] if norm == row.norms[0] else pytest.mark.slow)
    for row in ATTACKS
    for norm in row.norms
]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_attacks_do_without_float64(name: str, norm: str) -> None:
    attack, eps = cheap(name), {"linf": 0.1, "l2": 0.5, "l1": 1.0, "l0": 4.0}[norm]
    model, x, y = there()
    threat = sg.Threat(norm, eps)
    found = attack(model, x, y, threat)
    assert found.inputs.device == DEVICE
    assert bool(threat.allows(x, found.inputs).all())
    if name not in ("jsma", "universal"):
        model, x, y = model.to("cpu"), x.cpu(), y.cpu()
        torch.testing.assert_close(found.inputs.cpu(), attack(model, x, y, threat).inputs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [row.name for row in ATTRIBUTIONS])
def test_attributions_do_without_float64(name: str) -> None:
    model, x, y = there()
    maps = ATTRIBUTIONS[name].method()(model, x, y)
    torch.testing.assert_close(maps.cpu(), ATTRIBUTIONS[name].method()(model.to("cpu"), x.cpu(), y.cpu()))


@pytest.mark.parametrize("name", sorted({row.name for row in DEFENSES} - {"sum", "stable_neurons"}))
def test_losses_of_defenses_do_without_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # which knows no such device
    monkeypatch.setattr(torch, "autocast", lambda kind, enabled: contextlib.nullcontext())
    x, y = nets.inputs(3).to(DEVICE), torch.tensor([0, 2, 1]).to(DEVICE)
    model, teacher = (nets.build("conv", seed=seed).to(DEVICE) for seed in (0, 7))
    method = DEFENSES[name].method
    needed = {
        f.name: 0.1 for f in dataclasses.fields(method) if {f.default, f.default_factory} == {dataclasses.MISSING}
    }
    loss = method(**needed).loss(model, x, y, sg.defenses.State(teacher, seed=3))
    assert loss.total.device == DEVICE


@pytest.mark.parametrize("name", [row.name for row in BOUNDS])
def test_bounds_are_refused_where_there_is_no_float64(name: str) -> None:
    with pytest.raises(sg.UsageError, match="computed in float64, which lazy has not: compute on the CPU"):
        BOUNDS[name].method()(*there(), sg.linf(0.01))


@pytest.mark.slow
def test_a_whole_audit_does_without_float64() -> None:
    model = there()[0]
    data = sg.data.from_arrays(nets.inputs(6), torch.arange(6) % 3)
    few = {f"explanation_{name}": 1 for name in ("samples", "steps", "restarts", "draws")}
    how = {"attributions": ["saliency"], "attacks": [sg.attacks.FGSM()], "gallery": 1, "mapped": 2}
    how |= {"checks": False, "distances": False}
    found = sg.audit(
        model, data, sg.linf(0.02), explanations=True, neurons=True, neuron_samples=4, neuron_draws=2, **few, **how
    )
    same = sg.audit(model.to("cpu"), data, sg.linf(0.02), **how)
    assert [m["robust"] for m in found.summary["models"]] == [m["robust"] for m in same.summary["models"]]
    assert "which lazy has not" in str(found.summary["explained"])


def test_points_beyond_bounds_are_counted_without_float64() -> None:
    model = there()[0]
    data = sg.data.from_arrays(nets.inputs(3), torch.arange(3))
    measure = MapPoints((sg.attacks.IFIA(steps=2, restarts=1),), sg.linf(0.02))
    given = {f"deviation_{d}_{kind}": np.full(3, 1e-9) for d in DISTANCES for kind in KINDS}
    table, same = (
        Runner({"model": model.to(device)}, data).run(measure, "model", given=given) for device in (DEVICE, "cpu")
    )
    assert (table["over_euclidean_certified"] > 0).any()
    for name in ("over_euclidean_certified", "over_cosine_linearized", "unexplained"):
        np.testing.assert_array_equal(table[name], same[name])
