"""Bounds that hold for every allowed input: intervals of all values, slopes and remainders."""

from steadygrad.bounds.certified.certified_deviation import CertifiedDeviation as CertifiedDeviation
