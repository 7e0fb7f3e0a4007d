"""What is certified of a smoothed classifier that is audited, for the summary."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from steadygrad.measuring.measures.certified_smoothing import CertifiedSmoothing
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.statistics import share_of
from steadygrad.randomized_smoothing import RandomizedSmoothing
from steadygrad.threat import Threat

_SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Radii at which the certified accuracy is told, in units of sigma; beyond 3.2 none is certified with 10,000 draws."""


def smoothed(
    tables: Tables,
    model: str,
    settings: Mapping[str, Any] | None,
    threat: Threat,
    shape: Collection[int],
    fallen: Collection[str],
) -> dict[str, Any] | None:
    """The entry of a smoothed model; None for any other.

    Args:
        settings: of the smoothing.
        fallen: ids of the samples that attacks on its soft vote changed.
    """
    if settings is None:
        return None
    table = tables.run(CertifiedSmoothing(RandomizedSmoothing(**settings)), model)
    right, radius = table["prediction"] == table["label"], table["radius"]
    reach = l2_of(threat, shape)
    within = right & (radius > reach)
    radii = [float(settings["sigma"]) * factor for factor in _SIGMAS]
    return {
        **settings,
        "abstained": share_of(table["prediction"] == -1).plain(),
        "reach": reach,
        "within": share_of(within).plain(),
        "crossed": int((within & np.isin(table["sample"], list(fallen))).sum()),
        "certified": [{"radius": r, "accuracy": share_of(right & (radius > r)).plain()} for r in radii],
    }


def l2_of(threat: Threat, shape: Collection[int]) -> float:
    """The largest l2 norm of a change that a threat allows, as far as its norm says it.

    >>> l2_of(Threat("linf", 0.1), (1, 10, 10)), l2_of(Threat("l1", 0.1), (1, 10, 10))
    (1.0, 0.1)
    """
    assert isinstance(threat.eps, float | int)
    if threat.norm in ("l2", "l1"):
        return float(threat.eps)
    entries = int(threat.entries(torch.empty(1, *shape))[0])
    if threat.norm == "linf":
        return float(threat.eps) * math.sqrt(entries)
    return (threat.bounds[1] - threat.bounds[0]) * math.sqrt(min(threat.eps, entries))
