"""The whole benchmark of attacks: model, race, claims and files."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.attacks import libraries, picture, table
from benchmarks.attacks.claims import claims
from benchmarks.attacks.deadline import limited
from benchmarks.attacks.race import Pace, race
from benchmarks.attacks.subject import Subject, subject
from benchmarks.attacks.tasks import OURS, Contender, ours, tasks
from steadygrad import __version__, files
from steadygrad.errors import UsageError, unknown_name
from steadygrad.measuring.code_keys import weights_key
from steadygrad.provenance import machine, now
from steadygrad.run_folders import run_folder

__all__ = ["bench_attacks"]

_DEFAULT_PACE = Pace()


def bench_attacks(
    data: str = "digits",
    *,
    out: str | Path,
    model: str | None = None,
    samples: int = 128,
    eps: float = 0.1,
    against: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    pace: Pace = _DEFAULT_PACE,
    limit: float = 300.0,
    seed: int = 0,
    device: str = "cpu",
    note: str = "",
) -> dict[str, Any]:
    """Run the attacks of all libraries on the same images; what was found, as plain data.

    Args:
        data: a name, or anything that `data.load` takes if a model is given.
        out: run folder: the model, a cell per attack, `attacks.json`, `.md`, `.csv` and `.png`, and
            `distances.csv`. A run that was stopped goes on there.
        model: anything that `models.load` takes; None trains one.
        samples: the first test images that the model classifies correctly.
        eps: the radius (linf) of the attacks that take one.
        against: the other libraries to run; None for all of `libraries.LIBRARIES`.
        only: tasks by name; None for all.
        pace: how often each attack is timed.
        limit: seconds after which a run of an attack is given up, which is a failure like any other. Failures
            are tried again when the benchmark goes on.
        note: kept in the results, such as who else used the machine.

    Raises:
        UsageError: an unknown library or task, a folder of another benchmark, or data without a model.
        Failure: the model is not accurate enough.
    """
    chosen = list(libraries.LIBRARIES) if against is None else list(against)
    for name in chosen:
        if name not in libraries.LIBRARIES:
            raise unknown_name("library", name, libraries.LIBRARIES)
    if samples < 2 or not 0 < eps < 1 or not limit > 0:
        given = f"{samples}, {eps} and {limit}"
        raise UsageError(f"samples must be at least 2, eps within (0, 1) and limit positive, got {given}")
    config = {"data": data, "model": model, "samples": samples, "eps": eps, "seed": seed}
    with run_folder(out, {"benchmark": "attacks", **config}) as folder:
        load = os.getloadavg() if hasattr(os, "getloadavg") else None
        on = subject(data, model, samples, out=folder / "model", seed=seed, device=device)
        absent = {name: reason for name in chosen if (reason := libraries.missing(name)) is not None}
        entered = _contenders(on, eps, [name for name in chosen if name not in absent], only)
        versions = _versions(chosen)
        entered = [limited(contender, limit) for contender in entered]
        rows = race(on, entered, versions, out=folder / "cells", seed=seed, pace=pace)
        found = {
            "benchmark": "attacks",
            "created": now(),
            **config,
            "accuracy": on.accuracy.plain(),
            "weights": weights_key(on.model),
            "machine": {**machine(device), "cores": os.cpu_count(), "load_before": load[0] if load else None},
            "note": note,
            "versions": versions,
            "absent": absent,
            "pace": {**asdict(pace), "limit": limit},
            "claims": [asdict(claim) for claim in claims(rows)],
            "rows": [{k: v for k, v in row.items() if k != "distances"} for row in rows],
        }
        _write(folder, found, rows, on)
        return found


def _contenders(on: Subject, eps: float, present: Sequence[str], only: Sequence[str] | None) -> list[Contender]:
    shape, classes = tuple(on.x.shape[1:]), len(on.data.classes)
    known = tasks(eps, shape)
    for name in only or ():
        if name not in known:
            raise unknown_name("task", name, known)
    entered = ours(known, on.x[0].numel(), classes)
    for name in present:
        entered += libraries.LIBRARIES[name].enter(known, shape, classes)
    order = list(known)
    entered.sort(key=lambda contender: order.index(contender.task.name))
    return [contender for contender in entered if only is None or contender.task.name in only]


def _versions(against: Sequence[str]) -> dict[str, str]:
    versions = {OURS: __version__}
    for name in against:
        try:
            versions[name] = importlib.metadata.version(libraries.LIBRARIES[name].distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _write(folder: Path, found: dict[str, Any], rows: list[dict[str, Any]], on: Subject) -> None:
    files.write_json(folder / "attacks.json", found)
    files.write_text(folder / "attacks.md", table.markdown(found))
    files.write_text(folder / "attacks.csv", table.rows_csv(rows))
    files.write_text(folder / "distances.csv", table.distances_csv(rows, on.ids))
    if any(not row["error"] for row in rows):
        machine = found["machine"]
        title = (
            f"{on.model.name} on {on.data.name} ({100 * on.accuracy.value:.1f} %), {len(on.x)} images, "
            f"{machine['device']}, threads: {machine['threads']}"
        )
        picture.draw(rows, folder / "attacks.png", title)
