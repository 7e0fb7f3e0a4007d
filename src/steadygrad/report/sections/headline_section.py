"""The headline: clean and robust accuracy of every model, and whether the number stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block, Cell, Text, html
from steadygrad.report.cells import SCALE, borders_of, by_model, judged, share, whisker
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import ReportSection
from steadygrad.report.terminal import listed
from steadygrad.report.wording import budget, estimate, norm, threat

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from steadygrad.audit.schema import Model, Summary


def sentence(summary: Summary) -> str:
    """The result in one sentence: the best number that the checks let stand, and how many they refuse."""
    models = summary.models
    sound = [model for model in models if model.verdict.state == "holds"]
    refused = sum(model.verdict.state == "refuted" for model in models)
    samples = f"{summary.data.samples:,} samples"
    if not sound and not refused:
        text = models[0].verdict.text
        return f"{text[:1].upper()}{text[1:]}."
    if not sound:
        which = "the robust accuracy of this model" if len(models) == 1 else "any robust accuracy in this report"
        return f"The checks do not let {which} stand, measured on {samples}: the reason is beside the number."
    # What a blind search leaves is no match for what gradients leave.
    best = max(sound, key=lambda model: (model.gradients, model.robust.value))
    alike = [model for model in sound if model.gradients == best.gradients]
    within = f"within {norm(summary.threat.norm)} ≤ {budget(summary.threat.eps)}"
    tried = "attack tried" if best.gradients else "blind search tried, for want of gradients,"
    lead = f"{best.name} withstands every {tried} {within} on {estimate(best.robust)} of {samples}"
    clean = f" (without attack it is right on {estimate(best.clean)})"
    kind = "" if len(alike) == len(sound) else " and that give gradients"
    others = f" – the most of the models whose numbers hold{kind}" if len(alike) > 1 else ""
    tail = {0: "", 1: "; the number of one other model is refuted"}.get(
        refused, f"; the numbers of {refused} other models are refuted"
    )
    return f"{lead}{clean}{others}{tail}.{_between(best)}"


def _between(model: Model) -> str:
    """The two borders of a model's robust accuracy in a sentence, if they are known."""
    borders = borders_of(model)
    if borders is None or borders.cross:
        return ""
    return (
        f" On these samples the robust accuracy of {model.name} is between {estimate(borders.accuracy)} (certified) "
        f"and {estimate(model.robust)} (attacked)."
    )


def blocks(run: Run) -> list[Block]:
    """The table of the headline and how to read it."""
    table = by_model(
        run.summary.models,
        "Accuracy without attack, and robust accuracy: the share of samples that no attack of the suite changed, "
        f"{threat(run.summary.threat)}. In brackets the 95 % interval.",
        {
            "Clean accuracy": lambda model: share(model.clean),
            "Robust accuracy": _robust,
            SCALE: _whisker,
            "Verdict": lambda model: judged(model.verdict),
        },
        lambda model: model.name,
        words=(2, 3),
        style="headline",
    )
    key = html(
        "Dot and bar: robust accuracy with its interval; upright mark: clean accuracy. A hollow dot: the number does "
        "not hold, struck where it is refuted. The verdict is about the number, not about the model. Attacks can only "
        "show that a model is <em>less</em> robust than it looks: the true value is at most the number shown."
    )
    return [table, Text(key, "note")]


def _robust(model: Model) -> Cell:
    return share(model.robust, model.verdict.state != "refuted", kind="num main")


def _whisker(model: Model) -> Cell:
    """Robust accuracy with its interval, and clean accuracy as the mark."""
    return whisker(model.robust, model.clean.value, "" if model.verdict.state == "holds" else "doubt")


def terminal(run: Run) -> RichTable:
    """The headline for a Rich console; a refused number is struck out, and its reason stands beside it."""
    rows = [(m.name, share(m.clean), _robust(m), judged(m.verdict)) for m in run.summary.models]
    return listed(["model", "clean accuracy", "robust accuracy", "verdict"], rows, words=(0, 3))


SECTION = ReportSection(10, "result", "Result", "Result", "models.clean models.robust models.verdict", blocks, terminal)
