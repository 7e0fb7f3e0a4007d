"""The experiment on neuron sensitivity: its measures, its claims, and all of it at a tiny scale."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from steadygrad import models, neurons, papers
from steadygrad.data import load
from steadygrad.defenses import Plain
from steadygrad.errors import UsageError
from steadygrad.papers.store import Store
from steadygrad.papers.zhang2021 import claims, experiment
from steadygrad.papers.zhang2021.measures import PAIRS, NeuronBench
from steadygrad.threat import linf
from steadygrad.training import FitSettings, fit

EPS = 0.15


@pytest.fixture(scope="module")
def model() -> Any:
    data = load("digits", "train").take(400)
    start = models.build("mlp", data.shape, data.classes, hidden=(24, 16))
    return fit(start, Plain(), data, settings=FitSettings(epochs=8, batch_size=64, lr=5e-3)).classifier


@pytest.fixture
def bench(tmp_path: Any) -> NeuronBench:
    return NeuronBench(load("digits", "test").take(80), Store(tmp_path), seed=0, device="cpu")


def test_the_measures_are_those_of_the_library(bench: NeuronBench, model: Any) -> None:
    ((x, _, seeds),) = bench._batches(60)
    y = bench.data.labels[:60]
    x_adv = PAIRS.perturb(model, x, y, linf(EPS), generator=seeds)
    right, wrong = model(x).argmax(1) == y, model(x_adv).argmax(1) != y
    found = bench.moved(model, EPS, 60)
    assert np.array_equal(found["fooled"], (right & wrong).numpy())
    assert 10 < found["fooled"].sum() < 60
    with torch.no_grad():
        sizes = model.module[:3](x).abs().mean(1)
    np.testing.assert_allclose(found["2/size"], sizes.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["2/sigma"], neurons.sensitivity(model, x, x_adv)["2"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["2/change"].mean(), found["2/sigma"].mean(), rtol=1e-6)

    sets = {"most": [np.array([3, 5, 11])], "random": [np.array([0]), np.arange(24)]}
    held = bench.restored(model, EPS, 60, sets, "2")
    fooled = (right & wrong).nonzero().flatten()
    net = model.module
    with torch.no_grad():
        benign, moved = net[:3](x[fooled]), net[:3](x_adv[fooled])
        patched, off = moved.clone(), benign.clone()
        patched[:, [3, 5, 11]] = benign[:, [3, 5, 11]]
        off[:, [3, 5, 11]] = 0
        assert held["patched/most"].tolist() == (net[3:](patched).argmax(1) == y[fooled]).double().tolist()
        assert held["clean/most"].tolist() == (net[3:](off).argmax(1) == y[fooled]).double().tolist()
        off = moved.clone()
        off[:, [3, 5, 11]] = 0
        assert held["off/most"].tolist() == (net[3:](off).argmax(1) == y[fooled]).double().tolist()
    # Of two sets one is the whole layer, which always restores the class.
    assert (held["patched/random"] >= 0.5).all()


def test_the_radius_leaves_the_share_that_was_asked_for(bench: NeuronBench, model: Any) -> None:
    assert bench.radius(model, 1.0, 80) == 0.0
    assert not bench.moved(model, 0.0, 10)["fooled"].any()
    assert bench.withstands(model, 0.0, 10).mean() == bench.right(model)[:10].mean()
    radius = bench.radius(model, 0.3, 80)
    kept = bench.withstands(model, radius, 80)
    assert 0.15 <= kept.mean() <= 0.35


def _measured(**changes: Any) -> experiment.Measured:
    drawn = np.random.default_rng(0)

    def bits(share: float) -> Any:
        return drawn.random(400) < share

    def held(most: float, other: float, least: float) -> dict[str, Any]:
        shares = {"most": most, "random": other, "least": least}
        return {f"patched/{choice}": bits(share).astype(float) for choice, share in shares.items()}

    change = {"plain": 1.0, "nat": 0.7, "pat": 0.4}
    fine = experiment.Measured(
        eps=0.1, own={"plain": 0.05}, layers=["a", "b", "c"],
        right={name: bits(0.95) for name in ("plain", "sns")},
        moved={
            name: {
                f"{la}/{what}": size * (1 + 0.1 * drawn.random(50))
                for la in "abc"
                for what, size in (("change", moves), ("size", 2.0))
            }
            for name, moves in change.items()
        },
        chosen={"plain": "b"},
        restored={"plain": {"a": held(0.1, 0.9, 0.9), "b": held(0.8, 0.4, 0.1)}},
        kept={"plain": bits(0.3), "sns": bits(0.7), "steady": bits(0.6)},
        kept_trained={"pat": bits(0.5), "pat_sns": bits(0.7)},
    )  # fmt: skip
    return replace(fine, **changes)


def test_the_claims_follow_the_measures() -> None:
    results = {"rows": {"plain": {"best": "b"}}, "radius": 0.05, "eps": 0.1}
    fine = _measured()
    assert [claim.held for claim in claims.judge(results, fine)] == [True] * 10
    few = fine.restored["plain"]["b"]
    turned = {
        "restored": {"plain": {"b": dict.fromkeys(few, few["patched/least"])}},
        "moved": {"plain": fine.moved["pat"], "nat": fine.moved["nat"], "pat": fine.moved["plain"]},
        "kept": {"plain": fine.kept["sns"], "sns": fine.kept["plain"], "steady": fine.kept["plain"]},
        "kept_trained": {"pat": fine.kept_trained["pat_sns"], "pat_sns": fine.kept_trained["pat"]},
        "right": {"plain": fine.right["plain"], "sns": fine.kept["plain"]},
    }  # fmt: skip
    # No difference at all between most, random and least is no restoring.
    assert [claim.held for claim in claims.judge(results, _measured(**turned))] == [False] * 10
    none = {"plain": {"b": dict.fromkeys(few, np.zeros(0))}}
    verdicts = [claim.verdict for claim in claims.judge(results, _measured(restored=none))]
    assert verdicts[:2] == ["not measured"] * 2
    # Layers that are not sure leave the claim open.
    mixed = {**fine.moved, "nat": {**fine.moved["nat"], "a/change": fine.moved["plain"]["b/change"]}}
    found = claims.judge(results, _measured(moved=mixed))[2].found
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(2 / 3), 1.0)
    # A model that is calm because its activations are small is not calmer by its ratios.
    small = {
        name: {k: v * (0.1 if name == "nat" else 1.0) for k, v in moved.items()} for name, moved in fine.moved.items()
    }
    verdicts = [claim.held for claim in claims.judge(results, _measured(moved=small))[2:6]]
    assert verdicts == [True, False, True, True]
    # No radius leaves a model 30 % that has less to begin with.
    nothing = claims.judge({**results, "radius": 0.0}, fine)
    assert [claim.verdict == "not measured" for claim in nothing[6:]] == [True, False, True, False]


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(
        experiment.SCALES["smoke"],
        epochs=1,
        least=1,
        samples=96,
        steps=1,
        looked=8,
        images=30,
        curves=20,
        suite=2,
    )
    monkeypatch.setitem(experiment.SCALES, "smoke", tiny)
    request = papers.Request(data="digits", out=tmp_path, scale="smoke")
    summary = papers.reproduce("zhang2021", request)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    found = summary["results"]
    assert found["neurons"] == {"2": 32, "6": 64, "11": 1024}
    assert set(found["models"]) == {"plain", "nat", "pat", "trades", "sns", "steady", "pat_sns"}
    page = (tmp_path / "index.html").read_text()
    for text in ("What sensitive neurons carry", "Sensitivity spectra", "What moves a neuron", "PAT + SNS"):
        assert text in page
    kept = [p for p in tmp_path.rglob("*") if p.parent.name == "cells" or p.suffix == ".safetensors"]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert papers.reproduce("zhang2021", request)["results"] == found
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())


def test_there_is_nothing_to_search(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="nothing to search"):
        papers.reproduce("zhang2021", papers.Request(data="digits", out=tmp_path, search=True))
