"""Files that appear whole or not at all, and stable keys for what is in them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadygrad.errors import Failure, UsageError

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well.

    After an error or a kill the old file, or none, is there. A full disk is reported as such.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes no file through a handle that only reads
            os.fsync(file.fileno())
        # mkstemp makes private files; give the result the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> Failure:
    return Failure(f"cannot write {path}: {error.strerror or error}; free space or choose another --out")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; NaN and infinities are refused by name."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False, sort_keys=False)
    except ValueError as error:
        raise Failure(f"cannot write {path}: {error} (use null for what was not found)") from error
    write_text(path, text + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all; takes tied and non-contiguous tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Copies, because tied weights share memory, which the format refuses.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, dict(metadata))
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file; a Failure where it is none, or is truncated."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            # Clones: the file may be replaced while its memory is mapped.
            return {k: file.get_tensor(k).clone() for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Failure(f"{path} is not a readable safetensors file (truncated?): {error}") from error


def key(*parts: Any) -> str:
    """A short stable name for a combination of plain values.

    >>> key("pgd", 40) == key("pgd", 40) != key("pgd", 41)
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML text as plain data; a ValueError where it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    return tomllib.loads(text)


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as plain data; a missing or garbled one is refused by name."""
    try:
        return parse_toml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no configuration file {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from None


class OtherRun(UsageError):
    """The output folder belongs to another configuration."""


def output_folder(path: str | Path, config: dict[str, Any]) -> Path:
    """Make or reopen a run folder that belongs to `config` (kept in its `config.toml`).

    Raises:
        UsageError: the path is a file or is not writable.
        OtherRun: it holds another configuration.
    """
    import tomli_w

    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the output folder {folder} is a file: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"the output folder {folder} is not writable ({error.strerror}): choose another --out"
        ) from error
    record = folder / "config.toml"
    wanted = _without_none(json.loads(json.dumps(config, default=str)))
    if record.exists():
        found = read_toml(record)
        if found != wanted:
            differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            raise OtherRun(
                f"the output folder {folder} is from another configuration (differs in: {', '.join(differing)}): "
                "choose another --out, or delete it"
            )
    else:
        write_text(record, tomli_w.dumps(wanted))
    return folder


def _without_none(value: Any) -> Any:
    # TOML has no null: a setting that is None is left out.
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value if v is not None]
    return value
