"""The expectations: sensitive neurons carry the wrong class, training calms them, stabilizing makes robust."""

from __future__ import annotations

from typing import Any

from steadygrad.measuring.paired import mean_difference, ratio_values
from steadygrad.measuring.statistics import Estimate
from steadygrad.papers.claims import Claim, above, at_least
from steadygrad.papers.store import Array, Arrays
from steadygrad.papers.zhang2021.measures import Measured

__all__ = ["judge"]


def judge(results: dict[str, Any], found: Measured) -> list[Claim]:
    """Every expectation with what was found."""
    best = results["rows"]["plain"]["best"]
    patched = {choice: found.restored["plain"][best][f"patched/{choice}"] for choice in ("most", "random", "least")}
    count = len(patched["most"])
    more = {
        "unit": "points",
        "detail": f"plain model, layer {best}, linf {results['radius']:.3g}, {count} adversarial images",
    }
    claims = [
        above(
            f"Patching brings back the class: {text}",
            mean_difference(patched[one], patched[other]) if count else None, 0.0, "above 0 points", **more,
        )
        for text, one, other in (
            ("most sensitive minus random", "most", "random"), ("random minus least sensitive", "random", "least"),
        )
    ]  # fmt: skip
    claims += [
        _calmer(found, calm, other, relative)
        for relative in (False, True)
        for calm, other in (("nat", "plain"), ("pat", "nat"))
    ]
    radius, trained = (f"linf {results[key]:.3g}" for key in ("radius", "eps"))
    for text, values, one, other, bar, where in (
        ("SNS minus plain: worst case", found.kept, "sns", "plain", 0.1, radius),
        ("SNS minus plain: clean accuracy", found.right, "sns", "plain", -0.02, "clean"),
        ("SNS without the adversarial loss minus plain: worst case", found.kept, "steady", "plain", 0.1, radius),
        ("PAT + SNS minus PAT: worst case", found.kept_trained, "pat_sns", "pat", 0.0, trained),
    ):
        needed = f"at least {100 * bar:g} points"
        # Without a radius that leaves the plain model a share, its worst case is its clean accuracy.
        told = values is not found.kept or results["radius"] > 0
        gain = mean_difference(values[one], values[other]) if told else None
        claims.append(at_least(text, gain, bar, needed, unit="points", detail=where))
    return claims


def _calmer(found: Measured, calm: str, other: str, relative: bool) -> Claim:
    """The share of layers that move less in one model than in another; the interval from the layers that are sure."""
    gaps = [
        mean_difference(_moves(found.moved[other], layer, relative), _moves(found.moved[calm], layer, relative))
        for layer in found.layers
    ]
    ends = ([g.value for g in gaps], [g.low for g in gaps], [g.high for g in gaps])
    share, low, high = (sum(end > 0 for end in values) / len(gaps) for values in ends)
    names = calm.upper(), other if other == "plain" else other.upper()
    return above(
        f"Layers that move less{', over the size of their outputs' if relative else ''}: {names[0]} than {names[1]}",
        Estimate(share, low, high), 0.5, "more than half of them",
        detail=f"{len(gaps)} layers, mean change over each model's own pairs",
    )  # fmt: skip


def _moves(moved: Arrays, layer: str, relative: bool) -> Array:
    """Change of a layer by image (N,), or what makes its ratio to the size of the layer's output."""
    change, size = moved[f"{layer}/change"], moved[f"{layer}/size"]
    return ratio_values(change, size) if relative and size.mean() > 0 else change
