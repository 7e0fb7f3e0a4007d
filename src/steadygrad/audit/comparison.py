"""What two audits on the same images show, and what they do not, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steadygrad.audit.checks.verdict import State
from steadygrad.errors import UsageError
from steadygrad.measuring.paired import PairedDifference, difference_of_shares, median_shift
from steadygrad.measuring.statistics import quantiles, share_of

Outcome = Literal["better", "worse", "not shown", "too few", "refuted"]


@dataclass(frozen=True)
class Side:
    """What an audit found for one model, per sample in the same order.

    Args:
        samples: their ids (N,).
        right: (N,) bool, the clean prediction is right.
        stood: (N,) bool, no attack of the audit changed it.
        distance: (M,) smallest changes found of the first M samples: 0 for a clean mistake, infinite
            where none was.
        state: the verdict of the audit's checks, and `text` its words.
    """

    samples: Sequence[str]
    right: Sequence[bool]
    stood: Sequence[bool]
    distance: Sequence[float]
    state: State
    text: str


@dataclass(frozen=True)
class Comparison:
    """The paired differences and the verdict on them.

    `outcome` is "better" or "worse" where robust accuracy is shown to differ, "not shown" where its
    interval includes zero, "too few" where the samples are too few to judge, and "refuted" where a check failed on
    either side.
    """

    outcome: Outcome
    text: str
    clean: PairedDifference
    robust: PairedDifference
    distance: PairedDifference
    before: dict[str, Any]
    after: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """The comparison as plain data for `harden.json`."""
        differences = {name: getattr(self, name).plain() for name in ("clean", "robust", "distance")}
        words = {name: getattr(self, name) for name in ("outcome", "text", "before", "after")}
        return {**words, "difference": differences}


def compare(before: Side, after: Side) -> Comparison:
    """Set two models side by side on the samples they share.

    Raises:
        UsageError: the sides are of different samples.

    >>> side = Side(["a"] * 50, [True] * 50, [False] * 50, [0.1] * 50, "holds", "number holds")
    >>> compare(side, side).text.partition(";")[0]
    'no difference in robust accuracy is shown: +0.0 points [-7.1, +7.1] on 50 images'
    """
    if list(before.samples) != list(after.samples):
        raise UsageError("the two sides must be of the same samples in the same order")
    clean = difference_of_shares(before.right, after.right)
    robust = difference_of_shares(before.stood, after.stood)
    distance = median_shift(before.distance, after.distance)
    outcome, text = _judge(before, after, clean, robust, distance)
    return Comparison(outcome, text, clean, robust, distance, _plain(before), _plain(after))


def _judge(
    before: Side, after: Side, clean: PairedDifference, robust: PairedDifference, distance: PairedDifference
) -> tuple[Outcome, str]:
    seen = f"{_points(robust)} on {robust.count} images"
    sides = (("before", before), ("after", after))
    failed = [f"{word} hardening: {side.text}" for word, side in sides if side.state == "refuted"]
    if failed:
        return "refuted", f"not to be called better or worse ({'; '.join(failed)}); measured: {seen}"
    if unjudged := [side.text for side in (before, after) if side.state == "too few"]:
        return "too few", f"{unjudged[0]}; measured: {seen}"
    if robust.direction == 0:
        # A bound of the interval may look one-sided while the exact test sees too few samples that moved.
        few = "" if robust.low <= 0 <= robust.high else f", but too few moved (exact p = {robust.p:.2f})"
        return "not shown", f"no difference in robust accuracy is shown: {seen}{few}{_price(clean)}"
    moved = f"{_size(robust)} on {robust.count} images{_price(clean)}"
    if robust.direction < 0:
        return "worse", f"worse: robust accuracy falls by {moved}"
    further = {1: "", 0: "; that the smallest changes grew is not shown", -1: "; but the smallest changes shrank"}
    return "better", f"better: robust accuracy rises by {moved}{further[distance.direction]}"


def _price(clean: PairedDifference) -> str:
    if clean.direction:
        return f"; clean accuracy {'rises' if clean.direction > 0 else 'falls'} by {_size(clean)}"
    return f"; no change of clean accuracy is shown: {_points(clean)}"


def _size(difference: PairedDifference) -> str:
    """How far it rises or falls, without a sign."""
    ends = sorted(abs(100 * end) for end in (difference.low, difference.high))
    return f"{abs(100 * difference.value):.1f} points [{ends[0]:.1f}, {ends[1]:.1f}]"


def _points(difference: PairedDifference) -> str:
    value, low, high = (100 * v for v in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _plain(side: Side) -> dict[str, Any]:
    return {
        "clean": share_of(side.right).plain(),
        "robust": share_of(side.stood).plain(),
        "median_distance": quantiles(side.distance, at=(0.5,))["0.5"],
        "distances": len(side.distance),
        "verdict": {"state": side.state, "text": side.text},
    }
