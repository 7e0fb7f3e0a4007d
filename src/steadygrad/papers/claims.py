"""What a paper says must come out, and whether it did."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from steadygrad.measuring.statistics import Estimate

__all__ = ["Claim", "above", "at_least", "at_most", "below"]

Verdict = Literal["held", "held, within its interval", "not held, within its interval", "not held", "not measured"]


@dataclass(frozen=True)
class Claim:
    """One expectation with what was found: `found` in the units of `needed`, interval included."""

    text: str
    needed: str
    verdict: Verdict
    found: Estimate | None
    unit: str = "%"
    paper: str = ""
    detail: str = ""

    @property
    def held(self) -> bool:
        """Whether the value found is on the right side."""
        return self.verdict.startswith("held")

    def plain(self) -> dict[str, Any]:
        """The claim as plain data for `summary.json`."""
        found = None if self.found is None else dataclasses.replace(self.found, count=0).plain()
        return {**dataclasses.asdict(self), "found": found, "held": self.held}


def at_least(text: str, found: Estimate | None, bar: float, needed: str, **more: Any) -> Claim:
    """The claim that a value is at least `bar`.

    >>> at_least("better", Estimate(0.3, 0.2, 0.4), 0.25, "at least 25 points").verdict
    'held, within its interval'
    """
    if found is None:
        return Claim(text, needed, "not measured", None, **more)
    open_ = found.low < bar <= found.high
    held = found.value >= bar
    verdict: Verdict = ("held, within its interval" if open_ else "held") if held else "not held"
    if not held and open_:
        verdict = "not held, within its interval"
    return Claim(text, needed, verdict, found, **more)


def at_most(text: str, found: Estimate | None, bar: float, needed: str, **more: Any) -> Claim:
    """The claim that a value is at most `bar`."""
    turned = Estimate(-found.value, -found.high, -found.low) if found is not None else None
    return dataclasses.replace(at_least(text, turned, -bar, needed, **more), found=found)


def above(text: str, found: Estimate | None, bar: float, needed: str, **more: Any) -> Claim:
    """The claim that a value is larger than `bar`: equal is not enough.

    >>> above("better", Estimate(0.0, 0.0, 0.0), 0.0, "above 0").verdict
    'not held'
    """
    return at_least(text, found, math.nextafter(bar, math.inf), needed, **more)


def below(text: str, found: Estimate | None, bar: float, needed: str, **more: Any) -> Claim:
    """The claim that a value is smaller than `bar`: equal is not enough."""
    return at_most(text, found, math.nextafter(bar, -math.inf), needed, **more)
