"""From tables to a summary: every number of the page, by the same code while measuring and from a finished folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steadygrad import __version__, provenance
from steadygrad.audit.gallery import candidates, grid, pictures
from steadygrad.audit.model_summary import ModelSummary
from steadygrad.audit.plan import AuditPlan
from steadygrad.audit.records import accuracy
from steadygrad.measuring.measures.attacked import Transferred
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.table import Array, Table
from steadygrad.registry import label_of

__all__ = ["Facts", "Found", "summarize"]

SCHEMA = 1
NOTE = (
    "Rows made the inputs, columns judged them. The diagonal is white-box; all other cells are weak evidence: "
    "resisting another model's examples says little about resisting one's own."
)


@dataclass(frozen=True)
class Facts:
    """What a summary says besides numbers from tables; plain data.

    Attributes:
        models: by name: file, architecture, draws, parameters, weights.
        data: name, split, samples, classes, shape, fingerprint, and the label of each sample.
        command: that makes the run again.
        corrupted: kinds of corrupted data that are measured on too, such as "fog 3", and how many images of each.
    """

    models: dict[str, dict[str, Any]]
    data: dict[str, Any]
    command: str = ""
    corrupted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The summary as plain data, and what it was made from.

    Attributes:
        arrays: of pictures and distributions, by name.
        records: of all attacks.
        distances: the smallest change of each checked sample.
        attacked: the tables of each model's attacks, by label.
    """

    summary: dict[str, Any]
    arrays: dict[str, Array]
    records: Table
    distances: Table
    attacked: dict[str, dict[str, Table]]


def summarize(
    tables: Tables,
    plan: AuditPlan,
    facts: Facts,
    config: Mapping[str, Any],
    shared: Mapping[str, Array] | None = None,
    corrupted: Callable[[str], Tables] | None = None,
) -> Found:
    """Ask for all tables of a plan, and say what they show.

    Args:
        tables: a runner, which measures what is missing, or the saved tables of a finished run.
        config: the resolved settings, which the summary repeats.
        shared: the mean training image as `center`, if there is one.
        corrupted: where the tables of a kind of corrupted data come from; None where there are none.
    """
    return _Summarizing(_Noting(tables), plan, facts, dict(config), dict(shared or {}), corrupted).found()


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


@dataclass
class _Summarizing:
    tables: _Noting
    plan: AuditPlan
    facts: Facts
    config: dict[str, Any]
    shared: dict[str, Array]
    corrupted: Callable[[str], Tables] | None
    arrays: dict[str, Array] = field(default_factory=dict)

    def found(self) -> Found:
        plan, names = self.plan, list(self.facts.models)
        labels = self.facts.data["labels"]
        keep = range(len(labels)) if plan.keep_inputs else candidates(labels, plan.gallery) if plan.gallery else ()
        entries, captions, counted, sizes = [], {}, [], []
        models = {
            name: ModelSummary(self.tables, plan, name, self.facts.models[name], self.facts.data, tuple(keep))
            for name in names
        }
        for index, (name, model) in enumerate(models.items()):
            entry, arrays = model.summary(self.shared)
            entry["corruptions"] = self._corruptions(name)
            entries.append(entry)
            counted.append(model.records)
            sizes.append(model.smallest())
            self.arrays |= {f"{kind}_{index}": values for kind, values in arrays.items()}
            if plan.gallery:
                shown = pictures(
                    self.tables, name, index, model.leading, model.lead, plan.attributions,
                    self.facts.data["classes"], plan.gallery,
                )  # fmt: skip
                self.arrays |= shown.arrays
                captions[name] = shown.captions
        attacked = {name: model.attacked for name, model in models.items()}
        parts = {
            "transfer": self._transfer(models),
            "explained": self._explained(),
            "neurons": self._neurons(),
            "gallery": self._gallery(entries, captions) if plan.gallery else None,
        }
        summary = {**self._head(), "models": entries, **parts}
        return Found(summary, self.arrays, Table.join(counted), Table.join(sizes), attacked)

    def _head(self) -> dict[str, Any]:
        about = sorted(self.tables.seen.values(), key=lambda a: str(a["created"]))
        data = {k: v for k, v in self.facts.data.items() if k != "labels"}
        threat = self.plan.threat
        return {
            "schema": SCHEMA,
            "version": about[-1]["version"] if about else __version__,
            "created": about[-1]["created"] if about else provenance.now(),
            "machine": about[-1]["machine"] if about else provenance.machine(),
            "seconds": round(sum(float(a["seconds"]) for a in about), 1),
            "command": self.facts.command,
            "config": self.config,
            "data": data,
            "threat": {"norm": threat.norm, "eps": float(self.plan.eps), "bounds": list(threat.bounds)},
        }

    def _corruptions(self, model: str) -> dict[str, Any] | None:
        source = self.corrupted
        if source is None:
            return None
        from steadygrad.audit.corruptions import corruptions

        return corruptions(lambda kind: _Noting(source(kind), self.tables.seen), self.facts.corrupted, model)

    def _transfer(self, models: Mapping[str, ModelSummary]) -> dict[str, Any] | None:
        plan, lead = self.plan, self.plan.suite_of_attacks()[0]
        if not plan.transfer or len(models) < 2:
            return None
        measure = Transferred(lead, plan.threat)
        rows = []
        for source, model in models.items():
            row = []
            for name in models:
                if name == source:
                    row.append(accuracy(model.leading))
                else:
                    title = f"{label_of(lead)} made on {source}"
                    row.append(accuracy(self.tables.run(measure, name, beside=(source,), title=title)))
            rows.append([estimate.plain() for estimate in row])
        return {"attack": label_of(lead), "eps": plan.eps, "names": list(models), "accuracy": rows, "note": NOTE}

    def _gallery(self, entries: Sequence[Mapping[str, Any]], captions: dict[str, Any]) -> dict[str, Any]:
        plan, best = self.plan, max(entries, key=lambda e: float(e["robust"]["value"]))["name"]
        labels = np.asarray(self.facts.data["labels"])
        found = grid(self.tables, best, labels, plan.suite_of_attacks()[0], plan.threat, self.facts.data["classes"])
        if found is not None:
            self.arrays["grid"] = found[0]
        attributions = [label_of(a) for a in plan.attributions]
        return {"models": captions, "attributions": attributions, "grid": None if found is None else found[1]}

    def _explained(self) -> dict[str, Any] | None:
        if not self.plan.explanations:
            return None
        from steadygrad.audit.explained import explained

        found = explained(self.tables, list(self.facts.models), self.plan, self.facts.data)
        self.arrays |= found.arrays
        return found.plain

    def _neurons(self) -> dict[str, Any] | None:
        if not self.plan.neurons:
            return None
        from steadygrad.audit.neurons import neurons

        return neurons(self.tables, list(self.facts.models), self.plan, self.facts.data)
