"""`study plan`: which difference between two models so many people and images find, both being clusters of answers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from steadygrad.arguments import public
from steadygrad.errors import UsageError
from steadygrad.study.design import Design
from steadygrad.values import Count, Fraction, Part

_MOST = 100_000


@public
@dataclass(frozen=True)
class Power:
    """A comparison of two models by a share of judgements, such as *fooled*, at the level of 5 %.

    Of the variance p (1 - p) of an answer, persons explain `person_icc` and images `image_icc`. With P persons who
    judge m images of each model, and I images of each model in all, the difference d of two shares p and q has

        variance = (p(1-p) + q(1-q)) ((1 - person_icc - image_icc) / (P m) + image_icc / min(I, P m))
                   + person_icc |d| (1 - |d|) / P

    Every person judges both models, so that of what persons differ in only the last term is left; images are different
    for the two, and more persons do not make up for few of them.

    Args:
        persons: who finish.
        each: images of each model that a person judges.
        images: different images of each model in all.
        share: of the one model.
        difference: of the other one's share.

    >>> paper = Power(persons=11, each=10, images=40, share=0.2, difference=0.2)
    >>> round(paper.power, 2), paper.needed(0.9)
    (0.83, 16)
    """

    persons: Count
    each: Count
    images: Count
    share: Fraction = 0.3
    difference: float = 0.2
    person_icc: Part = 0.1
    image_icc: Part = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.share + self.difference < 1) or self.difference == 0:
            raise UsageError(
                "share + difference must be within (0, 1), and difference not 0, "
                f"got {self.share} and {self.difference}"
            )
        if self.person_icc + self.image_icc > 1:
            raise UsageError(
                f"person_icc + image_icc must be at most 1, got {self.person_icc} and {self.image_icc}: they are parts"
            )

    @property
    def error(self) -> float:
        """The standard error of the difference."""
        p, q, d = self.share, self.share + self.difference, abs(self.difference)
        answers = self.persons * self.each
        own = (1 - self.person_icc - self.image_icc) / answers + self.image_icc / min(self.images, answers)
        return math.sqrt((p * (1 - p) + q * (1 - q)) * own + self.person_icc * d * (1 - d) / self.persons)

    @property
    def power(self) -> float:
        """The probability that the difference is found."""
        normal, z = NormalDist(), abs(self.difference) / self.error
        limit = normal.inv_cdf(0.975)
        return normal.cdf(z - limit) + normal.cdf(-z - limit)

    def needed(self, power: Fraction = 0.8) -> int | None:
        """How many persons find the difference with this probability; None where no number does, for want of images."""
        low, high = 1, _MOST
        if dataclasses.replace(self, persons=high).power < power:
            return None
        while low < high:
            middle = (low + high) // 2
            enough = dataclasses.replace(self, persons=middle).power >= power
            low, high = (low, middle) if enough else (middle + 1, high)
        return low

    def smallest(self, power: Fraction = 0.8) -> float | None:
        """The smallest difference, upwards from the share, that is found with this probability; None where none is."""
        steps = [i / 1000 for i in range(1, int(1000 * (1 - self.share)))]
        return next((d for d in steps if dataclasses.replace(self, difference=d).power >= power), None)

    def plain(self) -> dict[str, Any]:
        """All of it as plain data."""
        found = {"error": self.error, "power": self.power, "smallest": self.smallest()}
        return {**dataclasses.asdict(self), **found, "needed": {"0.8": self.needed(0.8), "0.9": self.needed(0.9)}}


def of_design(design: Design) -> tuple[int, int]:
    """How many images of each model a person judges, and how many there are; the fewest of any model."""
    shown = [s for s in design.stimuli.values() if s.kind == "labels"]
    models = sorted({str(s.model) for s in shown})
    mine = [[design.stimuli[name].model for name in main] for main, _ in design.blocks]
    each = min(block.count(model) for block in mine for model in models)
    return each, min(sum(s.model == model for s in shown) for model in models)
