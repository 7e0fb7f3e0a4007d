"""Run folders: each belongs to one configuration, is held by one run at a time, and is never somebody else's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steadygrad.errors import Failure, UsageError
from steadygrad.files import PARTIAL, parse_toml, write_text, written_again
from steadygrad.locks import HOLDER, LOCK, InUse, held, joined, others

RECORD = "config.toml"
_PATIENCE = 10.0
"""Seconds for which one that makes a run together with others waits until it is let in."""
_SEAL = "# Checksum of the lines above: "


class OtherRun(UsageError):
    """The output folder belongs to another configuration, or to somebody else."""


@contextlib.contextmanager
def claimed(path: str | Path, wait: float = 0.0) -> Iterator[Path]:
    """Make or reopen a folder that only this run writes into within the block; wait so many seconds for another one.

    Raises:
        OtherRun: files of somebody else lie there.
        InUse: another run is working there.
        UsageError: the path is a file or is not writable.
        Failure: the folder was deleted or replaced within the block.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the output folder {folder} is a file: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_ours(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"the output folder {folder} is not writable ({error.strerror}): choose another --out"
        ) from error
    with held(folder, wait):
        yield folder


@contextlib.contextmanager
def run_folder(path: str | Path, config: Mapping[str, Any], *, together: bool = False, by: str = "") -> Iterator[Path]:
    """Claim the folder of the run with this configuration, which is kept in its `config.toml`.

    Args:
        together: let others in who say so too, and who make the same run.
        by: what all that work together must have in common, such as the kind of device.

    Raises:
        OtherRun: it holds another configuration, or files of somebody else.
        InUse: another process is working on the same run.
    """
    import tomli_w

    wanted = _without_none(json.loads(json.dumps(config, default=str)))
    record = Path(path) / RECORD
    _check_same(record, wanted)
    try:
        with contextlib.ExitStack() as beside, contextlib.ExitStack() as alone:
            folder = alone.enter_context(claimed(path, _PATIENCE if together else 0.0))
            if not _check_same(record, wanted):
                text = tomli_w.dumps(wanted)
                write_text(record, text + _seal_of(text))
            by_others = others(folder)
            if not by_others:
                remove_leftovers(folder)
            elif not together:
                raise InUse(
                    f"several processes are working in the output folder {folder} together: wait until they are done, "
                    "join them (--engine shared), or choose another --out"
                )
            elif by_others != {by}:
                raise UsageError(
                    f"other processes make this run on {' and '.join(sorted(by_others - {by}))}, and this one would on "
                    f"{by}, so that their records would differ: give all of them one kind of device (--device)"
                )
            if together:
                beside.enter_context(joined(folder, by))
                alone.close()  # the next one may come in
            yield folder
    except InUse:
        # Of two runs that begin at once in a folder, the second one may have to look for another.
        if not _check_same(record, wanted):
            raise OtherRun(f"another run is beginning in the output folder {path}: choose another --out") from None
        raise


def read_record(folder: str | Path) -> dict[str, Any]:
    """The configuration that a run folder belongs to.

    Raises:
        UsageError: there is no run in the folder.
        Failure: the record is damaged or was edited.
    """
    path = Path(folder) / RECORD
    try:
        data = path.read_bytes()
    except OSError:
        raise UsageError(f"there is no run at {folder}: give the --out folder of one") from None
    try:
        text = data.decode("utf-8")
        body, seal, _ = text.rpartition(_SEAL)
        if seal and text == body + _seal_of(body):
            return parse_toml(body)
    except ValueError:
        pass
    raise Failure(f"{path} is damaged or was edited: run the same command again to have it written anew")


def audit_in(run: Path) -> Path:
    """The run folder of the audit in a run: the demo keeps it in a folder of its own."""
    inner = run / "audit"
    return inner if not (run / RECORD).is_file() and (inner / RECORD).is_file() else run


def is_ours(folder: Path) -> bool:
    """Whether a run has worked in the folder."""
    return (folder / HOLDER).exists() or (folder / LOCK).exists()


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files that a killed run left in a folder which this run holds."""
    for place, folders, names in os.walk(folder):
        # Another run may be alive in a run folder below this one.
        folders[:] = [name for name in folders if not (Path(place) / name / LOCK).exists()]
        for name in names:
            if name.startswith(PARTIAL):
                (Path(place) / name).unlink(missing_ok=True)


def _check_ours(folder: Path) -> None:
    """Refuse a folder with files that no run has written."""
    if is_ours(folder):
        return
    found = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    if not found:
        return
    with contextlib.suppress(Failure, UsageError):
        read_record(folder)
        return
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise OtherRun(
        f"the output folder {folder} holds files that are of no run ({', '.join(map(repr, found[:3]))}{more}): choose "
        "another --out, such as a new folder"
    )


def _check_same(record: Path, wanted: dict[str, Any]) -> bool:
    """Whether the record is there; refused if it says something else, and as good as not there if it is damaged."""
    if not record.is_file():
        return False
    try:
        found = read_record(record.parent)
    except Failure:
        if not is_ours(record.parent):
            return False  # it may be no record of ours, and is found out to be somebody else's
        written_again(record)
        return False
    if found != wanted:
        differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        raise OtherRun(
            f"the output folder {record.parent} is from another configuration (differs in: {', '.join(differing)}): "
            "choose another --out, or delete it"
        )
    return True


def _seal_of(text: str) -> str:
    return f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def _without_none(value: Any) -> Any:
    # TOML has no null: a setting that is None is left out.
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value if v is not None]
    return value
