"""Ross and Doshi-Velez 2018, regularizing input gradients: six networks trained, attacked and compared."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from steadygrad.attacks import BIM, FGSM, JSMA, PGD, Attack
from steadygrad.data import Dataset
from steadygrad.defenses import Defense, Plain
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.gradient_norms import GradientNorms, SummedGradient
from steadygrad.measuring.measures.pictured import EveryTarget
from steadygrad.measuring.measures.predicted import LogProbabilities, Predicted
from steadygrad.measuring.measures.signed_steps import SignedSteps
from steadygrad.measuring.paired import mean_difference
from steadygrad.measuring.statistics import Estimate, quantiles, share_of
from steadygrad.measuring.table import Array, Table
from steadygrad.papers import ross2018_networks as networks
from steadygrad.papers import ross2018_page as page
from steadygrad.papers.claims import Claim, in_words, minus, published_shares
from steadygrad.papers.paper import Findings, Paper
from steadygrad.papers.ross2018_networks import GRIDS, LABELS, SCALES
from steadygrad.papers.search import Rule, Search, search
from steadygrad.papers.study import Study
from steadygrad.papers.training import Training, untrained
from steadygrad.registry import describe
from steadygrad.threat import l0, linf

EPS = 0.2
"""The radius of the tables that are shown first, of the curves while training, and of the search."""
OWN_JUDGES: dict[str, Attack] = {"FGSM, margin": FGSM(loss="margin"), "PGD, margin": PGD(steps=20, loss="margin")}
_LOSS_ALLOWED = 0.01  # of accuracy, by a candidate of the search
_SHOWN = 6


def samples(study: Study, whole: Dataset, test: Dataset) -> dict[str, Dataset]:
    """A twelfth of the training data is held out, for the curves and the search."""
    scale = SCALES[study["scale"]]
    taken = whole.take(scale["samples"], seed=study.seed) if "samples" in scale else whole
    train, held = taken.divide(1 / 12, study.seed)
    named = {"train": train, "test": test, "watched": held.take(256), "whole": whole}
    if study["search"]:
        epochs = networks.fitting(scale, len(train)).epochs * scale["part"]
        named["held out"] = held.take(1000)
        # Less than an epoch is one epoch of a part of the data.
        named["search"] = train.take(round(len(train) * epochs), seed=study.seed) if epochs < 1 else train
    return named


def plan(study: Study) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    scale, unit = SCALES[study["scale"]], networks.unit_of(study.samples["whole"])
    weights = networks.weights_of(study["dataset"], study["scale"])
    return {
        "network": "ross_cnn",
        "unit": unit,
        "training": networks.fitting(scale, study.size("train")).outcome,
        "defenses": {name: describe(d) for name, d in networks.defenses(weights, unit).items()},
        "images": scale["images"],
        "epsilons": scale["epsilons"],
        "targeted images": scale["targeted"],
    }


@dataclass(frozen=True)
class Measured:
    """All measures of the six models, one entry per image.

    Args:
        labels: (N,) of the first test images, on which all but `clean` is measured.
        clean: which test images each model gets right.
        right: by attack ("fgsm", "tgsm"), source and epsilon: which images each model gets right.
        stands: by own judge and model: which images withstand an attack on the model itself.
        norms, shown: tables by model of the norms of input gradients, and of what is pictured.
        logs: log-probabilities (N, K), by model.
        targeted: tables of the attacks towards every class, by kind and model.
        records: of the trainings, by model.
    """

    labels: Array
    clean: Mapping[str, Array]
    right: Mapping[tuple[str, str, float], Mapping[str, Array]]
    stands: Mapping[str, Mapping[str, Array]]
    norms: Mapping[str, Table]
    logs: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    targeted: Mapping[str, Mapping[str, Table]] = dataclasses.field(default_factory=dict)
    shown: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    records: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    searched: Mapping[str, Search[float]] = dataclasses.field(default_factory=dict)

    @property
    def shares(self) -> dict[tuple[str, ...], Estimate]:
        """The accuracies after one step, by attack, source, epsilon and model."""
        return {
            (kind, source, f"{eps:g}", name): share_of(hits)
            for (kind, source, eps), row in self.right.items()
            for name, hits in row.items()
        }


def measure(study: Study) -> Measured:
    """Train the six models and measure everything."""
    scale, unit = SCALES[study["scale"]], study["unit"]
    searched = _searched(study) if study["search"] else {}
    weights = networks.weights_of(study["dataset"], study["scale"])
    weights = weights | {name: found.chosen.settings for name, found in searched.items()}
    settings, watch = networks.fitting(scale, study.size("train")), SignedSteps((0.0, EPS * unit))
    ways = networks.defenses(weights, unit).items()
    start = untrained("ross_cnn")
    records = study.fit_all({n: Training(way, settings, start, watch=watch, watched="watched") for n, way in ways})
    first = study.first(scale["images"])
    clean = {name: study.table(Predicted(), name) for name in LABELS}
    right: dict[tuple[str, str, float], dict[str, Array]] = {}
    for kind in ("fgsm", "tgsm"):
        steps = SignedSteps(tuple(eps * unit for eps in scale["epsilons"]), targeted=kind == "tgsm")
        for source in LABELS:
            found = study.table(steps, source, beside=tuple(LABELS), rows=first)["right"]  # (N, 1 + M, R)
            for place, eps in enumerate(scale["epsilons"]):
                right[kind, source, eps] = {name: found[:, 1 + i, place] for i, name in enumerate(LABELS)}
    easy = np.logical_and.reduce([table["right"] for table in clean.values()])
    rows = _in_turn(easy, clean["normal"]["label"], len(study["classes"]))[: scale["targeted"]]
    towards = {
        "iterated TGSM": EveryTarget(BIM(steps=10, loss="ce"), linf(unit), len(study["classes"])),  # steps of .1
        "JSMA": EveryTarget(JSMA(theta=1.0, gamma=0.25), l0(), len(study["classes"])),
    }
    return Measured(
        labels=clean["normal"]["label"][: len(first)],
        clean={name: table["right"] for name, table in clean.items()},
        right=right,
        stands={
            judge: {n: ~study.table(Attacked(attack, linf(EPS * unit)), n, rows=first)["success"] for n in LABELS}
            for judge, attack in OWN_JUDGES.items()
        },
        norms={name: study.table(GradientNorms(), name, rows=first) for name in LABELS},
        logs=study.each(LogProbabilities(), LABELS, "log_probabilities", rows=first),
        targeted={kind: {n: study.table(m, n, rows=rows) for n in LABELS} for kind, m in towards.items()},
        shown={name: study.table(SummedGradient(), name, rows=rows[:_SHOWN]) for name in LABELS},
        records=records,
        weights=weights,
        searched=searched,
    )


def _searched(study: Study) -> dict[str, Search[float]]:
    """Of each penalty the weight that resists FGSM best and costs at most a point of clean accuracy."""
    scale, unit = SCALES[study["scale"]], study["unit"]
    settings = networks.fitting(scale, study.size("train"), scale["part"])

    def scores(network: str, defense: Defense) -> tuple[float, float]:
        study.fit(network, Training(defense, settings, untrained("ross_cnn"), "search"))
        right = study.table(SignedSteps((0.0, EPS * unit)), network, "held out")["right"][:, 0]
        return float(right[:, 0].mean()), float(right[:, 1].mean())

    def tried(name: str, weight: float) -> tuple[float, float]:
        return scores(f"search {name} {weight:.4g}", networks.defenses(dict.fromkeys(GRIDS, weight), unit)[name])

    rule = Rule(scores("search normal", Plain())[0], _LOSS_ALLOWED)
    return {n: search(grid[:: scale["every"]], functools.partial(tried, n), rule) for n, grid in GRIDS.items()}


def _in_turn(easy: Array, labels: Array, classes: int) -> list[int]:
    """Places of the samples that all models get right (of all, where there are none), classes in turn."""
    easy = easy if easy.any() else np.ones(len(easy), dtype=bool)
    queues = [np.flatnonzero(easy & (labels == c)) for c in range(classes)]
    turns = range(max(map(len, queues)))
    return [int(queue[turn]) for turn in turns for queue in queues if turn < len(queue)]


def find(study: Study, found: Measured) -> Findings:
    """Everything in numbers, judged and drawn."""
    theirs = published_shares(
        "ross2018_transfer", ["attack", "source_model", "eps", "evaluated_model"], dataset=study["dataset"]
    )
    shares, epsilons = found.shares, [f"{eps:g}" for eps in study["epsilons"]]
    results = {
        "clean": {name: share_of(right) for name, right in found.clean.items()},
        "transfer": {
            kind: {s: {e: {n: shares[kind, s, e, n] for n in LABELS} for e in epsilons} for s in LABELS}
            for kind in ("fgsm", "tgsm")
        },
        "own_judges": {title: {n: share_of(kept) for n, kept in rows.items()} for title, rows in found.stands.items()},
        "overlap": _overlap(found),
        "gradient_norms": {name: _norms(found, name) for name in LABELS},
        "targeted": {kind: {n: _targeted(table) for n, table in rows.items()} for kind, rows in found.targeted.items()},
        "targeted_images": len(found.targeted["JSMA"]["normal"]),
        "weights": found.weights,
        "search": found.searched,
        "curves": {
            name: [dict(zip(("step", "clean", "fgsm"), row)) for row in zip(r["step"], *r["right"][:, 0].T)]
            for name, r in found.records.items()
        },
    }
    headline = {f"{LABELS[n]}: accuracy": (share_of(right), "%") for n, right in found.clean.items()}
    headline |= {f"{LABELS[n]}: own FGSM at ε .2": (shares["fgsm", n, f"{EPS:g}", n], "%") for n in LABELS}
    sections = page.sections(study, found, results, theirs)
    return Findings(results, judge(found, theirs), sections, networks.left_out(study), headline)


def _overlap(found: Measured) -> dict[str, Any]:
    """How often each set of models falls for the examples made on one of them."""
    clean = np.stack([found.clean[name][: len(found.labels)] for name in LABELS]).all(0)
    out: dict[str, Any] = {"eps": EPS, "count": int(clean.sum()), "sources": {}}
    for source in LABELS:
        fooled = ~np.stack([found.right["fgsm", source, EPS][name][clean] for name in LABELS])  # (M, n)
        sets, counts = np.unique(fooled.T, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        out["sources"][source] = [
            {"fooled": [n for n, hit in zip(LABELS, sets[i]) if hit], "images": int(counts[i])} for i in order
        ]
    return out


def _decades(table: Table) -> Array:
    """The norms (2, N) for the label and for the class after it, as powers of ten."""
    # Gradients that underflow to zero count as the smallest that float32 holds.
    logs: Array = np.log10(np.maximum(np.stack([table["norm"], table["next_norm"]]).astype(np.float64), 1e-38))
    return logs


def _against_normal(found: Measured, name: str) -> dict[str, Estimate]:
    """Decades by which the normal model's norms are larger, and lie further apart, image by image."""
    normal, other = (_decades(found.norms[n]) for n in ("normal", name))
    return {
        "smaller": mean_difference(normal.max(0), other.max(0)),
        "more_equal": mean_difference(np.ptp(normal, 0), np.ptp(other, 0)),
    }


def _norms(found: Measured, name: str) -> dict[str, Any]:
    table, logs = found.norms[name], found.logs[name]
    return {
        "label": quantiles(table["norm"]),
        "zero": share_of(table["norm"] == 0),
        "next": quantiles(table["next_norm"]),
        "decades_apart": quantiles(np.ptp(_decades(table), 0)),
        "log_probability_label": quantiles(logs[np.arange(len(logs)), found.labels]),
        "log_probability_all": quantiles(logs.ravel()),
        "against_normal": _against_normal(found, name),
    }


def _targeted(table: Table) -> dict[str, Any]:
    """Share of (image, target) pairs that reached the target, and how many entries changed."""
    success = table["success"]  # (n, K)
    aimed = np.arange(success.shape[1])[None] != table["label"][:, None]
    return {"reached": share_of(success[aimed]), "changed": quantiles(table["changed"][success & aimed])}


def judge(found: Measured, theirs: Mapping[tuple[str, ...], float]) -> list[Claim]:
    """Every expectation of the paper on MNIST-like data; `theirs` are their shares after one step, as in `shares`."""
    shares = found.shares
    epsilons = list(dict.fromkeys(eps for _, _, eps in found.right))
    own = {eps: {name: found.right["fgsm", name, eps][name] for name in LABELS} for eps in epsilons}

    def paper(judged: str, source: str, eps: float, kind: str = "fgsm") -> float:
        return theirs.get((kind, source, f"{eps:g}", judged), math.nan)

    def gap(first: str, second: str, eps: float) -> float:
        return paper(first, first, eps) - paper(second, second, eps)

    text = "Gradient penalty minus normal, each under its own FGSM at ε .2"
    told = in_words(gap("doubleback", "normal", 0.2), "points")
    out = [
        minus(text, own[0.2], "doubleback", "normal", "at least", 0.25, paper=told),
        Claim(
            "Gradient penalty on examples of normal at ε .2", shares["fgsm", "normal", "0.2", "doubleback"],
            "at least", 0.85, paper=in_words(paper("doubleback", "normal", 0.2)),
        ),
    ]  # fmt: skip
    rivals = ("normal", "insensitive", "doubleback")

    def best(names: tuple[str, ...], eps: float) -> str:
        return max(names, key=lambda name: own[eps][name].mean())

    for eps in [e for e in epsilons if e <= 0.3]:
        bar = max(paper(name, name, eps) for name in rivals)
        text = f"Adversarial training minus the best other defense under its own FGSM at ε {eps:g}"
        told = in_words(paper("advtrain", "advtrain", eps) - bar, "points")
        detail = f"best other: {best(rivals, eps)}; the distilled and the combined model are left out"
        out.append(minus(text, own[eps], "advtrain", best(rivals, eps), "at least", paper=told, detail=detail))
    two = ("advtrain", "doubleback")
    if 0.5 in epsilons:
        drops = {n: own[0.3][n].astype(float) - own[0.5][n] for n in two}
        text = "Adversarial training falls faster from ε .3 to .5 than the gradient penalty"
        out.append(minus(text, drops, *two, paper=in_words(gap(*two, 0.3) - gap(*two, 0.5), "points")))
    tgsm, margin = shares["tgsm", "distilled", "0.2", "distilled"], share_of(found.stands["PGD, margin"]["distilled"])
    told = in_words(paper("distilled", "distilled", 0.2, "tgsm"))
    out += [
        Claim(
            "Distilled looks robust: its own cross-entropy FGSM at ε .2",
            shares["fgsm", "distilled", "0.2", "distilled"],
            "above", 0.9, paper=in_words(paper("distilled", "distilled", 0.2)),
        ),
        Claim(
            "Distilled is not: its own TGSM or margin attack at ε .2, whichever leaves less",
            min(tgsm, margin, key=lambda share: share.value), "below", 0.15, paper=f"{told} (TGSM)" if told else "",
            detail=f"TGSM leaves {100 * tgsm.value:.1f} %, PGD on the margin {100 * margin.value:.1f} %",
        ),
    ]  # fmt: skip
    if 0.3 in epsilons:
        better, text = best(two, 0.3), "Both defenses minus the better one under its own FGSM at ε .3"
        out.append(minus(text, own[0.3], "both", better, "at least", detail=f"the better one: {better}"))
    texts = {
        "smaller": "the larger of its two gradient norms is smaller than the normal model's",
        "more_equal": "its two gradient norms are more alike than the normal model's",
    }
    detail = "mean over the images; norms for the label and for the class after it"
    return out + [
        Claim(f"{LABELS[name]}: {texts[key]}", decades, "above", 0.0, "decades", detail=detail)
        for name in ("doubleback", "insensitive", "both")
        for key, decades in _against_normal(found, name).items()
    ]


PAPER = Paper(**networks.SETTINGS["paper"], samples=samples, plan=plan, measure=measure, find=find)
