"""Accuracy against eps from one search: the smallest radius of a grid at which each sample falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from steadygrad import progress
from steadygrad.attacks import Attack
from steadygrad.errors import UsageError
from steadygrad.evaluation.records import Records
from steadygrad.evaluation.robustness import CHUNK, Bench, code_key, label_of, predict, weights_key
from steadygrad.files import key
from steadygrad.measuring.statistics import Estimate, wilson
from steadygrad.registry import describe
from steadygrad.threat import Threat

__all__ = ["GRID", "check_grid", "curve", "curve_points", "smallest_in_grid"]

GRID = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Radii of a curve as multiples of the audited radius."""


def smallest_in_grid(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    grid: Sequence[float],
    seeds: Tensor,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Place (N,) in the rising grid of the smallest radius that breaks each sample, and passes spent.

    Each sample comes down from the largest radius by itself, all of them in one batch with a radius
    per sample, until one does not break it: a success ends early and costs little, and there is one
    failure at most. A point found well inside its ball skips places. The place is len(grid) where no
    radius breaks the sample, and -1 for a clean mistake. `known` (N,) are distances at which the
    sample is already known to fall, infinite where it is not: the search starts below them. Returns
    places, forwards and backwards, all (N,).
    """
    radii = torch.tensor(grid, dtype=torch.float64, device=x.device)
    smallest = torch.full((len(x),), len(grid), device=x.device)
    if known is not None:
        smallest = torch.where(known == 0, -1, _place(radii, known))
    forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    backwards = torch.zeros_like(forwards)
    rows = (smallest > 0).nonzero().squeeze(1)
    while len(rows):
        below = smallest[rows] - 1
        found = attack(model, x[rows], y[rows], threat.at(radii[below]), generator=seeds[rows.cpu()])
        forwards[rows] += found.forwards
        backwards[rows] += found.backwards
        place = torch.where(found.distance == 0, -1, torch.minimum(_place(radii, found.distance), below))
        smallest[rows] = torch.where(found.success, place, smallest[rows])
        rows = rows[found.success & (smallest[rows] > 0)]
    return smallest, forwards, backwards


def check_grid(grid: Sequence[float]) -> None:
    """Refuse radii that are none, not positive or not rising."""
    if not grid or grid[0] <= 0 or any(b <= a for a, b in pairwise(grid)):
        raise UsageError(f"the grid of a curve must be positive and rising, got {list(grid)}")


def _place(radii: Tensor, distance: Tensor) -> Tensor:
    """The first place whose radius reaches the distance (N,), len(radii) if none does."""
    return torch.searchsorted(radii, distance.to(radii) * (1 - 1e-6))


def curve(
    bench: Bench,
    model: nn.Module,
    name: str,
    attack: Attack,
    threat: Threat,
    grid: Sequence[float],
    known: Records | None = None,
) -> Records:
    """Records in which eps is the smallest radius of the grid that breaks the sample, infinite if none does.

    `known` are records of the same samples whose successes count as well, so that the curve never
    lies above the worst case that they show.

    Raises:
        UsageError: the grid is empty, not rising, or not positive.
    """
    grid = [float(g) for g in grid]
    check_grid(grid)
    nearest: dict[str, float] = {}
    if known is not None:
        smallest = known.frame.groupby("sample")["distance"].min()
        nearest = {str(sample): float(distance) for sample, distance in smallest.items()}
    searched = ["curve", weights_key(model), name, describe(attack), threat.norm, threat.bounds, grid, bench.seed]
    base = [searched, bench.data.fingerprint, torch.device(bench.device).type, code_key(), sorted(nearest.items())]
    parts: list[Records] = []
    count = len(bench.data)
    with progress.task(f"{name}: curve of {label_of(attack)}", count) as advance:
        for start in range(0, count, CHUNK):
            stop = min(start + CHUNK, count)
            compute = partial(_compute, bench, start, stop, model, name, attack, threat, grid, nearest)
            parts.append(bench.cells.get(key(base, start, stop), compute))
            advance(stop - start)
    return Records.join(parts)


def _compute(
    bench: Bench,
    start: int,
    stop: int,
    model: nn.Module,
    name: str,
    attack: Attack,
    threat: Threat,
    grid: Sequence[float],
    nearest: Mapping[str, float],
) -> Records:
    import pandas as pd

    rows = []
    for x, y, ids in bench.batches(start, stop):
        distances = torch.tensor([nearest.get(i, torch.inf) for i in ids], dtype=torch.float64, device=x.device)
        seeds = bench.seeds(describe(attack), ids)
        place, forwards, backwards = smallest_in_grid(attack, model, x, y, threat, grid, seeds, distances)
        radii = torch.tensor([*grid, torch.inf, 0.0], dtype=torch.float64, device=x.device)
        eps = radii[place]  # -1, a clean mistake, takes the last entry
        prediction, confidence = (column.tolist() for column in predict(model, x, seeds))
        columns = {
            "sample": ids,
            "label": y.tolist(),
            "clean_prediction": prediction,
            "clean_confidence": confidence,
            "eps": eps.tolist(),
            "success": torch.isfinite(eps).tolist(),
            "broken_by": [f"{label_of(attack)} (curve)" if 0 < e < torch.inf else "" for e in eps.tolist()],
            "prediction": prediction,
            "confidence": confidence,
            "distance": eps.tolist(),
            "forwards": forwards.tolist(),
            "backwards": backwards.tolist(),
        }
        rows.append(pd.DataFrame(columns))
    frame = pd.concat(rows, ignore_index=True)
    return Records(
        frame.assign(
            model=name,
            source=name,
            attack=f"{label_of(attack)} (curve)",
            norm=threat.norm,
            zero_gradient=False,
            rounded_success=False,
            seed=bench.seed,
        )
    )


def curve_points(records: Records, grid: Sequence[float]) -> list[tuple[float, Estimate]]:
    """Accuracy at eps 0 and at each radius of the grid."""
    eps = records.frame["eps"].to_numpy()
    return [(e, wilson(int((eps > e).sum()), len(eps))) for e in (0.0, *map(float, grid))]
