"""The attacks of other libraries, entered as a user of theirs would call them."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.attacks.libraries import art, foolbox, torchattacks
from benchmarks.attacks.tasks import Contender, Task

__all__ = ["LIBRARIES", "Library", "missing"]


@dataclass(frozen=True)
class Library:
    """A library by the name of its distribution, the module to import, and what it enters."""

    distribution: str
    module: str
    enter: Callable[[dict[str, Task], tuple[int, ...], int], list[Contender]]


LIBRARIES: dict[str, Library] = {
    "foolbox": Library("foolbox", "foolbox", foolbox.enter),
    "torchattacks": Library("torchattacks", "torchattacks", torchattacks.enter),
    "art": Library("adversarial-robustness-toolbox", "art.attacks.evasion", art.enter),
}


def missing(name: str) -> str | None:
    """Why a library cannot be used here; None if it can.

    >>> missing("no such library")
    'unknown'
    """
    if name not in LIBRARIES:
        return "unknown"
    library = LIBRARIES[name]
    try:
        importlib.metadata.version(library.distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(library.module)
    except Exception as error:  # whatever it meets in this environment
        return f"cannot be imported: {type(error).__name__}: {error}"
    return None
