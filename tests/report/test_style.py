"""The look that all figures share."""

from __future__ import annotations

import re

import pytest
from matplotlib.figure import Figure

from steadygrad.report.style import drawing, logarithmic, svg


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.03, 0.6, ["0.05", "0.1", "0.2", "0.5"]),
        (2.0, 3.0, ["2", "2.2", "2.4", "2.6", "2.8", "3"]),
        (1e-9, 1e-3, ["10⁻⁹", "10⁻⁸", "10⁻⁷", "10⁻⁶", "10⁻⁵", "0.0001", "0.001"]),
    ],
)
def test_logarithmic_axes_have_a_few_plain_numbers(low: float, high: float, labels: list[str]) -> None:
    with drawing(10.0):
        figure = Figure(figsize=(3, 3))
        axes = figure.subplots()
        axes.plot([low, high], [low, high])
        logarithmic(axes, "x", "y")
        text = svg(figure, "a title")
    # Written as formulas they would stand there as their source: math is not parsed in our figures.
    assert "math" not in text
    found = re.findall(r">([^<>$]+)</text>", text)
    assert set(found) == set(labels)
