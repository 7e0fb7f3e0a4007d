"""Whatever a contender returns is judged; whatever it raises is written down; nothing is done twice."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from benchmarks.attacks.race import Pace, median_interval, race
from benchmarks.attacks.tasks import Contender, Task, ours, tasks
from steadygrad.attacks import DeepFool
from steadygrad.threat import l2, linf

NEAREST, FIXED = Task("nearest", l2(), smallest=True), Task("fixed", linf(0.1))
ONCE = Pace(laps=1)


def _enter(run, task=NEAREST, name="made up"):
    return Contender(task, "somebody", name, run, 1)


def _race(small, out, *entered, **settings):
    pace = settings.pop("pace", ONCE)
    return race(small, entered, {}, out=out, seed=settings.pop("seed", 0), pace=pace)


def test_a_row_says_what_it_cost_and_what_it_found(small, tmp_path):
    known = tasks(0.1, tuple(small.x.shape[1:]))
    entry = next(c for c in ours(known, 64, 10) if c.task.name == "DeepFool l2")
    (row,) = _race(small, tmp_path, entry)
    found = DeepFool()(small.model, small.x, small.y, l2())
    assert row["error"] is None
    assert row["success"]["value"] == found.success.float().mean().item()
    assert row["median"]["value"] == pytest.approx(found.distance.sort().values[9:11].mean().item(), rel=1e-5)
    assert row["distances"] == pytest.approx(found.distance.tolist(), rel=1e-5)
    assert row["forwards"] == found.forwards.sum().item() / 20
    assert row["backwards"] == found.backwards.sum().item() / 20
    assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("points", "task"),
    [
        (lambda x: x, NEAREST),  # nothing found
        (lambda x: torch.full_like(x, torch.nan), NEAREST),
        (lambda x: x + 5.0, NEAREST),  # outside the bounds
        (lambda x: 1 - x, FIXED),  # outside the radius
        (lambda x: torch.full_like(x, torch.inf), FIXED),
    ],
    ids=["clean", "nan", "out of bounds", "too far", "infinite"],
)
def test_points_that_do_not_count_are_no_success(points, task, small, tmp_path):
    (row,) = _race(small, tmp_path, _enter(lambda model, x, y, target, seed: points(x), task))
    assert row["error"] is None
    assert row["success"]["value"] == 0.0
    assert row["median"] == {"value": None, "low": None, "high": None}
    assert set(row["distances"]) == {None}


def test_the_same_points_within_the_radius_count(small, tmp_path):
    # So that the test above can fail.
    points = DeepFool()(small.model, small.x, small.y, l2()).inputs
    (row,) = _race(small, tmp_path, _enter(lambda model, x, y, target, seed: points[: len(x)]))
    assert row["success"]["value"] == 1.0


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda model, x, *_: x[:, :, :2], "ValueError: returned points of shape (20, 1, 2, 8)"),
        (lambda *_: None, "AttributeError"),
    ],
)
def test_a_failure_is_a_row_and_the_others_go_on(run, words, small, tmp_path):
    rows = _race(small, tmp_path, _enter(run), _enter(lambda model, x, *_: x, name="another"))
    assert words in rows[0]["error"]
    assert rows[1]["error"] is None


def test_what_is_done_is_read_and_what_differs_is_done(small, tmp_path):
    calls = []

    def run(model, x, y, target, seed):
        calls.append(len(x))
        return x

    first = _race(small, tmp_path, _enter(run))
    assert calls == [2, 20]  # a first call that is not timed
    assert _race(small, tmp_path, _enter(run)) == first
    assert len(calls) == 2
    _race(small, tmp_path, _enter(run), seed=1)
    _race(small, tmp_path, _enter(run, FIXED))
    _race(small, tmp_path, _enter(run, name="other settings"))
    assert len(calls) == 8


def test_laps_end_by_number_and_by_time(small, tmp_path):
    calls = []
    entry = _enter(lambda model, x, *_: calls.append(len(x)) or x)
    (row,) = _race(small, tmp_path / "number", entry, pace=Pace(laps=3, seconds=60.0))
    assert (row["laps"], len(calls)) == (3, 4)
    (row,) = _race(small, tmp_path / "time", entry, pace=Pace(laps=3, seconds=0.0))
    assert row["laps"] == 1


def test_passes_and_points_are_those_of_the_first_lap(small, tmp_path):
    turns = itertools.count()

    def run(model, x, y, target, seed):
        for _ in range(next(turns)):
            model(x)
        return x

    (row,) = _race(small, tmp_path, _enter(run), pace=Pace(laps=3, seconds=60.0))
    assert row["laps"] == 3
    assert row["forwards"] == 1.0


@pytest.mark.parametrize("count", [1, 5, 6, 20, 128])
def test_the_interval_of_the_median_covers_it(count):
    # From the definition: the chance that the order statistics enclose the median is at least 95 %.
    values = [float(i) for i in range(1, count + 1)]
    found = median_interval(values)
    assert found["value"] == (count + 1) / 2
    low, high = int(found["low"]), int(found["high"])
    assert low + high == count + 1
    inside = sum(math.comb(count, k) for k in range(low, high)) / 2**count
    assert inside >= 0.95 or (low, high) == (1, count)
    narrower = sum(math.comb(count, k) for k in range(low + 1, high - 1)) / 2**count
    assert narrower < 0.95


def test_what_was_not_found_is_beyond_every_distance():
    assert median_interval([1.0, math.inf, math.inf]) == {"value": None, "low": 1.0, "high": None}
