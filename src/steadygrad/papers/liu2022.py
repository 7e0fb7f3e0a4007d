"""Liu et al. 2022, J-SIGR: nine models of one architecture, attacked from another one and directly; maps judged."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steadygrad.attacks import FGSM, MIFGSM, PGD, Attack
from steadygrad.attacks.suites import SUITES
from steadygrad.attributions import BlurSaliency
from steadygrad.audit.checks.validity import Subject, checks
from steadygrad.audit.checks.verdict import Verdict, verdict
from steadygrad.data import Dataset
from steadygrad.defenses import (
    AdversarialTraining,
    Defense,
    Distillation,
    InputGradientPenalty,
    JacobianPenalty,
    Plain,
    SelectiveGradientPenalty,
)
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.attacked import Attacked, AttackPoints
from steadygrad.measuring.measures.map_faithfulness import FAITHFUL, MapFaithfulness
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.statistics import mean, share_of
from steadygrad.measuring.table import Array
from steadygrad.measuring.table import Table as Samples
from steadygrad.models import ARCHITECTURES
from steadygrad.papers.claims import Claim, Sense, minus
from steadygrad.papers.paper import Findings, Paper
from steadygrad.papers.parts import Rows, equally_long, fixed, searched_tables, settings_table, signed_strip, strip
from steadygrad.papers.search import Rule, Search, search
from steadygrad.papers.study import Study, settings_of
from steadygrad.papers.training import Training, untrained
from steadygrad.registry import label_of
from steadygrad.report.blocks import Block, Pictures, Section, Table, Text
from steadygrad.threat import linf
from steadygrad.training import FitSettings

SETTINGS = settings_of("liu2022")
LABELS: dict[str, str] = SETTINGS["labels"]
SCALES: dict[str, Any] = SETTINGS["scales"]
RIVALS = ("plain", "nat", "distilled", "penalty")  # what J-SIGR is to beat
TRANSFERRED: dict[str, Attack] = {"FGSM": FGSM("ce"), "PGD": PGD(20, loss="ce"), "MI-FGSM": MIFGSM(step=0.1, loss="ce")}
MAPS = MapFaithfulness()
CHECKED = SUITES["fast"][0]  # the attack whose accuracy is checked

_LOSS_ALLOWED = 0.01  # of clean accuracy, by a candidate of the search

Weights = dict[str, float]
"""Of the parts of a penalty, at a radius of .2."""


def defenses(eps: float, scale: Mapping[str, Any], weights: Mapping[str, Weights] | None = None) -> dict[str, Defense]:
    """The training objectives, with the weights of each model where they are given.

    >>> list(defenses(0.1, SCALES["smoke"])) == list(LABELS)
    True
    """
    chosen = {name: scaled(given, eps) for name, given in {**SETTINGS["weights"], **(weights or {})}.items()}
    saliency, refresh = BlurSaliency(grid=scale["grid"]), scale["refresh"]
    jacobian = {name: JacobianPenalty(chosen[name]["jacobian"]) for name in ("jacobian", "jsigr")}
    selective = {
        name: SelectiveGradientPenalty(chosen[name]["selective"], saliency=saliency, refresh=refresh)
        for name in ("selective", "jsigr")
    }
    pgd = AdversarialTraining(eps=eps, attack=PGD(steps=scale["steps"], loss="ce"))
    return {
        "plain": Plain(),
        "nat": AdversarialTraining(eps=eps, attack=FGSM("ce"), clean_weight=0.5, label="predicted"),
        "pat": pgd,
        "distilled": Distillation(),
        "penalty": InputGradientPenalty(chosen["penalty"]["penalty"]),
        "jacobian": jacobian["jacobian"],
        "selective": selective["selective"],
        "jsigr": jacobian["jsigr"] + selective["jsigr"],
        "jsigr_pat": pgd + jacobian["jsigr"] + selective["jsigr"],
    }


def scaled(weights: Weights, eps: float) -> Weights:
    """Weights for another radius: a squared gradient counts by what a change of that size makes of it.

    >>> scaled({"penalty": 1.0}, 0.1)
    {'penalty': 0.25}
    """
    return {part: (eps / 0.2) ** 2 * weight for part, weight in weights.items()}


def source_of(network: str, shape: tuple[int, ...]) -> str:
    """The architecture that transferred attacks come from: another one, which takes these inputs.

    >>> source_of("ross_cnn", (1, 8, 8))
    'mlp'
    """
    fits = (name for name in ("convnet", "lenet", "mlp") if min(shape[1:]) >= ARCHITECTURES[name].smallest)
    return next(name for name in fits if name != network)


def fitting(scale: Mapping[str, Any], network: str) -> FitSettings:
    """How a network is trained: with the channels last, but for `ross_cnn`, whose penalties are slower so."""
    return FitSettings(**scale["training"], channels_last=network != "ross_cnn")


def samples(study: Study, whole: Dataset, test: Dataset) -> dict[str, Dataset]:
    """What is trained on, the held-out images that decide a search, and what is measured."""
    if len(whole.shape) != 3:
        raise UsageError(f"liu2022 needs images (C, H, W), and {whole.name} has samples of shape {whole.shape}")
    scale = SCALES[study["scale"]]
    train, held = whole.divide(1 / 12, study.seed)
    train = train.take(scale["samples"], seed=study.seed) if "samples" in scale else train
    named = {"train": train, "test": test, "checked": test.take(scale["checked"])}
    return named | ({"held out": held.take(scale["held"])} if study["search"] else {})


def plan(study: Study) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    eps = SETTINGS["radii"].get(study["dataset"], 8 / 255)
    return {
        "source": source_of(study["model"], tuple(study["shape"])),
        "eps": eps,
        "recipe": {name: way.plain() for name, way in trainings(study, eps).items()},
        "searched": SETTINGS["grids"] if study["search"] else {},
        "measured": SCALES[study["scale"]],
    }


def trainings(study: Study, eps: float, weights: Mapping[str, Weights] | None = None) -> dict[str, Training]:
    """How the models are trained: from the same weights, and for equally many epochs."""
    scale, network = SCALES[study["scale"]], study["model"]
    ways = defenses(eps, scale, weights)
    return {name: Training(way, fitting(scale, network), untrained(network)) for name, way in ways.items()}


@dataclass(frozen=True)
class Measured:
    """All measures by model, one entry per image; `right_at` by attack and model, for transferred points.

    `kept` says which images no attack of the suite changes, `verdicts` whether that may be believed. `maps` are the
    tables of `MAPS`, with some maps kept. `ways` is what each model was trained with.
    """

    eps: float
    source: str
    right: Mapping[str, Array]
    right_at: Mapping[str, Mapping[str, Array]]
    kept: Mapping[str, Array]
    verdicts: Mapping[str, Verdict]
    maps: Mapping[str, Samples]
    ways: Mapping[str, Any] = field(default_factory=dict)
    searched: Mapping[str, Search[Weights]] = field(default_factory=dict)


def measure(study: Study) -> Measured:
    """Train the source and all models, attack them and judge their maps."""
    scale, eps, source = SCALES[study["scale"]], study["eps"], study["source"]
    # Another seed too, or the source would see the same batches as the models.
    study.fit("source", Training(Plain(), fitting(scale, source), untrained(source), seed=1))
    found = _searched(study) if study["search"] else {}
    chosen = {name: tried.chosen.settings for name, tried in found.items()}
    networks = {name: _network(name, chosen[name], eps) if name in chosen else name for name in LABELS}
    chosen |= {"selective": {"selective": chosen["jsigr"]["selective"]}} if found else {}
    ways = trainings(study, eps, chosen)
    study.fit_all({networks[name]: way for name, way in ways.items()})
    names, maps = networks.items(), study.first(scale["maps"])
    return Measured(
        eps=eps,
        source=source,
        right={name: study.table(Predicted(), network)["right"] for name, network in names},
        right_at={
            title: {name: transferred(study, attack, network, scale["transfer"]) for name, network in names}
            for title, attack in TRANSFERRED.items()
        },
        kept={name: study.withstands(network, SUITES["fast"], linf(eps), scale["suite"]) for name, network in names},
        verdicts={name: believed(study, network) for name, network in names},
        maps={name: study.table(MAPS, network, rows=maps, keep=maps[:6]) for name, network in names},
        ways={name: way.plain() for name, way in ways.items()},
        searched=found,
    )


def transferred(study: Study, attack: Attack, network: str, count: int, on: str = "test") -> Array:
    """Which of the first images (N,) a network gets right at the raw points of an attack on the source."""
    rows, points = study.first(count, on), AttackPoints(attack, linf(study["eps"]))
    given = {"input": study.table(points, "source", on, rows=rows, keep=rows).kept("input").values}
    title = f"prediction at points of {label_of(attack)}"
    return study.table(Predicted(), network, on, rows=rows, given=given, title=title)["right"]


def believed(study: Study, network: str) -> Verdict:
    """Whether the accuracy under the lead of the fast suite may be believed."""
    tables, threat, rows = study.tables("checked"), linf(study["eps"]), tuple(range(study.size("checked")))
    base, shape = tables.run(Attacked(CHECKED, threat), network), tuple(study["shape"])
    subject = Subject(tables, network, 1, CHECKED, threat, base, rows, len(study["classes"]), shape)
    return verdict(checks(subject), base["label"].tolist(), study["classes"])


def _network(name: str, weights: Weights, eps: float) -> str:
    """Of a candidate of the search; the chosen ones are the models."""
    return " ".join(["search", name, *(f"{weight:.3g}" for weight in scaled(weights, eps).values())])


def _searched(study: Study) -> dict[str, Search[Weights]]:
    """The weights that stand transferred attacks best, on held-out images."""
    eps, on = study["eps"], "held out"

    def tried(name: str, weights: Weights) -> tuple[float, float]:
        network = _network(name, weights, eps) if weights else name
        study.fit(network, trainings(study, eps, {name: weights})[name])
        right = study.table(Predicted(), network, on)["right"]
        at = [transferred(study, attack, network, len(right), on).mean() for attack in TRANSFERRED.values()]
        return float(right.mean()), float(np.mean(at))

    return searched(tried, tried("plain", {})[0])


def searched(tried: Callable[[str, Weights], tuple[float, float]], plain: float) -> dict[str, Search[Weights]]:
    """The weights of the best score at a clean accuracy within a point of `plain`.

    Each kind of weight is tried from the smallest on, until one is no better than the one before it or costs more
    than that point. J-SIGR climbs the selective weights beside the Jacobian's that was chosen alone, and at the best
    of them tries a third of that.
    """
    rule = Rule(plain, _LOSS_ALLOWED)

    def climbed(name: str, kind: str, beside: Weights) -> Search[Weights]:
        candidates = ({**beside, kind: weight} for weight in SETTINGS["grids"][kind])
        return search(candidates, functools.partial(tried, name), rule, climb=True)

    penalty, jacobian = climbed("penalty", "penalty", {}), climbed("jacobian", "jacobian", {})
    jsigr = climbed("jsigr", "selective", jacobian.chosen.settings)
    best = jsigr.chosen.settings
    more = search([{**best, "jacobian": best["jacobian"] / 3}], functools.partial(tried, "jsigr"), rule)
    rows = [*jsigr.rows, *more.rows]
    return {"penalty": penalty, "jacobian": jacobian, "jsigr": Search(rows, rule.choice(rows), rule)}


def find(study: Study, found: Measured) -> Findings:
    """Everything in numbers, judged and drawn."""
    rows = Rows(LABELS, {
        name: {
            "accuracy": share_of(found.right[name]),
            "transferred": {attack: share_of(right[name]) for attack, right in found.right_at.items()},
            "suite": share_of(found.kept[name]),
            "holds": found.verdicts[name].holds,
            "verdict": found.verdicts[name].text,
            "maps": {column: mean(found.maps[name][column]) for column in FAITHFUL},
        }
        for name in LABELS
    })  # fmt: skip
    images = {
        "accuracy": study.size(),
        "transferred": len(found.right_at["FGSM"]["plain"]),
        "suite": len(found.kept["plain"]),
        "checked": study.size("checked"),
        "maps": len(found.maps["plain"]),
    }
    sections = [
        Section("Attacks", _attacks(rows, found, images)),
        Section("Maps", [_maps(rows, images["maps"]), _pictures(found.maps)]),
        Section("Settings", [settings_table(LABELS, found.ways), *_searched_blocks(found)]),
    ]
    results = {
        "rows": rows.found,
        "images": images,
        "search": found.searched,
        "defenses": {name: way["defense"] for name, way in found.ways.items()},
    }
    headline = rows.headline(accuracy=("accuracy", "%"), suite=("white box", "%"))
    return Findings(results, judge(found), sections, _left_out(study), headline)


def judge(found: Measured) -> list[Claim]:
    """Every expectation with what was found."""
    titles, where = SETTINGS["titles"], f"from {found.source}, linf {found.eps:.3g}"
    ours, text = "jsigr", "J-SIGR minus"
    claims = [
        minus(f"{text} {LABELS[rival]}: accuracy under transferred {attack}", right, ours, rival, detail=where)
        for attack, right in found.right_at.items()
        for rival in RIVALS
    ]

    def best(values: Mapping[str, Array], sign: int = 1) -> str:
        return max(RIVALS, key=lambda name: sign * float(np.mean(values[name])))

    rival = best(found.right)
    detail = f"the best is {LABELS[rival]}"
    accuracy = f"{text} the best of them: clean accuracy"
    claims.append(minus(accuracy, found.right, ours, rival, "at least", -0.01, detail=detail))
    maps = {column: {name: table[column] for name, table in found.maps.items()} for column in FAITHFUL}
    area = "; a mean probability: a model that is less certain has less of it with any map"
    for column, more in FAITHFUL.items():
        # The best of the rivals by these very images: a bar that is too high rather than too low.
        rival = best(maps[column], 1 if more else -1)
        detail = f"the best is {LABELS[rival]}" + (area if column in ("deletion", "insertion") else "")
        sense: Sense = "above" if more else "below"
        words = f"{text} the best of them: {titles[column]}"
        claims.append(minus(words, maps[column], ours, rival, sense, unit="", detail=detail))
    return claims + [
        minus(f"{text} {LABELS[half]}: {titles[column]}", maps[column], ours, half, unit="")
        for column in ("energy inside", "agreement")
        for half in ("jacobian", "selective")
    ]


def _left_out(study: Study) -> list[str]:
    return [
        "The authors publish no code of J-SIGR: its loss is written after the abstract and its ancestors.",
        equally_long(study),
        f"One radius, linf {study['eps']:.3g}, for adversarial training and all attacks.",
        "The weights of the penalties were chosen in this run, on held-out training images."
        if study["search"]
        else "The weights of the penalties are starting values and were not chosen for this data: --search does that.",
    ]


def _attacks(rows: Rows, found: Measured, images: Mapping[str, int]) -> list[Table]:
    return [
        rows.table(
            f"Accuracy in percent: clean on {images['accuracy']:,} test images, and at the points that attacks on an "
            f"undefended {found.source} make of the first {images['transferred']:,}, linf {found.eps:.3g}. The points "
            "count whether they fool their source or not.",
            {"Clean": "accuracy", tuple(TRANSFERRED): lambda name: list(rows.found[name]["transferred"].values())},
        ),
        rows.table(
            f"What no attack of the fast suite on the model itself changes, in percent of the first "
            f"{images['suite']:,} test images, linf {found.eps:.3g}; and whether an accuracy under attack may be "
            f"believed, by the checks on the first {images['checked']:,}.",
            {"Standing": "suite", "Checks": "verdict"}, words=(1,),
        ),
    ]  # fmt: skip


def _maps(rows: Rows, images: int) -> Table:
    heads = tuple(f"{column} ({'more' if more else 'less'} is better)" for column, more in FAITHFUL.items())
    return rows.table(
        f"The gradient of the log odds of the predicted class, on the first {images:,} test images. The salient pixels "
        "are the top fifth of blur saliency on the model itself: a map that knows nothing has 0.2 of its energy there. "
        "Areas are mean probabilities, so that a model's certainty counts too; the last columns are what they gain "
        "over the areas of random maps on the same model.",
        {heads: lambda name: [fixed(value) for value in rows.found[name]["maps"].values()]},
    )


def _pictures(maps: Mapping[str, Samples]) -> Pictures:
    kinds = {"map": "gradient of the log odds", "reference": "blur saliency"}
    images = strip(maps["plain"].kept("input").values, "test images")
    rows = [
        (LABELS[n], [signed_strip(t.kept(k).values, f"{text} of {LABELS[n]}") for k, text in kinds.items()])
        for n, t in maps.items()
    ]
    head = ["Model", "Gradient of the log odds", "Blur saliency"]
    caption = "What the models look at: sums over the channels, each map by its largest value, red above zero."
    return Pictures(caption, head, [("images", [images, None]), *rows], wide=True)


def _searched_blocks(found: Measured) -> list[Block]:
    tables = searched_tables(
        found.searched, LABELS, score="accuracy under transferred attacks", shown=lambda v: f"{100 * v:.1f} %",
        settings=lambda w: ", ".join(f"{part} {weight:.3g}" for part, weight in scaled(w, found.eps).items()),
    )  # fmt: skip
    text = (
        "J-SIGR tries the Jacobian's weight that was chosen alone, and a third of it; the selective penalty alone has "
    )
    return [*tables, Text(f"{text}J-SIGR's.")] if tables else []


PAPER = Paper(**SETTINGS["paper"], samples=samples, plan=plan, measure=measure, find=find)
