"""How far an attribution can move within a threat: bounds to first order, and certified ones."""

from steadygrad.bounds.base import BOUNDS, Bound
from steadygrad.bounds.certified import CertifiedDeviation
from steadygrad.bounds.linearized import LinearizedDeviation
from steadygrad.bounds.result import DeviationBound, deviation

__all__ = ["BOUNDS", "Bound", "CertifiedDeviation", "DeviationBound", "LinearizedDeviation", "deviation"]
