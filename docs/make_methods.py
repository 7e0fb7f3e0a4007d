"""Print docs/methods.md from the registries: `python docs/make_methods.py > docs/methods.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import steadygrad as sg
from steadygrad.measuring.measures import MEASURES

INTRODUCTION = """\
# All methods

Made from the registries by `python docs/make_methods.py > docs/methods.md`; a test keeps the two equal. The same rows:
`steadygrad list attacks`, also with `attribution-attacks`, `attributions`, `bounds`, `defenses`, `engines`, `measures`,
`models` and `data`.

*Cost* counts passes per sample. *Order* is the order of the derivatives a method takes through the model:
2 means that training differentiates an input gradient, which needs float32. *Soundness* is one of the
[four words](concepts/soundness.md). Settings are shown with their defaults; in a flag they are written
`pgd:steps=10,loss=ce`.
"""


def render() -> str:
    """The whole page."""
    return "\n".join(
        [
            INTRODUCTION,
            methods("Attacks", sg.attacks.ATTACKS, norms=True),
            methods("Attacks on explanations", sg.attacks.ATTRIBUTION_ATTACKS, norms=True),
            methods("Attributions", sg.attributions.ATTRIBUTIONS),
            methods("Bounds on how far an attribution can move", sg.bounds.BOUNDS, norms=True),
            methods("Defenses", sg.defenses.DEFENSES),
            methods("Measures: what is written down for each sample", MEASURES),
            methods("Engines: who computes an audit", sg.engines.ENGINES),
            models(),
            data(),
        ]
    )


def methods(title: str, rows: Iterable[Any], *, norms: bool = False) -> str:
    """What the methods of one kind do and cost, and below it their settings."""
    rows = list(rows)
    head = ["name", "class", "what it does", *(["norms"] if norms else []), "cost", "order", "soundness", "source"]
    body = [
        [
            code(row.name),
            code(row.method.__name__),
            row.summary,
            *([", ".join(row.norms)] if norms else []),
            row.cost,
            row.order,
            row.soundness,
            row.reference,
        ]
        for row in rows
    ]
    settings = [[code(row.name), settings_of(row.settings)] for row in rows]
    return f"## {title}\n\n{table(head, body)}\n{table(['name', 'settings'], settings)}"


def models() -> str:
    """The architectures."""
    body = [
        [code(row.name), row.summary, " x ".join(map(str, row.input_shape)), settings_of(row.settings), row.reference]
        for row in sg.models.ARCHITECTURES.values()
    ]
    return f"## Models\n\n{table(['name', 'what it is', 'default input', 'settings', 'source'], body)}"


def data() -> str:
    """The data sets known by name."""
    body = [[code(row.name), row.summary, code(row.hub) if row.hub else "bundled"] for row in sg.data.DATASETS]
    return f"## Data\n\n{table(['name', 'what it is', 'Hub repository'], body)}"


def settings_of(settings: dict[str, Any]) -> str:
    """Settings with their defaults, as code."""
    return ", ".join(code(k if v == "required" else f"{k}={v!r}") for k, v in settings.items()) or "none"


def code(value: Any) -> str:
    """As code."""
    return f"`{value}`"


def table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(render())
