"""The experiment on bounds of attributions: what is counted, what is explained, and all of it at a tiny scale."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from steadygrad import papers, randomness
from steadygrad.attributions import IntegratedGradients, Saliency
from steadygrad.bounds import AttributionDeviation
from steadygrad.bounds.reading import read
from steadygrad.data import load
from steadygrad.defenses import Plain
from steadygrad.papers.wang2023 import experiment
from steadygrad.papers.wang2023.claims import agreement, median_ratio
from steadygrad.papers.wang2023.settings import ATTACKS, SCALES, attacks, defenses, network, threats
from steadygrad.papers.wang2023.witness import BINS, DISTANCES, witnessed
from steadygrad.threat import l2, linf
from steadygrad.training import FitSettings, fit

TINY = dataclasses.replace(
    SCALES["smoke"],
    fit=FitSettings(epochs=1, batch_size=32, lr=5e-3),
    training=120,
    images={"saliency": 3, "integrated gradients": 1},
    steps=3,
    draws=4,
)


@pytest.fixture(scope="module")
def model():
    data = load("digits", "train").take(600)
    start = network(data.shape, data.classes, 0)
    return fit(start, Plain(), data, settings=FitSettings(epochs=4, batch_size=32, lr=5e-3)).classifier.eval()


def images(model, count):
    x, _ = load("digits", "test").take(count).tensors()
    return x, model(x).argmax(1), randomness.sample_seeds(count, None)


def limits(value, count):
    return {(k, d): torch.full((count,), value).double() for k in ("linearised", "certified") for d in DISTANCES}


@pytest.mark.parametrize("attribution", [Saliency(), IntegratedGradients(steps=2)], ids=lambda a: type(a).__name__)
def test_every_point_is_counted_and_the_furthest_is_what_the_attack_reports(model, attribution):
    x, target, seeds = images(model, 3)
    threat, made = linf(0.05), attacks(attribution, TINY)
    found = witnessed(model, x, target, threat, made, limits(-1.0, 3), seeds)
    assert list(found) == list(ATTACKS)
    assert (sum(t.tried for t in found.values()) == TINY.points).all()
    for name, tally in found.items():
        result = made[name](model, x, target, threat, generator=seeds)
        if result.deviation.shape and made[name].objective in DISTANCES:
            torch.testing.assert_close(tally.far[made[name].objective], result.deviation.double(), rtol=1e-4, atol=1e-6)
        assert (tally.kept <= tally.tried).all()
        assert tally.kept.sum() > 0
        # Every point that counts is beyond a bound below zero.
        for counted in tally.beyond.values():
            assert torch.equal(counted, tally.kept)
        assert threat.allows(x, tally.best).all()


def test_points_that_change_the_prediction_do_not_count(model):
    x, target, seeds = images(model, 8)
    found = witnessed(model, x, target, linf(0.9), attacks(Saliency(), TINY), limits(-1.0, 8), seeds)
    tally = found["PGD, Euclidean"]
    assert tally.kept.sum() < tally.tried.sum()
    with torch.no_grad():
        assert torch.equal(model(tally.best).argmax(1), target)


@pytest.mark.parametrize("threat", [linf(0.2), l2(1.5)], ids=str)
def test_excess_is_explained_by_the_remainder_and_only_a_true_bound_is_explained(model, threat):
    x, target, seeds = images(model, 6)
    made = attacks(Saliency(), dataclasses.replace(TINY, steps=8))
    bounds = {
        ("linearised", d): AttributionDeviation(Saliency(), distance=d)(model, x, target, threat) for d in DISTANCES
    }
    proof = AttributionDeviation(Saliency(), kind="certified", steps=0)(model, x, target, threat).upper
    held = {key: bound.upper.double() for key, bound in bounds.items()}
    held |= {("certified", "euclidean"): proof, ("certified", "cosine"): torch.full_like(proof, 2.0)}
    tallies = witnessed(model, x, target, threat, made, held, seeds).values()
    assert sum(t.beyond["certified", d].sum() for t in tallies for d in DISTANCES) == 0
    assert sum(t.beyond["linearised", "euclidean"].sum() for t in tallies) > 0
    assert sum(t.unexplained.sum() for t in tallies) == 0
    shares = sum(t.shares for t in tallies)
    assert shares.sum() == sum(t.beyond["linearised", "euclidean"].sum() for t in tallies)
    assert shares[BINS] == 0
    wrong = held | {("linearised", "euclidean"): 0.3 * bounds["linearised", "euclidean"].lower.double()}
    tallies = witnessed(model, x, target, threat, made, wrong, seeds).values()
    assert sum(t.unexplained.sum() for t in tallies) > 0


def test_a_violation_of_a_certified_bound_would_be_seen(model):
    x, target, seeds = images(model, 4)
    threat = linf(0.1)
    held = limits(9.0, 4)
    found = witnessed(model, x, target, threat, attacks(Saliency(), TINY), held, seeds)
    far = torch.stack([t.far["euclidean"] for t in found.values()]).amax(0)
    held["certified", "euclidean"] = far * (1 - 1e-4)
    again = witnessed(model, x, target, threat, attacks(Saliency(), TINY), held, seeds)
    assert (sum(t.beyond["certified", "euclidean"] for t in again.values()) > 0).all()


def test_rank_agreement_is_spearmans_with_an_interval_around_it():
    drawn = np.random.default_rng(2)
    first = drawn.random(60)
    second = first + 0.3 * drawn.random(60)
    found = agreement(first, second)
    assert found.value == pytest.approx(spearmanr(first, second).statistic)
    assert found.low < found.value < found.high
    assert agreement(first, np.ones(60)) is None
    ratio = median_ratio(3 * first, first)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert median_ratio(first, np.zeros(60)) is None


def test_the_networks_have_bounds_and_the_plans_are_whole():
    for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32)):
        x = torch.rand(2, *shape, generator=randomness.fresh(0))
        model = network(shape, [str(i) for i in range(10)], 0)
        torch.testing.assert_close(read(model, x)(x.double()), model.double()(x.double()), rtol=1e-7, atol=1e-7)
    assert {t.norm for t in threats("mnist", SCALES["short"])} == {"linf", "l2"}
    assert list(defenses("mnist", SCALES["paper"])) == [
        "plain", "pgd", "gradient", "cosine", "trades", "ig_norm", "ig_sum_norm",
    ]  # fmt: skip
    for name, least in (("short", 1e6), ("paper", 1e7)):
        scale = SCALES[name]
        cells = len(defenses("mnist", scale)) * len(threats("mnist", scale))
        assert sum(scale.images.values()) * cells * scale.points >= 1.1 * least


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setitem(experiment.SCALES, "smoke", TINY)
    two = dict(list(defenses("digits", TINY).items())[2:])
    monkeypatch.setattr(experiment, "defenses", lambda data, scale: two)
    request = papers.Request(data="digits", out=tmp_path, scale="smoke")
    summary = papers.reproduce("wang2023", request)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    found = summary["results"]
    assert found["counts"]["tried"] == (3 + 1) * 2 * 2 * TINY.points
    assert found["counts"]["beyond"]["certified"] == {"euclidean": 0, "cosine": 0}
    assert len(found["cells"]) == 2 * 2 * 2
    page = (tmp_path / "index.html").read_text()
    for text in (
        "&gt; 10 million",
        "rank correlation over images",
        "cosine of maps + PGD",
        "beyond the certified bound",
    ):
        assert text in page
    kept = [p for p in tmp_path.rglob("*") if p.parent.name == "cells" or p.suffix == ".safetensors"]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert papers.reproduce("wang2023", request)["results"] == found
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())
