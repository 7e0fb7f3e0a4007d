"""Wang and Kong 2023: networks trained in several ways, bounds on their maps, and attacks compared with the bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad.measuring.measures.map_bounds import DISTANCES, KINDS
from steadygrad.measuring.paired import rank_correlation
from steadygrad.measuring.statistics import Estimate, bootstrap, quantiles, share_of
from steadygrad.measuring.table import Array
from steadygrad.papers import wang2023_experiment as experiment
from steadygrad.papers.claims import Claim
from steadygrad.papers.paper import Findings, Paper
from steadygrad.papers.parts import Rows, line, panels
from steadygrad.papers.study import Study
from steadygrad.papers.wang2023_experiment import ATTACKS, LABELS, MAPS, Attacked
from steadygrad.report.blocks import Block, Cell, Figure, Folded, Pictures, Section, Table, Text
from steadygrad.report.png import Picture, change, image
from steadygrad.report.style import MUTED, SERIES, logarithmic
from steadygrad.report.wording import between, budget, norm, number
from steadygrad.threat import Threat, linf

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_DRAWN = 60  # images of each model in the scatter plot
_WORDS = (
    "An attack shows what can happen; the linearized bound holds for the tangent of the map; the certified one for "
    "every allowed input. All points of all attacks are compared with both bounds, in Euclidean distance and in "
    "1 − cosine of the signed maps."
)


def find(study: Study, measured: tuple[dict[str, Array], list[Attacked]]) -> Findings:
    """Everything in numbers, judged and drawn."""
    (right, found), scale = measured, experiment.SCALES[study["scale"]]
    counts, rows, across = _counts(found), [_row(one) for one in found], _across(found)
    clean = {name: share_of(hits) for name, hits in right.items()}
    of = {name: _named([row for row in rows if row["map"] == name]) for name in MAPS}
    accuracies = Rows(LABELS, clean).table(
        f"Accuracy on clean test images, in percent. Adversarial points of the trainings lie within ℓ∞ "
        f"{budget(experiment.radius(study['dataset']))}.",
        {"Accuracy": clean.get},
    )
    sections = [
        Section("Attacks against bounds", [Text(_WORDS), _violations(counts), _remainders(counts), accuracies]),
        Section(
            "How sharp the bounds are",
            [
                *(_scatter(name, [one for one in found if one.map == name]) for name in MAPS),
                *(Folded(f"{name}: medians", [_medians(name, of[name]), _cosines(name, of[name])]) for name in MAPS),
            ],
        ),
        Section("Which attack comes furthest", [_by_attack(name, of[name]) for name in MAPS]),
        Section("Rank agreement", _agreement(rows, across)),
        Section("Maps", [_pictures([one for one in found if one.map == "saliency"])]),
    ]
    results = {"clean": clean, "counts": counts, "cells": rows, "across_models": across}
    headline = {f"{LABELS[name]}: accuracy": (share, "%") for name, share in clean.items()}
    return Findings(results, judge(counts, rows, scale["needed"]), sections, _left_out(study, scale), headline)


def _counts(found: Sequence[Attacked]) -> dict[str, Any]:
    """Points and violations of all together."""

    def total(name: str) -> int:
        return sum(int(one.points[name].sum()) for one in found)

    return {
        "tried": total("tried"),
        "kept": total("kept"),
        "comparisons": total("kept") * len(KINDS) * len(DISTANCES),
        "beyond": {kind: {d: total(f"over_{d}_{kind}") for d in DISTANCES} for kind in KINDS},
        "unexplained": total("unexplained"),
        "excess_over_remainder": np.sum([one.points["excess"].sum((0, 1)) for one in found], axis=0).tolist(),
    }


def _row(one: Attacked) -> dict[str, Any]:
    points, best, tangent = one.points, one.strongest, one.bound("linearized")
    far = points["deviation_euclidean"]  # (N, A)
    return {
        "model": one.model,
        "map": one.map,
        "norm": one.threat.norm,
        "eps": one.threat.eps,
        "images": len(best),
        "points": int(points["kept"].sum()),
        "length": _middle(one.length),
        "attack": _middle(best),
        "noise": _middle(far[:, 0]),
        "tangent": _middle(one.tangent),
        **{kind: _middle(one.bound(kind)) for kind in KINDS},
        "ratio": {kind: median_ratio(one.bound(kind), best) for kind in KINDS},
        "agreement": {kind: rank_correlation(one.bound(kind), best) for kind in KINDS},
        "by_attack": {name: _middle(far[:, i] / np.maximum(tangent, 1e-30)) for i, name in enumerate(ATTACKS)},
        "beyond": {kind: {d: int(points[f"over_{d}_{kind}"].sum()) for d in DISTANCES} for kind in KINDS},
        "images_beyond": int(points["over_euclidean_linearized"].any(1).sum()),
        "cosine": {
            "attack": _middle(points["deviation_cosine"].max(1)),
            **{kind: _middle(one.bounds["cosine", kind]) for kind in KINDS},
        },
    }


def _middle(values: Array) -> float | None:
    return quantiles(values, (0.5,))["0.5"]


def median_ratio(upper: Array, reached: Array) -> Estimate | None:
    """The median of bound over attack, with its bootstrap interval over images; None where none moved a map.

    Images whose map no attack moved count as infinitely far, and an infinite median is not given.
    """
    found = bootstrap(np.median, np.where(reached > 0, upper / np.where(reached > 0, reached, 1.0), np.inf))
    return found if np.isfinite([found.value, found.low, found.high]).all() else None


def _across(found: Sequence[Attacked]) -> list[dict[str, Any]]:
    """Whether the models come in the same order by bound and by attack: one rank correlation of their medians."""
    out = []
    for name, threat in dict.fromkeys((one.map, one.threat) for one in found):
        group = [one for one in found if (one.map, one.threat) == (name, threat)]
        best = [np.median(one.strongest) for one in group]
        out.append({"map": name, "norm": threat.norm, "eps": threat.eps, "models": len(group)})
        for kind in KINDS:
            ranks = rank_correlation([np.median(one.bound(kind)) for one in group], best)
            out[-1][kind] = None if ranks is None else ranks.value
    return out


def judge(counts: dict[str, Any], rows: Sequence[dict[str, Any]], needed: int) -> list[Claim]:
    """Every expectation with what was found; bounds are judged at the smaller radius of each norm."""
    beyond = {kind: sum(counts["beyond"][kind].values()) for kind in KINDS}
    first_order = "it holds to first order only, so that some are expected here"
    out = [
        Claim("Attacked points", _exactly(counts["kept"]), "at least", needed, "", "over 10 million"),
        Claim("Points beyond the certified bound", _exactly(beyond["certified"]), "at most", 0, ""),
        Claim(
            "Points beyond the linearized bound", _exactly(beyond["linearized"]), "at most", 0, "", "none", first_order
        ),
        Claim(
            "Points beyond the linearized bound that the remainder does not explain",
            *(_exactly(counts["unexplained"]), "at most", 0, ""),
        ),
    ]
    for row in rows:
        if row["map"] != "saliency" or row["eps"] != min(r["eps"] for r in rows if r["norm"] == row["norm"]):
            continue
        where = f"{LABELS[row['model']]}, saliency, {Threat(row['norm'], row['eps'])}"
        ranks = f"{where}: rank correlation of linearized bound and strongest attack over images"
        if row["norm"] == "l2":
            out.append(Claim(ranks, row["agreement"]["linearized"], "at least", 0.8, ""))
        ratio = row["ratio"]["certified"]
        out.append(Claim(f"{where}: certified bound over strongest attack, median", ratio, "at most", 3, "times"))
    return out


def _exactly(count: int) -> Estimate:
    return Estimate(count, count, count)


def _left_out(study: Study, scale: Mapping[str, Any]) -> list[str]:
    lines = [
        "The paper's networks, radii and tables were not available: only its count of attacks is compared.",
        f"A point is an iterate of a restart of an attack, so that points of one restart are alike: "
        f"{experiment.points_of(scale)} of each image, model, map and threat.",
        "Integrated gradients are attacked on fewer images, with 4 points on the path.",
    ]
    if math.prod(study["shape"]) > experiment.EXACT:
        lines.append("Certified bounds are those of interval arithmetic: the images have more than 1,024 entries.")
    if not scale["more"]:
        lines.append("TRADES, IG-NORM and IG-SUM-NORM are trained at the scale of the paper only.")
    if "samples" in scale:
        lines.append(f"{study.size('train'):,} training samples, {scale['training']['epochs']} epochs.")
    return lines


def _violations(counts: dict[str, Any]) -> Table:
    said = {
        "points tried": (counts["tried"], "–"),
        "of these, inside the threat with an unchanged prediction": (counts["kept"], "> 10 million"),
        **{
            f"beyond the {kind} bound, {label}": (counts["beyond"][kind][label.lower()], paper)
            for kind, paper in (("certified", "–"), ("linearized", "none"))
            for label in ("Euclidean", "cosine")
        },
        "of the linearized: not explained by the remainder": (counts["unexplained"], "–"),
    }
    return Rows({text: text for text in said}, said).table(
        "Points and violations, ours and as the paper states. A point is one iterate of one restart of one attack on "
        "one image of one model, map and threat.",
        {"Ours": lambda text: f"{said[text][0]:,}", "Paper": 1},
        first="",
    )


def _remainders(counts: dict[str, Any]) -> Text:
    shares = np.array(counts["excess_over_remainder"])
    inner, bins, total = shares[:-1], len(shares) - 1, int(shares.sum())
    if not total:
        return Text("No point exceeds the linearized Euclidean bound.")
    middle = (min(int(np.searchsorted(np.cumsum(inner), inner.sum() / 2)), bins - 1) + 0.5) / bins
    return Text(
        f"{total:,} points exceed the linearized Euclidean bound. Their excess over it is at most the remainder "
        "‖g(x+δ) − g(x) − Jδ‖ wherever the bound holds for the tangent; measured, the excess is about "
        f"{100 * middle:.0f} % of the remainder in the median (bins of 5 %), and above it for {int(shares[-1]):,} "
        "points."
    )


def _ball(ball: str, eps: float) -> str:
    return f"{norm(ball)} {number(eps)}"


def _named(rows: Sequence[dict[str, Any]], *, maps: bool = False) -> Rows:
    """Rows by model and threat, or by model, map and threat."""

    def label(row: dict[str, Any]) -> str:
        model = f"{LABELS[row['model']]}, " if "model" in row else ""
        return f"{model}{row['map'] + ', ' if maps else ''}{_ball(row['norm'], row['eps'])}"

    return Rows({i: label(row) for i, row in enumerate(rows)}, dict(enumerate(rows)))


def _intervals(found: Mapping[str, Estimate | None]) -> list[Cell]:
    every = [found[kind] for kind in KINDS]
    return [Cell("–") if e is None else Cell(*between(e.value, e.low, e.high)) for e in every]


def _scatter(name: str, found: Sequence[Attacked]) -> Figure:
    every = list(dict.fromkeys(one.threat for one in found))

    def draw(axes: Axes, index: int) -> None:
        ends = []
        for order, one in enumerate(one for one in found if one.threat == every[index]):
            color, reached = SERIES[order % len(SERIES)], one.strongest[:_DRAWN]
            for kind, fill, label in (("linearized", color, LABELS[one.model]), ("certified", "none", None)):
                bound = one.bound(kind)[:_DRAWN]
                good = (reached > 0) & (bound > 0)
                ends += [reached[good], bound[good]]
                line(
                    axes, order, reached[good].tolist(), bound[good].tolist(), label,
                    linestyle="none", markersize=3.5, markerfacecolor=fill, markeredgewidth=0.7,
                )  # fmt: skip
        all_ends = np.concatenate(ends)
        diagonal = [all_ends.min(), all_ends.max()] if len(all_ends) else [0.1, 1.0]
        axes.plot(diagonal, diagonal, color=MUTED, linewidth=0.9)
        logarithmic(axes, "x", "y")

    caption = (
        f"{name.capitalize()}: the strongest attack on an image against the bound on it, Euclidean distance; filled "
        "linearized, hollow certified. Below the line an attack exceeds the bound, which the certified one rules out."
    )
    titles = [_ball(threat.norm, float(threat.eps or 0)) for threat in every]
    return panels(titles, draw, caption, "strongest attack", "bound", columns=2, height=4.1)


def _medians(name: str, rows: Rows) -> Table:
    head = {text.capitalize(): text for text in ("length", "noise", "attack", "tangent", *KINDS)}
    return rows.table(
        f"{name.capitalize()}, medians over images in units of the map: its length, what random points and the "
        "strongest attack change (Euclidean), what an allowed input reaches on the tangent, and the bounds; ratios of "
        "bound to attack, with their intervals; images with a point beyond the linearized bound.",
        {
            **head,
            ("Lin. / attack", "Cert. / attack"): lambda i: _intervals(rows.found[i]["ratio"]),
            "Beyond lin.": lambda i: str(rows.found[i]["images_beyond"]),
        },
    )


def _cosines(name: str, rows: Rows) -> Table:
    caption = f"{name.capitalize()}, 1 − cosine of the signed maps, medians over images; 2 is all there is."
    names = ("attack", *KINDS)
    cells = {tuple(n.capitalize() for n in names): lambda i: [rows.found[i]["cosine"][n] for n in names]}
    return rows.table(caption, cells)


def _by_attack(name: str, rows: Rows) -> Table:
    caption = (
        f"{name.capitalize()}: the largest Euclidean deviation that each attack found over the linearized bound, "
        "median over images."
    )
    return rows.table(caption, {ATTACKS: lambda i: list(rows.found[i]["by_attack"].values())})


def _agreement(rows: Sequence[dict[str, Any]], across: Sequence[dict[str, Any]]) -> list[Block]:
    kinds = tuple(kind.capitalize() for kind in KINDS)
    return [
        _named(rows, maps=True).table(
            "Spearman's rank correlation over images between the bound and the strongest attack, Euclidean, with 95 % "
            "bootstrap intervals over images.",
            {"Images": lambda i: str(rows[i]["images"]), kinds: lambda i: _intervals(rows[i]["agreement"])},
        ),
        _named(across, maps=True).table(
            "The same over models, of their medians: so few models can agree by chance.",
            {"Models": lambda i: str(across[i]["models"]), kinds: lambda i: [across[i][kind] for kind in KINDS]},
            first="",
        ),
    ]


def _pictures(found: Sequence[Attacked]) -> Pictures:
    shown = found[0].points.kept("clean").values
    rows: list[tuple[str, list[Picture]]] = [("image", [Picture(image(x), "test image") for x in shown])]
    last = max(float(one.threat.eps or 0) for one in found if one.threat.norm == "linf")
    for one in (one for one in found if one.threat == linf(last)):
        furthest = one.points.kept("map_furthest").values[:, ATTACKS.index("PGD, Euclidean")]
        maps = {"clean": one.points.kept("map_clean").values, "attacked": furthest}
        scales = np.abs(np.stack([*maps.values()])).reshape(2, len(shown), -1).max((0, 2))
        for label, values in maps.items():
            name = f"{LABELS[one.model]}, {label}"
            rows.append((name, [Picture(change(m, float(s)), f"map: {name}") for m, s in zip(values, scales)]))
    return Pictures(
        f"Saliency of the predicted class before and after the Euclidean PGD attack at ℓ∞ {number(last)}, which leaves "
        "the prediction as it was; each pair on one scale, blue below zero, red above.",
        ["", *(str(i + 1) for i in range(len(shown)))],
        rows,
    )


PAPER = Paper(
    **experiment.SETTINGS["paper"],
    samples=experiment.samples,
    plan=experiment.plan,
    measure=experiment.measure,
    find=find,
)
