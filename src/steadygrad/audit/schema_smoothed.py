"""The part of a summary that is about a smoothed classifier."""

from __future__ import annotations

from typing import Annotated

from annotated_types import MinLen
from pydantic import Field

from steadygrad.audit.schema_values import Count, Estimate, Part, Positive, Some


class CertifiedPoint(Part):
    """A point of the certified accuracy against the radius."""

    radius: Positive = Field(description="in l2")
    accuracy: Estimate = Field(description="samples that are right, and certified beyond it; abstentions are wrong")


class Smoothed(Part):
    """What is certified of a smoothed classifier: the class that a model gives most often under Gaussian noise.

    It says nothing about the model without noise. All else of the entry is about the soft vote of a few draws, which
    stands for the smoothed classifier where gradients are followed.
    """

    sigma: Positive = Field(description="standard deviation of the noise, in units of the data")
    n0: Some = Field(description="draws that chose the class")
    n: Some = Field(description="draws that estimated its share")
    alpha: Positive = Field(description="probability with which the certificate of a sample may be wrong")
    draws: Some = Field(description="draws of the soft vote that was attacked")
    seed: Count = Field(description="seed of the noise of the soft vote")
    abstained: Estimate = Field(description="samples without a class")
    reach: Positive = Field(description="largest l2 norm of a change that the threat allows")
    within: Estimate = Field(description="samples that are right, and certified for all changes of the threat")
    crossed: Count = Field(description="those of them whose soft vote an attack turned")
    certified: Annotated[list[CertifiedPoint], MinLen(1)] = Field(description="certified accuracy, by rising radius")
