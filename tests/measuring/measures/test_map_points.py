"""Points of attacks on maps: what is counted, what is explained, and that a broken bound would be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steadygrad import randomness
from steadygrad.attacks import IFIA, AttributionNoise, AttributionPGD
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency
from steadygrad.bounds import CertifiedDeviation, LinearizedDeviation
from steadygrad.classifier import Classifier
from steadygrad.data import load
from steadygrad.defenses import Plain
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import Batch
from steadygrad.measuring.measures.map_bounds import DISTANCES, KINDS, BoundedMaps, certified_cosine
from steadygrad.measuring.measures.map_points import BINS, MapPoints
from steadygrad.models.architectures import seeded
from steadygrad.threat import Threat, l2, linf
from steadygrad.training import FitSettings, fit

STEPS, DRAWS = 3, 4
EUCLIDEAN = 3  # place of the attack
Arrays = dict[str, np.ndarray[Any, Any]]


def _attacks(attribution: Attribution, steps: int = STEPS) -> tuple[Any, ...]:
    common: dict[str, Any] = {"attribution": attribution, "steps": steps, "restarts": 1, "noise_draws": 0}
    return (
        AttributionNoise(attribution, "euclidean", DRAWS),
        IFIA(goal="top-k", **common),
        IFIA(goal="mass-center", **common),
        AttributionPGD(distance="euclidean", **common),
        AttributionPGD(distance="cosine", **common),
    )


@pytest.fixture(scope="module")
def model() -> Classifier:
    data = load("digits", "train").take(600)
    with seeded(0):
        network = nn.Sequential(
            *(nn.Conv2d(1, 8, 4, stride=2, padding=1), nn.Softplus(10.0)),
            *(nn.Conv2d(8, 16, 4, stride=2, padding=1), nn.Softplus(10.0)),
            *(nn.Flatten(), nn.Linear(64, len(data.classes))),
        )
    start = Classifier(network, classes=data.classes, input_shape=data.shape)
    return fit(start, Plain(), data, settings=FitSettings(epochs=4, batch_size=32, lr=5e-3)).classifier.eval()


def _batch(count: int, bounds: Arrays) -> Batch:
    data = load("digits", "test").take(count)
    return Batch(*data.tensors(), data.ids, randomness.sample_seeds(count, None), bounds, {})


def _limits(value: float, count: int) -> Arrays:
    return {f"deviation_{d}_{kind}": np.full(count, value) for d in DISTANCES for kind in KINDS}


def _measured(model: Classifier, threat: Threat, bounds: Arrays, attacks: tuple[Any, ...] = ()) -> Arrays:
    batch = _batch(len(next(iter(bounds.values()))), bounds)
    found = MapPoints(attacks or _attacks(Saliency()), threat)([model], batch)
    return {name: np.asarray(values) for name, values in found.items()}


@pytest.mark.parametrize("attribution", [Saliency(), IntegratedGradients(steps=2)], ids=lambda a: type(a).__name__)
def test_every_point_is_counted_and_the_furthest_is_what_the_attack_reports(
    model: Classifier, attribution: Attribution
) -> None:
    threat, attacks, batch = linf(0.05), _attacks(attribution), _batch(3, {})
    found = _measured(model, threat, _limits(-1.0, 3), attacks)
    assert (found["tried"] == [DRAWS, *[STEPS + 1] * 4]).all()
    assert (found["kept"] <= found["tried"]).all()
    assert (found["kept"].sum(0) > 0).all()
    # Every point that counts is beyond a bound below zero.
    for d in DISTANCES:
        for kind in KINDS:
            assert (found[f"over_{d}_{kind}"] == found["kept"]).all()
    target = model(batch.x).argmax(1)
    for place, attack in enumerate(attacks):
        result = attack(model, batch.x, target, threat, generator=batch.seeds)
        if attack.objective in DISTANCES:
            far = torch.from_numpy(found[f"deviation_{attack.objective}"][:, place])
            torch.testing.assert_close(far, result.deviation.double(), rtol=1e-4, atol=1e-6)
        furthest = torch.from_numpy(found["furthest"][:, place])
        assert threat.allows(batch.x, furthest).all()
        maps = attribution(model, furthest, target)
        torch.testing.assert_close(torch.from_numpy(found["map_furthest"][:, place]), maps)
        far = torch.linalg.vector_norm((maps - torch.from_numpy(found["map_clean"])).flatten(1), dim=1).double()
        torch.testing.assert_close(torch.from_numpy(found["deviation_euclidean"][:, place]), far, rtol=1e-4, atol=1e-6)


def test_points_that_change_the_prediction_do_not_count(model: Classifier) -> None:
    found = _measured(model, linf(0.9), _limits(-1.0, 8))
    assert found["kept"][:, EUCLIDEAN].sum() < found["tried"][:, EUCLIDEAN].sum()
    with torch.no_grad():
        target = model(_batch(8, {}).x).argmax(1)
        assert torch.equal(model(torch.from_numpy(found["furthest"][:, EUCLIDEAN])).argmax(1), target)


@pytest.mark.parametrize("threat", [linf(0.2), l2(1.5)], ids=str)
def test_excess_is_explained_by_the_remainder_and_only_a_true_bound_is_explained(
    model: Classifier, threat: Threat
) -> None:
    batch, attacks = _batch(6, {}), _attacks(Saliency(), steps=8)
    first_order = {d: BoundedMaps(LinearizedDeviation(Saliency(), d), threat)([model], batch) for d in DISTANCES}
    proof = BoundedMaps(CertifiedDeviation(Saliency(), steps=0), threat)([model], batch)
    held = {f"deviation_{d}_linearized": np.asarray(bound["upper"]) for d, bound in first_order.items()}
    held |= {"deviation_euclidean_certified": np.asarray(proof["upper"]), "deviation_cosine_certified": np.full(6, 2.0)}
    found = _measured(model, threat, held, attacks)
    assert sum(found[f"over_{d}_certified"].sum() for d in DISTANCES) == 0
    assert found["over_euclidean_linearized"].sum() > 0
    assert found["unexplained"].sum() == 0
    assert (found["excess"].sum(2) == found["over_euclidean_linearized"]).all()
    assert found["excess"][..., BINS].sum() == 0
    wrong = held | {"deviation_euclidean_linearized": 0.3 * np.asarray(first_order["euclidean"]["lower"])}
    assert _measured(model, threat, wrong, attacks)["unexplained"].sum() > 0


def test_a_violation_of_a_certified_bound_would_be_seen(model: Classifier) -> None:
    held = _limits(9.0, 4)
    far = _measured(model, linf(0.1), held)["deviation_euclidean"].max(1)
    held["deviation_euclidean_certified"] = far * (1 - 1e-4)
    again = _measured(model, linf(0.1), held)
    assert (again["over_euclidean_certified"].sum(1) > 0).all()
    held["deviation_euclidean_certified"] = far * (1 + 1e-4)
    assert _measured(model, linf(0.1), held)["over_euclidean_certified"].sum() == 0


def test_a_bound_is_written_down_as_it_is(model: Classifier) -> None:
    batch, threat = _batch(4, {}), linf(0.05)
    target = model(batch.x).argmax(1)
    bound = CertifiedDeviation(Saliency(), steps=2)
    found = BoundedMaps(bound, threat)([model], batch)
    direct = bound(model, batch.x, target, threat, generator=batch.seeds)
    torch.testing.assert_close(found["upper"], direct.upper.double())
    torch.testing.assert_close(found["lower"], direct.lower.double())
    length = torch.linalg.vector_norm(Saliency()(model, batch.x, target).flatten(1).double(), dim=1)
    torch.testing.assert_close(found["length"], length)
    cosine = CertifiedDeviation(Saliency(), "cosine", steps=2)(model, batch.x, target, threat, generator=batch.seeds)
    derived = certified_cosine(length, direct.upper)
    assert (derived >= cosine.upper).all()
    torch.testing.assert_close(derived, cosine.upper, rtol=1e-3, atol=1e-6)


def test_attacks_on_different_maps_are_refused() -> None:
    with pytest.raises(UsageError, match="one and the same attribution"):
        MapPoints((AttributionPGD(Saliency()), AttributionPGD(IntegratedGradients())), linf(0.1))
