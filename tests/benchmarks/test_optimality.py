"""Local optimality is that of AttackBench's formula, and what is written follows from the cells."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from benchmarks.optimality.result import local_optimality, write


def test_the_area_is_that_of_a_fine_sum():
    rng = np.random.default_rng(0)
    best = np.append(rng.uniform(0.1, 1, 30), 0.0)
    found = best * rng.uniform(1, 1.5, 31)
    found[3] = np.inf
    radii = np.linspace(0, best.max(), 200_001)
    area, least = ((d[:, None] > radii).mean(0).mean() * best.max() for d in (found, best))
    expected = 1 - (area - least) / (30 / 31 * best.max() - least)
    assert local_optimality(found, best) == pytest.approx(expected, abs=1e-4)


def test_the_best_known_are_those_of_all_searches_and_budgets(tmp_path):
    base = {"model": "plain", "norm": "l2", "samples": 2, "seed": 0, "error": None, "passes": 99.0}
    rows = [
        {**base, "library": "steadygrad", "search": "A", "budget": 100, "distances": [1.0, None]},
        {**base, "library": "steadygrad", "search": "A", "budget": 200, "distances": [1.0, 4.0]},
        {**base, "library": "other", "search": "B", "budget": 100, "distances": [3.0, 2.0]},
        {**base, "library": "other", "search": "B", "budget": 200, "distances": [2.0, 2.0]},
        {**base, "library": "other", "search": "C", "budget": 200, "error": "no"},
    ]
    write(rows, tmp_path)
    found = list(csv.DictReader((tmp_path / "optimality.csv").read_text("utf-8").splitlines()))
    # The least area is that of (1, 2), the largest that of (2, 2); radii beyond 2 do not count.
    scores = {(row["search"], row["budget"]): float(row["optimality"]) for row in found}
    assert scores == {("A", "100"): 1.0, ("A", "200"): 1.0, ("B", "100"): 0.0, ("B", "200"): 0.0}
    assert "failed: plain l2 other C: no" in (tmp_path / "optimality.md").read_text("utf-8")
    assert (tmp_path / "optimality.png").stat().st_size > 1000
