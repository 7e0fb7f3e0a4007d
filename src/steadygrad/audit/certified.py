"""The lower border of a model's robust accuracy: what is certified of the samples that the attacks saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.measuring.measures.certified_margins import CertifiedCurve, CertifiedMargins, CertifiedRadius
from steadygrad.measuring.measures.curve import Curve
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.statistics import quantile_intervals, share_of
from steadygrad.measuring.table import Array, Table

_ROUNDING = 1e-6  # of a distance in float32


@dataclass(frozen=True)
class Certificate:
    """What is certified of one model.

    Attributes:
        about: the facts of the model: draws, smoothed.
        answered: places of the samples to which it gives an answer; the others are not certified.
        right: (N,) whether each sample is right without a change.
        fell: (N,) whether it was wrong, or an attack of the audit changed it.
        nearest: (N,) the smallest change that was found; 0 for a mistake, infinite for none.
        checked: places of the samples whose smallest change was searched.
        curve: the search of the curve and its table, if there is one.
    """

    tables: Tables
    plan: AuditPlan
    model: str
    about: Mapping[str, Any]
    answered: Sequence[int]
    right: Array
    fell: Array
    nearest: Array
    checked: Sequence[int]
    curve: tuple[Curve, Table] | None

    @cached_property
    def refused(self) -> str | None:
        """Why nothing can be certified of the model."""
        if self.about.get("smoothed") is not None:
            return "a smoothed classifier has a certificate of its own, see below"
        if self.about["draws"] > 1:
            return "the model draws random numbers, and its answers have no bounds"
        return self._margins.refused

    @cached_property
    def _margins(self) -> Table:
        return self.tables.run(CertifiedMargins(self.plan.threat), self.model, rows=self._rows)

    @property
    def _rows(self) -> Sequence[int] | None:
        return None if len(self.answered) == len(self.right) else self.answered

    @cached_property
    def _at_eps(self) -> Array:
        """Whether each sample (N,) is certified at the radius of the audit."""
        return self._of_all(self._margins["certified"], False)

    def _of_all(self, values: Array, other: float | bool) -> Array:
        found: Array = np.full(len(self.right), other, dtype=values.dtype)
        found[list(self.answered)] = values
        return found

    @cached_property
    def radius(self) -> Array:
        """The largest radius (N,) at which each sample is known to be certified; below 0 where it is wrong."""
        found = np.where(self._at_eps, self.plan.eps, 0.0)
        for table, places in ((self._on_curve, self.answered), (self._largest, self._searched)):
            if table is not None:
                found[list(places)] = np.maximum(found[list(places)], table["radius"])
        found[~self.right] = -1.0
        return found

    def reached(self, places: Sequence[int]) -> Array:
        """The certified radius (n,) of samples: 0 for a mistake, NaN where the model was refused."""
        if self.refused is not None:
            return np.full(len(places), np.nan)
        found: Array = np.maximum(self.radius[list(places)], 0.0)
        return found

    @cached_property
    def _on_curve(self) -> Table | None:
        if self.curve is None:
            return None
        measure, table = self.curve
        sure = np.where(self._at_eps, self.plan.eps, 0.0)
        given = {"certified": sure[list(self.answered)], "fell": table["radius"][list(self.answered)]}
        return self.tables.run(CertifiedCurve(self.plan.threat, measure.grid), self.model, rows=self._rows, given=given)

    @property
    def _searched(self) -> list[int]:
        return [place for place in self.checked if self.right[place]]

    @cached_property
    def _largest(self) -> Table | None:
        if not (self.plan.distances and self._searched):
            return None
        return self.tables.run(CertifiedRadius(self.plan.threat.at(None)), self.model, rows=self._searched)

    def summary(self) -> dict[str, Any]:
        """The entry of `summary.json`."""
        if self.refused is not None:
            return {"refused": self.refused, "borders": None}
        sure, crossed = self._at_eps & ~self.fell, self._at_eps & self.fell
        left = ~self.fell & ~sure
        tables = [table for table in (self._margins, self._on_curve, self._largest) if table is not None]
        return {
            "refused": None,
            "borders": {
                "accuracy": share_of(sure).plain(),
                "gap": share_of(left).plain(),
                "attacked": int(self.fell.sum()),
                "certified": int(sure.sum()),
                "open": int(left.sum()),
                "crossed": int(crossed.sum()),
                "curve": self._points(),
                "distances": self._distances(),
                **{
                    way: float(sum(table[way].sum() for table in tables) / len(self.right))
                    for way in ("forwards", "backwards")
                },
            },
        }

    def _points(self) -> list[dict[str, Any]] | None:
        if self.curve is None:
            return None
        radii = (0.0, *self.curve[0].grid)
        return [{"eps": eps, "accuracy": share_of(self.radius >= eps).plain()} for eps in radii]

    def _distances(self) -> dict[str, Any] | None:
        if self._largest is None:
            return None
        radius, nearest = self.radius[self._searched], self.nearest[self._searched]
        return {
            "count": len(radius),
            "crossed": int((radius > nearest * (1 + _ROUNDING)).sum()),
            "quantiles": quantile_intervals(radius),
        }

    def findings(self) -> list[dict[str, Any]]:
        """A warning where the borders cross, which bounds and attacks that are right never do."""
        if self.refused is not None:
            return []
        found = self.summary()["borders"]
        count = found["crossed"] + (found["distances"] or {"crossed": 0})["crossed"]
        text = (
            f"the borders cross: {count} samples are certified where an attack turned them, so that what is certified "
            "here cannot be believed: please report this model as a defect"
        )
        return [{"about": "certified", "warning": True, "text": text}] if count else []
