"""The blocks of a page, of audits and papers alike: tables, figures, pictures, text in one self-contained HTML file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from markupsafe import Markup

from steadygrad import __version__
from steadygrad.readable import readable
from steadygrad.report.png import Picture
from steadygrad.report.wording import NOT_MEASURED

Inline: TypeAlias = str | Markup
"""Text that is escaped, or HTML made by `html`."""

TEMPLATES = Path(__file__).parent / "templates"


class Block:
    """What a section is made of."""

    @property
    def kind(self) -> str:
        """Its macro in the template."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: what it says; `below` is its interval, `note` a second line in small print.
        shade: from 0 to 1, on the scale of a heat map.
        framed: with a frame, as on a diagonal.
        good: with ✓ or ✗ before the text.
        struck: a number that is not to be relied on.
        span: columns that it fills.
        kind: a class of the style sheet; by default that of its column.
    """

    text: Inline
    below: str = ""
    note: Inline = ""
    shade: float | None = None
    framed: bool = False
    good: bool | None = None
    struck: bool = False
    span: int = 1
    kind: str = ""

    def classes(self, column: str) -> str:
        """Its classes of the style sheet, in a column of words or numbers."""
        shade = "" if self.shade is None else f" h{min(9, max(0, int(10 * self.shade)))}"
        return f"{self.kind or column}{shade}{' diagonal' if self.framed else ''}"


Row: TypeAlias = tuple[Inline, Sequence[Cell]]
"""The heading of a row and its other cells."""


@dataclass(frozen=True)
class Group:
    """Rows under a heading of their own, and perhaps a last one that sums them up."""

    title: Inline
    rows: Sequence[Row]
    total: Row | None = None


@dataclass(frozen=True)
class Table(Block):
    """A table; `words` are the columns, counted without the first, that hold words and no numbers.

    `style` is "headline" for one that becomes a list on a narrow screen, "stacked" for intervals below their numbers.
    """

    caption: Inline
    head: Sequence[Inline]
    rows: Sequence[Row] = ()
    words: Sequence[int] = ()
    groups: Sequence[Group] = ()
    style: str = ""

    @property
    def bodies(self) -> Sequence[Group]:
        """The groups; plain rows are one without a heading."""
        return self.groups or [Group("", self.rows)]

    @property
    def classes(self) -> str:
        """Its classes of the style sheet."""
        heat = any(cell.shade is not None for _, cells in self.rows for cell in cells)
        return " ".join(filter(None, (self.style, "heat" if heat else "", "grouped" if self.groups else "")))


@dataclass(frozen=True)
class Figure(Block):
    """A drawing as inline SVG, and perhaps another one for a narrow screen."""

    drawing: Markup
    caption: Inline
    narrow: Markup | None = None


@dataclass(frozen=True)
class Panels(Block):
    """Rows of small figures (drawing or None, caption) beside a name, for comparison."""

    rows: Sequence[tuple[str, Sequence[tuple[Markup | None, Inline]]]]


@dataclass(frozen=True)
class Pictures(Block):
    """Pictures in rows; None leaves a gap."""

    caption: Inline
    head: Sequence[Inline]
    rows: Sequence[tuple[Inline, Sequence[Picture | None]]]
    wide: bool = False


PictureGroup: TypeAlias = tuple[str, str, Sequence[Picture]]
"""A caption, its second line, and pictures."""


@dataclass(frozen=True)
class Step:
    """A place of a slider: what it says, and the groups of pictures that take the place of the last ones of a sample.

    Where a group has fewer pictures than that of the sample, they take the place of its last ones.
    """

    says: str
    groups: Sequence[PictureGroup]


@dataclass(frozen=True)
class Sample:
    """One sample with groups of pictures: (caption, second line, pictures).

    Args:
        steps: of its slider, which scripts show; `start` is the one at which it stands at first.
    """

    title: str
    outcome: str
    changed: bool
    groups: Sequence[PictureGroup]
    steps: Sequence[Step] = ()
    start: int = 0


@dataclass(frozen=True)
class Samples(Block):
    """Samples below each other, the pictures of each in a strip."""

    rows: Sequence[Sample]


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; `style` is "note", "good", "bad" or a class of the style sheet."""

    text: Inline
    style: str = ""


@dataclass(frozen=True)
class Heading(Block):
    """A heading within a section."""

    text: Inline


@dataclass(frozen=True)
class Items(Block):
    """A list: of points, or the key to the marks of figures (style "keys")."""

    items: Sequence[Inline]
    style: str = "plain"


@dataclass(frozen=True)
class Facts(Block):
    """Short facts, each with its name."""

    pairs: Sequence[tuple[str, Inline]]


@dataclass(frozen=True)
class Code(Block):
    """Text as it would be typed."""

    text: str
    label: str


@dataclass(frozen=True)
class Folded(Block):
    """Blocks that are opened by a click; `inner` where it stands below a heading within the section."""

    title: Inline
    blocks: Sequence[Block]
    note: Inline = ""
    open: bool = False
    inner: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; the contents of the page call it `short`."""

    title: str
    blocks: Sequence[Block]
    name: str = ""
    short: str = ""

    @property
    def anchor(self) -> str:
        """The id of the section."""
        return self.name or "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Page:
    """A whole page: `kicker` stands above the heading, `lede` below it."""

    title: str
    kicker: str
    heading: str
    lede: str
    facts: Sequence[tuple[str, Inline]]
    sections: Sequence[Section]
    source: str
    version: str = __version__


def render(page: Page) -> str:
    """The page as HTML text, whose style and pictures it contains."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["tight"] = tight
    css, script = (Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    template = environment.get_template("page.html.j2")
    made = template.render(page=page, css=css, script=script, number=itertools.count(1).__next__)
    return readable(made, lines=True)  # a run folder may come from elsewhere


def tight(text: Inline) -> Inline:
    """The same text without line breaks inside "86.0 %" or "[81.6, 89.5]"."""
    pattern = r"(?<=\d) %|(?<=\d,) (?=[\d.]+\])"
    kept = re.sub(pattern, lambda m: m[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    return Markup(kept) if isinstance(text, Markup) else kept


def titled(heading: str, table: Table) -> list[Block]:
    """A table with a heading within the section; nothing for an empty one."""
    return [Heading(heading), table] if table.rows or table.groups else []


def html(template: str, *values: object) -> Markup:
    """HTML with values in the place of {}, escaped unless they are HTML themselves.

    >>> html("<b>{}</b> {}", "<", html("<i>{}</i>", 1))
    Markup('<b>&lt;</b> <i>1</i>')
    """
    return Markup(template).format(*values)


def small(text: Inline) -> Markup:
    """Small print."""
    return html('<span class="of">{}</span>', text)


def mark(good: bool | None, text: Inline) -> Markup:
    """✓ or ✗, or for None –, before a text, in the color that it stands for."""
    kind, sign = {True: ("good", "✓"), False: ("bad", "✗"), None: ("none", "–")}[good]
    return html('<span class="{}"><span aria-hidden="true">{}</span> {}</span>', kind, sign, text)


def legend(mark: str, text: Inline, color: str = "") -> Markup:
    """An entry of a legend: a mark, by its class of the style sheet and perhaps its color, and what it stands for."""
    style = html(' style="background: {}"', color) if color else ""
    return html('<span class="{}"{} aria-hidden="true"></span> {}', mark, style, text)


def missing(text: Inline = NOT_MEASURED) -> Markup:
    """Words in the place of a number."""
    return html('<span class="none">{}</span>', text)
