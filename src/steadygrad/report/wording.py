"""Numbers and verdicts in words: the one place where a figure of the summary becomes text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadygrad.audit.schema_values import Interval, Threat

NOT_MEASURED = "not measured"
_NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1", "l0": "ℓ0"}


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal.

    >>> percent(0.41), percent(None)
    ('41.0 %', 'not measured')
    """
    return NOT_MEASURED if share is None else f"{100 * share:.1f} %"


def interval(value: Interval[Any]) -> str:
    """The interval of an estimate, in percent."""
    return f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"


def estimate(value: Interval[Any] | None) -> str:
    """An estimate with its interval.

    >>> from steadygrad.audit.schema_values import Estimate
    >>> estimate(Estimate(value=0.41, low=0.361, high=0.462, count=300))
    '41.0 % [36.1, 46.2]'
    """
    return NOT_MEASURED if value is None else f"{percent(value.value)} {interval(value)}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with `digits` significant digits; small and large ones by powers of ten.

    >>> number(0.1), number(0.00098), number(3.2e-09), number(None), number(1234567)
    ('0.1', '0.00098', '3.2·10⁻⁹', '–', '1,234,567')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if 1e-4 <= abs(value) < 1e5:
        return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.rstrip('0').rstrip('.')}·10{power}"


def between(value: float | None, low: float | None, high: float | None, digits: int = 3) -> tuple[str, str]:
    """A number and its interval.

    >>> between(0.1, 0.0912, None)
    ('0.1', '[0.0912, ∞)')
    """
    if low is None:
        return number(value, digits), ""
    return number(value, digits), f"[{number(low, digits)}, {'∞)' if high is None else number(high, digits) + ']'}"


def duration(seconds: float) -> str:
    """A run time in the largest fitting units.

    >>> duration(75.2), duration(3.14)
    ('1 min 15 s', '3.1 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def budget(eps: float) -> str:
    """The size of a perturbation, as a fraction of 255 too where it is one.

    >>> budget(8 / 255), budget(0.1)
    ('8/255 (0.0314)', '0.1')
    """
    gray = eps * 255
    whole = 0 < gray <= 64 and abs(gray - round(gray)) < 1e-6
    return f"{round(gray)}/255 ({number(eps)})" if whole else number(eps)


def norm(name: str) -> str:
    """The symbol of a norm."""
    return _NORMS.get(name, name)


def threat(value: Threat) -> str:
    """A threat in words.

    >>> from steadygrad.audit.schema_values import Threat
    >>> threat(Threat(norm="linf", eps=0.1, bounds=(0, 1)))
    'ℓ∞ ≤ 0.1, values in [0, 1]'
    """
    low, high = value.bounds
    where = "" if value.mask is None else f", only {percent(value.mask)} of the entries may change"
    return f"{norm(value.norm)} ≤ {budget(value.eps)}, values in [{number(low)}, {number(high)}]{where}"


def spaced(name: str) -> str:
    """A name of the registry as words."""
    return name.replace("_", " ")
