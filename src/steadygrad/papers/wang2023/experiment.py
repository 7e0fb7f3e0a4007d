"""The experiment: networks trained in several ways, bounds on their maps, and attacks held against the bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad.data import Dataset
from steadygrad.measuring.paired import rank_correlation
from steadygrad.measuring.statistics import Estimate, quantiles, share_of
from steadygrad.papers.base import Findings, Paper, Request
from steadygrad.papers.lessons import Lesson, Trained, learn
from steadygrad.papers.store import Array, Arrays, Store
from steadygrad.papers.wang2023 import claims, pages
from steadygrad.papers.wang2023.claims import median_ratio
from steadygrad.papers.wang2023.measures import KINDS, Bench, Cell
from steadygrad.papers.wang2023.settings import (
    ATTACKS,
    BETA,
    MAPS,
    SCALES,
    Scale,
    attacks,
    defenses,
    network,
    radius,
    threats,
)
from steadygrad.papers.wang2023.witness import DISTANCES
from steadygrad.registry import describe

__all__ = ["WANG2023"]


def plan(request: Request, train: Dataset, test: Dataset) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    scale = SCALES[request.scale]
    return {
        "softplus": BETA,
        "training": scale.fit.outcome,
        "training samples": scale.training,
        "defenses": {name: [describe(part) for part in d.members] for name, d in defenses(train.name, scale).items()},
        "images": scale.images,
        "threats": [str(t) for t in threats(train.name, scale)],
        "attacks": {
            name: {label: describe(a) for label, a in attacks(method, scale).items()} for name, method in MAPS.items()
        },
    }


def run(request: Request, train: Dataset, test: Dataset, folder: Path, store: Store) -> Findings:
    """Train the networks, bound and attack their maps, and count."""
    scale = SCALES[request.scale]
    train = train if scale.training is None else train.take(scale.training, seed=request.seed)
    trained: dict[str, Trained] = {}
    for name, defense in defenses(train.name, scale).items():
        lesson = Lesson(name, network(train.shape, train.classes, request.seed), defense, scale.fit)
        where = folder / "models" / name
        trained[name] = learn(lesson, train, None, where, seed=request.seed, device=request.device)
    models = {name: t.classifier.eval() for name, t in trained.items()}
    bench = Bench(models, test, store, scale, request.seed, request.device)
    cells = [
        bench.cell(name, attribution, threat)
        for attribution in MAPS
        for threat in threats(train.name, scale)
        for name in models
    ]
    results: dict[str, Any] = {
        "models": list(models),
        "maps": list(MAPS),
        "attacks": list(ATTACKS),
        "clean": {name: share_of(bench.right(name)).plain() for name in models},
        "training_radius": radius(train.name),
        "counts": _counts(cells),
        "cells": [_cell(cell) for cell in cells],
        "across_models": _across(cells),
    }
    return Findings(
        test,
        results,
        claims.judge(results, cells, request.scale),
        _arrays(cells, bench),
        _left_out(scale, train),
        {f"train {name}": t.seconds for name, t in trained.items()},
    )


def _counts(cells: Sequence[Cell]) -> dict[str, Any]:
    """Points and violations of all cells together."""

    def total(name: str) -> int:
        return int(sum(cell.found[name].sum() for cell in cells))

    shares = np.sum([cell.found["shares"].sum(0) for cell in cells], axis=0)
    return {
        "tried": total("tried"),
        "kept": total("kept"),
        "comparisons": total("kept") * len(KINDS) * len(DISTANCES),
        "beyond": {kind: {d: total(f"beyond/{kind}/{d}") for d in DISTANCES} for kind in KINDS},
        "unexplained": total("unexplained"),
        "excess_over_remainder": [int(v) for v in shares],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    best, noise = cell.strongest, cell.found["far/euclidean"][0]
    tangent = cell.bound("linearized")
    return {
        "model": cell.model,
        "map": cell.attribution,
        "norm": cell.threat.norm,
        "eps": float(cell.threat.eps),  # type: ignore[arg-type]
        "images": len(best),
        "points": int(cell.found["kept"].sum()),
        "length": _middle(cell.bounds["size"]),
        "attack": _middle(best),
        "noise": _middle(noise),
        "tangent": _middle(cell.bounds["tangent"]),
        **{kind: _middle(cell.bound(kind)) for kind in KINDS},
        "ratio": {kind: _plain(median_ratio(cell.bound(kind), best)) for kind in KINDS},
        "agreement": {kind: _plain(rank_correlation(cell.bound(kind), best)) for kind in KINDS},
        "by_attack": {
            name: _middle(cell.found["far/euclidean"][i] / np.maximum(tangent, 1e-30)) for i, name in enumerate(ATTACKS)
        },
        "beyond": {kind: {d: int(cell.found[f"beyond/{kind}/{d}"].sum()) for d in DISTANCES} for kind in KINDS},
        "images_beyond": int((cell.found["beyond/linearized/euclidean"].sum(0) > 0).sum()),
        "cosine": {
            "attack": _middle(cell.found["far/cosine"].max(0)),
            **{kind: _middle(cell.bound(kind, "cosine")) for kind in KINDS},
        },
    }


def _middle(values: Array) -> float | None:
    return quantiles(values, (0.5,))["0.5"]


def _plain(found: Estimate | None) -> dict[str, float] | None:
    return None if found is None else found.plain()


def _across(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Whether the models come in the same order by bound and by attack: one rank correlation of their medians."""
    out = []
    for attribution, threat in dict.fromkeys((c.attribution, c.threat) for c in cells):
        group = [c for c in cells if (c.attribution, c.threat) == (attribution, threat)]
        best = np.array([np.median(c.strongest) for c in group])
        row: dict[str, Any] = {"map": attribution, "norm": threat.norm, "eps": float(threat.eps), "models": len(group)}  # type: ignore[arg-type]
        for kind in KINDS:
            found = rank_correlation(np.array([np.median(c.bound(kind)) for c in group]), best)
            row[kind] = found.value if found is not None else None
        out.append(row)
    return out


def _arrays(cells: Sequence[Cell], bench: Bench) -> Arrays:
    out: Arrays = {}
    for index, cell in enumerate(cells):
        out[f"{index}/strongest"] = cell.strongest
        out |= {f"{index}/{kind}": cell.bound(kind) for kind in KINDS}
        out |= {f"{index}/{k}": cell.found[f"shown/{k}"] for k in ("clean", "moved")}
    count = len(cells[0].found["shown/clean"])
    out["shown"] = bench.data.batch(slice(0, count))[0].numpy()
    return out


def _left_out(scale: Scale, train: Dataset) -> list[str]:
    lines = [
        "One seed: the intervals are over images and say nothing about another training.",
        "The paper's networks, radii and tables were not available: only its count of attacks is compared.",
        f"A point is an iterate of a restart of an attack, so that points of one restart are alike: "
        f"{scale.points} of each image, model, map and threat.",
        "Integrated gradients are attacked on fewer images, with 4 points on the path.",
    ]
    if math.prod(train.shape) > 1024:
        lines.append("Certified bounds are those of interval arithmetic: the images have more than 1,024 entries.")
    if not scale.more:
        lines.append("TRADES, IG-NORM and IG-SUM-NORM are trained at the scale of the paper only.")
    if scale.training is not None:
        lines.append(f"{len(train):,} training samples, {scale.fit.epochs} epochs.")
    return lines


WANG2023 = Paper(
    name="wang2023",
    title="Bounds on attribution deviations",
    reference="Wang and Kong, CVPR 2023, arXiv 2303.00340",
    says=(
        "How far an attribution can be moved within a threat has a practical upper bound, computed from its Jacobian, "
        "which over 10 million attacks on attributions did not exceed."
    ),
    data=("mnist", "cifar10"),
    models=("strided_cnn",),
    plan=plan,
    run=run,
    sections=pages.sections,
)
