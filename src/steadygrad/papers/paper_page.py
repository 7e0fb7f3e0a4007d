"""The page of a paper: what must come out and what did, the paper's own sections, and how to reproduce it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steadygrad.report import blocks
from steadygrad.report.blocks import Block, Cell, Code, Facts, Folded, Heading, Items, Section, Table, Text, html, small
from steadygrad.report.sections.reproduce_section import configuration
from steadygrad.report.wording import NOT_MEASURED, duration, number


def render(summary: dict[str, Any], sections: Sequence[Section]) -> str:
    """The page of a summary and its sections as HTML text."""
    paper, data, config, machine = summary["paper"], summary["data"], summary["config"], summary["machine"]
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    facts = [
        ("Data", f"{data['name']}: {data['training']:,} training and {data['test']:,} test samples, "
                 f"{len(data['classes'])} classes, {' × '.join(map(str, data['shape']))}"),
        ("Network", config["model"]),
        ("Scale", f"{config['scale']}, seed {config['seed']}"),
        ("Work", f"{duration(summary['seconds'])} on {machine['device']}, {threads}"),
        ("Made", summary["created"].replace("T", " ").replace("+00:00", " UTC")),
    ]  # fmt: skip
    page = blocks.Page(
        title=f"{paper['name']} on {data['name']}, reproduced",
        kicker=f"A paper reproduced: {paper['reference']}",
        heading=paper["title"],
        lede=paper["says"],
        facts=facts,
        sections=[
            Section("What must come out, and what did", _claims(summary), "claims", "Claims"),
            *sections,
            Section("How to reproduce this page", _reproduce(summary), "reproduce", "Reproduce"),
        ],
        source="config.toml and tables",
        version=summary["version"],
    )
    return blocks.render(page)


def _claims(summary: dict[str, Any]) -> list[Block]:
    found: list[Block] = []
    if claims := summary["claims"]:
        held = sum(claim["held"] for claim in claims)
        found = [
            Text(
                f"{held} of {len(claims)} expectations held at this scale. Intervals are 95 % and cover the choice of "
                "test samples, not the seed of the training."
            ),
            Table(
                "Each expectation with the figure that decides it.",
                ["Expectation", "Needed", "Found", "Paper", "Verdict"],
                [_claim(claim) for claim in claims],
                words=(0, 2, 3),
            ),
        ]
    if summary["left_out"]:
        found += [Heading("What this run leaves out or does differently"), Items(summary["left_out"])]
    return found


def _claim(claim: dict[str, Any]) -> tuple[str, list[Cell]]:
    text = html("{}<br>{}", claim["text"], small(claim["detail"])) if claim["detail"] else claim["text"]
    verdict = blocks.mark(None if claim["found"] is None else claim["held"], claim["verdict"])
    limits = [Cell(claim["needed"], kind="limit"), Cell(claim["paper"] or "–", kind="limit")]
    return text, [limits[0], Cell(claim_found(claim)), limits[1], Cell(verdict)]


def _reproduce(summary: dict[str, Any]) -> list[Block]:
    facts = [("steadygrad", summary["version"]), *((key, str(value)) for key, value in summary["machine"].items())]
    spent = Table(
        "Seconds when each piece was computed; a continued run does not do it again.",
        ["Piece", "Time"],
        [(title, [Cell(duration(seconds))]) for title, seconds in summary["spent"].items()],
    )
    return [
        *([Code(summary["command"], "Command")] if summary["command"] else []),
        Facts(facts),
        Folded("Where the time went", [spent]),
        configuration(summary["config"]),
    ]


def claim_found(claim: dict[str, Any]) -> str:
    """What a claim found, with its interval and unit; shares as exact as the bar that decides.

    >>> found = {"value": 0.9937, "low": 0.9919, "high": 0.9951}
    >>> claim_found({"found": found, "unit": "%", "needed": "at least 99.34 %"})
    '99.37 % [99.19, 99.51]'
    """
    found = claim["found"]
    if found is None:
        return NOT_MEASURED
    if claim["unit"] in ("%", "points"):
        _, _, decimals = next((w for w in claim["needed"].split() if w[-1].isdigit()), "").partition(".")
        value, low, high = (f"{100 * found[k]:.{max(1, len(decimals))}f}" for k in ("value", "low", "high"))
        return f"{value} {claim['unit']} [{low}, {high}]"
    value, low, high = (number(found[k]) for k in ("value", "low", "high"))
    return f"{value} {claim['unit']}".strip() + f" [{low}, {high}]"
