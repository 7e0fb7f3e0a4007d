"""The audit: from models and data to tables, a summary and pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from steadygrad.arguments import public
from steadygrad.audit.corruptions import corrupted
from steadygrad.audit.findings import Audit, Facts
from steadygrad.audit.prepared import prepared
from steadygrad.data.python_data import Samples
from steadygrad.engines import Shared
from steadygrad.errors import Failure, UsageError, reading
from steadygrad.files import atomic, read_json, write_json, written_again
from steadygrad.measuring.runner import Runner, SavedTables, Tables
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import Array, Table
from steadygrad.run_folders import RECORD, read_record, run_folder
from steadygrad.threat import Threat

if TYPE_CHECKING:
    from steadygrad.audit.audit_plan import AuditPlan

TABLES, FACTS = "tables", "facts.json"


@public
def audit(
    models: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module],
    data: Samples,
    threat: Threat,
    *,
    center: Tensor | None = None,
    out: str | Path | None = None,
    files: Mapping[str, str] | None = None,
    command: str = "",
    **settings: Any,
) -> Audit:
    """Attack, check, explain and write everything down. Threads that do so take turns, table by table.

    Args:
        models: one classifier or several (by name). They are left as and where they were.
        threat: with one finite radius, in units of the data.
        center: an input (*), such as the mean training image, for the centered rho2.
        out: run folder; a killed run continues there, and what is measured already is not measured again.
            None keeps everything in memory.
        files: where the models came from, by name, written down; `command` likewise.
        data: of which `samples` are drawn, balanced over the classes, by the seed; checks, maps and neurons look at
            the first ones of the draw.
        settings: the fields of `AuditPlan`, such as `attacks`, `samples`, `checked`, `gallery`, `explanations`.

    Raises:
        UsageError: no radius, unknown settings, data that do not fit a model, a folder of another run.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> sg.audit(model, data, sg.linf(0.1), attacks=[sg.attacks.FGSM()], gallery=0).summary["schema"]
    1
    """
    from steadygrad.audit.audit_plan import OF_ENGINES

    ready = prepared(models, data, threat, center, files or {}, command, settings)
    plan, facts = ready.plan, ready.facts
    plan.engine.check()
    if plan.engine.together and out is None:
        raise UsageError("several processes share their work in a folder: give out=")
    ready = ready.quickened()
    facts = ready.facts
    again: dict[str, Any] = {"models": models, "data": data, "threat": threat, "center": center, "out": out}
    again |= {name: value for name, value in settings.items() if name not in OF_ENGINES}
    again |= {"files": files, "command": command, "engine": Shared()}
    how: dict[str, Any] = {"together": (together := plan.engine.together), "by": ready.kind_of_device}
    with contextlib.nullcontext() if out is None else run_folder(out, ready.config, **how) as folder:
        if folder is not None:
            write_json(folder / TABLES / FACTS, dataclasses.asdict(facts))
        store = Store(folder / TABLES if folder is not None else None, together=together)
        with plan.engine.working(functools.partial(audit, **again)) as work:
            return _audited(ready.runner(store, work), plan, facts, ready.config, ready.shared, folder)


def read(folder: str | Path) -> Audit:
    """An audit from its folder: everything but `config.toml` and the tables is made anew.

    Raises:
        UsageError: there is no run folder.
        Failure: a table is missing or damaged.
    """
    from steadygrad.audit.audit_plan import AuditPlan

    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise UsageError(f"there is no run of an audit at {folder}: give the --out folder of an audit")
    config, facts = read_record(folder), read_facts(folder)
    plan = AuditPlan.read({name: value for name, value in config.items() if name in AuditPlan.model_fields})
    # All that follows comes from these files, which may say anything under a checksum that somebody has made right.
    with reading(f"the run at {folder} cannot be read", "; run the same command again"):
        return _audited(SavedTables(folder / TABLES, int(facts.data["samples"])), plan, facts, config, {}, folder)


def read_facts(folder: Path) -> Facts:
    """What the run folder of an audit says besides its tables.

    Raises:
        Failure: the file is missing, or damaged.
    """
    path = folder / TABLES / FACTS
    try:
        found, sound = read_json(path)
        facts = Facts(**found)
    except (OSError, ValueError, TypeError) as error:
        raise Failure(f"cannot read {path}: {error}; run the same command again") from error
    if not sound:
        raise Failure(f"{path} is damaged or was edited: run the same command again")
    return facts


def _audited(
    tables: Runner | SavedTables,
    plan: AuditPlan,
    facts: Facts,
    config: Mapping[str, Any],
    shared: Mapping[str, Array],
    folder: Path | None,
) -> Audit:
    from steadygrad.audit.schema import Summary
    from steadygrad.audit.summary import summarize

    def on_corrupted(kind: str) -> Tables:
        if isinstance(tables, Runner):
            return corrupted(tables, str(plan.corruptions), kind, plan.samples)
        return SavedTables(tables.folder, facts.corrupted[kind])

    found, attacked = summarize(tables, plan, facts, _as_read(config), shared, on_corrupted)
    summary = Summary.model_validate(found.summary)
    if folder is not None:
        summary.write(folder / Summary.FILE)
        if plan.keep_inputs:
            for name, tables_of in attacked.items():
                _write_inputs(folder / "inputs", name, tables_of, facts.data["classes"], plan.bounds)
    return dataclasses.replace(found, summary=summary.plain(), folder=folder)


def _as_read(value: Any) -> Any:
    """Settings as a file gives them back, by name: TOML knows no None, and has its own order."""
    if isinstance(value, Mapping):
        return {name: _as_read(inner) for name, inner in sorted(value.items()) if inner is not None}
    return [_as_read(inner) for inner in value] if isinstance(value, list | tuple) else value


def _write_inputs(
    folder: Path, model: str, attacked: Mapping[str, Table], classes: Sequence[str], bounds: tuple[float, float]
) -> None:
    """Write for each sample the nearest input that an attack found, or the clean one where none did.

    They are `.npz` files that `steadygrad.data.load(path, "test")` reads.
    """
    tables = list(attacked.values())
    distance = np.stack([np.where(table["success"], table["distance"], np.inf) for table in tables])  # (A, N)
    inputs = np.stack([table.kept("input").values for table in tables])
    # A sample that nothing changed has its clean input in every table.
    nearest = inputs[distance.argmin(0), np.arange(distance.shape[1])]
    buffer, path = io.BytesIO(), folder / f"{place_of(model, '').partition('/')[0]}.npz"
    np.savez_compressed(buffer, x_test=nearest, y_test=tables[0]["label"], classes=np.array(classes), bounds=bounds)
    if path.is_file() and path.read_bytes() != buffer.getvalue():
        written_again(path)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
