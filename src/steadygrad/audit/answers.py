"""Samples to which a model gives no answer: it raises there, or its logits are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steadygrad.errors import Failure
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Tables

SHARE = 0.1
"""Of the samples may have no answer; of more, nothing is to be learned but that the model or the data need mending."""
NO_ANSWER = "no answer"
"""What stands in place of a predicted class."""
_NAMED = 3


@dataclass(frozen=True)
class Unanswered:
    """The samples of a data set to which a model gives no answer: why, by place, and their ids.

    They count as wrong, and are left out of all that looks into the model.
    """

    why: Mapping[int, str]
    ids: Mapping[int, str]
    samples: int

    def __bool__(self) -> bool:
        return bool(self.why)

    @property
    def text(self) -> str:
        """How many there are, and the first ones by name."""
        named = [f"{self.ids[place]} ({why})" for place, why in list(self.why.items())[:_NAMED]]
        more = f" and {len(self.why) - _NAMED} more" if len(self.why) > _NAMED else ""
        return f"the model gives no answer to {len(self.why)} of {self.samples} samples: {', '.join(named)}{more}"

    def left(self, places: Iterable[int]) -> tuple[int, ...]:
        """The places that have an answer."""
        return tuple(place for place in places if place not in self.why)


def unanswered(tables: Tables, model: str) -> Unanswered:
    """The samples to which a model gives no answer.

    Raises:
        Failure: these are more than a tenth of all.
    """
    table = tables.run(Predicted(), model)
    why = {place: str(text) for place, text in enumerate(table["failed"].tolist()) if text}
    found = Unanswered(why, {place: str(table["sample"][place]) for place in why}, len(table))
    if len(why) > SHARE * len(table):
        raise Failure(
            f"{model}: {found.text}; with more than {SHARE:.0%} there is no audit: mend the model or the data"
        )
    return found
