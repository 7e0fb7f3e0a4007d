"""The expectations, and what was found of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steadygrad.measuring.paired import rank_correlation
from steadygrad.measuring.statistics import Estimate, bootstrap
from steadygrad.papers.claims import Claim, at_least, at_most
from steadygrad.papers.store import Array
from steadygrad.papers.wang2023.measures import Cell
from steadygrad.papers.wang2023.settings import LABELS

__all__ = ["POINTS", "judge", "median_ratio"]

POINTS = {"smoke": 1, "short": 1_000_000, "paper": 10_000_000}
_AGREEMENT = 0.8
_RATIO = 3.0


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
                    rank_correlation(cell.bound("linearized"), cell.strongest), _AGREEMENT, "at least 0.8", unit="",
                )
            )  # fmt: skip
        out.append(
            at_most(
                f"{where}: certified bound over strongest attack, median",
                median_ratio(cell.bound("certified"), cell.strongest), _RATIO, "at most 3 times", unit="times",
            )
        )  # fmt: skip
    return out


def _exactly(count: int) -> Estimate:
    return Estimate(count, count, count)


def median_ratio(upper: Array, reached: Array) -> Estimate | None:
    """The median of bound over attack, with a 95 % bootstrap interval over images; None where none moved a map.

    Images whose map no attack moved count as infinitely far, and an infinite median is not given.
    """
    ratio = np.where(reached > 0, upper / np.where(reached > 0, reached, 1.0), np.inf)
    found = bootstrap(np.median, ratio)
    return found if np.isfinite([found.value, found.low, found.high]).all() else None
