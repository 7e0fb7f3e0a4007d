"""Smallest: nearer than its first search in every sample, and than a hundred steps of any one on average."""

from __future__ import annotations

import pytest

from steadygrad.attacks import DDN, FMN, Smallest
from steadygrad.threat import Threat


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_finds_nearer_points_than_one_search_in_about_as_many_passes(digits, norm):
    model, x, y = digits
    found = Smallest()(model, x, y, Threat(norm))
    assert found.success.all()
    first = FMN(steps=25 if norm == "l2" else 20)(model, x, y, Threat(norm))
    assert (found.distance <= first.distance * (1 + 1e-5)).all()
    alone = (DDN() if norm == "l2" else FMN())(model, x, y, Threat(norm))
    assert found.distance.mean() < alone.distance.mean()
    spent, theirs = (float((r.forwards + r.backwards).float().mean()) for r in (found, alone))
    assert spent < 1.15 * theirs
