"""Figures and pictures: valid, deterministic, honest about scale, and free of global state."""

from __future__ import annotations

import base64
import io
import itertools
import xml.etree.ElementTree as ET
from typing import Any

import hypothesis
import hypothesis.strategies as st
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from report.fake_summary import NAMES, full, minimal
from steadygrad.audit.schema import Summary
from steadygrad.report import png, style
from steadygrad.report.sections.curves_section import curves, spread
from steadygrad.report.sections.gradients_section import confidences, gradient_limits, gradient_norms

SPACE = "{http://www.w3.org/2000/svg}"


def read(summary: dict[str, Any]) -> Summary:
    return Summary.model_validate(summary)


def _texts(text: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ET.fromstring(text).iter(f"{SPACE}text")]


@pytest.mark.parametrize("narrow", [False, True])
def test_curves_are_text_and_labeled_at_the_line(narrow: bool) -> None:
    summary, _ = full()
    text = curves(read(summary), narrow=narrow)
    words = " ".join(_texts(text))
    assert "distilled ✗" in words
    assert all(part in words for name in NAMES for part in name.split())
    assert "audited at 0.1" in words
    assert text == curves(read(summary), narrow=narrow)


def test_a_doubtful_curve_is_dashed_not_only_colored() -> None:
    summary, _ = full()
    doubtful = curves(read(summary)).count("stroke-dasharray: 7")
    for model in summary["models"]:
        model["verdict"] = {"state": "holds", "text": "number holds", "checks": []}
    assert doubtful == 1 + curves(read(summary)).count("stroke-dasharray: 7")


def test_figures_leave_matplotlib_as_it_was_and_ignore_its_settings() -> None:
    summary, arrays = full()
    usual = curves(read(summary)) + (confidences(arrays, 0) or "")
    with mpl.rc_context({"axes.facecolor": "red", "lines.linewidth": 9.0, "axes.grid": True}):
        before = dict(mpl.rcParams)
        assert curves(read(summary)) + (confidences(arrays, 0) or "") == usual
        assert dict(mpl.rcParams) == before


def test_one_point_and_no_arrays_are_no_error() -> None:
    summary, _ = minimal()
    assert "plain" in curves(read(summary))
    assert gradient_norms({}, 0) is None
    assert confidences({}, 0) is None


def test_zero_gradients_are_shown_and_not_dropped() -> None:
    arrays = {"gradient_norms_0": np.array([0.0, 0.0, 0.1, 1.0]), "next_gradient_norms_0": np.array([1.0] * 4)}
    assert "50.0 % below" in _texts(gradient_norms(arrays, 0) or "")
    only = {"gradient_norms_0": np.zeros(4)}
    assert "100.0 % below" in _texts(gradient_norms(only, 0) or "")


def test_the_gradient_axis_holds_nine_decades_below_the_largest_norm() -> None:
    assert gradient_limits({"gradient_norms_0": np.array([1e-30, 0.5])}) == (-9, 0)
    assert gradient_limits({"gradient_norms_0": np.array([0.02, 0.5]), "next_gradient_norms_0": np.array([20.0])}) == (
        -2,
        2,
    )


@hypothesis.given(st.lists(st.tuples(st.floats(0, 100), st.floats(1, 8)), min_size=1, max_size=10))
def test_spread_labels_do_not_overlap_and_stay_inside(items: list[tuple[float, float]]) -> None:
    places, heights = [p for p, _ in items], [h for _, h in items]
    moved = spread(places, heights)
    order = sorted(range(len(moved)), key=moved.__getitem__)
    for a, b in itertools.pairwise(order):
        assert moved[b] - moved[a] >= (heights[a] + heights[b]) / 2 - 1e-9
    assert min(moved) >= -1e-9
    assert max(moved) <= 100 + 1e-9
    for i, place in enumerate(places):
        for j, other in enumerate(places):
            assert place >= other or moved[i] < moved[j]


def _open(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_images_use_the_bounds() -> None:
    shown = _open(png.image(np.array([[[-1.0, 0.0, 1.0]]]), -1.0, 1.0))
    assert shown[0, :, 0].tolist() == [0, 128, 255]
    color = _open(png.image(np.array([[[1.0]], [[0.0]], [[0.5]]]), 0.0, 1.0))
    assert color[0, 0].tolist() == [255, 0, 128]


def test_the_scale_of_a_change_is_symmetric() -> None:
    shown = _open(png.change(np.array([[[-0.1, 0.0, 0.1, 0.0]]]), 0.1))[0]
    assert shown[0, 2] > shown[0, 0] + 50, "a darker pixel is blue"
    assert shown[2, 0] > shown[2, 2] + 50, "a brighter pixel is red"
    assert shown[1].min() > 240, "an unchanged pixel is near white"
    assert (_open(png.change(np.zeros((1, 2, 2)), 0.0)) > 240).all()


def test_maps_get_darker_with_their_values() -> None:
    light = _open(png.map_(np.linspace(0, 1, 9)[None], 1.0))[0].sum(-1)
    assert (np.diff(light) < 0).all()


def test_reduce_averages_blocks() -> None:
    values = np.arange(16.0).reshape(1, 4, 4)
    assert png.reduce(values, 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert png.reduce(values, 1) is values
    assert png.reduce(values, 9) is values


def test_inline_svg_follows_the_theme_in_styles_only() -> None:
    inner = f'<text style="fill: {style.INK}">{style.INK}</text>'
    shown = style.inline(f'<svg xmlns="http://www.w3.org/2000/svg"><title>t</title>{inner}</svg>')
    assert shown == f'<svg><text style="fill: var(--ink, {style.INK})">{style.INK}</text></svg>'
