"""Bounds that hold for every allowed input: intervals of all values, slopes and remainders."""

from steadygrad.bounds.certified.certified_deviation import CertifiedDeviation as CertifiedDeviation
from steadygrad.bounds.certified.certified_margin import CertifiedMargin as CertifiedMargin
from steadygrad.bounds.certified.certified_margin import MarginBound as MarginBound
