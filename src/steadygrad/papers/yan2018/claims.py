"""The expectations, decided from the results and, image by image, from the measures."""

from __future__ import annotations

from typing import Any

import numpy as np

from steadygrad.measuring.paired import mean_difference, ratio_of_means, ratio_of_medians
from steadygrad.measuring.statistics import Estimate
from steadygrad.papers.claims import Claim, above, at_least
from steadygrad.papers.store import Array
from steadygrad.papers.yan2018.measures import MULTIPLES, Measured
from steadygrad.papers.yan2018.recipes import LABELS

__all__ = ["judge"]

_RIVALS = ("parseval", "adversarial_fgs", "adversarial_deepfool")
_RATIO = {"convnet": 1.8}


def judge(results: dict[str, Any], found: Measured) -> list[Claim]:
    """Every expectation with what was found."""
    rows, theirs = results["rows"], results["published"].get("deep_defense")
    mine = rows["deep_defense"]
    out = []
    absolute = theirs is not None and results["network"] in ("mlp", "lenet")
    if absolute:
        out += [
            at_least(
                "Deep Defense: accuracy", Estimate(**mine["accuracy"]), theirs["accuracy"],
                f"at least {100 * theirs['accuracy']:.2f} %", paper=f"{100 * theirs['accuracy']:.2f} %",
            ),
            at_least(
                "Deep Defense: ρ₂, centered", Estimate(**mine["rho2_centered"]), theirs["rho2"],
                f"at least {theirs['rho2']:.3f}", unit="", paper=f"{theirs['rho2']:.3f}",
            ),
        ]  # fmt: skip
    else:
        out += _relative(results, found)
    for name in _RIVALS:
        out.append(
            above(
                f"Deep Defense minus {LABELS[name]}: ρ₂, centered",
                mean_difference(
                    found.changes["deep_defense"] / _safe(found.centered_norms),
                    found.changes[name] / _safe(found.centered_norms),
                ),
                0.0,
                "above 0",
                unit="",
            )
        )
        for multiple in (0.5, 1.0):
            place = MULTIPLES.index(multiple)
            out.append(
                above(
                    f"Deep Defense minus {LABELS[name]}: accuracy at {multiple:g} ε_ref",
                    mean_difference(found.fgs["deep_defense"][place], found.fgs[name][place]) if found.halved else None,
                    0.0,
                    "above 0 points",
                    unit="points",
                    paper=_difference(results, name, multiple),
                )
            )
    out.append(
        at_least(
            "Deep Defense: median DDN distance over the reference's",
            ratio_of_medians(found.distances["deep_defense"], found.distances["reference"]),
            1.25,
            "at least 1.25 times",
            unit="times",
            detail="a judge it was not trained on; clean mistakes count as distance 0",
        )
    )
    return out + (_combined(results, found, theirs) if "combined" in rows else [])


def _combined(results: dict[str, Any], found: Measured, theirs: dict[str, Any] | None) -> list[Claim]:
    """The combination against the paper's Deep Defense row, all three scores at once."""
    mine = results["rows"]["combined"]
    if theirs is None:
        return []
    return [
        at_least(
            f"Combined: {text}", Estimate(**value) if value else None, bar, f"at least {needed}", unit=unit,
            detail="against the paper's Deep Defense",
        )
        for text, value, bar, needed, unit in (
            ("accuracy", mine["accuracy"], theirs["accuracy"], f"{100 * theirs['accuracy']:.2f} %", "%"),
            ("ρ₂, centered", mine["rho2_centered"], theirs["rho2"], f"{theirs['rho2']:.3f}", ""),
            ("accuracy at 1.0 ε_ref of Deep Defense", mine["fgs"]["1"] if found.halved else None, 0.5, "50 %", "%"),
        )
    ]  # fmt: skip


def _relative(results: dict[str, Any], found: Measured) -> list[Claim]:
    theirs = results["published"]
    ratio = theirs["deep_defense"]["rho2"] / theirs["reference"]["rho2"] if "deep_defense" in theirs else None
    bar = _RATIO.get(results["network"], 1.0)
    compare, needed = (at_least, f"at least {bar:g} times") if bar > 1 else (above, "above 1 times")
    return [
        at_least(
            "Deep Defense minus reference: accuracy",
            mean_difference(found.right["deep_defense"], found.right["reference"]),
            0.0,
            "at least 0 points",
            unit="points",
        ),
        compare(
            "Deep Defense: ρ₂ over the reference's",
            ratio_of_means(
                found.changes["deep_defense"] / _safe(found.norms), found.changes["reference"] / _safe(found.norms)
            ),
            bar,
            needed,
            unit="times",
            paper=f"{ratio:.2f} times" if ratio is not None else "",
        ),
    ]


def _safe(norms: Array) -> Array:
    bounded: Array = np.maximum(norms, 1e-12)
    return bounded


def _difference(results: dict[str, Any], name: str, multiple: float) -> str:
    rows = results["published"]
    if name not in rows or "deep_defense" not in rows:
        return ""
    mine, other = (rows[n]["fgs"][f"{multiple:.1f}"] for n in ("deep_defense", name))
    return f"{100 * (mine - other):+.1f} points"
