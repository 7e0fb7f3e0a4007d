"""The look of all figures: colors, markers, Matplotlib settings, and the way from a figure to SVG in a page."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from steadygrad.readable import readable
from steadygrad.report.wording import number
from steadygrad.turns import TURN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2024", "#5a6169", "#dfe2e5", "#fefefe"
# Told apart with any color vision, and at least 4.5:1 on white; markers say it a second time.
SERIES = ("#0b6aa2", "#b84a08", "#007a58", "#8f4a8b", "#7a6100", "#4a5058")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_VARIABLES = {
    **{color: f"--series-{index}" for index, color in enumerate(SERIES)},
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--paper",
}
_SPACE = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_RULES: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "steadygrad",
    "font.family": "sans-serif",
    "font.size": 12.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.color": MUTED,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,
}


@contextlib.contextmanager
def drawing(size: float) -> Iterator[None]:
    """Matplotlib's defaults with this look and this font size, whatever the user's own settings are."""
    from matplotlib import style

    with TURN, style.context(["default", {**_RULES, "font.size": size}]):
        yield


def logarithmic(axes: Axes, *sides: Literal["x", "y"]) -> None:
    """Logarithmic axes with a few plain numbers on them; call it when everything is drawn.

    Matplotlib's own labels are written as formulas, and crowd an axis of less than a decade.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for side in sides:
        axes.set(**{f"{side}scale": "log"})
        axis = axes.xaxis if side == "x" else axes.yaxis
        low, high = (math.log10(end) for end in sorted(axis.get_view_interval()))
        steps = (1.0, 2.0, 5.0) if high - low < 2 else (1.0,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=7))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value).removeprefix("1·")))


def bare(axes: Axes, grid: Literal["x", "y", "both"] | None = "y", keep: tuple[str, ...] = ("bottom",)) -> None:
    """Axes without ticks and with few lines: a grid behind what is drawn, and the sides of the frame in `keep`."""
    if grid is not None:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[[side for side in ("top", "right", "left", "bottom") if side not in keep]].set_visible(False)
    axes.tick_params(length=0, pad=5)


def svg(figure: Figure, title: str) -> str:
    """A drawn figure as SVG text with a title; call it inside `drawing`."""
    buffer = io.BytesIO()
    with TURN, warnings.catch_warnings():
        # Names may use letters that the measuring font lacks; the page's own font draws them.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _finish(buffer.getvalue().decode("utf-8"), title)


def _finish(text: str, title: str) -> str:
    """A standalone SVG with a title; ids that nothing refers to are dropped, the others made unique by content."""
    text, title = readable(text, lines=True), readable(title)  # XML forbids controls
    root = ET.fromstring(text)
    prefix = "f" + hashlib.sha256(text.encode() + title.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:xlink:href="|url\()#([\w-]+)', text))
    for metadata in root.findall(f"{{{_SPACE}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tag = element.tag.replace(f"{{{_SPACE}}}", "")
        for name, value in list(element.attrib.items()):
            if name == "id":
                del element.attrib[name]
                if value in used:
                    element.set(name, f"{prefix}-{value}")
            elif name == _LINK:
                del element.attrib[name]
                element.set("href", value.replace("#", f"#{prefix}-", 1))
            elif name == "style":
                # The page's font, not the one Matplotlib measured with.
                element.set(name, re.sub(r"(font: [\d.]+px) [^;]+", r"\1 sans-serif", value))
            if "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    root.attrib.update({"width": width, "height": height, "role": "img", "aria-label": title})
    root.set("xmlns", _SPACE)
    caption = ET.Element("title")
    caption.text = title
    root.insert(0, caption)
    return ET.tostring(root, encoding="unicode")


def inline(svg: str) -> Markup:
    """SVG text for use inside HTML: no namespace needed, and colors that follow the theme of the page."""
    svg = svg.replace(f' xmlns="{_SPACE}"', "", 1)
    # Browsers show a title as a tooltip over the whole figure; the label already says it to a screen reader.
    svg = re.sub(r"<title>.*?</title>", "", svg, count=1, flags=re.DOTALL)
    pattern = re.compile("|".join(_VARIABLES))

    def themed(style: re.Match[str]) -> str:
        return pattern.sub(lambda m: f"var({_VARIABLES[m[0]]}, {m[0]})", style[0])

    # The SVG was serialized by an XML writer, so every name in it is escaped already.
    return Markup(re.sub(r'style="[^"]*"', themed, svg))


def plot(
    draw: Callable[[Axes], None],
    title: str,
    size: tuple[int, int] = (350, 210),
    margins: tuple[int, int, int, int] = (46, 40, 14, 22),
    font: float = 11.0,
) -> str:
    """A figure of one pair of axes as SVG text; its size, and the margins left, below, right and above, in points."""
    from matplotlib.figure import Figure

    (width, height), (left, below, right, above) = size, margins
    with drawing(font):
        figure = Figure(figsize=(width / 72, height / 72))
        inner = (left / width, below / height, 1 - (left + right) / width, 1 - (below + above) / height)
        draw(figure.add_axes(inner))
        return svg(figure, title)


def drawn(figure: Figure, title: str) -> Markup:
    """A figure as inline SVG; call it inside `drawing`."""
    return inline(svg(figure, title))
