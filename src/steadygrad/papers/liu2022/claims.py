"""The expectations: J-SIGR stands transferred attacks, costs no accuracy, and its gradient shows what matters."""

from __future__ import annotations

import numpy as np

from steadygrad.papers.claims import Claim, at_least, at_most
from steadygrad.papers.liu2022.measures import Measured
from steadygrad.papers.liu2022.settings import LABELS, RIVALS
from steadygrad.papers.published import paired

__all__ = ["judge"]

_ABOVE = 1e-9


def judge(found: Measured) -> list[Claim]:
    """Every expectation with what was found."""
    best = max(RIVALS, key=lambda name: float(np.mean(found.right[name])))
    claims = [
        at_least(
            f"J-SIGR minus {LABELS[rival]}: accuracy under transferred {attack}",
            paired(right["jsigr"], right[rival]), _ABOVE, "above 0 points", unit="points",
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
            at_least(
                f"J-SIGR minus {LABELS[rival]}: gradient energy inside the salient pixels",
                paired(mine["energy inside"], other["energy inside"]), _ABOVE, "above 0 points", unit="points",
            )
        )  # fmt: skip
        claims.append(
            at_most(
                f"J-SIGR minus {LABELS[rival]}: area under deletion",
                paired(mine["deletion"], other["deletion"]), -_ABOVE, "below 0", unit="",
                detail="a mean probability: a model that is less certain has less of it with any map",
            )
        )  # fmt: skip
    return claims
