"""What an attack does to the neurons of models, layer by layer, and what holding a few of them brings back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.neuron_changes import NeuronChanges, by_layer
from steadygrad.measuring.measures.neurons_held import CHOICES, NeuronsHeld
from steadygrad.measuring.paired import mean_difference, ratio_values
from steadygrad.measuring.runner import Tables
from steadygrad.measuring.statistics import mean, wilson
from steadygrad.measuring.table import Array, Table
from steadygrad.neurons import select
from steadygrad.registry import label_of

_NAMED = 5


def neurons(
    tables: Tables,
    models: Sequence[str],
    plan: AuditPlan,
    data: Mapping[str, Any],
    rows: Sequence[int] | None = None,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The section `neurons` of `summary.json`: the sensitivity of every layer, and what holding its neurons restores.

    The arrays beside it hold for each model the relative change of each sample, a mean over layers (N,).

    Sensitivity is the mean change of a neuron's output between a sample and its adversarial partner, as in
    `neurons.sensitivity`. What a model does not let us look at is written down in its place.

    Args:
        models: their names.
        data: number of `samples`.
        rows: places of the samples of which the first ones are looked at, such as those that all models answer; or all.

    Source: Zhang et al. 2021, arXiv 1909.06978, sections III and IV.
    """
    places = tuple(range(data["samples"]) if rows is None else rows)[: plan.neuron_samples]
    found = {name: _model(tables, name, plan, places) for name in models}
    arrays = {
        f"neuron_change_{index}": np.mean(moved, axis=0) for index, (_, moved) in enumerate(found.values()) if moved
    }
    plain = {
        "attack": label_of(plan.neuron_attack),
        "threat": plan.described(plan.eps),
        "samples": len(places),
        "share": plan.neuron_share,
        "draws": plan.neuron_draws,
        "models": {name: row for name, (row, _) in found.items()},
    }
    return plain, arrays


def _model(tables: Tables, name: str, plan: AuditPlan, rows: Sequence[int]) -> tuple[dict[str, Any], list[Array]]:
    """What is said of one model, and the relative changes (N,) of each layer that is not silent."""
    measure = NeuronChanges(plan.neuron_attack, plan.threat, plan.neuron_layers)
    try:
        changes = tables.run(measure, name, rows=rows, keep=rows[1::2])
    except UsageError as error:  # as where the layers of one part of the samples are not those of another
        return _refused(str(error))
    if changes.refused is not None:
        return _refused(changes.refused)
    fooled = changes["fooled"]
    judged = np.flatnonzero(fooled[1::2])  # among every other sample
    layers = []
    for layer, half in by_layer(changes.select(slice(None, None, 2))).items():
        sigma, held = half["sigma"], None
        if len(judged):
            held = tables.run(
                NeuronsHeld(layer, plan.neuron_share, plan.neuron_draws), name,
                rows=np.asarray(rows)[2 * judged + 1].tolist(),
                given={"input": changes.kept("input").values[judged]},
                shared={"sigma": sigma},
            )  # fmt: skip
            if held.refused is not None:  # as where the calls of a layer depend on the batch
                return _refused(held.refused)
        layers.append(_layer(layer, sigma, changes, held, plan.neuron_share))
    sizes = {layer: changes[f"size: {layer}"] for layer in by_layer(changes)}
    moved = [
        ratio_values(changes[f"change: {layer}"].mean(1, dtype=np.float64), size)
        for layer, size in sizes.items()
        if size.mean() > 0
    ]
    return {"refused": None, "fooled": int(fooled.sum()), "judged": len(judged), "layers": layers}, moved


def _refused(why: str) -> tuple[dict[str, Any], list[Array]]:
    return {"refused": why, "fooled": None, "judged": None, "layers": []}, []


def _layer(name: str, sigma: Array, changes: Table, held: Table | None, share: float) -> dict[str, Any]:
    """What the tables say of one layer, with intervals."""
    change, size = changes[f"change: {name}"].mean(1, dtype=np.float64), changes[f"size: {name}"]
    order = np.argsort(-sigma, kind="stable")[:_NAMED].tolist()
    restored, gain = None, None
    if held is not None:
        restored = {choice: _share(held[choice]) for choice in CHOICES}
        gain = mean_difference(held["most"], held["random"]).within(-1.0, 1.0).plain() | {"count": len(held)}
    silent = not size.mean() > 0
    return {
        "name": name,
        "neurons": len(sigma),
        "held": len(select({name: torch.from_numpy(sigma)}, share)[name]),
        "change": mean(change).plain(),
        "relative": None if silent else mean(ratio_values(change, size)).within(0.0, math.inf).plain(),
        "most": [{"neuron": i, "sensitivity": float(sigma[i])} for i in order],
        "restored": restored,
        "gain": gain,
    }


def _share(values: Array) -> dict[str, Any]:
    """The mean of shares (n,) with Wilson's interval, as wide as if each were one yes or no."""
    share = wilson(round(float(values.sum())), len(values))
    value = float(values.mean())
    return {**share.plain(), "value": value, "low": min(value, share.low), "high": max(value, share.high)}
