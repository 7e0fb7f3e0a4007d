"""The part of a summary that says how far predictions hold: curves and smallest changes."""

from __future__ import annotations

from typing import Annotated

from annotated_types import MinLen
from pydantic import Field, model_validator
from typing_extensions import Self

from steadygrad.audit.schema_values import Count, Estimate, Mean, Part, Positive, QuantileIntervals, at_most


class Point(Part):
    """A point of the curve."""

    eps: Positive = Field(description="radius")
    accuracy: Estimate = Field(description="accuracy within it")


class Curve(Part):
    """Accuracy against the radius."""

    attack: str = Field(description="label of the attack")
    points: Annotated[list[Point], MinLen(1)] = Field(description="by rising radius, the first at 0")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        radii = [point.eps for point in self.points]
        if radii[0] != 0 or radii != sorted(set(radii)):
            raise ValueError(f"points: expected radii that rise from 0, found {radii}")
        return self


class Distances(Part):
    """The smallest change found, in the norm of the threat: an upper bound."""

    attack: str = Field(description="label of the search")
    count: Count = Field(description="samples among the checked ones that were right before")
    censored: Count = Field(description="those of them for which nothing was found at any size up to `limit`")
    limit: Positive = Field(description="the whole range of the inputs")
    quantiles: QuantileIntervals = Field(description="null is beyond `limit`, never 0")
    _censored = at_most("censored", "count")


class Rho2(Part):
    """The mean relative size of DeepFool's change in the l2 norm, over all samples."""

    attack: str = Field(description="label of DeepFool")
    pixels: Mean | None = Field(description="over the norm of the input")
    centered: Mean | None = Field(description="over the norm of the input minus the mean training image")
    turned: Estimate = Field(description="share of predictions that the changes turned")
