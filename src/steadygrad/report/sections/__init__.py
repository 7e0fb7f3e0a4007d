"""The sections of an audit's report in their order, a file each: what it shows on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steadygrad.report.blocks import Block
from steadygrad.report.run_folder import Run
from steadygrad.report.sections import (
    attacks_section,
    checks_section,
    corruptions_section,
    curves_section,
    distances_section,
    explained_section,
    gallery_section,
    gradients_section,
    hardened_section,
    headline_section,
    neurons_section,
    reproduce_section,
    transfer_section,
)

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ReportSection:
    """A section.

    Args:
        name: its id on the page; `short` is its name in the contents, `title` its heading.
        parts: what it draws, as keys of the summary: "transfer", "models.curve", or "harden" for `harden.json`.
        blocks: what it shows; without blocks the section is left out.
        terminal: what is printed of it, or None for nothing.
    """

    name: str
    short: str
    title: str
    parts: str
    blocks: Callable[[Run], Sequence[Block]]
    terminal: Callable[[Run], Table | None] = lambda run: None


_ORIGIN = "version machine command config data models.name models.file models.architecture models.parameters "
SECTIONS = (
    ReportSection("hardened", "Before and after", "Before and after hardening", "harden",
                  hardened_section.blocks, hardened_section.terminal),
    ReportSection("result", "Result", "Result", "models.clean models.robust models.verdict",
                  headline_section.blocks, headline_section.terminal),
    ReportSection("attacks", "Attacks", "Attack by attack", "models.attacks models.broken_by", attacks_section.blocks),
    ReportSection("distances", "Distances", "The smallest changes found", "models.distances models.rho2",
                  distances_section.blocks),
    ReportSection("curves", "Curves", "Accuracy against the size of the perturbation", "models.curve",
                  curves_section.blocks),
    ReportSection("checks", "Checks", "Checks behind the verdicts", "models.verdict models.eligibility models.draws",
                  checks_section.blocks),
    ReportSection("corruptions", "Noise", "Noise and corruptions", "models.noise models.corruptions",
                  corruptions_section.blocks),
    ReportSection("transfer", "Transfer", "Transfer between models", "transfer", transfer_section.blocks),
    ReportSection("gallery", "Gallery", "Gallery", "gallery", gallery_section.blocks),
    ReportSection("gradients", "Gradients", "Gradients, confidences, explanations",
                  "models.gradient_norm models.confidence models.explanations", gradients_section.blocks),
    ReportSection("explained", "Explanations", "How far explanations can be moved", "explained",
                  explained_section.blocks, explained_section.terminal),
    ReportSection("neurons", "Neurons", "Which neurons the attack moves", "neurons",
                  neurons_section.blocks, neurons_section.terminal),
    ReportSection("reproduce", "Reproduce", "How to reproduce this page",
                  _ORIGIN + "models.weights models.samples models.attacks", reproduce_section.blocks),
)  # fmt: skip
"""All sections, in their order on the page."""
