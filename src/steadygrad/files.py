"""Files that appear whole or not at all, and stable keys for what is in them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadygrad.errors import Failure, UsageError, reading
from steadygrad.locks import check_there

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


CHECKSUM = "sha256"
"""The key of the checksum in files that are read again; a file that lacks it was written by somebody else."""

_ABOUT = "steadygrad"
PARTIAL = ".partial-"
"""How the name of a file begins that is being written; what a kill leaves is removed by `run_folders`."""


@contextlib.contextmanager
def atomic(path: str | Path, before: str | Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well; what was there is moved to `before`.

    After an error or a kill the old file, or none, is there; after a power cut too. A full disk is reported as such,
    and so is a run folder that is gone.
    """
    path = Path(path)
    check_there(path)
    temporary = path.parent / f"{PARTIAL}{secrets.token_hex(6)}-{path.name[-100:]}"
    try:
        _make(path.parent)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes no file through a handle that only reads
            os.fsync(file.fileno())
        if before is not None and path.exists():
            os.replace(path, before)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise Failure(f"cannot write {path}: {reason}; free space or choose another --out") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    """Make a folder and those above it, each of them on the disk before it is used."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, without which a file that is there may be gone after a power cut."""
    if os.name == "nt":  # which opens no folders, and writes their names down by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that flush files only
            raise
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum, whole or not at all; NaN and infinities are refused by name."""
    try:
        text = json.dumps({**value, CHECKSUM: _checksum(value)}, indent=2, allow_nan=False, sort_keys=False)
    except ValueError as error:
        raise Failure(f"cannot write {path}: {error} (use null for what was not found)") from error
    if Path(path).is_file():
        with contextlib.suppress(OSError):
            try:
                sound = read_json(path)[1]
            except ValueError:
                sound = False
            if not sound:
                written_again(path)
    write_text(path, text + "\n")


def written_again(path: str | Path) -> None:
    """Say that a file which follows from others is not what was written, and is replaced."""
    logging.getLogger("steadygrad").warning("%s is damaged or was edited and is written again", path)


def read_json(path: str | Path) -> tuple[dict[str, Any], bool]:
    """The object that `write_json` wrote, and whether its checksum is right; a ValueError where it is none."""

    def refuse(name: str) -> float:
        raise ValueError(f"{name} is not a number of this schema (null stands for what was not found)")

    with reading("it is no JSON", kind=ValueError):  # brackets within brackets end in an error of recursion
        value = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got a {type(value).__name__}")
    found = value.pop(CHECKSUM, None)
    return value, found == _checksum(value)


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], before: str | Path | None = None
) -> None:
    """Write a safetensors file as `atomic` does; takes tied and non-contiguous tensors.

    What it is about, plain data, is one entry of its metadata, together with the checksum of all.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Copies, because tied weights share memory, which the format refuses.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    text = json.dumps({**about, CHECKSUM: _checksum_of(plain, about)})
    if before is None and Path(path).is_file():
        try:
            read_tensors(path)
        except Failure:
            written_again(path)
    with atomic(path, before) as temporary:
        try:
            save_file(plain, temporary, {_ABOUT: text})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


@contextlib.contextmanager
def in_text(path: str | Path) -> Iterator[str | Path]:
    """A path to a file whose own path may have bytes that are no UTF-8, which libraries do not open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with open(path, "rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield path


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, and what it is about, which files of others do not say.

    Raises:
        Failure: it is none, is truncated, or is not what `write_tensors` wrote.
    """
    from safetensors import safe_open

    with (
        reading(f"{path} is not a readable safetensors file (truncated?)"),
        in_text(path) as place,
        safe_open(place, framework="pt") as file,
    ):
        # Clones: the file may be replaced while its memory is mapped.
        tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})
    if _ABOUT not in metadata and any(f'"{CHECKSUM}"' in text for text in metadata.values()):
        raise Failure(f"{path} has damaged metadata: the name of an entry is not what was written")
    with reading(f"{path} has damaged metadata"):
        about = json.loads(metadata.get(_ABOUT, "{}"))
    if not isinstance(about, dict):
        raise Failure(f"{path} has damaged metadata: expected an object, got {about!r}")
    wanted = about.pop(CHECKSUM, None)
    if wanted is not None and wanted != _checksum_of(tensors, about):
        raise Failure(f"{path} is damaged: its checksum is not that of its content")
    return tensors, about


def open_array(path: str | Path, what: str) -> NDArray[Any]:
    """The array in a NumPy file, of which only what is asked for is read; errors call it `what`.

    Raises:
        UsageError: there is no such file, or it holds anything but numbers.
    """
    import numpy as np

    # Mapped, so that a damaged header cannot ask for more memory than the file has bytes.
    with reading(f"{what} cannot be read from {path}", "; give a NumPy file of numbers", kind=UsageError):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise TypeError("it is an archive of arrays")
        return np.atleast_1d(found)


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in rows, of any type; NumPy lacks some of them."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _checksum_of(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(_checksum(about).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(bytes_of(tensors[name]))
    return digest.hexdigest()


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

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("there are too many brackets within brackets") from None


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
