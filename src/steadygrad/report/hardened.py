"""What `harden` found, for the page: the comparison of before and after, checked before it is drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steadygrad.errors import Failure
from steadygrad.report import wording

__all__ = ["Change", "Hardened", "read"]

_WORDS = {"better": "good", "worse": "bad", "not trustworthy": "bad", "not shown": "none"}


@dataclass(frozen=True)
class Change:
    """One measure before and after, and the paired difference, as (value, interval) in words."""

    measure: str
    before: tuple[str, str]
    after: tuple[str, str]
    difference: tuple[str, str]


@dataclass(frozen=True)
class Hardened:
    """The verdict of a hardening in words, its class for the page, the changes, and how it was trained."""

    text: str
    mark: str
    changes: tuple[Change, ...]
    training: str


def read(folder: str | Path) -> Hardened | None:
    """The comparison in the folder's `harden.json`; None in the folder of a plain audit.

    Raises:
        Failure: the file is damaged or incomplete.
    """
    path = Path(folder) / "harden.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        changes = tuple(_share(name, found) for name in ("clean", "robust"))
        return Hardened(found["text"], _WORDS[found["outcome"]], (*changes, _distance(found)), _training(found))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Failure(f"cannot read {path}: {error!r}; run the hardening again to replace it") from error


def _share(name: str, found: dict[str, Any]) -> Change:
    sides = (found[side][name] for side in ("before", "after"))
    before, after = ((wording.percent(v["value"]), wording.interval(v)) for v in sides)
    return Change(f"{name} accuracy", before, after, _signed(found["difference"][name], 100, ".1f", " points"))


def _distance(found: dict[str, Any]) -> Change:
    medians = (found[side]["median_distance"] for side in ("before", "after"))
    before, after = (("beyond reach" if m is None else wording.number(m), "") for m in medians)
    return Change("median smallest change", before, after, _signed(found["difference"]["distance"], 1, ".3g", ""))


def _signed(difference: dict[str, Any], scale: float, form: str, unit: str) -> tuple[str, str]:
    value, low, high = (
        "beyond" if difference[k] is None else format(scale * difference[k], "+" + form)
        for k in ("value", "low", "high")
    )
    return value + unit, f"[{low}, {high}]"


def _training(found: dict[str, Any]) -> str:
    training = found["training"]
    settings = {k: v for k, v in training["defense"].items() if k != "name"}
    defense = f"{training['defense']['name']} ({_listed(settings)})" if settings else str(training["defense"]["name"])
    return (
        f"Fine-tuned with {defense} on {training['samples']:,} samples; epoch {training['chosen_epoch']} of "
        f"{training['epochs']} was chosen on {training['validation_samples']:,} others."
    )


def _listed(settings: dict[str, Any]) -> str:
    words = []
    for name, value in settings.items():
        if isinstance(value, dict):
            value = value.get("name", value)
        elif isinstance(value, list):
            value = " + ".join(str(v.get("name", v)) if isinstance(v, dict) else str(v) for v in value)
        words.append(f"{name} = {value}")
    return ", ".join(words)
