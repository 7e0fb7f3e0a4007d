"""How to reproduce the page: the command, the machine, the models, and every setting."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from steadygrad.report.blocks import Block, Cell, Code, Facts, Folded, Heading, Inline, Row, Table, Text, html, missing
from steadygrad.report.cells import by_model
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.wording import number

if TYPE_CHECKING:
    from steadygrad.audit.schema import Model

_SOUNDNESS = {
    "attack": "what was found is real: the true accuracy within the threat is at most this number",
    "estimate": "may be off in either direction",
    "linearized": "an upper bound to first order only",
    "certified": "holds for every point of the ball",
}


def blocks(run: Run) -> list[Block]:
    """The command, where the numbers came from, and what the words for their soundness mean."""
    summary = run.summary
    facts: list[tuple[str, Inline]] = [("steadygrad", summary.version)]
    facts += [(name, str(value)) for name, value in summary.machine]
    facts += [("seed", str(summary.config["seed"]))] if "seed" in summary.config else []
    facts.append(("data fingerprint", html("<code>{}</code>", summary.data.fingerprint)))
    started = Text("This audit was started from Python: call it again with the configuration below.")
    words = [html("<b>{}</b>: {}", word, meaning) for word, meaning in _SOUNDNESS.items()]
    intervals = "Intervals of shares are 95 % Wilson intervals; they cover the choice of samples, not of attacks."
    models = by_model(
        summary.models,
        "The models",
        {
            "Architecture": _architecture,
            "Parameters": lambda model: Cell(f"{model.parameters:,}"),
            "Samples": lambda model: Cell(number(model.samples)),
            "Weights": lambda model: _typed(model.weights),
            "File": lambda model: Cell(missing("none")) if model.file is None else _typed(model.file),
        },
        lambda model: model.name,
        words=(0, 3, 4),
    )
    return [
        Code(summary.command, "Command") if summary.command else started,
        Facts(facts),
        *_machines(run),
        models,
        _attacks(run),
        configuration(summary.config),
        Heading("How sound a number is"),
        Text(html("{}. {}", html("; ").join(words), intervals), "note"),
    ]


def _machines(run: Run) -> list[Block]:
    """A word on machines that differ, where there are some."""
    kinds = [f"{m.device} (PyTorch {m.torch}, {m.platform})" for m in run.summary.machines]
    text = (
        f"Machines of {len(kinds)} kinds computed this audit: {'; '.join(kinds)}. "
        "Their sums differ in the last digits, and so may what an attack finds of a sample near its edge."
    )
    return [Text(text, "note")] if kinds else []


def configuration(config: dict[str, Any]) -> Folded:
    """All settings, as they were written down."""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return Folded("Exact configuration", [Code(text, "Exact configuration")])


def _typed(text: str) -> Cell:
    return Cell(html("<code>{}</code>", text))


def _architecture(model: Model) -> Cell:
    if model.architecture is None:
        return Cell(missing("unknown"))
    settings = {key: value for key, value in model.architecture.items() if key != "name"}
    name = str(model.architecture.get("name", "unnamed"))
    return Cell(", ".join([name, *(f"{key} = {value}" for key, value in settings.items())]))


def _attacks(run: Run) -> Table:
    rows: dict[str, Row] = {}
    for attack in (attack for model in run.summary.models for attack in model.attacks):
        settings = ", ".join(f"{name} = {value}" for name, value in attack.settings.items())
        cells = [_typed(attack.name), Cell(settings)]
        rows.setdefault(f"{attack.label} {attack.name} {settings}", (attack.label, cells))
    head = ["Attack", "Registered as", "Settings"]
    return Table("The attacks and their settings", head, list(rows.values()), words=(0, 1))


SECTION = ReportSection(
    120,
    "reproduce",
    "Reproduce",
    "How to reproduce this page",
    "version machine machines command config data models.name models.file models.architecture models.parameters "
    "models.weights models.samples models.attacks",
    blocks,
)
