"""How much persons agree about the same picture: Krippendorff's alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadygrad.measuring.statistics import Estimate, bootstrap
from steadygrad.study.clusters import numbered

_FEWEST = 2


def alpha(values: Any, stimuli: Any) -> Estimate | None:
    """Krippendorff's alpha of nominal values (N,) given to stimuli (N,), by a person each, with its interval.

    1 is full agreement, 0 what chance gives, below 0 less. Only stimuli judged by two persons or more count; the
    interval is a bootstrap over them. None where there are fewer than two such stimuli, or all values are the same.

    >>> found = alpha(["7", "7", "1", "1", "7", "1"], [1, 1, 2, 2, 3, 3])
    >>> round(found.value, 3), found.count
    (0.444, 3)
    """
    import krippendorff

    codes, units = numbered(values), numbered(stimuli)
    counts = np.zeros((int(units.max(initial=-1)) + 1, int(codes.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(counts, (units, codes), 1)
    counts = counts[counts.sum(1) >= _FEWEST]
    if len(counts) < 2 or (counts.sum(0) > 0).sum() < 2:
        return None

    def statistic(rows: Any, axis: int) -> Any:
        drawn = np.atleast_2d(rows).astype(np.int64)
        times = np.zeros((len(drawn), len(counts)))
        np.add.at(times, (np.arange(len(drawn))[:, None], drawn), 1)
        return _nominal(times, counts).reshape(rows.shape[:-1])

    value = float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
    found = bootstrap(statistic, np.arange(len(counts)))
    return Estimate(value, min(found.low, value), max(found.high, value), len(counts))


def _nominal(times: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The alphas (D,) of stimuli with these counts of values (U, V), each taken so many times (D, U); NaN for none."""
    judged = counts.sum(1)
    apart = (judged**2 - np.square(counts).sum(1)) / (judged - 1)
    total, values = times @ judged, times @ counts
    expected = (total**2 - np.square(values).sum(1)) / (total - 1)
    alike = expected == 0
    found: NDArray[np.float64] = np.where(alike, np.nan, 1 - times @ apart / np.where(alike, 1.0, expected))
    return found
