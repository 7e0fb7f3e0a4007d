"""The expectations: J-SIGR stands transferred attacks, costs no accuracy, and its gradient shows what matters."""

from __future__ import annotations

import numpy as np

from steadygrad.measuring.paired import mean_difference
from steadygrad.papers.claims import Claim, above, at_least, below
from steadygrad.papers.liu2022.measures import JUDGED, Measured
from steadygrad.papers.liu2022.settings import LABELS, RIVALS

__all__ = ["judge"]

TITLES = {
    "energy inside": "gradient energy inside the salient pixels",
    "agreement": "rank agreement of gradient and blur saliency",
    "gini": "sparsity of the gradient (Gini)",
    "deletion": "area under deletion",
    "insertion": "area under insertion",
    "deletion below chance": "area under deletion, below that of random maps",
    "insertion above chance": "area under insertion, above that of random maps",
}


def judge(found: Measured) -> list[Claim]:
    """Every expectation with what was found."""
    best = max(RIVALS, key=lambda name: float(np.mean(found.right[name])))
    claims = [
        above(
            f"J-SIGR minus {LABELS[rival]}: accuracy under transferred {attack}",
            mean_difference(right["jsigr"], right[rival]), 0.0, "above 0 points", unit="points",
            detail=f"from {found.source}, linf {found.eps:.3g}",
        )
        for attack, right in found.transferred.items()
        for rival in RIVALS
    ]  # fmt: skip
    claims.append(
        at_least(
            f"J-SIGR minus the best of them, {LABELS[best]}: clean accuracy",
            mean_difference(found.right["jsigr"], found.right[best]), -0.01, "at least -1 points", unit="points",
        )
    )  # fmt: skip
    for measure, more in JUDGED.items():
        # The best of the rivals by these very images: a bar that is too high rather than too low.
        best = max(RIVALS, key=lambda name: float(np.mean(found.maps[name][measure])) * (1 if more else -1))
        claims.append(_map(found, measure, more, best, f"the best of them, {LABELS[best]}"))
    claims += [
        _map(found, measure, True, part, LABELS[part])
        for measure in ("energy inside", "agreement")
        for part in ("jacobian", "selective")
    ]
    return claims


def _map(found: Measured, measure: str, more: bool, rival: str, label: str) -> Claim:
    """J-SIGR's maps against those of another model, by one measure."""
    compare, needed = (above, "above 0") if more else (below, "below 0")
    mine, other = found.maps["jsigr"][measure], found.maps[rival][measure]
    area = "a mean probability: a model that is less certain has less of it with any map"
    return compare(
        f"J-SIGR minus {label}: {TITLES[measure]}", mean_difference(mine, other), 0.0, needed, unit="",
        detail=area if measure in ("deletion", "insertion") else "",
    )  # fmt: skip
