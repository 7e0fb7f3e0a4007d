"""From tables to a summary: every number of the page, by the same code while measuring and from a finished folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steadygrad import __version__, provenance
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.audit.corruptions import corruptions
from steadygrad.audit.explained import explained
from steadygrad.audit.findings import Audit, Facts
from steadygrad.audit.gallery import candidates, grid, pictures, steps
from steadygrad.audit.model_summary import ModelSummary
from steadygrad.audit.neurons import neurons
from steadygrad.audit.records import accuracy
from steadygrad.measuring.measures.along_radius import AlongRadius
from steadygrad.measuring.measures.attacked import Transferred
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.table import Array, Table
from steadygrad.registry import label_of

SCHEMA = 1
NOTE = (
    "Rows made the inputs, columns judged them. The diagonal is white-box, or a blind search of the model itself where "
    "it gives no gradient; all other cells are weak evidence: resisting another model's examples says little about "
    "resisting one's own."
)


def summarize(
    tables: Tables,
    plan: AuditPlan,
    facts: Facts,
    config: Mapping[str, Any],
    shared: Mapping[str, Array],
    corrupted: Callable[[str], Tables],
) -> tuple[Audit, dict[str, dict[str, Table]]]:
    """Ask for all tables of a plan, and say what they show; beside that the tables of each model's attacks, by label.

    Args:
        tables: a runner, which measures what is missing, or the saved tables of a finished run.
        config: the resolved settings, which the summary repeats.
        shared: the mean training image as `center`, if there is one.
        corrupted: where the tables of a kind of corrupted data come from.
    """
    if len(facts.data["shape"]) != 3:  # nothing is drawn of what is no image
        plan = plan.model_copy(update={"gallery": 0})
    noting, names, arrays = _Noting(tables), list(facts.models), dict[str, Array]()
    labels, classes = facts.data["labels"], facts.data["classes"]
    keep = range(len(labels)) if plan.keep_inputs else candidates(labels, plan.gallery) if plan.gallery else ()
    models = {n: ModelSummary(noting, plan, n, facts.models[n], facts.data, tuple(keep)) for n in names}
    # Before anything that takes long: too many samples without an answer are refused here.
    failed = {place for model in models.values() for place in model.unanswered.why}
    rows = [place for place in range(len(labels)) if place not in failed]

    def of_kind(kind: str) -> Tables:
        return _Noting(corrupted(kind), noting.seen)

    entries, captions = [], {}
    mapped = plan.attributions if plan.maps and any(model.gradients for model in models.values()) else ()
    for index, (name, model) in enumerate(models.items()):
        entry, drawn = model.summary(shared)
        entry["corruptions"] = corruptions(of_kind, facts.corrupted, name) if facts.corrupted else None
        entries.append(entry)
        arrays |= {f"{kind}_{index}": values for kind, values in drawn.items()}
        if plan.gallery:
            maps = mapped if model.gradients else ()
            captions[name], shown = pictures(
                noting, name, index, model.leading, model.lead, maps, classes, plan.gallery
            )
            arrays |= shown
            if model.gradients:  # a blind search spends thousands of passes at each radius
                along = AlongRadius(model.lead, plan.threat, maps)
                arrays |= steps(noting, name, index, along, captions[name][: plan.sliders], classes)
    parts: dict[str, Any] = {"transfer": None, "explained": None, "neurons": None, "gallery": None}
    if plan.transfer and len(models) > 1:
        parts["transfer"] = _transfer(noting, plan, models)
    if plan.explanations:
        parts["explained"], shown = explained(noting, names, plan, facts.data, rows)
        arrays |= shown
    if plan.neurons:
        parts["neurons"], moved = neurons(noting, names, plan, facts.data, rows)
        arrays |= moved
    if plan.gallery:
        best = max(entries, key=lambda e: float(e["robust"]["value"]))["name"]
        about, squares = grid(
            noting, best, labels, models[best].lead, plan.threat, classes, places=models[best].answered
        )
        arrays |= squares
        parts["gallery"] = {"models": captions, "attributions": list(map(label_of, mapped)), "grid": about}
    records = Table.join([model.records for model in models.values()])
    distances = Table.join([model.smallest() for model in models.values()])
    summary = {**_head(noting.seen.values(), plan, facts, config), "models": entries, **parts}
    return Audit(summary, records, distances, arrays), {name: model.attacked for name, model in models.items()}


@dataclass
class _Noting:
    """Tables that pass by; what they are about dates the summary."""

    tables: Tables
    seen: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def run(self, measure: Any, model: str, *, title: str = "", **how: Any) -> Table:
        table = self.tables.run(measure, model, title=title, **how)
        if table.about:
            self.seen[f"{model} {title or measure.title}"] = table.about
        return table


def _head(
    seen: Iterable[Mapping[str, Any]], plan: AuditPlan, facts: Facts, config: Mapping[str, Any]
) -> dict[str, Any]:
    about = sorted(seen, key=lambda a: str(a["created"]))
    machines = provenance.kinds(m for a in about for m in a.get("machines") or [a["machine"]])
    now = {"version": __version__, "created": provenance.now(), "machine": provenance.machine()}
    return {
        "schema": SCHEMA,
        **{name: about[-1][name] if about else value for name, value in now.items()},
        "machines": machines if len(machines) > 1 else [],
        "seconds": round(sum(float(a["seconds"]) for a in about), 1),
        "command": facts.command,
        "config": dict(config),
        "data": {k: v for k, v in facts.data.items() if k != "labels"},
        "threat": plan.described(plan.eps),
    }


def _transfer(tables: Tables, plan: AuditPlan, models: Mapping[str, ModelSummary]) -> dict[str, Any]:
    def judged(name: str, source: str) -> Table:
        if name == source:
            return models[name].leading
        lead = models[source].lead
        title = f"{label_of(lead)} made on {source}"
        return tables.run(Transferred(lead, plan.threat), name, beside=(source,), title=title)

    rows = [[accuracy(judged(name, source)).plain() for name in models] for source in models]
    leads = " or ".join(dict.fromkeys(label_of(model.lead) for model in models.values()))
    return {"attack": leads, "eps": plan.eps, "names": list(models), "accuracy": rows, "note": NOTE}
