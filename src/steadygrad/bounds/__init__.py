"""How far an attribution can move within a threat: bounds to first order, and certified ones."""

from steadygrad.bounds.attribution_deviation import AttributionDeviation
from steadygrad.bounds.result import DeviationBound, deviation

__all__ = ["AttributionDeviation", "DeviationBound", "deviation"]
