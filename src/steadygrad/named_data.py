"""Data by name: which there are, and which of them come from the Hub; without PyTorch, so that it is told at once."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from steadygrad import offline
from steadygrad.errors import Failure, UsageError

_FOLDER = "STEADYGRAD_DATA"


@dataclass(frozen=True)
class Source:
    """Where a named data set comes from; `hub` is empty for a bundled one."""

    name: str
    hub: str
    summary: str
    config: str | None = None


DATASETS: tuple[Source, ...] = (
    Source("digits", "", "bundled with scikit-learn: 1,297 + 500 handwritten digits, 8 x 8 gray, 10 classes"),
    Source("mnist", "ylecun/mnist", "60,000 + 10,000 handwritten digits, 28 x 28 gray, 10 classes"),
    Source("fashion_mnist", "zalando-datasets/fashion_mnist", "60,000 + 10,000 garments, 28 x 28 gray, 10 classes"),
    Source("notmnist", "anubhavmaity/notMNIST", "letters A to J from many fonts, 28 x 28 gray, 10 classes"),
    Source("cifar10", "uoft-cs/cifar10", "50,000 + 10,000 small photos, 32 x 32 color, 10 classes"),
    Source("cifar100", "uoft-cs/cifar100", "50,000 + 10,000 small photos, 32 x 32 color, 100 fine classes"),
    Source(
        "svhn",
        "ufldl-stanford/svhn",
        "73,257 + 26,032 house-number digits, 32 x 32 color, 10 classes",
        "cropped_digits",
    ),
)


def local_folder() -> Path | None:
    """The folder of the user's data sets.

    Raises:
        UsageError: it is said to be one, and is none.
    """
    value = os.environ.get(_FOLDER)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise UsageError(f"${_FOLDER} is {value!r}, which is not a folder: correct or unset it")
    return folder


def is_path(name: str) -> bool:
    """Whether a name is meant as a path, without a look at the disk."""
    return os.sep in name or "/" in name or name.startswith((".", "~")) or name.endswith((".npz", ".parquet", ".csv"))


def on_the_hub(name: str) -> Source | None:
    """What on the Hub a name stands for; None for data on this machine, and for no data.

    Raises:
        UsageError: no name of a repository.

    >>> on_the_hub("hub:owner/pets:small").config, on_the_hub("digits"), on_the_hub("./photos")
    ('small', None, None)
    """
    if name.startswith("hub:"):
        repository, _, config = name[4:].partition(":")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository, re.ASCII):
            raise UsageError(f"data on the Hub are hub:owner/name or hub:owner/name:config, got {name!r}")
        return Source(repository, repository, "", config or None)
    if is_path(name):
        return None
    found = next((source for source in DATASETS if source.name == name and source.hub), None)
    local = local_folder() if found is not None else None
    return None if local is not None and (local / name).is_dir() else found


def check_reachable(data: str | Source) -> None:
    """Refuse data of the Hub that can be neither downloaded nor found on this machine.

    Raises:
        Failure: what to do without a network.
    """
    source = on_the_hub(data) if isinstance(data, str) else data
    if source is None or offline.is_cached(source.hub):
        return
    why = offline.unreachable()
    if why is not None:
        raise away(source, why)


def away(source: Source, why: object) -> Failure:
    """The error for data that cannot be got from the Hub, with what to do."""
    folder = source.name.rpartition("/")[2]
    local = os.environ.get(_FOLDER)
    there = f" (${_FOLDER} is {local!r}, without {folder})" if local else f" ({_FOLDER} is not set)"
    return Failure(
        f"cannot get {source.hub} from the Hub: {why}. Without a network, put its Parquet files into "
        f"${_FOLDER}/{folder}/data/ and load {folder!r}{there}"
    )
