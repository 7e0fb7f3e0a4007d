"""The expectations, and what was found of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steadygrad.papers.claims import Claim, at_least, at_most
from steadygrad.papers.published import Difference
from steadygrad.papers.store import Array
from steadygrad.papers.wang2023.measures import Cell
from steadygrad.papers.wang2023.settings import LABELS

__all__ = ["POINTS", "agreement", "judge", "median_ratio"]

POINTS = {"smoke": 1, "short": 1_000_000, "paper": 10_000_000}
_AGREEMENT = 0.8
_RATIO = 3.0
_DRAWS = 1000


def judge(results: dict[str, Any], cells: Sequence[Cell], scale: str) -> list[Claim]:
    """Every expectation with what was found; bounds are judged at the smaller radius of each norm."""
    counts = results["counts"]
    out = [
        at_least(
            "Attacked points", _exactly(counts["kept"]), POINTS[scale], f"at least {POINTS[scale]:,}",
            unit="", paper="over 10 million",
        ),
        at_most(
            "Points beyond the certified bound", _exactly(sum(counts["beyond"]["certified"].values())), 0, "none",
            unit="",
        ),
        at_most(
            "Points beyond the linearized bound", _exactly(sum(counts["beyond"]["linearized"].values())), 0, "none",
            unit="", paper="none", detail="it holds to first order only, so that some are expected here",
        ),
        at_most(
            "Points beyond the linearized bound that the remainder does not explain", _exactly(counts["unexplained"]),
            0, "none", unit="",
        ),
    ]  # fmt: skip
    small = {norm: min(float(c.threat.eps) for c in cells if c.threat.norm == norm) for norm in ("linf", "l2")}  # type: ignore[arg-type]
    for cell in cells:
        if cell.attribution != "saliency" or float(cell.threat.eps) != small[cell.threat.norm]:  # type: ignore[arg-type]
            continue
        where = f"{LABELS[cell.model]}, saliency, {cell.threat}"
        if cell.threat.norm == "l2":
            out.append(
                at_least(
                    f"{where}: rank correlation of linearized bound and strongest attack over images",
                    agreement(cell.bound("linearized"), cell.strongest), _AGREEMENT, "at least 0.8", unit="",
                )
            )  # fmt: skip
        out.append(
            at_most(
                f"{where}: certified bound over strongest attack, median",
                median_ratio(cell.bound("certified"), cell.strongest), _RATIO, "at most 3 times", unit="times",
            )
        )  # fmt: skip
    return out


def _exactly(count: int) -> Difference:
    return Difference(count, count, count)


def agreement(first: Array, second: Array) -> Difference | None:
    """Spearman's rank correlation of two numbers of the same images, with a 95 % bootstrap interval over images.

    None for fewer than three images, or where a number is the same for all.

    >>> agreement(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])).value
    1.0
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    rows = np.random.default_rng(0).integers(len(first), size=(_DRAWS, len(first)))
    drawn = _spearman(first[rows], second[rows])
    low, high = np.nanquantile(drawn, [0.025, 0.975])  # a draw of a single image has no order
    return Difference(float(_spearman(first[None], second[None])[0]), float(low), float(high))


def _spearman(first: Array, second: Array) -> Array:
    """Rank correlations (B,) of rows (B, N); NaN where a row is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (first, second)]
    units = [r - r.mean(1, keepdims=True) for r in ranks]
    size = np.sqrt(np.prod([np.square(u).sum(1) for u in units], axis=0))
    found: Array = np.where(size > 0, (units[0] * units[1]).sum(1), np.nan) / np.where(size > 0, size, 1.0)
    return found.round(12)


def median_ratio(upper: Array, reached: Array) -> Difference | None:
    """The median of bound over attack, with a 95 % bootstrap interval over images; None where none moved a map.

    Images whose map no attack moved count as infinitely far, and an infinite median is not given.
    """
    ratio = np.where(reached > 0, upper / np.where(reached > 0, reached, 1.0), np.inf)
    generator = np.random.default_rng(0)
    drawn = np.median(ratio[generator.integers(len(ratio), size=(_DRAWS, len(ratio)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    value = float(np.median(ratio))
    return Difference(value, float(low), float(high)) if np.isfinite([value, low, high]).all() else None
