"""Yan, Guo and Zhang 2018, Deep Defense: a reference model and four ways of hardening it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from steadygrad.attacks import DDN
from steadygrad.attacks.suites import SUITES
from steadygrad.data import Dataset
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.measures.rho2 import Rho2
from steadygrad.measuring.measures.signed_steps import SignedSteps, halving_radius
from steadygrad.measuring.paired import ratio_of_means, ratio_of_medians
from steadygrad.measuring.statistics import mean, quantiles, share_of
from steadygrad.measuring.table import Array
from steadygrad.papers.claims import Claim, in_words, minus, published
from steadygrad.papers.paper import Findings, Paper
from steadygrad.papers.parts import Points, Rows, against, fixed, searched_tables, settings_table
from steadygrad.papers.search import Rule, Search, search
from steadygrad.papers.study import Study
from steadygrad.papers.yan2018_networks import LABELS, RIVALS, SCALES, SETTINGS, Recipe, left_out, methods, recipe_of
from steadygrad.report.blocks import Block, Cell, Section, Table, Text
from steadygrad.report.wording import number
from steadygrad.threat import l2, linf

MULTIPLES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5)
"""Radii of the FGS curve as multiples of the reference radius; the paper's table has .2, .5 and 1."""

_LOSS_ALLOWED = 0.001  # of accuracy, by a candidate of the search
_TEST_IMAGES = 10_000  # the paper's
_AT_LEAST = {"convnet": 1.8}  # times the reference's rho2; more than 1 for other networks


def samples(study: Study, whole: Dataset, test: Dataset) -> dict[str, Dataset]:
    """What is trained on and measured; a search trains on a part, and chooses on the rest."""
    scale = SCALES[study["scale"]]
    train = whole.take(scale["training"], seed=study.seed) if "training" in scale else whole
    named = {"train": train, "test": test.take(scale["test"]) if "test" in scale else test}
    if study["search"]:
        named["fitted"], held = train.divide(1 / 12, study.seed)
        named["held out"] = held.take(scale["validation"])
    return named


def plan(study: Study) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    scale = SCALES[study["scale"]]
    recipe = recipe_of(study["model"]).shortened(scale["part"])
    ways = {"reference": recipe.reference()} | {name: recipe.method(name) for name in methods(study)}
    return {
        "recipe": {name: way.plain() for name, way in ways.items()},
        "grids": recipe.table.get("search", {}) if study["search"] else {},
        "measured": scale,
    }


@dataclass(frozen=True)
class Measured:
    """All measures by model, one entry per image; `fgs` has a row for each of the `MULTIPLES` of the radius."""

    radius: float
    right: Mapping[str, Array]
    rounded: Mapping[str, Array]
    changes: Mapping[str, Array]
    norms: Array
    centered_norms: Array
    fgs: Mapping[str, Array]
    distances: Mapping[str, Array]
    withstands: Mapping[str, Array]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    searched: Mapping[str, Search[dict[str, Any]]] = dataclasses.field(default_factory=dict)

    @property
    def halved(self) -> bool:
        """Whether FGS goes from a clean accuracy above a half down to it: else accuracies at multiples say nothing."""
        at = self.fgs["deep_defense"][MULTIPLES.index(1.0)]
        return bool(at.mean() <= 0.5 < self.right["deep_defense"].mean())

    def rho2(self, name: str, *, centered: bool = True) -> Array:
        """The relative size of DeepFool's change (N,)."""
        sizes: Array = self.changes[name] / np.maximum(self.centered_norms if centered else self.norms, 1e-12)
        return sizes


def measure(study: Study) -> Measured:
    """Train the reference and the methods, and measure all of them."""
    scale = SCALES[study["scale"]]
    recipe = recipe_of(study["model"]).shortened(scale["part"])
    center = study.mean_image("train")
    searched = _searched(study, recipe.shortened(0.4), center) if study["search"] else {}
    ways = {n: recipe.method(n, searched[n].chosen.settings if searched else None) for n in methods(study)}
    study.fit_all({"reference": recipe.reference(), **ways})
    names = ("reference", *ways)
    radius = halving_radius(study.tables(), "deep_defense")
    clean = {name: study.table(Predicted(), name) for name in names}
    sizes = {name: study.table(Rho2(), name, shared=center) for name in names}
    steps = SignedSteps(tuple(m * radius for m in MULTIPLES))
    first, within = study.first(scale["distances"]), linf(radius / 2)
    return Measured(
        radius=radius,
        right={name: table["right"] for name, table in clean.items()},
        rounded={name: table["rounded"] for name, table in clean.items()},
        changes={name: table["change"] for name, table in sizes.items()},
        norms=sizes["reference"]["norm"],
        centered_norms=sizes["reference"]["centered_norm"],
        fgs={name: right[:, 0].T for name, right in study.each(steps, names, "right").items()},
        distances=study.each(Attacked(DDN(), l2()), names, "distance", rows=first),
        withstands={name: study.withstands(name, SUITES["fast"], within, scale["suite"]) for name in names},
        settings={name: way.plain() for name, way in ways.items()},
        searched=searched,
    )


def _searched(study: Study, recipe: Recipe, center: Mapping[str, Array]) -> dict[str, Search[dict[str, Any]]]:
    """For each method the settings with the largest centered rho2 that cost at most .1 point of accuracy."""

    def scores(network: str) -> tuple[float, float]:
        sizes = study.table(Rho2(), network, "held out", shared=center)
        right = study.table(Predicted(), network, "held out")["right"]
        return float(right.mean()), float((sizes["change"] / sizes["centered_norm"]).mean())

    def tried(method: str, changes: dict[str, Any]) -> tuple[float, float]:
        network = " ".join(["search", method, *(f"{place.rpartition('.')[2]} {v}" for place, v in changes.items())])
        study.fit(network, recipe.method(method, changes, "fitted", "search reference"))
        return scores(network)

    study.fit("search reference", recipe.reference("fitted"))
    rule = Rule(scores("search reference")[0], _LOSS_ALLOWED)
    return {name: search(recipe.candidates(name), functools.partial(tried, name), rule) for name in methods(study)}


def find(study: Study, found: Measured) -> Findings:
    """Everything in numbers, judged and drawn."""
    theirs = _published(study["dataset"], study["model"])
    rows = Rows(LABELS, {name: _row(found, name) for name in found.right})
    results = {
        "rows": rows.found,
        "eps_ref": found.radius,
        "halved": found.halved,
        "search": found.searched,
        "settings": found.settings,
    }
    tried = searched_tables(found.searched, LABELS, score="ρ₂, centered", shown="{:.3f}".format, settings=json.dumps)
    sections = [
        Section("The paper's table", [_intro(found), *_accuracy_and_rho(rows, theirs), *_fgs(rows, theirs)]),
        Section("Other judges", [_judges(rows, found.radius)]),
        Section("Settings", [settings_table(LABELS, found.settings), *tried]),
    ]
    headline = rows.headline(accuracy=("accuracy", "%"), rho2_centered=("ρ₂, centered", ""))
    return Findings(results, judge(study["model"], theirs, found), sections, left_out(study), headline)


def _row(found: Measured, name: str) -> dict[str, Any]:
    distances = found.distances[name]
    reached = distances[found.right[name][: len(distances)]]
    return {
        "accuracy": share_of(found.right[name]),
        "rho2": mean(found.rho2(name, centered=False)),
        "rho2_centered": mean(found.rho2(name)),
        "rounded": share_of(found.rounded[name]),
        "fgs": {f"{m:g}": share_of(row) for m, row in zip(MULTIPLES, found.fgs[name])},
        "ddn": {"quantiles": quantiles(reached), "count": len(reached), "images": len(distances)},
        "suite": share_of(found.withstands[name]),
    }


def _published(data: str, network: str) -> dict[str, Any]:
    """The paper's rows by our names of the methods; its adversarial training is compared with FGS."""
    names = {"adversarial_training": "adversarial_fgs"}
    return {
        names.get(row["method"], row["method"]): {
            "accuracy": float(row["accuracy_pct"]) / 100,
            "rho2": float(row["rho2"]),
            "fgs": {f"{m:g}": float(row[f"acc_at_{m:.1f}_eps_ref_pct"]) / 100 for m in (0.2, 0.5, 1.0)},
        }
        for row in published("yan2018_table1")
        if (row["dataset"], row["network"]) == (data, network)
    }


def judge(network: str, theirs: Mapping[str, Any], found: Measured) -> list[Claim]:
    """Every expectation, decided image by image."""
    mine, bar = "deep_defense", theirs.get("deep_defense")
    if bar and network in ("mlp", "lenet"):
        out = _absolute("Deep Defense", mine, found, bar)
    else:
        out = _relative(network, theirs, found)
    for name in RIVALS:
        text = f"Deep Defense minus {LABELS[name]}"
        sizes = {n: found.rho2(n) for n in (mine, name)}
        out.append(minus(f"{text}: ρ₂, centered", sizes, mine, name, unit=""))
        for multiple in (0.5, 1.0):
            kept = {n: found.fgs[n][MULTIPLES.index(multiple)] for n in (mine, name)} if found.halved else {}
            at = [theirs[n]["fgs"][f"{multiple:g}"] if n in theirs else math.nan for n in (mine, name)]
            paper = in_words(at[0] - at[1], "points")
            out.append(minus(f"{text}: accuracy at {multiple:g} ε_ref", kept, mine, name, paper=paper))
    ratio = ratio_of_medians(found.distances[mine], found.distances["reference"])
    detail = "a judge it was not trained on; clean mistakes count as distance 0"
    text = "Deep Defense: median DDN distance over the reference's"
    out.append(Claim(text, ratio, "at least", 1.25, "times", detail=detail))
    if bar and "combined" in found.right:
        detail = "against the paper's Deep Defense"
        at_one = share_of(found.fgs["combined"][MULTIPLES.index(1.0)]) if found.halved else None
        text = "Combined: accuracy at 1.0 ε_ref of Deep Defense"
        found_all = [*_absolute("Combined", "combined", found, bar), Claim(text, at_one, "at least", 0.5)]
        out += [dataclasses.replace(claim, paper="", detail=detail) for claim in found_all]
    return out


def _absolute(label: str, name: str, found: Measured, bar: Mapping[str, Any]) -> list[Claim]:
    accuracy, size = bar["accuracy"], bar["rho2"]
    hits, paper = share_of(found.right[name]), f"{100 * accuracy:.2f} %"
    return [
        Claim(f"{label}: accuracy", hits, "at least", accuracy, "%", paper),
        Claim(f"{label}: ρ₂, centered", mean(found.rho2(name)), "at least", size, "", f"{size:.3f}"),
    ]


def _relative(network: str, theirs: Mapping[str, Any], found: Measured) -> list[Claim]:
    ours, base = "deep_defense", "reference"
    ratio = ratio_of_means(found.rho2(ours, centered=False), found.rho2(base, centered=False))
    paper = f"{theirs[ours]['rho2'] / theirs[base]['rho2']:.2f} times" if {ours, base} <= set(theirs) else ""
    bar = _AT_LEAST.get(network, 1.0)
    return [
        minus("Deep Defense minus reference: accuracy", found.right, ours, base, "at least"),
        Claim("Deep Defense: ρ₂ over the reference's", ratio, "at least" if bar > 1 else "above", bar, "times", paper),
    ]


def _intro(found: Measured) -> Text:
    scales = (
        "ρ₂ in pixels and ρ₂ centered on the mean training image are different scales; the published MNIST figures "
        "are centered."
    )
    if not found.halved:
        return Text(
            "There is no ε_ref: no FGS radius takes the Deep Defense model from an accuracy above a half down to it. "
            f"Accuracies at multiples of {found.radius:.4f} below compare nothing. {scales}"
        )
    return Text(
        f"ε_ref is {found.radius:.4f} in pixels of [0, 1]: the smallest FGS radius at which the Deep Defense model is "
        f"wrong on half of the test images, so that it reads 50 % at 1.0 ε_ref by construction. {scales}"
    )


def _accuracy_and_rho(rows: Rows, theirs: Mapping[str, Any]) -> list[Block]:
    found, base = rows.found, theirs.get("reference")

    def size(name: str) -> list[Cell]:
        row, other = found[name], theirs.get(name)
        ratio = row["rho2"].value / max(found["reference"]["rho2"].value, 1e-12)
        return [
            fixed(row["rho2"]),
            fixed(row["rho2_centered"]),
            Cell(f"{other['rho2']:.3f}" if other else "–"),
            fixed(row["rho2_centered"].minus(other["rho2"]) if other else None, sign="+"),
            Cell(f"{ratio:.2f}"),
            Cell(f"{other['rho2'] / base['rho2']:.2f}" if other and base else "–"),
        ]

    def accuracy(name: str) -> list[Cell]:
        return against(found[name]["accuracy"], theirs.get(name, {}).get("accuracy"), _TEST_IMAGES, (2, 2, 2))

    return [
        rows.table(
            f"Accuracy in percent on {found['reference']['accuracy'].count:,} clean test images. The difference's "
            "interval takes the two runs as independent, which is wider than need be on equal images.",
            {("Accuracy", "Paper", "Difference"): accuracy},
        ),
        rows.table(
            "ρ₂, the mean relative size of DeepFool's change: in pixels, centered, and as a ratio to the reference. "
            "The paper's spread is not published, so the difference's interval is that of ours alone. For CIFAR-10 "
            "only ratios compare.",
            {("ρ₂, pixels", "ρ₂, centered", "Paper", "Difference", "Ratio", "Paper's ratio"): size},
        ),
    ]


def _fgs(rows: Rows, theirs: Mapping[str, Any]) -> list[Block]:
    def ours(name: str, multiple: str) -> list[Cell]:
        other = theirs.get(name, {}).get("fgs", {})
        return against(rows.found[name]["fgs"][multiple], other.get(multiple), _TEST_IMAGES, (1, 2, 1))

    def curve(_: int, name: str) -> Points:
        row = rows.found[name]
        return [0.0, *MULTIPLES], [100 * share.value for share in (row["accuracy"], *row["fgs"].values())]

    shown = {".2": "0.2", ".5": "0.5", "1.0": "1"}
    caption = (
        "Accuracy in percent after one FGS step, in multiples of ε_ref; and the share of images for which float32 "
        "leaves nothing of 1 − p, so that the slope of the cross-entropy has lost a part and FGS of its strength."
    )
    columns = {(f"{text} ε_ref", "Paper", "Diff."): functools.partial(ours, multiple=m) for text, m in shown.items()}
    title = "Accuracy after one FGS step against its radius in multiples of ε_ref."
    limits = {"ylim": (0, 101), "xlim": (0, None)}
    figure = rows.lines([""], curve, title, "radius / ε_ref", "accuracy, %", limits=limits, height=3.4)
    return [rows.table(caption, {**columns, "Rounded": "rounded"}), figure]


def _judges(rows: Rows, radius: float) -> Table:
    reference = rows.found["reference"]
    base = reference["ddn"]["quantiles"]["0.5"]

    def distance(name: str) -> list[Cell]:
        low, middle, high = (rows.found[name]["ddn"]["quantiles"][q] for q in ("0.05", "0.5", "0.95"))
        ratio = f"{middle / base:.2f}" if middle is not None and base else "–"
        return [Cell(number(middle), f"[{number(low)}, {number(high)}]"), Cell(ratio)]

    return rows.table(
        "Two judges that Deep Defense was not trained on. DDN: median l2 distance of the images that were right "
        f"before, with the 5 % and 95 % quantiles (first {reference['ddn']['images']:,} test images). Suite: share in "
        f"percent that no attack of the fast suite changes within linf {radius / 2:.4f}, half of ε_ref (first "
        f"{reference['suite'].count:,}).",
        {("DDN median", "Ratio"): distance, "Worst case of the suite": "suite"},
    )


PAPER = Paper(**SETTINGS["paper"], samples=samples, plan=plan, measure=measure, find=find)
