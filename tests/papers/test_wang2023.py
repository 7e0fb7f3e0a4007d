"""The experiment on bounds of attributions: what is planned, what is judged, and all of it at a tiny scale."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from steadygrad import papers, randomness
from steadygrad.bounds.certified.tracing import trace
from steadygrad.data import Dataset
from steadygrad.files import read_json
from steadygrad.measuring.statistics import Estimate
from steadygrad.papers import wang2023_experiment
from steadygrad.papers.paper import draw
from steadygrad.papers.wang2023 import judge, median_ratio
from steadygrad.papers.wang2023_experiment import SCALES, network, points_of, threats, trainings

TINY = {
    **SCALES["smoke"],
    "training": {"epochs": 1, "batch_size": 32, "lr": 5e-3},
    "samples": 120,
    "images": {"saliency": 3, "integrated gradients": 1},
    "steps": 3,
    "draws": 4,
}


def test_the_median_of_a_ratio_counts_what_did_not_move_as_infinitely_far():
    first = np.random.default_rng(2).random(60)
    ratio = median_ratio(3 * first, first)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert median_ratio(first, np.zeros(60)) is None
    assert median_ratio(np.arange(1.0, 6.0), np.array([1.0, 1.0, 1.0, 1.0, 0.0])) is None
    few = np.where(np.arange(60) < 3, 0.0, first)
    assert median_ratio(3 * first, few).value == pytest.approx(3)


def _rows(ratio, agreement):
    return [
        {
            "model": "plain", "map": name, "norm": norm, "eps": eps, "images": 50,
            "ratio": {"certified": Estimate(ratio, ratio, ratio)},
            "agreement": {"linearized": Estimate(agreement, agreement, agreement)},
        }
        for name in ("saliency", "integrated gradients")
        for norm, eps in (("linf", 0.01), ("linf", 0.1), ("l2", 0.01), ("l2", 1.0))
    ]  # fmt: skip


def test_the_claims_follow_the_counts_and_the_smaller_radii():
    none = {"euclidean": 0, "cosine": 0}
    counts = {"kept": 1_000_000, "beyond": {"certified": none, "linearized": none}, "unexplained": 0}
    claims = judge(counts, _rows(2.9, 0.85), 1_000_000)
    assert [claim.text for claim in claims[4:]] == [
        "plain, saliency, linf, eps 0.01: certified bound over strongest attack, median",
        "plain, saliency, l2, eps 0.01: rank correlation of linearized bound and strongest attack over images",
        "plain, saliency, l2, eps 0.01: certified bound over strongest attack, median",
    ]
    assert [claim.needed for claim in claims] == [
        "at least 1,000,000", *["at most 0"] * 3, "at most 3 times", "at least 0.8", "at most 3 times",
    ]  # fmt: skip
    assert all(claim.held for claim in claims)
    one = {"euclidean": 0, "cosine": 1}
    counts = {"kept": 999_999, "beyond": {"certified": one, "linearized": one}, "unexplained": 1}
    assert not any(claim.held for claim in judge(counts, _rows(3.1, 0.75), 1_000_000))


def test_the_networks_have_bounds_and_the_plans_are_whole():
    for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32)):
        x = torch.rand(2, *shape, generator=randomness.fresh(0))
        data = Dataset(x, torch.zeros(2, dtype=torch.int64), tuple(str(i) for i in range(10)), ("a", "b"))
        model = network(data, 0)
        torch.testing.assert_close(trace(model, x)(x.double()), model.double()(x.double()), rtol=1e-7, atol=1e-7)
    assert {t.norm for t in threats("mnist", SCALES["short"])} == {"linf", "l2"}
    assert list(trainings("mnist", SCALES["paper"])) == [
        "plain", "pgd", "gradient", "cosine", "trades", "ig_norm", "ig_sum_norm",
    ]  # fmt: skip
    for name, least in (("short", 1e6), ("paper", 1e7)):
        scale = SCALES[name]
        assert scale["needed"] == least
        cells = len(trainings("mnist", scale)) * len(threats("mnist", scale))
        assert sum(scale["images"].values()) * cells * points_of(scale) >= 1.1 * least


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setitem(SCALES, "smoke", TINY)
    two = dict(list(trainings("digits", TINY).items())[2:])
    monkeypatch.setattr(wang2023_experiment, "trainings", lambda data, scale: two)
    request = papers.Request(data="digits", out=tmp_path, scale="smoke")
    summary = papers.reproduce("wang2023", request)
    assert read_json(tmp_path / "summary.json")[0] == summary
    found = summary["results"]
    assert found["counts"]["tried"] == (3 + 1) * 2 * 2 * points_of(TINY)
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
    kept = [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".safetensors")]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert papers.reproduce("wang2023", request) == summary
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())

    # The page follows from the configuration and the tables alone.
    shutil.rmtree(tmp_path / "models")
    (tmp_path / "index.html").unlink()
    (tmp_path / "summary.json").unlink()
    assert draw(papers.PAPERS["wang2023"], tmp_path) == summary
    assert (tmp_path / "index.html").read_text() == page
