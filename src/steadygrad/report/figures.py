"""Figures of a summary as SVG text, each usable alone: no global state, equal bytes for equal input."""

from steadygrad.report.curves import curves as curves
from steadygrad.report.curves import curves_text as curves_text
from steadygrad.report.distributions import confidences as confidences
from steadygrad.report.distributions import gradient_norms as gradient_norms
from steadygrad.report.sheet import gallery as gallery

__all__ = ["confidences", "curves", "curves_text", "gallery", "gradient_norms"]
