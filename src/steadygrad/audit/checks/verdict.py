"""What a check says, and the verdict that follows from several: one clear failure refuses a number."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from steadygrad.audit.records import accuracy
from steadygrad.measuring.statistics import critical_count
from steadygrad.measuring.table import Table

POINT = 0.01
"""One point of accuracy: what a number may move before it counts as moved."""


@dataclass(frozen=True)
class Check:
    """One check: `passed` is None where it does not apply; `value` is what was measured."""

    name: str
    passed: bool | None
    value: float | None
    limit: str
    text: str

    def plain(self) -> dict[str, Any]:
        """The check as plain data for `summary.json`."""
        return dataclasses.asdict(self)


def share_check(name: str, hits: int, count: int, text: str, share: float = POINT) -> Check:
    """A check that fails if its hits, of `count` samples, show that more than `share` of all are hit.

    Shown means an exact binomial test at the 1 % level: were the true share no more than the limit,
    a check would fail by chance less than once in a hundred models.

    >>> [share_check("noise", hits, 300, "").passed for hits in (8, 9)]
    [True, False]
    """
    least = critical_count(count, share)
    limit = f"fewer than {least} of {count} samples"
    return Check(name, hits < least, hits / count if count else None, limit, text)


@dataclass(frozen=True)
class Verdict:
    """Whether a number may be believed, in one sentence, with the checks behind it.

    >>> verdict([Check("noise", False, 0.2, "< 1 %", "noise breaks what the attack does not")]).text
    'not trustworthy, because noise breaks what the attack does not'
    """

    trustworthy: bool
    text: str
    checks: tuple[Check, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The verdict as plain data for `summary.json`."""
        return {"trustworthy": self.trustworthy, "text": self.text, "checks": [c.plain() for c in self.checks]}

    def eligibility(self) -> dict[str, bool | None]:
        """What RobustBench asks of a defense, as far as the checks can see it; None where they cannot."""
        passed = {c.name: c.passed for c in self.checks}
        return {key: passed.get(name) for key, name in ELIGIBILITY.items()}


ELIGIBILITY = {
    "deterministic": "deterministic",
    "gradients": "gradient there",
    "no_optimization": "no derivative in the forward",
}
"""The terms of RobustBench (Croce et al. 2021, arXiv 2010.09670, section 3), and the checks that look at them."""


def verdict(checks: list[Check]) -> Verdict:
    """The verdict that follows from the checks: all applicable ones must pass."""
    failed = [c.text for c in checks if c.passed is False]
    text = f"not trustworthy, because {'; '.join(failed)}" if failed else "trustworthy"
    return Verdict(not failed, text, tuple(checks))


def attack_verdict(records: Table, worst: float, iterative: bool, needs_gradients: bool = True) -> Verdict:
    """Whether the number of one attack of a suite may be believed by itself.

    It may not if samples stood for want of a gradient that the attack needs, or if an iterated attack
    leaves over five points more than the worst case: its gradients are masked.
    """
    left, count = accuracy(records).value, len(records)
    stood = int((records["zero_gradient"] & ~records["success"]).sum())
    if needs_gradients and stood >= critical_count(count, POINT):
        return Verdict(False, f"not trustworthy, because {100 * stood / count:.1f} % stand with a zero gradient")
    if iterative and left - worst > 5 * POINT:
        return Verdict(False, f"not trustworthy, because other attacks leave {100 * (left - worst):.1f} points less")
    return Verdict(True, "upper bound" if left > worst else "equals the worst case")
