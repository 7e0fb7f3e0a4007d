"""What a check says, and the verdict on a number that follows from several: one clear failure refutes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steadygrad.audit.records import accuracy
from steadygrad.measuring.statistics import critical_count
from steadygrad.measuring.table import Table

POINT = 0.01
"""One point of accuracy: what a number may move before it counts as moved."""

LEAST = 30
"""Samples from which on a verdict is given: with so many, a check finds what concerns a fifth of all samples with a
probability of 95 %."""

State = Literal["holds", "refuted", "too few", "unchecked"]


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
    """Whether a number holds, is refuted, unchecked or rests on too few samples, in one sentence, with its checks.

    It speaks of the number, not of the model: that 4 % holds is no praise.

    >>> verdict([Check("noise", False, 0.2, "< 1 %", "noise breaks what the attack does not")], [0, 1] * 50).text
    'number refuted, because noise breaks what the attack does not'
    """

    state: State
    text: str
    checks: tuple[Check, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no check refutes the number, of samples enough to tell."""
        return self.state == "holds"

    def plain(self) -> dict[str, Any]:
        """The verdict as plain data for `summary.json`."""
        return {"state": self.state, "text": self.text, "checks": [c.plain() for c in self.checks]}

    def eligibility(self) -> dict[str, bool | None]:
        """What RobustBench asks of a defense, as far as the checks can see it; None where they cannot."""
        passed = {c.name: c.passed for c in self.checks}
        return {key: passed.get(name) for key, name in ELIGIBILITY.items()}


UNCHECKED = Verdict("unchecked", "not checked: whether an attack fails here for other reasons than robustness is open")
"""Of a number that nobody asked to be checked."""

ELIGIBILITY = {
    "deterministic": "deterministic",
    "gradients": "gradient there",
    "no_optimization": "no derivative in the forward",
}
"""The terms of RobustBench (Croce et al. 2021, arXiv 2010.09670, section 3), and the checks that look at them."""


def verdict(
    checks: list[Check], labels: Sequence[int], classes: Sequence[str] | None = None, *, gradients: bool = True
) -> Verdict:
    """The verdict that follows from the checks of samples with these labels: all applicable ones must pass.

    A failed check refutes a number of any count of samples; that a number holds takes `LEAST` samples, of two classes
    at least.

    Args:
        classes: their names, to say which one is alone.
        gradients: whether the model gives any; without, a number holds by blind search only.
    """
    failed = [c.text for c in checks if c.passed is False]
    if failed:
        return Verdict("refuted", f"number refuted, because {'; '.join(failed)}", tuple(checks))
    why = too_few(labels, classes)
    if why:
        return Verdict("too few", why, tuple(checks))
    return Verdict("holds", "number holds" if gradients else "number holds, by blind search only", tuple(checks))


def too_few(labels: Sequence[int], classes: Sequence[str] | None = None) -> str:
    """Why samples with these labels are too few for a verdict; empty where they are enough.

    >>> too_few([0, 1])
    'too few samples to judge: 2 checked, and at least 30 are needed'
    """
    count, present = len(labels), sorted(set(labels))
    if count < LEAST:
        return f"too few samples to judge: {count} checked, and at least {LEAST} are needed"
    if len(present) < 2:
        only = f"{classes[present[0]]!r}" if classes is not None else f"class {present[0]}"
        return f"too few samples to judge: all {count} checked ones are of one class, {only}"
    return ""


def attack_verdict(records: Table, worst: float, iterative: bool, needs_gradients: bool = True) -> Verdict:
    """Whether the number of one attack of a suite may be believed by itself.

    It may not if samples stood for want of a gradient that the attack needs, or if an iterated attack
    leaves over five points more than the worst case: its gradients are masked.
    """
    left, count = accuracy(records).value, len(records)
    stood = int((records["zero_gradient"] & ~records["success"]).sum())
    if needs_gradients and stood >= critical_count(count, POINT):
        return Verdict("refuted", f"number refuted, because {100 * stood / count:.1f} % stand with a zero gradient")
    if iterative and left - worst > 5 * POINT:
        return Verdict("refuted", f"number refuted, because other attacks leave {100 * (left - worst):.1f} points less")
    return Verdict("holds", "upper bound" if left > worst else "equals the worst case")
