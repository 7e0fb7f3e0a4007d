"""Files that runs keep and read again: tables, facts, records, checkpoints, weights, what a paper measured."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import fits
from campaigns.brought import data, of_toml, saved
from campaigns.mutations import mutated, odd
from campaigns.watched import Change, Target
from cli.commands import done
from steadygrad import files
from steadygrad.audit.audit import FACTS, TABLES
from steadygrad.audit.schema import HardenSummary
from steadygrad.measuring.store import Store
from steadygrad.measuring.table import Table
from steadygrad.report import run_folder
from steadygrad.run_folders import _SEAL, RECORD, _seal_of, read_record
from steadygrad.training import checkpoints

TRAIN = ("train", "--limit", "60", "--epochs", "2", "--set", "batch_size=32", "--model", "mlp:hidden=[8]")
AUDIT = ("--attack", "fgsm", "--eps", "0.1", "--samples", "12", "--checked", "4", "--gallery", "1", "--keep-inputs")
HARDEN = ("--defense", "input_gradient:weight=1", "--epochs", "1", "--limit", "60", *AUDIT[:-1])
PAPER = ("reproduce", "yan2018", "--data", "digits", "--scale", "smoke")


def trained(root: Path) -> Path:
    """The folder of a small training, made by the command."""
    done(*TRAIN, "--out", root / "trained")
    return root / "trained"


def audited(root: Path, model: Path) -> Path:
    """The folder of a small audit."""
    done("audit", model, *AUDIT, "--out", root / "audited")
    return root / "audited"


def hardened(root: Path, model: Path) -> Path:
    """The folder of a small hardening."""
    done("harden", model, *HARDEN, "--out", root / "hardened")
    return root / "hardened"


def reproduced(root: Path) -> Path:
    """The folder of the smallest reproduction of a paper."""
    done(*PAPER, "--out", root / "reproduced")
    return root / "reproduced"


def paper(folder: Path) -> Any:
    """All that a reproduction found, without what differs from run to run."""
    return shown(files.read_json(folder / "summary.json")[0])


def shown(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what differs from run to run."""
    changing = ("created", "seconds", "spent", "command", "machine", "sha256")
    return {name: value for name, value in document.items() if name not in changing}


def fitted(root: Path, stop: int | None) -> Path:
    """The folder of a tiny training in Python, finished, or stopped before a step."""
    folder = root / ("finished" if stop is None else "stopped")
    with contextlib.suppress(fits.Stopped), contextlib.nullcontext() if stop is None else fits.stopped_at(stop):
        fits.run(folder)
    return folder


def tables_of(folder: Path) -> list[str]:
    """The files of the tables of a run, as paths below its folder."""
    return sorted(path.relative_to(folder).as_posix() for path in (folder / TABLES).rglob("[!.]*.parquet"))


def fitting(folder: Path) -> Any:
    """What a training gives that goes on in the folder, and the weights that it leaves there."""
    found = fits.run(folder)
    weights = {name: value.tolist() for name, value in found.classifier.state_dict().items()}
    return [weights, found.history, found.best_epoch, (folder / "model.safetensors").read_bytes().hex()]


def page(folder: Path) -> Any:
    """All that the page of a run is drawn from."""
    run = run_folder.read(folder)
    hardened = None if run.hardened is None else run.hardened.plain()
    return [run.summary.plain(), {k: v.tolist() for k, v in run.arrays.items()}, hardened]


def shards(folder: Path) -> Any:
    """The tables of a run, as the page and the rerun read them."""
    store, found = Store(folder / TABLES), {}
    for path in sorted({Path(file).parent.relative_to(TABLES).as_posix() for file in tables_of(folder)}):
        table = store.table(path)
        assert table is not None
        found[path] = plain_table(table)
    return found


def plain_table(table: Table) -> Any:
    """All that a table holds."""
    columns = {}
    for name in table.columns:
        kept = table.kept(name)
        columns[name] = [kept.count, kept.rows.tolist(), kept.values.tolist(), str(kept.values.dtype)]
    return [columns, dict(table.about)]


def of_sealed_json(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """A document with an odd value in it, and the right checksum of that."""
    value = json.loads(content)
    value.pop(files.CHECKSUM)
    how, value = odd(value, drawn)
    try:
        text = json.dumps({**value, files.CHECKSUM: files._checksum(value)})
    except (TypeError, ValueError):
        return "nothing", content
    return how, text.encode()


def of_sealed_record(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """A record with an odd value in it, and the right checksum of that."""
    how, text = of_toml(content.decode().rpartition(_SEAL)[0].encode(), drawn)
    return how, text + _seal_of(text.decode()).encode()


def targets(root: Path, change: Change = mutated) -> list[Target]:
    """What is read without a command: each kind of file of its own, below the root."""
    model = trained(root)
    audit, hard = audited(root, model), hardened(root, model)
    stopped, finished = fitted(root, 9), fitted(root, None)
    whole = sorted((stopped / name).name for name in (checkpoints.NAME, checkpoints.BEFORE))
    facts = f"{TABLES}/{FACTS}"
    tables = tables_of(audit)
    few, one = root / "few", root / "one"
    for file in tables[:6]:
        (few / file).parent.mkdir(parents=True)
        shutil.copy(audit / file, few / file)
    one.mkdir()
    shutil.copy(audit / tables[0], one / "a.parquet")
    weights = ("model.safetensors",)

    inputs = [path.relative_to(audit).as_posix() for path in sorted((audit / "inputs").iterdir())]

    def attacked(folder: Path) -> Any:
        return [data(folder / name) for name in inputs]

    def documents(folder: Path) -> Any:
        return HardenSummary.read(folder).plain()

    def same(folder: Path) -> Any:
        return saved(folder / "model.safetensors")

    given: dict[str, Any] = {"change": change, "kept": True}
    resumed: dict[str, Any] = {"change": change, "mends": True, "writes": True, "share": 0.5}
    return [
        Target("tables", few, tuple(tables[:6]), shards, **given, share=2),
        Target("facts of an audit", audit, (facts,), page, **given, share=0.3),
        Target("record of an audit", audit, (RECORD,), page, **given, share=0.3),
        Target("record of a training", finished, (RECORD,), read_record, **given),
        Target("harden.json", hard, (HardenSummary.FILE,), documents, **given),
        Target("inputs of an audit", audit, tuple(inputs), attacked, **given),
        Target("weights in a run folder", model, weights, same, **given),
        Target("checkpoint, continued", stopped, (checkpoints.NAME,), fitting, **resumed),
        Target("checkpoints, continued", stopped, tuple(whole), fitting, **resumed),
        Target("finished training", finished, (RECORD, *weights, *whole), fitting, **resumed),
    ]


def forged(root: Path) -> list[Target]:
    """Kept files that say something odd under the right checksum; `targets` made the folders."""
    audit, hard = root / "audited", root / "hardened"
    facts = f"{TABLES}/{FACTS}"
    return [
        Target("table, by itself", root / "one", ("a.parquet",), lambda f: plain_table(Table.read(f / "a.parquet"))),
        Target("facts, forged", audit, (facts,), page, change=of_sealed_json, share=0.3),
        Target("record, forged", audit, (RECORD,), page, change=of_sealed_record, share=0.3),
        Target("harden.json, forged", hard, (HardenSummary.FILE,), page, change=of_sealed_json, share=0.3),
    ]
