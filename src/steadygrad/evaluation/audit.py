"""The audit: from models and data to a folder of records, a summary and pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from steadygrad import __version__, provenance
from steadygrad.attacks import Attack
from steadygrad.attacks.expectation import DRAWS, expected
from steadygrad.attacks.suites import suite_of
from steadygrad.attributions import Attribution, IntegratedGradients, Saliency
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.evaluation.accepted import check_fits, named_models
from steadygrad.evaluation.curves import GRID, check_grid
from steadygrad.evaluation.entry import Entry
from steadygrad.evaluation.gallery import Gallery, spread
from steadygrad.evaluation.records import Cells, Records
from steadygrad.evaluation.robustness import Bench, code_key, weights_key
from steadygrad.evaluation.transfer import transfer_matrix
from steadygrad.files import atomic, key, output_folder, write_json
from steadygrad.registry import describe, label_of
from steadygrad.threat import Threat

__all__ = ["Audit", "audit"]

SCHEMA = 1


@dataclass(frozen=True)
class Audit:
    """What an audit found: the summary (see docs/summary.md), all records, and where they lie."""

    summary: dict[str, Any]
    records: Records
    folder: Path | None


def audit(
    models: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module],
    data: Dataset,
    threat: Threat,
    *,
    attacks: Attack | Sequence[Attack] | str = "fast",
    attributions: Sequence[Attribution] = (Saliency(), IntegratedGradients()),
    samples: int | None = None,
    checked: int = 300,
    gallery: int = 6,
    transfer: bool = True,
    grid: Sequence[float] = GRID,
    center: Tensor | None = None,
    draws: int = DRAWS,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 200,
    files: Mapping[str, str] | None = None,
    command: str = "",
) -> Audit:
    """Attack, check, explain and write everything down.

    Args:
        models: one classifier or several (by name).
        threat: with one finite radius, in units of the data.
        attacks: a suite's name, or the attacks themselves, the leading one first.
        samples: the first so many samples of the data; all by default.
        checked: samples on which the validity checks and the search for the smallest change run.
        gallery: pictures per model; 0 for none.
        transfer: also the transfer matrix, if there are several models.
        grid: radii of the curve as multiples of the threat's.
        center: an input (*), such as the mean training image, for the centered rho2.
        draws: over which the predictions of a model that draws random numbers are averaged.
        out: run folder; a killed run continues there. None keeps everything in memory.
        files: where the models came from, by name, written down; `command` likewise.

    Raises:
        UsageError: no radius, unknown suite, data that do not fit a model, a folder of another run.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> sg.audit(model, data, sg.linf(0.1), attacks=[sg.attacks.FGSM()], gallery=0).summary["schema"]
    1
    """
    if not isinstance(threat.eps, float | int) or threat.eps <= 0:
        raise UsageError("an audit needs a threat with one positive radius, e.g. sg.linf(8 / 255)")
    # All that can be refused is refused here, before there is a folder.
    named = named_models(models)
    data = data if samples is None else data.take(samples)
    suite = suite_of(attacks, threat)
    check_grid(grid)
    if center is not None and center.shape != data.shape:
        raise UsageError(f"center must be one input of shape {data.shape}, got {tuple(center.shape)}")
    bench = Bench(data, Cells(), seed, device, batch_size)
    for name, model in named.items():
        model.to(device)
        check_fits(model, bench, threat)
        named[name] = expected(model, next(bench.batches(0, 2))[0], draws)
    shown = tuple(attributions)
    plan = _Plan(named, data, threat, suite, shown, checked, gallery, transfer, tuple(grid), seed, center)
    folder = output_folder(out, plan.plain()) if out is not None else None
    if folder is not None:
        if (done := _finished(folder)) is not None:
            return done
        bench.cells = Cells(folder / "records")
    return _Auditing(plan, bench, folder, dict(files or {}), command).finish()


@dataclass(frozen=True)
class _Plan:
    """Everything an audit's numbers depend on."""

    models: Mapping[str, nn.Module]
    data: Dataset
    threat: Threat
    suite: tuple[Attack, ...]
    attributions: tuple[Attribution, ...]
    checked: int
    gallery: int
    transfer: bool
    grid: tuple[float, ...]
    seed: int
    center: Tensor | None

    def plain(self) -> dict[str, Any]:
        data = self.data
        return {
            "models": {name: weights_key(model) for name, model in self.models.items()},
            "data": {"name": data.name, "split": data.split, "samples": len(data), "fingerprint": data.fingerprint},
            "threat": self.threat_plain(),
            "attacks": [describe(a) for a in self.suite],
            "attributions": [describe(a) for a in self.attributions],
            "checked": self.checked,
            "gallery": self.gallery,
            "transfer": self.transfer,
            "grid": list(self.grid),
            "seed": self.seed,
            "center": None if self.center is None else key(self.center.double().flatten().tolist()),
        }

    def threat_plain(self) -> dict[str, Any]:
        assert isinstance(self.threat.eps, float | int)
        return {"norm": self.threat.norm, "eps": float(self.threat.eps), "bounds": list(self.threat.bounds)}


def _finished(folder: Path) -> Audit | None:
    """The audit that an earlier run left in the folder, if it ended and the code is the same."""
    names = ("summary.json", "gallery.npz", "records.parquet")
    if not all((folder / name).exists() for name in names):
        return None
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        records = Records.read(folder / "records.parquet")
    except (Failure, json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA or summary.get("code") != code_key():
        return None
    return Audit(summary, records, folder)


@dataclass
class _Auditing:
    """An audit under way."""

    plan: _Plan
    bench: Bench
    folder: Path | None
    files: dict[str, str]
    command: str
    entries: list[dict[str, Any]] = field(default_factory=list)
    tables: list[Records] = field(default_factory=list)

    def finish(self) -> Audit:
        start, plan = time.monotonic(), self.plan
        self.gallery = Gallery(self.bench, plan.suite[0], plan.threat, plan.attributions)
        for index, (name, model) in enumerate(plan.models.items()):
            self._model(index, name, model)
        if plan.gallery:
            best = max(self.entries, key=lambda e: float(e["robust"]["value"]))["name"]
            self.gallery.add_grid(best, plan.models[best])
        parts = {
            "transfer": self._transfer(),
            "explained": None,
            "neurons": None,
            "gallery": self.gallery.plain() if plan.gallery else None,
        }
        summary = {**self._summary(time.monotonic() - start), **parts}
        records = Records.join(self.tables)
        if self.folder is not None:
            with atomic(self.folder / "gallery.npz") as temporary:
                np.savez_compressed(temporary, **self.gallery.arrays)  # type: ignore[arg-type]
            records.write(self.folder / "records.parquet")
            write_json(self.folder / "summary.json", summary)
        return Audit(summary, records, self.folder)

    def _model(self, index: int, name: str, model: nn.Module) -> None:
        plan, lead = self.plan, self.plan.suite[0]
        entry = Entry(
            self.bench, name, model, plan.suite, plan.threat, plan.checked, plan.grid, plan.attributions, plan.center
        )
        self.entries.append({**entry.summary(self.gallery.arrays, index), "file": self.files.get(name)})
        self.tables.append(entry.records)
        if plan.gallery:
            frame = entry.records.where(attack=label_of(lead)).frame
            fooled = frame["success"] & (frame["clean_prediction"] == frame["label"])
            rows = spread(plan.data, plan.gallery, dict(enumerate(fooled.tolist())))
            self.gallery.add(index, name, model, rows)

    def _transfer(self) -> dict[str, Any] | None:
        plan, bench = self.plan, self.bench
        if not plan.transfer or len(plan.models) < 2:
            return None
        return transfer_matrix(
            plan.models, plan.data, plan.suite[0], plan.threat,
            seed=plan.seed, device=bench.device, cells=bench.cells,
        ).plain()  # fmt: skip

    def _summary(self, seconds: float) -> dict[str, Any]:
        data = self.plan.data
        return {
            "schema": SCHEMA,
            "version": __version__,
            "created": provenance.now(),
            "machine": provenance.machine(self.bench.device),
            "seconds": round(seconds, 1),
            "command": self.command,
            "code": code_key(),
            "config": self.plan.plain(),
            "data": {
                "name": data.name,
                "split": data.split,
                "samples": len(data),
                "classes": list(data.classes),
                "shape": list(data.shape),
                "fingerprint": data.fingerprint,
            },
            "threat": self.plan.threat_plain(),
            "models": self.entries,
        }
