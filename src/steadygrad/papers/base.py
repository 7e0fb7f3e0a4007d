"""What the papers share: the request, the run folder, what is found and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from steadygrad import __version__, provenance
from steadygrad.data import Dataset, load
from steadygrad.errors import UsageError, unknown_name
from steadygrad.files import atomic, output_folder, write_json
from steadygrad.papers.claims import Claim
from steadygrad.papers.paper_page import render
from steadygrad.papers.store import Arrays, Store
from steadygrad.report.blocks import Section

__all__ = ["SCALES", "Findings", "Paper", "Request", "Scale", "run"]

SCHEMA = 1

Scale = Literal["smoke", "short", "paper"]
SCALES: tuple[str, ...] = get_args(Scale)


@dataclass(frozen=True)
class Request:
    """What is to be reproduced, how thoroughly and where.

    Args:
        data: by name or path.
        out: run folder; a killed run continues there.
        model: architecture, where the paper has several; None for its first.
        scale: "smoke" (does it run?), "short" (do the signs hold?) or "paper" (its own lengths).
        search: choose the weights of the defenses on validation data rather than from the table.
        combined: also train the combination of defenses that the paper does not have, where one is set up.
        command: written down.
    """

    data: str
    out: Path
    model: str | None = None
    scale: str = "short"
    search: bool = False
    combined: bool = False
    seed: int = 0
    device: str = "cpu"
    command: str = ""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise unknown_name("scale", self.scale, SCALES)


@dataclass
class Findings:
    """What a run found: plain `results`, the arrays of pictures and distributions, and what it leaves out."""

    data: Dataset
    results: dict[str, Any]
    claims: Sequence[Claim] = ()
    arrays: Arrays = field(default_factory=dict)
    left_out: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """A paper: how to plan, run and show it.

    `plan` says, as plain data, all that the numbers depend on; `run` trains and measures; `sections`
    draws the page from the summary and the arrays alone; `colors` says which data are read in "grey".
    """

    name: str
    title: str
    reference: str
    says: str
    data: tuple[str, ...]
    models: tuple[str, ...]
    plan: Callable[[Request, Dataset, Dataset], dict[str, Any]]
    run: Callable[[Request, Dataset, Dataset, Path, Store], Findings]
    sections: Callable[[dict[str, Any], Arrays], list[Section]]
    colors: Mapping[str, str] = field(default_factory=dict)

    def model_of(self, request: Request) -> str:
        """The architecture of a request; refused where the paper has no such one."""
        if request.model is None:
            return self.models[0]
        if request.model not in self.models:
            raise unknown_name(f"model of {self.name}", request.model, self.models)
        return request.model


def run(paper: Paper, request: Request) -> dict[str, Any]:
    """Train, measure, and write `summary.json`, `arrays.npz` and `index.html`; returns the summary.

    Raises:
        UsageError: unknown data, model or scale, or a folder of another run.
    """
    paper.model_of(request)
    color = paper.colors.get(request.data)
    train, test = load(request.data, "train", color=color), load(request.data, "test", color=color)
    if train.classes != test.classes:
        raise UsageError(f"the training and test data of {request.data} have different classes")
    plan = {
        "paper": paper.name,
        "model": paper.model_of(request),
        "scale": request.scale,
        "search": request.search,
        "seed": request.seed,
        "training data": train.fingerprint,
        "test data": test.fingerprint,
        **paper.plan(request, train, test),
    }
    folder = output_folder(request.out, plan)
    store = Store(folder / "cells")
    found = paper.run(request, train, test, folder, store)
    seconds = {**found.seconds, **store.seconds}
    summary = {
        "schema": SCHEMA,
        "version": __version__,
        "created": provenance.now(),
        "machine": provenance.machine(request.device),
        "seconds": round(sum(seconds.values()), 1),
        "spent": {title: round(value, 1) for title, value in seconds.items()},
        "command": request.command,
        "paper": {"name": paper.name, "title": paper.title, "reference": paper.reference, "says": paper.says},
        "config": plan,
        "data": {
            "name": train.name,
            "training": len(train),
            "test": len(test),
            "classes": list(train.classes),
            "shape": list(train.shape),
        },
        "left_out": list(found.left_out),
        "claims": [claim.plain() for claim in found.claims],
        "results": found.results,
    }
    with atomic(folder / "arrays.npz") as temporary:
        np.savez_compressed(temporary, **found.arrays)  # type: ignore[arg-type]
    write_json(folder / "summary.json", summary)
    draw(paper, folder)
    return summary


def draw(paper: Paper, folder: Path) -> Path:
    """Draw the page of a finished run again, from its files."""
    from steadygrad.files import write_text
    from steadygrad.papers.store import read

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    path = folder / "index.html"
    write_text(path, render(summary, paper.sections(summary, read(folder / "arrays.npz"))))
    return path
