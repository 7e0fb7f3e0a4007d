"""The report: one self-contained HTML page, its figures, and the same numbers for the terminal."""

from steadygrad.report.page import render as render
from steadygrad.report.page import tables as tables
from steadygrad.report.page import write as write
