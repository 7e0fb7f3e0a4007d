"""Errors that name the thing that is wrong and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["Failure", "UsageError", "unknown_name"]


class UsageError(ValueError):
    """The call is wrong: an argument, a name, a setting (exit code 2)."""


class Failure(RuntimeError):
    """The call was right but could not be carried out (exit code 1)."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the near ones.

    >>> print(unknown_name("attack", "pdg", ["pgd", "fgsm"]))
    there is no attack 'pdg'; did you mean 'pgd'? (known: fgsm, pgd)
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ";"
    return UsageError(f"there is no {kind} {name!r}{hint} (known: {', '.join(names)})")
