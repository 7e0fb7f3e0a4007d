"""The page: the paper's table next to ours, the other judges, and the settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from steadygrad.measuring.statistics import Estimate, newcombe
from steadygrad.papers.page import Block, Cell, Figure, Section, Table, Text, drawn, share, signed
from steadygrad.papers.store import Arrays
from steadygrad.papers.yan2018.recipes import LABELS
from steadygrad.report.style import GRID, MARKERS, SERIES, drawing
from steadygrad.report.wording import number

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["sections"]

_TEST_IMAGES = 10_000


def sections(summary: dict[str, Any], arrays: Arrays) -> list[Section]:
    """All sections of the page, from the summary and the arrays alone."""
    found = summary["results"]
    return [
        Section("The paper's table", [_intro(found), _accuracy(found), _rho(found), _fgs(found), _curve(found)]),
        Section("Other judges", [_judges(found)]),
        Section("Settings", _settings(found)),
    ]


def _intro(found: dict[str, Any]) -> Text:
    if not found["halved"]:
        return Text(
            "There is no ε_ref: no FGS radius takes the Deep Defense model from an accuracy above a half down to it. "
            f"Accuracies at multiples of {found['eps_ref']:.4f} below compare nothing. ρ₂ in pixels and ρ₂ centered on "
            "the mean training image are different scales; the published MNIST figures are centered."
        )
    return Text(
        f"ε_ref is {found['eps_ref']:.4f} in pixels of [0, 1]: the smallest FGS radius at which the Deep Defense "
        "model is "
        "wrong on half of the test images, so that it reads 50 % at 1.0 ε_ref by construction. ρ₂ in pixels and ρ₂ "
        "centered on the mean training image are different scales; the published MNIST figures are centered."
    )


def _accuracy(found: dict[str, Any]) -> Table:
    rows = []
    for name in found["models"]:
        mine, theirs = found["rows"][name]["accuracy"], found["published"].get(name)
        difference = newcombe(Estimate(**mine), theirs["accuracy"], _TEST_IMAGES).plain() if theirs else None
        cells = [_exact(mine), Cell(f"{100 * theirs['accuracy']:.2f}" if theirs else "–"), signed(difference, digits=2)]
        rows.append((LABELS[name], cells))
    count = found["rows"]["reference"]["accuracy"]["count"]
    return Table(
        f"Accuracy in percent on {count:,} clean test images. The difference's interval takes the two runs as "
        "independent, "
        "which is wider than need be on equal images.",
        ["Model", "Accuracy", "Paper", "Difference"],
        rows,
    )


def _exact(value: dict[str, Any]) -> Cell:
    return Cell(f"{100 * value['value']:.2f}", f"[{100 * value['low']:.2f}, {100 * value['high']:.2f}]")


def _rho(found: dict[str, Any]) -> Table:
    rows = []
    base = found["rows"]["reference"]
    for name in found["models"]:
        mine, theirs = found["rows"][name], found["published"].get(name)
        centered = mine["rho2_centered"]
        difference = Estimate(**centered).minus(theirs["rho2"]).plain() if theirs else None
        ratio = mine["rho2"]["value"] / max(base["rho2"]["value"], 1e-12)
        published = found["published"].get("reference")
        cells = [
            _plain(mine["rho2"]),
            _plain(centered),
            Cell(f"{theirs['rho2']:.3f}" if theirs else "–"),
            signed(difference, 1, 3),
            Cell(f"{ratio:.2f}"),
            Cell(f"{theirs['rho2'] / published['rho2']:.2f}" if theirs and published else "–"),
        ]
        rows.append((LABELS[name], cells))
    return Table(
        "ρ₂, the mean relative size of DeepFool's change: in pixels, centered, and as a ratio to the reference. "
        "The paper's "
        "spread is not published, so the difference's interval is that of ours alone. For CIFAR-10 only ratios "
        "compare.",
        ["Model", "ρ₂, pixels", "ρ₂, centered", "Paper", "Difference", "Ratio", "Paper's ratio"],
        rows,
    )


def _plain(value: dict[str, Any]) -> Cell:
    return Cell(f"{value['value']:.3f}", f"[{value['low']:.3f}, {value['high']:.3f}]")


def _fgs(found: dict[str, Any]) -> Table:
    rows = []
    for name in found["models"]:
        cells = []
        for multiple in ("0.2", "0.5", "1"):
            mine = found["rows"][name]["fgs"][multiple]
            theirs = found["published"].get(name, {}).get("fgs", {}).get(f"{float(multiple):.1f}")
            difference = newcombe(Estimate(**mine), theirs, _TEST_IMAGES).plain() if theirs is not None else None
            cells += [share(mine), Cell("–" if theirs is None else f"{100 * theirs:.2f}"), signed(difference)]
        rows.append((LABELS[name], [*cells, share(found["rows"][name]["rounded"])]))
    head = ["Model", *(t for m in (".2", ".5", "1.0") for t in (f"{m} ε_ref", "Paper", "Diff.")), "Rounded"]
    caption = (
        "Accuracy in percent after one FGS step, in multiples of ε_ref; and the share of images for which float32 "
        "leaves nothing of 1 − p, so that the slope of the cross-entropy has lost a part and FGS of its strength."
    )
    return Table(caption, head, rows)


def _curve(found: dict[str, Any]) -> Figure:
    return Figure(_drawing(found), "Accuracy after one FGS step against its radius in multiples of ε_ref.")


def _drawing(found: dict[str, Any]) -> Markup:
    from matplotlib.figure import Figure as Canvas

    with drawing(11.0):
        figure = Canvas(figsize=(10.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for index, name in enumerate(found["models"]):
            row = found["rows"][name]
            points = [(0.0, row["accuracy"]["value"]), *((float(m), v["value"]) for m, v in row["fgs"].items())]
            axes.plot(
                [p[0] for p in points], [100 * p[1] for p in points], label=LABELS[name],
                color=SERIES[index % len(SERIES)], marker=MARKERS[index], markersize=4.5, linewidth=1.6,
            )  # fmt: skip
        axes.set_xlabel("radius / ε_ref")
        axes.set_ylabel("accuracy, %")
        axes.set_ylim(0, 101)
        axes.set_xlim(0)
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return drawn(figure, "Accuracy after FGS against the radius")


def _judges(found: dict[str, Any]) -> Table:
    rows = []
    base = found["rows"]["reference"]["ddn"]["quantiles"]["0.5"]
    for name in found["models"]:
        row = found["rows"][name]
        values = row["ddn"]["quantiles"]
        middle = values["0.5"]
        cells = [
            Cell(number(middle), f"[{number(values['0.05'])}, {number(values['0.95'])}]"),
            Cell(f"{middle / base:.2f}" if middle is not None and base else "–"),
            share(row["suite"]),
        ]
        rows.append((LABELS[name], cells))
    images = found["images"]
    return Table(
        "Two judges that Deep Defense was not trained on. DDN: median l2 distance of the images that were right "
        "before, with "
        f"the 5 % and 95 % quantiles (first {images['DDN']:,} test images). Suite: share in percent that no "
        "attack of the "
        f"fast suite changes within linf {found['suite_eps']:.4f}, half of ε_ref (first {images['suite']:,}).",
        ["Model", "DDN median", "Ratio", "Worst case of the suite"],
        rows,
    )


def _settings(found: dict[str, Any]) -> list[Block]:
    rows = []
    for name, way in found["settings"].items():
        defense = ", ".join(f"{k} = {v}" for k, v in way["defense"].items() if k != "name")
        keys = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay")
        training = ", ".join(f"{k} = {way['training'][k]}" for k in keys)
        rows.append((LABELS[name], [Cell(f"{way['defense']['name']}: {defense}"), Cell(training)]))
    blocks: list[Block] = [
        Table("What each method was trained with.", ["Model", "Objective", "Training"], rows, words=(0, 1))
    ]
    if found["search"]:
        blocks += [_search(name, table, found["search"]) for name, table in found["search"]["candidates"].items()]
    return blocks


def _search(name: str, table: dict[str, Any], search: dict[str, Any]) -> Table:
    rows = []
    for row in table["rows"]:
        text = ", ".join(f"{k} = {json.dumps(v)}" for k, v in row["changes"].items()) or "as in the table"
        best = row["changes"] == table["chosen"]
        cells = [
            Cell(f"{100 * row['accuracy']:.2f}", good=True if best else None),
            Cell(f"{row['rho2']:.3f}"),
        ]
        rows.append((text, cells))
    base = search["reference"]
    return Table(
        f"{LABELS[name]}: the search on validation data; the reference has {100 * base['accuracy']:.2f} % and ρ₂ "
        f"{base['rho2']:.3f}. ✓ is what was chosen.",
        ["Settings", "Accuracy, %", "ρ₂, centered"],
        rows,
    )
