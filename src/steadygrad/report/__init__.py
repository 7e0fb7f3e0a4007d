"""The report: one self-contained HTML page, its figures, and the same numbers for the terminal."""

from steadygrad.report.page import render as render
from steadygrad.report.page import write as write
from steadygrad.report.reading import Audit as Audit
from steadygrad.report.reading import read as read
from steadygrad.report.terminal import headline as headline
from steadygrad.report.terminal import table as table
from steadygrad.report.terminal import tables as tables

__all__ = ["Audit", "headline", "read", "render", "table", "write"]
