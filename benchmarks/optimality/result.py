"""Local optimality from distances, as a table, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.optimality.searches import OURS
from steadygrad import files
from steadygrad.report.style import GRID, INK, MUTED, PAPER, SERIES, drawing

__all__ = ["local_optimality", "write"]

Row = dict[str, Any]


def local_optimality(distances: Sequence[float], best: Sequence[float]) -> float:
    """1 - (area - least area) / (largest area - least area), of accuracy over radii up to the largest best distance.

    >>> local_optimality([1.0, 2.0], [1.0, 2.0]), local_optimality([np.inf, np.inf], [1.0, 2.0])
    (1.0, 0.0)
    """
    known = np.asarray(best)
    top = float(known.max())
    # The area under the share of distances above a radius, up to the top, is their mean cut off there.
    area, least, most = np.minimum(distances, top).mean(), known.mean(), (known > 0).mean() * top
    return float(1 - (area - least) / (most - least))


def scored(rows: Sequence[Row]) -> list[Row]:
    """The rows that went well with their local optimality, median and mean, grouped by model and norm."""
    made = []
    done = [row for row in rows if row["error"] is None]
    for place in sorted({(row["model"], row["norm"]) for row in done}):
        mine = [row for row in done if (row["model"], row["norm"]) == place]
        found = [[np.inf if d is None else d for d in row["distances"]] for row in mine]
        best = np.min(found, axis=0)
        for row, distances in zip(mine, found, strict=True):
            made.append(
                {
                    **{
                        k: row[k] for k in ("model", "norm", "library", "search", "budget", "samples", "seed", "passes")
                    },
                    "optimality": local_optimality(distances, best),
                    "success": float(np.isfinite(distances).mean()),
                    "median": statistics.median(distances),
                    "median_best": statistics.median(best),
                }
            )
    order = {"plain": 0, "pgd": 1, "silu": 2}
    made.sort(key=lambda r: (order[r["model"]], r["norm"], r["budget"], -r["optimality"]))
    return made


def write(rows: Sequence[Row], out: Path) -> None:
    """Write `optimality.csv`, `.md` and `.png`."""
    made = scored(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(made[0]), lineterminator="\n")
    writer.writeheader()
    for row in made:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    files.write_text(out / "optimality.csv", text.getvalue())
    failed = [
        f"* failed: {r['model']} {r['norm']} {r['library']} {r['search']}: {r['error']}" for r in rows if r["error"]
    ]
    files.write_text(out / "optimality.md", _page(made, failed))
    _draw(made, out / "optimality.png")


def _page(made: list[Row], failed: list[str]) -> str:
    lines = ["# Local optimality of the searches for the smallest change", ""]
    lines += [
        f"{made[0]['samples']} images, seed {made[0]['seed']}; in brackets the passes of a sample. Best first.",
        "",
    ]
    lines += ["![local optimality](optimality.png)", ""]
    for (model, norm), group in itertools.groupby(made, key=lambda r: (r["model"], r["norm"])):
        mine = list(group)
        budgets = sorted({row["budget"] for row in mine})
        cells = {(row["library"], row["search"], row["budget"]): row for row in mine}
        names = list(dict.fromkeys((r["library"], r["search"]) for r in mine if r["budget"] == budgets[-1]))
        lines += [f"## {model}, {norm}", "", f"Median of the best known: {mine[0]['median_best']:.4g}.", ""]
        lines += [f"| library | search | {' | '.join(f'{b:,} passes' for b in budgets)} | median at {budgets[-1]:,} |"]
        lines += ["|---|---|" + "---:|" * (len(budgets) + 1)]
        for library, search in names:
            found = [cells[library, search, budget] for budget in budgets]
            values = [f"{row['optimality']:.3f} ({row['passes']:.0f})" for row in found]
            shown = f"**{library}**" if library == OURS else library
            lines.append(f"| {shown} | {search} | {' | '.join(values)} | {found[-1]['median']:.4g} |")
        lines.append("")
    return "\n".join([*lines, *dict.fromkeys(failed)]).rstrip() + "\n"


def _draw(made: list[Row], path: Path) -> None:
    """A panel per model and norm: local optimality over the passes spent; ours in color."""
    models, norms = (list(dict.fromkeys(row[key] for row in made)) for key in ("model", "norm"))
    colors = dict(zip(dict.fromkeys(row["search"] for row in made if row["library"] == OURS), SERIES, strict=False))
    with drawing(10.0):
        figure = Figure(figsize=(4.2 * len(norms), 3.6 * len(models)), facecolor=PAPER, layout="constrained")
        for axes, (model, norm) in zip(
            figure.subplots(len(models), len(norms), squeeze=False).flat, itertools.product(models, norms), strict=True
        ):
            mine = [row for row in made if (row["model"], row["norm"]) == (model, norm)]
            for library, search in sorted({(row["library"], row["search"]) for row in mine}):
                line = sorted(
                    (r["passes"], r["optimality"]) for r in mine if (r["library"], r["search"]) == (library, search)
                )
                ours = library == OURS
                style: dict[str, Any] = {"color": colors[search], "linewidth": 2.0} if ours else {}
                axes.plot(*zip(*line, strict=True), marker="o", markersize=3, label=f"{search}" if ours else None,
                          **(style or {"color": MUTED, "linewidth": 0.8, "alpha": 0.7}))  # fmt: skip
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
            axes.set_ylim(0.6, 1.01)
            axes.set_title(f"{model}, {norm}", loc="left", color=INK, fontsize="medium")
            axes.grid(color=GRID, linewidth=0.8)
            axes.legend(loc="lower right", frameon=False, fontsize="small")
            axes.spines[["top", "right"]].set_visible(False)
        figure.supxlabel("passes of a sample (gray: other libraries)", color=INK, fontsize="medium")
        figure.supylabel("local optimality", color=INK, fontsize="medium")
        with files.atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=130, metadata={"Software": None})
