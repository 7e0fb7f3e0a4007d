"""Bounds to first order, from products with the Jacobian of the attribution."""

from steadygrad.bounds.linearized.linearized_deviation import LinearizedDeviation as LinearizedDeviation
