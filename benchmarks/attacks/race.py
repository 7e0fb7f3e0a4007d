"""The measurement: every contender on the same images, counted, timed and judged from outside."""

from __future__ import annotations

import copy
import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor, nn

from benchmarks.attacks.meter import Lap, Meter, bare, clock, quiet
from benchmarks.attacks.subject import Subject
from benchmarks.attacks.tasks import OURS, Contender, Task, ours
from steadygrad import files, progress
from steadygrad.attacks.attack_result import judge
from steadygrad.measuring.code_keys import code_of, weights_key
from steadygrad.measuring.statistics import wilson

__all__ = ["Pace", "median_interval", "race"]


@dataclass(frozen=True)
class Pace:
    """How often each attack is timed: `laps` times, or until it has taken `seconds` altogether, but once at least."""

    laps: int = 5
    seconds: float = 5.0


def race(
    on: Subject, contenders: Sequence[Contender], versions: dict[str, str], *, out: Path, seed: int, pace: Pace
) -> list[dict[str, Any]]:
    """One row of plain data per contender; finished ones are read from `out`.

    An attack that raises gives a row with its `error`. A row that was recorded for other weights,
    images, settings, versions or code is measured anew.
    """
    # Weights without gradients are how an attack on a fixed model runs fastest, in every library.
    model = copy.deepcopy(on.model).eval().requires_grad_(False)
    base = [weights_key(model), on.ids, seed, asdict(pace), torch.get_num_threads(), str(on.x.device)]
    rows = []
    with progress.task("attacks", sum(contender.weight for contender in contenders)) as advance:
        for contender in contenders:
            library = contender.library
            name = files.key(base, _described(contender), versions.get(library), _code(library))
            cell = out / f"{name}.json"
            advance(0, note=f"{library}: {contender.task.name}")
            row = known(cell)
            if row is None:
                row = _measured(contender, model, on, seed, pace)
                files.write_json(cell, row)
            rows.append(row)
            advance(contender.weight)
    return rows


def known(cell: Path) -> dict[str, Any] | None:
    """The row that a cell holds; None where there is none, or it is damaged, or the attack failed."""
    try:
        row, sound = files.read_json(cell)
    except (OSError, ValueError):
        return None
    return row if sound and row["error"] is None else None


def _described(contender: Contender) -> dict[str, Any]:
    task = contender.task
    aim = {"task": task.name, "norm": task.threat.norm, "eps": task.threat.eps, "smallest": task.smallest}
    return {**aim, "library": contender.library, "variant": contender.variant, "attack": contender.attack}


@functools.cache
def _code(library: str) -> str:
    """A hash of the sources behind a row: an attack that was changed is measured anew, the others stay."""
    here = Path(__file__).parent
    sources = [here / f"{name}.py" for name in ("meter", "race", "subject", "tasks")]
    sources += sorted((here / "libraries").glob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in sources]
    return files.key(texts, code_of(ours) if library == OURS else None)


def _measured(contender: Contender, model: nn.Module, on: Subject, seed: int, pace: Pace) -> dict[str, Any]:
    row = {**_described(contender), "error": None}
    try:
        laps, passes, points = _run(contender, model, on, seed, pace)
        return {**row, **_judged(contender.task, model, on, points), **passes, **_timed(laps)}
    except Exception as error:  # what code of others meets here is a result
        return {**row, "error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}


def _run(
    contender: Contender, model: nn.Module, on: Subject, seed: int, pace: Pace
) -> tuple[list[Lap], dict[str, float], Tensor]:
    """The laps; passes per input and points of the first one, so that they do not depend on the number of laps."""
    meter, target = Meter(model), on.targets() if contender.task.targeted else None
    # What a library imports or compiles when first called is not its speed.
    with quiet(seed):
        contender.run(meter, on.x[:2].clone(), on.y[:2], target[:2] if target is not None else None, seed)
    meter.reset()
    laps: list[Lap] = []
    while len(laps) < pace.laps and (not laps or sum(lap.seconds for lap in laps) < pace.seconds):
        before = bare(model, on.x)
        with quiet(seed):
            seconds, cpu, found = clock(on.x, lambda: contender.run(meter, on.x.clone(), on.y, target, seed))
        after = bare(model, on.x)
        if not laps:
            points = found.detach()
            passes = {"forwards": meter.forwards / len(on.x), "backwards": meter.backwards / len(on.x)}
        laps.append(Lap(seconds, cpu, (before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
    return laps, passes, points


def _timed(laps: list[Lap]) -> dict[str, Any]:
    ratios = sorted(lap.ratio for lap in laps)
    return {
        "laps": len(laps),
        "seconds": statistics.median(lap.seconds for lap in laps),
        "bare_seconds": statistics.median(lap.bare_seconds for lap in laps),
        "ratio": {"value": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]},
        "cpu_ratio": statistics.median(lap.cpu_ratio for lap in laps),
    }


def _judged(task: Task, model: nn.Module, on: Subject, points: Tensor) -> dict[str, Any]:
    """Success and distances, judged on the model itself in another batch composition."""
    if points.shape != on.x.shape:
        raise ValueError(f"returned points of shape {tuple(points.shape)} for inputs of {tuple(on.x.shape)}")
    target = on.targets() if task.targeted else None
    finite = torch.isfinite(points).flatten(1).all(1)
    points = torch.where(finite.view(-1, *[1] * (points.ndim - 1)), points, on.x)
    success, _ = judge(model, on.x, points, on.y, task.threat, target, finite)
    distance = torch.where(success, task.threat.distance(points - on.x), torch.inf).tolist()
    return {
        "success": wilson(int(success.sum()), len(success)).plain(),
        "median": median_interval(distance),
        "distances": [value if math.isfinite(value) else None for value in distance],
    }


def median_interval(values: Sequence[float]) -> dict[str, float | None]:
    """The median and its 95 % interval by order statistics; what was not found is infinite, and shown as None.

    >>> median_interval([3.0, 1.0, 2.0, float("inf")])["value"]
    2.5
    """
    ordered = sorted(values)
    count = len(ordered)
    # P(fewer than `low` values lie below the median) stays under 2.5 %.
    low = int(binom.ppf(0.025, count, 0.5))
    ends = {
        "value": statistics.median(ordered),
        "low": ordered[max(0, low - 1)],
        "high": ordered[min(count - 1, count - low)],
    }
    return {name: value if math.isfinite(value) else None for name, value in ends.items()}
