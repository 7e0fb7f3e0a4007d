"""Which samples were drawn, and clean and robust accuracy class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Folded, Row, Table, Text
from steadygrad.report.cells import share
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection

if TYPE_CHECKING:
    from steadygrad.audit.schema import Model, Summary
    from steadygrad.audit.schema_values import Data

_WORST, _MANY = 5, 12
_UNEVEN = 0.05  # how far the share of a class in the draw may lie from that in the data before it is said


def blocks(run: Run) -> list[Block]:
    """What was drawn, and a table of the classes; of many classes the worst ones in a sentence, and all folded."""
    summary, about = run.summary, Text(drawn(run.summary.data), "note")
    table = _table(summary)
    if len(table.rows) <= _MANY:
        return [table, about]
    worst = "; ".join(f"{model.name}: {_worst(model)}" for model in summary.models)
    return [Text(f"Least robust classes – {worst}."), Folded(f"All {len(table.rows):,} classes", [table]), about]


def drawn(data: Data) -> str:
    """Which samples the numbers rest on.

    >>> from steadygrad.audit.schema_values import Data
    >>> counts = {"samples_of_classes": [2, 2], "available_of_classes": [2, 2], "samples": 4, "available": 4, "seed": 0}
    >>> where = {"name": "pets", "split": "test", "shape": [1, 8, 8], "fingerprint": "0"}
    >>> drawn(Data(**where, **counts, classes=["cat", "dog"]))
    'All 4 samples were looked at, of all 2 classes.'
    """
    here, names = sum(count > 0 for count in data.samples_of_classes), len(data.classes)
    of = f"of all {names:,} classes" if here == names else f"of {here:,} of {names:,} classes"
    if data.samples == data.available:
        return f"All {data.samples:,} samples were looked at, {of}."
    text = (
        f"{data.samples:,} of {data.available:,} samples were drawn with seed {data.seed}, {of}: from each class as "
        "many, as far as there are."
    )
    shares = zip(data.samples_of_classes, data.available_of_classes, strict=True)
    if max(abs(taken / data.samples - there / data.available) for taken, there in shares) > _UNEVEN:
        text += (
            " In the data some classes are more frequent than others: a mean over all samples may differ from these "
            "numbers, in which all classes weigh alike."
        )
    return text


def _worst(model: Model) -> str:
    return ", ".join(f"{row.name} ({100 * row.robust.value:.0f} %)" for row in model.by_class[:_WORST])


def _table(summary: Summary) -> Table:
    models, rows = summary.models, list[Row]()
    words = ("clean", "robust") if len(models) < 3 else ("robust",)
    counts = dict(zip(summary.data.classes, summary.data.samples_of_classes, strict=True))
    found = [{row.name: row for row in model.by_class} for model in models]
    for name in (row.name for row in models[0].by_class):
        cells = [Cell(f"{counts[name]:,}")]
        for model, each in zip(models, found, strict=True):
            shares = {
                "clean": share(each[name].clean),
                "robust": share(each[name].robust, model.verdict.state != "refuted"),
            }
            cells += [shares[word] for word in words]
        rows.append((name, cells))
    head = [f"{model.name}: {word}" if len(models) > 1 else f"{word} accuracy" for model in models for word in words]
    caption = "Accuracy of each class, the least robust one first, with 95 % intervals, which are wide for few samples."
    return Table(caption, ["Class", "Samples", *head], rows)


SECTION = ReportSection(15, "classes", "Classes", "Class by class", "models.by_class data", blocks)
