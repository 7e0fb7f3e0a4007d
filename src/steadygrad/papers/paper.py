"""The one experiment of all papers: a declaration is run at one seed or several, judged and drawn.

All that a page shows follows from `config.toml` and the tables of its run folder: a run trains and measures what
is missing, and then draws as anyone can again.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from steadygrad.data import Dataset, load
from steadygrad.engines import Engine, Local, Shared
from steadygrad.engines.pieces import divided
from steadygrad.errors import UsageError, unknown_name
from steadygrad.files import write_json, write_text
from steadygrad.measuring.statistics import Estimate
from steadygrad.papers.claims import Claim
from steadygrad.papers.paper_page import render
from steadygrad.papers.seeds import over_seeds
from steadygrad.papers.study import Study
from steadygrad.registry import label_of
from steadygrad.report.blocks import Section
from steadygrad.run_folders import read_record, run_folder

SCHEMA = 2

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
        search: choose the weights of the defenses on held-out data rather than from the table.
        combined: also train the combination of defenses that the paper does not have, where one is set up.
        seeds: one training of everything for each; several give intervals over trainings.
        engine: whose processes divide the seeds among them.
    """

    data: str
    out: Path
    model: str | None = None
    scale: str = "short"
    search: bool = False
    combined: bool = False
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    engine: Engine = Local()

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise unknown_name("scale", self.scale, SCALES)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"seeds must be at least one and all different, got {list(self.seeds)}")
        if not isinstance(self.engine, Local):
            raise UsageError("engine must be local or shared, whose processes divide the seeds among them")
        if self.engine.together and len(self.seeds) == 1:
            raise UsageError(f"{label_of(self.engine)} divides seeds, and there is one: give several (seeds=, --seeds)")


@dataclass(frozen=True)
class Findings:
    """What a run found.

    Args:
        results: for `summary.json`: plain data, estimates, and dataclasses of these.
        claims: what the paper expects.
        sections: of the page.
        left_out: what the run leaves out or does differently, a sentence each.
        headline: the main figures by name, each with its unit ("%", "points" or another one).
    """

    results: dict[str, Any]
    claims: Sequence[Claim]
    sections: Sequence[Section]
    left_out: Sequence[str] = ()
    headline: Mapping[str, tuple[Estimate, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """The declaration of a paper.

    Args:
        name, title, reference, says: for lists and the page.
        data, models: by name, the usual ones first.
        samples: the named samples that are trained on, chosen on and measured, from a study without any and the whole
            training and test data; among them "test".
        plan: all that the numbers depend on besides data, scale and seed, as plain data for `config.toml`.
        measure: trains the networks and measures them; returns what `find` needs.
        find: results, claims and the page, from the tables alone.
        colors: which data are read in "gray".
    """

    name: str
    title: str
    reference: str
    says: str
    data: Sequence[str]
    models: Sequence[str]
    samples: Callable[[Study, Dataset, Dataset], dict[str, Dataset]]
    plan: Callable[[Study], dict[str, Any]]
    measure: Callable[[Study], Any]
    find: Callable[[Study, Any], Findings]
    colors: Mapping[str, str] = field(default_factory=dict)

    def model_of(self, request: Request) -> str:
        """The architecture of a request; refused where the paper has no such one."""
        if request.model is None:
            return self.models[0]
        if request.model not in self.models:
            raise unknown_name(f"model of {self.name}", request.model, self.models)
        return request.model


def reproduce(paper: Paper, request: Request) -> dict[str, Any]:
    """Train and measure at every seed, and write `summary.json` and `index.html`; returns the summary.

    Raises:
        UsageError: unknown data, model or scale, or a folder of another run.
    """
    model, color = paper.model_of(request), paper.colors.get(request.data)
    whole, test = load(request.data, "train", color=color), load(request.data, "test", color=color)
    if whole.classes != test.classes:
        raise UsageError(f"the training and test data of {request.data} have different classes")
    config: dict[str, Any] = {
        "paper": paper.name,
        "model": model,
        "scale": request.scale,
        "search": request.search,
        "combined": request.combined,
        "data": request.data,
        "dataset": whole.name,
        "classes": list(whole.classes),
        "shape": list(whole.shape),
        "counts": [len(whole), len(test)],
        "training data": whole.fingerprint,
        "test data": test.fingerprint,
    }

    def at(seed: int, folder: Path) -> dict[str, Any]:
        study = Study({**config, "seed": seed}, folder)
        samples = paper.samples(study, whole, test)
        study.config["samples"] = {n: {"count": len(d), "fingerprint": d.fingerprint} for n, d in samples.items()}
        study.samples, study.device = samples, request.device
        study.config |= paper.plan(study)
        with run_folder(study.folder, study.config):
            study.config = read_record(study.folder)
            paper.measure(study)
            return draw(paper, study.folder)

    if len(request.seeds) == 1:
        return at(request.seeds[0], request.out)
    again = functools.partial(_again, paper.name, dataclasses.replace(request, engine=Shared()))
    kind, names = torch.device(request.device).type, {f"seed-{seed}": seed for seed in request.seeds}
    together = request.engine.together
    with run_folder(request.out, config, together=together, by=kind), request.engine.working(again):
        if together:
            divided(request.out, names, lambda name: at(names[name], request.out / name))
        for name, seed in names.items() if not together else ():
            at(seed, request.out / name)
        return draw(paper, request.out)


def _again(name: str, request: Request) -> None:
    """The same run in another process, to which the name of a paper goes, and no functions."""
    from steadygrad import papers

    papers.reproduce(name, request)


def draw(paper: Paper, folder: Path) -> dict[str, Any]:
    """Write the summary and the page of a finished run from its configuration and tables; returns the summary.

    A folder with several seeds shows the first one's figures, and the means of the main ones over all.
    """
    config = read_record(folder)
    if "seed" in config:
        runs = {int(config["seed"]): _read(paper, folder)}
    else:
        seeds = sorted(int(p.parent.name.removeprefix("seed-")) for p in folder.glob("seed-*/summary.json"))
        runs = {seed: _read(paper, folder / f"seed-{seed}") for seed in seeds}
    (study, found), seeds = next(iter(runs.values())), list(runs)
    spent = {title: sum(s.spent.get(title, 0.0) for s, _ in runs.values()) for title in study.spent}
    latest = max((s.latest for s, _ in runs.values()), key=lambda a: str(a["created"]))
    claims, sections = list(found.claims), list(found.sections)
    left_out = ["One seed: the intervals say nothing about another training.", *found.left_out]
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "version": latest["version"],
        "created": latest["created"],
        "machine": latest["machine"],
        "seconds": round(sum(spent.values()), 1),
        "spent": {title: round(value, 1) for title, value in spent.items()},
        "command": _command(study, seeds),
        "paper": {"name": paper.name, "title": paper.title, "reference": paper.reference, "says": paper.says},
        "config": study.config,
        "data": {
            "name": study["dataset"],
            "training": study["counts"][0],
            "test": study["counts"][1],
            "classes": study["classes"],
            "shape": study["shape"],
        },
        "seeds": seeds,
    }
    if len(runs) > 1:
        every = [f for _, f in runs.values()]
        claims, section, summary["over_seeds"] = over_seeds(
            seeds, [f.claims for f in every], [f.headline for f in every]
        )
        sections, left_out = [section, *sections], left_out[1:]
    summary |= {"left_out": left_out, "claims": [claim.plain() for claim in claims], "results": plain(found.results)}
    write_json(folder / "summary.json", summary)
    write_text(folder / "index.html", render(summary, sections))
    return summary


def _read(paper: Paper, folder: Path) -> tuple[Study, Findings]:
    study = Study(read_record(folder), folder)
    return study, paper.find(study, paper.measure(study))


def plain(value: Any) -> Any:
    """Estimates, other dataclasses and NumPy's numbers as plain data for JSON.

    >>> plain({"share": Estimate(0.5, 0.25, 0.75, 10), "rows": (1, 2)})
    {'share': {'value': 0.5, 'low': 0.25, 'high': 0.75, 'count': 10}, 'rows': [1, 2]}
    """
    if isinstance(value, Estimate):
        return value.plain()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _command(study: Study, seeds: Sequence[int]) -> str:
    """The command that makes the run."""
    words = ["steadygrad", "reproduce", study["paper"], "--data", study["data"], "--model", study["model"]]
    words += ["--scale", study["scale"], *(f"--{flag}" for flag in ("search", "combined") if study[flag])]
    if len(seeds) > 1:
        words += ["--seeds", ",".join(map(str, seeds))]
    elif seeds != [0]:
        words += ["--seed", str(seeds[0])]
    return shlex.join(words)
