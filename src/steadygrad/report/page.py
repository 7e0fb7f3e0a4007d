"""The page: one HTML file, drawn from `summary.json`, `gallery.npz` and, where there is one, `harden.json` alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadygrad import files
from steadygrad.report import explained, figures, gallery, hardened, neurons, reading, style, svg, wording
from steadygrad.report.reading import Arrays, Summary

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["render", "write"]

_TEMPLATES = Path(__file__).parent / "templates"
_SOUNDNESS = (
    ("attack", "what was found is real: the true accuracy within the threat is at most this number"),
    ("estimate", "may be off in either direction"),
    ("linearized", "an upper bound to first order only"),
    ("certified", "holds for every point of the ball"),
)


def write(folder: str | Path) -> Path:
    """Draw `report/index.html` in a run folder from what lies there; whole or not at all.

    Returns:
        The path of the page. Equal summaries give equal bytes.

    Raises:
        UsageError: the folder or its summary does not exist.
        Failure: a file is damaged, incomplete or of another schema, or the page cannot be written.
    """
    audit = reading.read(folder)
    path = Path(folder) / "report" / "index.html"
    files.write_text(path, render(audit.summary, audit.arrays, hardened.read(folder)))
    return path


def render(summary: Summary, arrays: Arrays, compared: hardened.Hardened | None = None) -> str:
    """The page of a summary and the arrays of its gallery, and of a hardening, as HTML text."""
    from markupsafe import Markup

    css = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            css=Markup(css),
            hardened=compared,
            sentence=wording.sentence(summary),
            broken_by=_broken_by(summary),
            curves=_curves(summary),
            curve_table=_curve_table(summary),
            distributions=_distributions(summary, arrays),
            galleries=_galleries(summary, arrays),
            reduction=gallery.reduction(arrays),
            grid=gallery.grid(summary, arrays),
            explanations=[(model["name"], _explanations(model)) for model in summary["models"]],
            pushed=explained.panels(summary, arrays),
            similarity_names=explained.SIMILARITIES,
            marks=explained.MARKS,
            faithful=explained.FAITHFUL,
            probed=summary.get("neurons"),
            neurons=neurons.figures(summary),
            choices=neurons.CHOICES,
            numbered=neurons.numbered,
            goals=[explained.GOALS[goal] for goal in (summary.get("explained") or {"goals": ()})["goals"]],
            settings=_settings(summary),
            config=json.dumps(summary["config"], indent=2, ensure_ascii=False),
            soundness=_SOUNDNESS,
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "budget": wording.budget,
        "distance": _distance,
        "duration": wording.duration,
        "heat": lambda share: min(9, int(10 * share)),
        "inline": _inline,
        "interval": lambda value: wording.interval(value).replace(" ", "\N{NO-BREAK SPACE}"),
        "norm": wording.norm,
        "number": wording.number,
        "percent": lambda share: wording.percent(share).replace(" %", "\N{NO-BREAK SPACE}%"),
        "spaced": lambda name: str(name).replace("_", " "),
        "threat": wording.threat,
        "tight": _tight,
    }
    return environment


def _distance(row: dict[str, float | None], limit: float) -> tuple[str, str]:
    value, ends = (text.replace(" ", "\N{NO-BREAK SPACE}") for text in wording.distance(row, limit))
    return value, ends


def _tight(text: str) -> str:
    # No line break inside "86.0 %" or "[81.6, 89.5]".
    return re.sub(r"(?<=\d) %|(?<=\d,) (?=[\d.]+\])", lambda m: m[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def _inline(text: str) -> Markup:
    from markupsafe import Markup

    variables = {color: f"--series-{index}" for index, color in enumerate(style.SERIES)}
    variables |= {style.INK: "--ink", style.MUTED: "--muted", style.GRID: "--line", style.PAPER: "--paper"}
    # The SVG was serialized by an XML writer, so every name in it is escaped already.
    return Markup(svg.inline(text, variables))


def _broken_by(summary: Summary) -> list[tuple[str, str | None, list[dict[str, Any] | None]]]:
    """Rows (attack, member, what it broke in each model) in the order in which attacks first come."""
    found = [{(row["attack"], row["member"]): row for row in model["broken_by"]} for model in summary["models"]]
    places = dict.fromkeys(place for rows in found for place in rows)
    return [(attack, member, [rows.get((attack, member)) for rows in found]) for attack, member in places]


def _curves(summary: Summary) -> tuple[Markup, Markup] | None:
    if not any(model["curve"] and len(model["curve"]["points"]) > 1 for model in summary["models"]):
        return None
    return _inline(figures.curves(summary)), _inline(figures.curves(summary, narrow=True))


def _curve_table(summary: Summary) -> list[tuple[float, list[Any]]]:
    found = [{p["eps"]: p["accuracy"] for p in (m["curve"] or {"points": []})["points"]} for m in summary["models"]]
    return [(eps, [row.get(eps) for row in found]) for eps in sorted({eps for row in found for eps in row})]


def _distributions(summary: Summary, arrays: Arrays) -> list[tuple[dict[str, Any], Markup | None, Markup | None]]:
    rows = []
    for index, model in enumerate(summary["models"]):
        norms, sure = model["gradient_norm"], model["confidence"]
        titles = (
            f"{model['name']}: input-gradient norm, {_spread(norms and norms['quantiles'], wording.number)}",
            f"{model['name']}: confidence, clean {_spread(sure and sure['clean'], wording.percent)}; "
            f"under attack {_spread(sure and sure['adversarial'], wording.percent)}",
        )
        drawn = (figures.gradient_norms(arrays, index, titles[0]), figures.confidences(arrays, index, titles[1]))
        first, second = (None if figure is None else _inline(figure) for figure in drawn)
        rows.append((model, first, second))
    return rows


def _spread(quantiles: dict[str, float] | None, text: Any) -> str:
    if not quantiles:
        return wording.NOT_MEASURED
    return f"median {text(quantiles['0.5'])}, from {text(quantiles['0.05'])} (5 %) to {text(quantiles['0.95'])} (95 %)"


def _galleries(summary: Summary, arrays: Arrays) -> list[tuple[dict[str, Any], float, list[gallery.Sample]]]:
    rows = []
    for index, model in enumerate(summary["models"]):
        found = gallery.samples(summary, arrays, index)
        if found:
            rows.append((model, gallery.scale(arrays, index), found))
    return rows


def _explanations(model: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Rows (attribution, measure, {under: estimate}) in the order in which they first come."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in model["explanations"]:
        rows.setdefault((row["attribution"], row["measure"]), {})[row["under"]] = row
    return [(attribution, measure, under) for (attribution, measure), under in rows.items()]


def _settings(summary: Summary) -> list[tuple[str, str, str]]:
    rows: dict[tuple[str, str, str], None] = {}
    for model in summary["models"]:
        for attack in model["attacks"]:
            settings = ", ".join(f"{name} = {value}" for name, value in attack["settings"].items())
            rows[(str(attack["label"]), str(attack["name"]), settings)] = None
    return list(rows)
