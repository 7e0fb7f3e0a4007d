"""What an audit starts from: all that can be refused is refused here, before there is a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steadygrad.audit.audited_models import about_model, fitting_all, named_models
from steadygrad.audit.corruptions import kinds
from steadygrad.audit.findings import Facts
from steadygrad.audit.quick_ways import way_for
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.files import key
from steadygrad.measuring.code_keys import weights_key
from steadygrad.measuring.jobs import Work
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.store import Store
from steadygrad.measuring.table import Array
from steadygrad.quick import Way
from steadygrad.threat import Threat

if TYPE_CHECKING:
    from steadygrad.audit.audit_plan import AuditPlan


@dataclass(frozen=True)
class Prepared:
    """An audit that has been checked and not begun.

    Attributes:
        models: as they are judged, by name.
        data: the samples of the draw.
        facts: what the summary says besides numbers.
        config: all that the numbers depend on, as plain data.
        shared: the center as the measures get it.
        ways: how searches run the models, by name.
    """

    plan: AuditPlan
    models: Mapping[str, nn.Module]
    data: Dataset
    facts: Facts
    config: Mapping[str, Any]
    shared: Mapping[str, Array]
    ways: Mapping[str, Way] = field(default_factory=dict)

    def quickened(self) -> Prepared:
        """The same with the ways in which searches run the models, as the plan wants them and as trials allow."""
        plan, found, about = self.plan, {}, dict(self.facts.models)
        if plan.precision == "float32" and not plan.compile:
            return self
        for name, model in self.models.items():
            found[name], notes = way_for(model, self.data, plan, gradients=about[name]["gradients"])
            about[name] = {**about[name], "notes": [*about[name]["notes"], *map(dataclasses.asdict, notes)]}
        config = {**self.config, "searched_in": {name: way.precision for name, way in found.items()}}
        facts = dataclasses.replace(self.facts, models=about)
        return dataclasses.replace(self, facts=facts, config=config, ways=found)

    @property
    def kind_of_device(self) -> str:
        """That on which the models are measured, on which records depend."""
        if self.plan.device is not None:
            return torch.device(self.plan.device).type
        return next((t.device.type for model in self.models.values() for t in model.parameters()), "cpu")

    def runner(self, store: Store, work: Work) -> Runner:
        """What measures the models by this work, and keeps what it finds in a store."""
        plan = self.plan
        return Runner(
            self.models, self.data, store, plan.seed, plan.device, plan.batch_size, plan.version, may_fail=True,
            shard=plan.shard, memory=plan.memory, most=plan.engine.piece, work=work, ways=self.ways,
        )  # fmt: skip


def prepared(
    models: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module],
    data: Dataset,
    threat: Threat,
    center: Tensor | None,
    files: Mapping[str, str],
    command: str,
    settings: Mapping[str, Any],
) -> Prepared:
    """The audit of these arguments, see `audit`.

    Raises:
        UsageError: no radius, unknown settings, data that do not fit a model.
    """
    from steadygrad.audit.audit_plan import AuditPlan

    plan, named = AuditPlan.of(threat, settings), named_models(models)
    whole, data = data, data.draw(plan.samples, plan.seed)
    if center is not None and center.shape != data.shape:
        raise UsageError(f"center must be one input of shape {data.shape}, got {tuple(center.shape)}")
    how = {"draws": plan.draws, "device": plan.device, "of_data_only": plan.classes_of_data_only}
    fitted = fitting_all(named, data, threat=threat, **how)
    for name, found in fitted.items():
        if not found.gradients:
            plan.check_blind(name)
    judged = {name: found.model for name, found in fitted.items()}
    data = dataclasses.replace(data, classes=next(iter(fitted.values())).classes)
    weights = {name: weights_key(model) for name, model in judged.items()}
    about = {"name": data.name, "split": data.split, "samples": len(data), "fingerprint": data.fingerprint}
    counts = [part.labels.bincount(minlength=len(data.classes)).tolist() for part in (data, whole)]
    middle = None if center is None else key(center.double().flatten().tolist())
    models_about = {name: about_model(found, weights[name], files.get(name)) for name, found in fitted.items()}
    told = {
        name: f"{weights[name]}{f', smoothed: {s}' if (s := models_about[name]['smoothed']) else ''}" for name in fitted
    }
    config = {**plan.plain(), "models": told, "data": about, "center": middle}
    facts = Facts(
        models_about,
        {
            **about,
            "available": len(whole),
            "seed": plan.seed,
            "classes": list(data.classes),
            "samples_of_classes": counts[0],
            "available_of_classes": counts[1],
            "shape": list(data.shape),
            "notes": list(data.notes),
            "labels": data.labels.tolist(),
        },
        command,
        {} if plan.corruptions is None else kinds(plan.corruptions, plan.samples),
    )
    shared = {} if center is None else {"center": center.numpy()}
    return Prepared(plan, judged, data, facts, config, shared)
