"""The expectations: J-SIGR stands transferred attacks, costs no accuracy, and its gradient shows what matters."""

from __future__ import annotations

import numpy as np

from steadygrad.papers.claims import Claim, above, at_least, below
from steadygrad.papers.liu2022.measures import Measured
from steadygrad.papers.liu2022.settings import LABELS, RIVALS
from steadygrad.papers.published import paired

__all__ = ["judge"]


def judge(found: Measured) -> list[Claim]:
    """Every expectation with what was found."""
    best = max(RIVALS, key=lambda name: float(np.mean(found.right[name])))
    claims = [
        above(
            f"J-SIGR minus {LABELS[rival]}: accuracy under transferred {attack}",
            paired(right["jsigr"], right[rival]), 0.0, "above 0 points", unit="points",
            detail=f"from {found.source}, linf {found.eps:.3g}",
        )
        for attack, right in found.transferred.items()
        for rival in RIVALS
    ]  # fmt: skip
    claims.append(
        at_least(
            f"J-SIGR minus the best of them, {LABELS[best]}: clean accuracy",
            paired(found.right["jsigr"], found.right[best]), -0.01, "at least -1 points", unit="points",
        )
    )  # fmt: skip
    for rival in RIVALS:
        mine, other = found.maps["jsigr"], found.maps[rival]
        claims.append(
            above(
                f"J-SIGR minus {LABELS[rival]}: gradient energy inside the salient pixels",
                paired(mine["energy inside"], other["energy inside"]), 0.0, "above 0 points", unit="points",
            )
        )  # fmt: skip
        claims.append(
            below(
                f"J-SIGR minus {LABELS[rival]}: area under deletion",
                paired(mine["deletion"], other["deletion"]), 0.0, "below 0", unit="",
                detail="a mean probability: a model that is less certain has less of it with any map",
            )
        )  # fmt: skip
    return claims
