"""How far an attribution can move within a threat: bounds to first order, and certified ones."""

from steadygrad.bounds.base import BOUNDS as BOUNDS
from steadygrad.bounds.base import Bound as Bound
from steadygrad.bounds.certified import CertifiedDeviation as CertifiedDeviation
from steadygrad.bounds.linearized import LinearizedDeviation as LinearizedDeviation
from steadygrad.bounds.result import DeviationBound as DeviationBound
from steadygrad.bounds.result import deviation as deviation
