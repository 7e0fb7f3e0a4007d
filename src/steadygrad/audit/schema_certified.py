"""The part of a summary that says what is certified: the lower border of robust accuracy."""

from __future__ import annotations

from typing import Annotated

from annotated_types import MinLen
from pydantic import Field, model_validator
from typing_extensions import Self

from steadygrad.audit.schema_distances import Point
from steadygrad.audit.schema_values import Count, Estimate, Part, Passes, QuantileIntervals


class CertifiedDistances(Part):
    """How far from the checked samples that were right nothing can turn the prediction: a lower bound."""

    count: Count = Field(description="samples among the checked ones that were right before")
    crossed: Count = Field(description="those of them that an attack turned within; anything but 0 is a defect")
    quantiles: QuantileIntervals = Field(description="of the certified radius")


class Borders(Passes):
    """Samples by what is known of them: the robust accuracy of these samples lies between `accuracy` and `robust`."""

    accuracy: Estimate = Field(description="samples that are certified: no allowed change turns their prediction")
    gap: Estimate = Field(description="samples that are neither certified nor attacked")
    attacked: Count = Field(description="samples that were wrong before, or that an attack changed")
    certified: Count = Field(description="samples that are certified")
    open: Count = Field(description="the others, of which nothing is known")
    crossed: Count = Field(description="samples that are both, counted as attacked; anything but 0 is a defect")
    curve: Annotated[list[Point], MinLen(1)] | None = Field(
        description="certified within the radii of the curve; at 0 what is right"
    )
    distances: CertifiedDistances | None = Field(description="null without a search for the smallest changes")

    @property
    def cross(self) -> bool:
        """Whether a sample is both certified and attacked, at any radius: then what is certified cannot be believed."""
        return self.crossed > 0 or (self.distances is not None and self.distances.crossed > 0)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.attacked + self.certified + self.open != self.accuracy.count:
            raise ValueError(f"open: expected all {self.accuracy.count} samples in attacked + certified + open")
        return self


class Certified(Part):
    """What `--certify` found for a model."""

    refused: str | None = Field(description="why nothing can be certified of this model, or null")
    borders: Borders | None = Field(description="null where that was refused")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.refused is None) == (self.borders is None):
            raise ValueError("borders: expected null where it was refused, and only there")
        return self
