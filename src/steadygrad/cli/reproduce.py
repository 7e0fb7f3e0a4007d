"""`steadygrad reproduce`: a paper's experiment, with its tables next to the published numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from steadygrad.cli import known
from steadygrad.cli.common import (
    Data,
    Debug,
    Device,
    Json,
    Quiet,
    Seed,
    emit,
    in_folder,
    out_option,
    pick_device,
    progress,
    say,
)
from steadygrad.named_data import check_reachable

SCALES = ("smoke", "short", "paper")


def reproduce(
    paper: Annotated[
        str,
        typer.Argument(
            help="A name from `steadygrad list papers`.",
            show_default=False,
            autocompletion=known.completing("papers"),
        ),
    ],
    data: Data = "mnist",
    model: Annotated[
        str | None,
        typer.Option(help="Network, where the paper has several.", show_default="the paper's first"),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="|".join(SCALES),
            help="smoke: does it run? short: do the signs hold? paper: its own lengths.",
            autocompletion=known.completing(SCALES),
        ),
    ] = "short",
    search: Annotated[
        bool, typer.Option("--search", metavar="", help="Choose weights and rates on validation data first.")
    ] = False,
    combined: Annotated[
        bool, typer.Option("--combined", metavar="", help="yan2018: also a combination of defenses, not in the paper.")
    ] = False,
    out: Annotated[Path | None, out_option("runs/PAPER-DATA-MODEL-SCALE")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads.", show_default="PyTorch's choice")
    ] = None,
    seed: Seed = 0,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="0-4", help="Several seeds, such as 0-4 or 0,3,7: intervals over trainings too."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes on this machine that divide the seeds among them.")
    ] = 1,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|shared",
            help="shared: all processes and machines that are given this command divide its seeds among them.",
            autocompletion=known.completing(["local", "shared"]),
        ),
    ] = "local",
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train and measure what a paper did, and write its tables next to ours.

    Examples:

      steadygrad reproduce ross2018 --data mnist --scale short

      steadygrad reproduce yan2018 --data mnist --model lenet --scale paper

      steadygrad reproduce ross2018 --data digits --scale smoke --seeds 0-4

      steadygrad reproduce ross2018 --data mnist --seeds 0-9 --workers 4
    """
    check_reachable(data)

    import torch

    from steadygrad import papers
    from steadygrad.errors import one_of
    from steadygrad.papers.seeds import seeds_of
    from steadygrad.registry import build

    one_of("paper", paper, papers.PAPERS)
    where = pick_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    model = model if model is not None else papers.PAPERS[paper].models[0]
    several = "-seeds" if seeds is not None else ""
    usual = f"runs/{paper}-{Path(data.rpartition(':')[2]).stem}-{model}-{scale}{several}"
    request = papers.Request(
        data=data,
        out=Path(usual),
        model=model,
        scale=scale,
        search=search,
        combined=combined,
        seeds=(seed,) if seeds is None else seeds_of(seeds),
        device=where,
        engine=build("engine", engine, {"workers": workers} if engine != "ray" else {}),
    )
    with progress(quiet):
        summary, folder = in_folder(
            out, usual, lambda folder: papers.reproduce(paper, dataclasses.replace(request, out=folder))
        )
    page = folder / "index.html"
    if json:
        emit({**summary, "out": str(folder), "report": str(page)})
        return
    for claim in summary["claims"]:
        say(_line(claim))
    say(f"report: {page}\nsummary: {folder / 'summary.json'}")


def _line(claim: dict[str, Any]) -> str:
    from steadygrad.papers.paper_page import claim_found

    mark = "–" if claim["found"] is None else "✓" if claim["held"] else "✗"
    return f"{mark} {claim['text']}: {claim_found(claim)}, needed {claim['needed']} ({claim['verdict']})"
