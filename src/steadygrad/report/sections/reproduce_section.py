"""How to reproduce the page: the command, the machine, the models, and every setting."""

from __future__ import annotations

import json
from typing import Any

from steadygrad.report.blocks import Block, Cell, Code, Facts, Folded, Heading, Inline, Row, Table, Text, html, missing
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import number

__all__ = ["SECTION", "SOUNDNESS", "configuration"]

SOUNDNESS = (
    ("attack", "what was found is real: the true accuracy within the threat is at most this number"),
    ("estimate", "may be off in either direction"),
    ("linearized", "an upper bound to first order only"),
    ("certified", "holds for every point of the ball"),
)


def blocks(run: Run) -> list[Block]:
    """The command, where the numbers came from, and what the words for their soundness mean."""
    summary = run.summary
    facts: list[tuple[str, Inline]] = [("steadygrad", summary.version)]
    facts += [(name, str(value)) for name, value in summary.machine]
    facts += [("seed", str(summary.config["seed"]))] if "seed" in summary.config else []
    facts.append(("data fingerprint", html("<code>{}</code>", summary.data.fingerprint)))
    started = Text("This audit was started from Python: call it again with the configuration below.")
    words = [html("<b>{}</b>: {}", word, meaning) for word, meaning in SOUNDNESS]
    intervals = "Intervals of shares are 95 % Wilson intervals; they cover the choice of samples, not of attacks."
    return [
        Code(summary.command, "Command") if summary.command else started,
        Facts(facts),
        _models(run),
        _attacks(run),
        configuration(summary.config),
        Heading("How sound a number is"),
        Text(html("{}. {}", html("; ").join(words), intervals), "note"),
    ]


def configuration(config: dict[str, Any]) -> Folded:
    """All settings, as they were written down."""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return Folded("Exact configuration", [Code(text, "Exact configuration")])


def _models(run: Run) -> Table:
    rows: list[Row] = []
    for model in run.summary.models:
        named = dict(model.architecture or {})
        parts = [str(named.pop("name", "unnamed")), *(f"{key} = {value}" for key, value in named.items())]
        architecture = ", ".join(parts) if model.architecture is not None else missing("unknown")
        file = missing("none") if model.file is None else html("<code>{}</code>", model.file)
        cells = [Cell(architecture), Cell(f"{model.parameters:,}"), Cell(number(model.samples))]
        rows.append((model.name, [*cells, Cell(html("<code>{}</code>", model.weights)), Cell(file)]))
    head = ["Model", "Architecture", "Parameters", "Samples", "Weights", "File"]
    return Table("The models", head, rows, words=(0, 3, 4))


def _attacks(run: Run) -> Table:
    rows: dict[str, Row] = {}
    for attack in (attack for model in run.summary.models for attack in model.attacks):
        settings = ", ".join(f"{name} = {value}" for name, value in attack.settings.items())
        cells = [Cell(html("<code>{}</code>", attack.name)), Cell(settings)]
        rows.setdefault(f"{attack.label} {attack.name} {settings}", (attack.label, cells))
    head = ["Attack", "Registered as", "Settings"]
    return Table("The attacks and their settings", head, list(rows.values()), words=(0, 1))


SECTION = ReportSection(
    110,
    "reproduce",
    "Reproduce",
    "How to reproduce this page",
    (
        *("version", "machine", "command", "config", "data"),
        *(f"models.{key}" for key in ("name", "file", "architecture", "parameters", "weights", "samples", "attacks")),
    ),
    blocks,
)
