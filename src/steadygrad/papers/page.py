"""The page of a paper: blocks of tables, figures and pictures in one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadygrad import report
from steadygrad.report import pixels, style, svg, wording
from steadygrad.report.reading import Array

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure as Drawing

__all__ = [
    "Block",
    "Cell",
    "Figure",
    "Pictures",
    "Section",
    "Table",
    "Text",
    "drawn",
    "picture",
    "render",
    "share",
    "sheet",
    "signed",
    "signed_picture",
]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, small print below it, a shade from 0 to 1, a frame, a mark."""

    text: str
    below: str = ""
    shade: float | None = None
    framed: bool = False
    good: bool | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first column of each row is its heading."""

    caption: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    kind: str = "table"
    words: Sequence[int] = ()


@dataclass(frozen=True)
class Figure:
    """A drawing as inline SVG."""

    drawing: Markup
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class Pictures:
    """Pictures in rows, each a PNG data URI with its description; None leaves a gap."""

    caption: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str] | None]]]
    wide: bool = False
    kind: str = "pictures"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


Block = Table | Figure | Pictures | Text


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `folded` blocks are opened by a click."""

    title: str
    blocks: Sequence[Block]
    folded: Sequence[tuple[str, Sequence[Block]]] = field(default_factory=tuple)

    @property
    def anchor(self) -> str:
        """The id of the section."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


def render(summary: dict[str, Any], sections: Sequence[Section]) -> str:
    """The page of a summary and its sections as HTML text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "duration": wording.duration,
        "number": wording.number,
        "heat": lambda value: min(9, max(0, int(10 * value))),
        "claim": claim_found,
    }
    css = (Path(report.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.get_template("paper.html.j2").render(
        summary=summary,
        sections=sections,
        css=Markup(css),
        config=json.dumps(summary["config"], indent=2, ensure_ascii=False),
    )


def claim_found(claim: dict[str, Any]) -> str:
    """What a claim found, with its interval and unit; shares as exact as the bar that decides.

    >>> found = {"value": 0.9937, "low": 0.9919, "high": 0.9951}
    >>> claim_found({"found": found, "unit": "%", "needed": "at least 99.34 %"})
    '99.37 % [99.19, 99.51]'
    """
    found = claim["found"]
    if found is None:
        return wording.NOT_MEASURED
    if claim["unit"] in ("%", "points"):
        _, _, decimals = next((w for w in claim["needed"].split() if w[-1].isdigit()), "").partition(".")
        value, low, high = (f"{100 * found[k]:.{max(1, len(decimals))}f}" for k in ("value", "low", "high"))
        return f"{value} {claim['unit']} [{low}, {high}]"
    value, low, high = (wording.number(found[k]) for k in ("value", "low", "high"))
    return f"{value} {claim['unit']}".strip() + f" [{low}, {high}]"


def share(value: dict[str, Any], **more: Any) -> Cell:
    """A cell with a share in percent and its interval."""
    return Cell(f"{100 * value['value']:.1f}", f"[{100 * value['low']:.1f}, {100 * value['high']:.1f}]", **more)


def signed(value: dict[str, Any] | None, scale: float = 100, digits: int = 1) -> Cell:
    """A cell with a difference and its interval; no published number gives a dash."""
    if value is None:
        return Cell("–")
    found, low, high = (f"{scale * value[k]:+.{digits}f}" for k in ("value", "low", "high"))
    return Cell(found, f"[{low}, {high}]")


def drawn(figure: Drawing, title: str) -> Markup:
    """A Matplotlib figure as inline SVG whose colors follow the theme of the page; call it inside `style.drawing`."""
    from markupsafe import Markup

    variables = {color: f"--series-{index}" for index, color in enumerate(style.SERIES)}
    variables |= {style.INK: "--ink", style.MUTED: "--muted", style.GRID: "--line", style.PAPER: "--paper"}
    # The SVG was serialized by an XML writer, so every name in it is escaped already.
    return Markup(svg.inline(style.svg(figure, title), variables))


def sheet(images: Array, gaps: Array, pad: int = 2) -> Array:
    """One image (C, H, W) of a grid of images (R, K, C, h, w); where `gaps` (R, K) the cell stays grey."""
    import numpy as np

    rows, columns, channels, height, width = images.shape
    out = np.ones((channels, rows * (height + pad) - pad, columns * (width + pad) - pad))
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + pad), c * (width + pad)
            out[:, top : top + height, left : left + width] = 0.8 if gaps[r, c] else images[r, c]
    return out


def picture(image: Array) -> str:
    """An image (C, H, W) in [0, 1] as a data URI."""
    return pixels.uri(pixels.image(image, 0.0, 1.0))


def signed_picture(values: Array, scale: float) -> str:
    """A signed map (C, H, W) as a data URI: blue below zero, red above."""
    return pixels.uri(pixels.change(values, scale))
