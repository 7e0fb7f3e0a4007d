"""A run with its models and data at hand again, which are compared with what was audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from steadygrad.attacks import Attack
from steadygrad.audit.audit import read as read_audit
from steadygrad.audit.audit import read_facts
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.audit.findings import Audit
from steadygrad.audit.prepared import prepared
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.registry import label_of
from steadygrad.report.png import Arrays
from steadygrad.run_folders import RECORD, read_record


@dataclass(frozen=True)
class Source:
    """What a run says of where its models and data came from.

    Attributes:
        files: of the models by name; None for a model that was given in Python.
        smoothed: settings of the noise under which a model was audited, by its name.
        data, split: names of the data.
    """

    files: Mapping[str, str | None]
    smoothed: Mapping[str, Mapping[str, Any] | None]
    data: str
    split: str

    @staticmethod
    def of(folder: Path) -> Source:
        """That of a run folder.

        Raises:
            UsageError: there is no run of an audit.
            Failure: it cannot be read.
        """
        record = read_record(folder) if (folder / RECORD).is_file() else {}
        if not {"models", "data", "attacks"} <= set(record):
            raise UsageError(
                f"there is no run of an audit at {folder}: give the --out folder of an audit, where it lies now"
            )
        models, data = read_facts(folder).models, record["data"]
        files = {name: models[name]["file"] for name in record["models"]}
        return Source(files, {name: models[name]["smoothed"] for name in files}, str(data["name"]), str(data["split"]))


@dataclass(frozen=True)
class Radii:
    """What an audit knows of a sample: within `certified` nothing changes its prediction, at `found` something does."""

    found: float | None = None
    certified: float | None = None


@dataclass(frozen=True)
class Opened:
    """A finished audit, with its models as it judged them and its samples in the order of its draw.

    Attributes:
        gradients: whether each model gives one, by name.
        radii: by model and id of the sample.
    """

    plan: AuditPlan
    found: Audit
    models: Mapping[str, nn.Module]
    gradients: Mapping[str, bool]
    data: Dataset
    radii: Mapping[str, Mapping[str, Radii]]

    @property
    def arrays(self) -> Arrays:
        """Those of the gallery."""
        return self.found.arrays

    def attacks(self) -> dict[str, Attack]:
        """The attacks of the run by label, the leading one first, that all models allow."""
        return {label_of(attack): attack for attack in self.plan.suite_of_attacks(all(self.gradients.values()))}

    def lead(self, model: str) -> str:
        """The label of the attack that leads those of a model, which the gallery shows."""
        return label_of(self.plan.suite_of_attacks(self.gradients[model])[0])

    def gallery(self) -> dict[str, dict[str, Any]]:
        """By model and sample, its place in the arrays and its entry in the summary."""
        models = (self.found.summary["gallery"] or {"models": {}})["models"]
        return {name: {row["id"]: (place, row) for place, row in enumerate(rows)} for name, rows in models.items()}


def open_run(folder: Path, models: Mapping[str, nn.Module], data: Dataset, device: str | None = None) -> Opened:
    """An audit with these models and data, which must be those that it was made of.

    Raises:
        UsageError: they are others; there is no run; or its samples are no images.
        Failure: the run is not complete, or damaged.
    """
    found, record = read_audit(folder), read_record(folder)
    plan = AuditPlan.read({name: value for name, value in record.items() if name in AuditPlan.model_fields})
    if len(data.shape) != 3:
        raise UsageError(f"explore shows images, and the samples of {folder} have the shape {data.shape}")
    settings = plan.given() | {"device": device}
    ready = prepared(models, data, plan.threat, None, {}, "", settings)
    now = ready.config
    for name, weights in record["models"].items():
        if now["models"].get(name) != weights:
            raise UsageError(
                f"the model {name!r} is not the one that was audited (its weights are others): give that one, as in "
                f"steadygrad explore {folder} {name}=MODEL, or audit this one"
            )
    if now["data"]["fingerprint"] != record["data"]["fingerprint"]:
        raise UsageError(
            f"the data are not those that were audited (fingerprint {now['data']['fingerprint']}, and then "
            f"{record['data']['fingerprint']}): give those, by --data and --split"
        )
    gradients = {name: bool(about["gradients"]) for name, about in ready.facts.models.items()}
    return Opened(plan, found, ready.models, gradients, ready.data, _radii(found))


def _radii(found: Audit) -> dict[str, dict[str, Radii]]:
    table = found.distances
    certified = table["certified"] if "certified" in table else np.full(len(table), np.nan)
    radii: dict[str, dict[str, Radii]] = {}
    for model, sample, near, sure in zip(
        table["model"].tolist(), table["sample"].tolist(), table["distance"].tolist(), certified.tolist(), strict=True
    ):
        radii.setdefault(model, {})[sample] = Radii(
            near if np.isfinite(near) else None, sure if np.isfinite(sure) else None
        )
    return radii
