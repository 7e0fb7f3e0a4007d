"""Numbers and verdicts in words: the one place where a figure of the summary becomes text."""

from __future__ import annotations

import math
from typing import Any

from steadygrad.report.reading import Summary

__all__ = [
    "NOT_MEASURED",
    "budget",
    "distance",
    "duration",
    "estimate",
    "interval",
    "number",
    "percent",
    "sentence",
    "threat",
    "trusted",
    "verdict",
]

NOT_MEASURED = "not measured"
_NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1", "l0": "ℓ0"}


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal.

    >>> percent(0.41), percent(None)
    ('41.0 %', 'not measured')
    """
    return NOT_MEASURED if share is None else f"{100 * share:.1f} %"


def interval(value: dict[str, Any]) -> str:
    """The interval of an estimate, in percent."""
    return f"[{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def estimate(value: dict[str, Any] | None) -> str:
    """An estimate with its interval.

    >>> estimate({"value": 0.41, "low": 0.361, "high": 0.462, "count": 300})
    '41.0 % [36.1, 46.2]'
    """
    return NOT_MEASURED if value is None else f"{percent(value['value'])} {interval(value)}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with `digits` significant digits; small and large ones by powers of ten.

    >>> number(0.1), number(0.0313725), number(3.2e-09), number(None), number(1234567)
    ('0.1', '0.0314', '3.2·10⁻⁹', '–', '1,234,567')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.rstrip('0').rstrip('.')}·10{power}"


def distance(row: dict[str, float | None], limit: float) -> tuple[str, str]:
    """A quantile of distances and its interval; what was not found lies beyond the limit.

    >>> distance({"value": 0.1, "low": 0.09, "high": None}, 1.0)
    ('0.1', '[0.09, ∞)')
    >>> distance({"value": None, "low": 0.2, "high": None}, 1.0)
    ('beyond 1', '[0.2, ∞)')
    >>> distance({"value": None, "low": None, "high": None}, 1.0)
    ('beyond 1', '')
    """
    value = f"beyond {number(limit)}" if row["value"] is None else number(row["value"])
    if row["low"] is None:
        return value, ""
    return value, f"[{number(row['low'])}, {'∞)' if row['high'] is None else number(row['high']) + ']'}"


def duration(seconds: float | None) -> str:
    """A run time in the largest fitting units.

    >>> duration(75.2), duration(3.14)
    ('1 min 15 s', '3.1 s')
    """
    if seconds is None:
        return NOT_MEASURED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def budget(eps: float | None) -> str:
    """The size of a perturbation, as a fraction of 255 too where it is one.

    >>> budget(8 / 255), budget(0.1)
    ('8/255 (0.0314)', '0.1')
    """
    if eps is None:
        return "as small as possible"
    grey = eps * 255
    whole = 0 < grey <= 64 and abs(grey - round(grey)) < 1e-6
    return f"{round(grey)}/255 ({number(eps)})" if whole else number(eps)


def threat(value: dict[str, Any]) -> str:
    """A threat in words.

    >>> threat({"norm": "linf", "eps": 0.1, "bounds": [0, 1]})
    'ℓ∞ ≤ 0.1, values in [0, 1]'
    """
    norm = _NORMS.get(value["norm"], str(value["norm"]))
    size = f"{norm} {budget(None)}" if value["eps"] is None else f"{norm} ≤ {budget(value['eps'])}"
    low, high = value["bounds"]
    return f"{size}, values in [{number(low)}, {number(high)}]"


def norm(value: dict[str, Any]) -> str:
    """The symbol of a threat's norm."""
    return _NORMS.get(value["norm"], str(value["norm"]))


def trusted(model: dict[str, Any]) -> bool:
    """Whether the checks let the model's (or the attack's) number stand."""
    return bool(model["verdict"]["trustworthy"])


def verdict(model: dict[str, Any]) -> str:
    """A verdict with its symbol.

    >>> verdict({"verdict": {"trustworthy": True, "text": "trustworthy"}})
    '✓ trustworthy'
    """
    return f"{'✓' if trusted(model) else '✗'} {model['verdict']['text']}"


def sentence(summary: Summary) -> str:
    """The result in one sentence: the best number that the checks let stand, and how many they refuse."""
    models = summary["models"]
    sound = [model for model in models if trusted(model) and model["robust"] is not None]
    refused = sum(not trusted(model) for model in models)
    samples = f"{summary['data']['samples']:,} samples"
    if not sound:
        which = "the robust accuracy of this model" if len(models) == 1 else "any robust accuracy in this report"
        return f"The checks do not let {which} stand, measured on {samples}: the reason is beside the number."
    best = max(sound, key=lambda model: float(model["robust"]["value"]))
    eps = summary["threat"]["eps"]
    within = "by the smallest change found" if eps is None else f"within {norm(summary['threat'])} ≤ {budget(eps)}"
    lead = f"{best['name']} withstands every attack tried {within} on {estimate(best['robust'])} of {samples}"
    clean = f" (without attack it is right on {estimate(best['clean'])})" if best["clean"] is not None else ""
    others = " – the most of the models whose numbers stand" if len(sound) > 1 else ""
    tail = {0: "", 1: "; the number of one other model is not trustworthy"}.get(
        refused, f"; the numbers of {refused} other models are not trustworthy"
    )
    return f"{lead}{clean}{others}{tail}."
