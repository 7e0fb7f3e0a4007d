"""`--fail-under` and `--junit`: what is asked of the numbers of an audit, as in continuous integration."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import typer

from steadygrad.cli.common import say
from steadygrad.errors import UsageError, one_of

UNMET = 3
"""The exit code where a number is below what is asked for."""
NUMBERS = ("clean", "robust", "clean.low", "robust.low")

FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        metavar="robust=0.4",
        help="Exit with 3 where clean or robust accuracy is below this, or its number does not hold; robust.low judges "
        "the lower end of the interval. May be repeated.",
    ),
]
Junit = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Write what --fail-under found as JUnit XML.", show_default=False),
]


@dataclass(frozen=True)
class Demand:
    """A number and the least that it may be, a share of all samples."""

    number: str
    least: float

    def unmet(self, model: dict[str, Any]) -> str | None:
        """Why a model of a summary does not meet it, or None."""
        name, _, end = self.number.partition(".")
        found, verdict = model[name], model["verdict"]
        value = found[end or "value"]
        interval = f"{100 * found['value']:.1f} % [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        seen = f"{name} accuracy of {model['name']} is {interval} on {found['count']} samples"
        # Checks refute the robust accuracy; too few samples are too few for either.
        if verdict["state"] == "too few" or (name == "robust" and verdict["state"] != "holds"):
            return f"{seen}: {verdict['text']}"
        if value >= self.least:
            return None
        what = "the lower end of its interval" if end else "it"
        return f"{seen}: {what} is {100 * (self.least - value):.1f} points under {100 * self.least:g} %"


def demands_of(texts: list[str] | None, junit: Path | None) -> list[Demand]:
    """What is asked for, as written after --fail-under.

    Raises:
        UsageError: no number of that name, no share within (0, 1], one number twice, --junit alone.

    >>> demands_of(["clean=0.9, robust=2/5"], None)[1]
    Demand(number='robust', least=0.4)
    """
    from steadygrad.registry import parse_settings

    found: list[Demand] = []
    for text in texts or []:
        for number, least in parse_settings(text, "--fail-under takes number=share", "robust=0.4").items():
            one_of("number for --fail-under", number, NUMBERS)
            if isinstance(least, bool) or not isinstance(least, int | float) or not 0 < least <= 1:
                raise UsageError(f"--fail-under {number} must be a share within (0, 1], such as 0.4, got {least!r}")
            if number in (demand.number for demand in found):
                raise UsageError(f"--fail-under {number} is given twice")
            found.append(Demand(number, float(least)))
    if junit is not None and not found:
        raise UsageError("--junit writes what --fail-under found: add e.g. --fail-under robust=0.4")
    return found


def judge(demands: list[Demand], models: list[dict[str, Any]], junit: Path | None, suite: str) -> None:
    """Leave with 3 where a model does not meet a demand, after saying by how much; write the file before."""
    rows = [(model["name"], demand, demand.unmet(model)) for model in models for demand in demands]
    if junit is not None:
        from steadygrad.files import write_text

        write_text(junit, _xml(rows, suite))
    failed = [reason for _, _, reason in rows if reason is not None]
    for reason in failed:
        say(f"steadygrad: {reason}", file=sys.stderr)
    if failed:
        sys.exit(UNMET)


def _xml(rows: list[tuple[str, Demand, str | None]], suite: str) -> str:
    failures = sum(reason is not None for _, _, reason in rows)
    counts = {"tests": str(len(rows)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    inner = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for model, demand, reason in rows:
        named = {"classname": model, "name": f"{demand.number} accuracy at least {100 * demand.least:g} %"}
        case = ElementTree.SubElement(inner, "testcase", named)
        if reason is not None:
            ElementTree.SubElement(case, "failure", {"message": reason, "type": "under"}).text = reason
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"
