"""Errors that name the thing that is wrong and the way out."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any


class UsageError(ValueError):
    """The call is wrong: an argument, a name, a setting (exit code 2)."""


class Failure(RuntimeError):
    """The call was right but could not be carried out (exit code 1)."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the near ones.

    >>> print(unknown_name("attack", "pdg", ["pgd", "fgsm"]))
    there is no attack 'pdg'; did you mean 'pgd'? (known: fgsm, pgd)
    >>> print(unknown_name("attack", "PGD", ["pgd", "fgsm"]))
    there is no attack 'PGD'; did you mean 'pgd'? (known: fgsm, pgd)
    """
    names = sorted(known)
    lower = {n.lower(): n for n in names}
    near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ";"
    return UsageError(f"there is no {kind} {name!r}{hint} (known: {', '.join(names)})")


def one_of(kind: str, name: Any, known: Iterable[str]) -> None:
    """Refuse what is not among the known names, as `unknown_name` says it."""
    if not isinstance(name, str) or name not in known:
        raise unknown_name(kind, str(name), known)


def at_least_one(**settings: int) -> None:
    """Refuse counts below 1, by name.

    >>> at_least_one(steps=10, restarts=0)
    Traceback (most recent call last):
    steadygrad.errors.UsageError: steps and restarts must be at least 1, got 10 and 0
    """
    if min(settings.values()) < 1:
        pair = (settings, map(str, settings.values()))
        names, values = (" and ".join(", ".join(words).rsplit(", ", 1)) for words in pair)
        raise UsageError(f"{names} must be at least 1, got {values}")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on the host or on an accelerator."""
    text = f"{type(error).__name__}: {error}"  # also of accelerators' OutOfMemoryError
    return "MemoryError" in text or "can't allocate memory" in text


@contextlib.contextmanager
def reading(what: str, way_out: str = "", *, kind: type[Exception] = Failure) -> Iterator[None]:
    """Within the block another library reads a file: whatever that raises says that the file is damaged.

    What a damaged file makes a reader raise is no short list: readers of images, arrays and tables end in errors of
    the tokenizer, of compression, of types and of memory.

    >>> with reading("a.txt is no number", "; write it again"):
    ...     float("1x")
    Traceback (most recent call last):
    steadygrad.errors.Failure: a.txt is no number: could not convert string to float: '1x'; write it again
    """
    try:
        yield
    except (UsageError, Failure):
        raise
    except Exception as error:
        text = str(error).partition("\n")[0].partition(" <_io")[0]  # what Pillow calls bytes in memory
        text = "it asks for more memory than there is" if out_of_memory(error) else text
        raise kind(f"{what}: {text or type(error).__name__}{way_out}") from error
