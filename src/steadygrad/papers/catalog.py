"""The papers by name."""

from __future__ import annotations

from typing import Any

from steadygrad.errors import unknown_name
from steadygrad.papers.base import Paper, Request, run
from steadygrad.papers.liu2022 import LIU2022
from steadygrad.papers.ross2018 import ROSS2018
from steadygrad.papers.wang2023 import WANG2023
from steadygrad.papers.yan2018 import YAN2018
from steadygrad.papers.zhang2021 import ZHANG2021

__all__ = ["PAPERS", "reproduce"]

PAPERS: dict[str, Paper] = {paper.name: paper for paper in (ROSS2018, YAN2018, ZHANG2021, LIU2022, WANG2023)}


def reproduce(name: str, request: Request) -> dict[str, Any]:
    """Reproduce a paper; returns the summary that is also written to the run folder.

    Raises:
        UsageError: no such paper, data, model or scale, or a folder of another run.
    """
    if name not in PAPERS:
        raise unknown_name("paper", name, PAPERS)
    return run(PAPERS[name], request)
