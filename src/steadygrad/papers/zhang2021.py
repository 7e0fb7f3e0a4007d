"""Zhang et al. 2021, neuron sensitivity: seven models, their neurons under attack, and what attacks leave of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from steadygrad import models
from steadygrad.attacks import FGSM, PGD
from steadygrad.attacks.suites import SUITES
from steadygrad.data import Dataset
from steadygrad.defenses import TRADES, AdversarialTraining, Defense, Plain, StableNeurons
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.attacked import radius_leaving
from steadygrad.measuring.measures.neuron_changes import NeuronChanges, by_layer, last_maps, most_moved
from steadygrad.measuring.measures.neurons_held import NeuronsHeld, Way, shares_right
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.paired import mean_difference, ratio_values
from steadygrad.measuring.statistics import Estimate, mean, share_of, wilson
from steadygrad.measuring.table import Array
from steadygrad.measuring.table import Table as Samples
from steadygrad.papers.claims import Claim, minus
from steadygrad.papers.paper import Findings, Paper
from steadygrad.papers.parts import Points, Rows, equally_long, line, panels, settings_table, strip
from steadygrad.papers.study import Study, settings_of
from steadygrad.papers.training import Training, untrained
from steadygrad.report.blocks import Block, Cell, Figure, Pictures, Section, Table
from steadygrad.report.style import SERIES
from steadygrad.threat import linf
from steadygrad.training import FitSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SETTINGS = settings_of("zhang2021")
LABELS: dict[str, str] = SETTINGS["labels"]
SCALES: dict[str, Any] = SETTINGS["scales"]
PAIRS = PGD(steps=20)
"""What makes the adversarial partners of images."""
CHOICES = {"most": "most sensitive", "random": "random", "least": "least sensitive"}
"""Which neurons are held."""
WAYS: dict[Way, str] = {
    "patched": "at their benign values, adversarial input",
    "off": "at zero, adversarial input",
    "clean": "at zero, benign input",
}
"""How they are held, and what the model sees."""

_SHARE = 0.1  # of the neurons of a layer, the sensitive ones
_LEFT = 0.3  # of the images, by the radius within which a model's neurons are patched

Arrays = Mapping[str, Array]


def defenses(eps: float, steps: int) -> dict[str, Defense]:
    """The training objectives.

    >>> list(defenses(0.1, 7)) == list(LABELS)
    True
    """
    pgd = PGD(steps=steps, loss="ce")
    pat = AdversarialTraining(eps=eps, attack=pgd)
    return {
        "plain": Plain(),
        "nat": AdversarialTraining(eps=eps, attack=FGSM("ce"), clean_weight=0.5, label="predicted"),
        "pat": pat,
        "trades": TRADES(eps=eps, attack=PGD(steps=steps, loss="kl")),
        "sns": StableNeurons(eps=eps, attack=pgd, share=_SHARE),
        "steady": StableNeurons(eps=eps, attack=pgd, share=_SHARE, alpha=0.0),
        "pat_sns": pat + StableNeurons(eps=eps, attack=pgd, share=_SHARE, alpha=0.0),
    }


def samples(study: Study, whole: Dataset, test: Dataset) -> dict[str, Dataset]:
    """What is trained on, the images on which everything is chosen, and those on which it is measured."""
    if study["search"]:
        raise UsageError("zhang2021 has nothing to search: leave --search out")
    size = SCALES[study["scale"]].get("samples")
    train = whole if size is None else whole.take(size, seed=study.seed)
    fitted, held = train.divide(1 / 12, study.seed)
    return {"train": fitted, "held out": held, "test": test}


def plan(study: Study) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    eps = SETTINGS["radii"].get(study["dataset"], 8 / 255)
    config: dict[str, Any] = {"eps": eps, "measured": SCALES[study["scale"]]}
    if len(study["shape"]) == 3:
        model, test = models.build(study["model"], study["shape"], study["classes"]), study.samples["test"]
        config["pictured layer"] = last_maps(model, test.batch(slice(0, 1))[0])
    return {**config, "recipe": {name: way.plain() for name, way in trainings(study, eps).items()}}


def trainings(study: Study, eps: float) -> dict[str, Training]:
    """How the models are trained: from the same weights, and for equally many steps."""
    scale, batch = SCALES[study["scale"]], 64
    epochs = max(scale["epochs"], -(-scale["least"] // -(-study.size("train") // batch)))
    settings = FitSettings(epochs=epochs, batch_size=batch, schedule="cosine", warmup=0.1)
    start = untrained(study["model"])
    return {name: Training(defense, settings, start) for name, defense in defenses(eps, scale["steps"]).items()}


@dataclass(frozen=True)
class Measured:
    """All measures by model, one entry per image.

    Attributes:
        eps: radius of the trainings.
        own: radius of the pairs whose neurons are held.
        right: of the clean images.
        moved: `by_layer`, for the pairs at `eps`.
        chosen: the layer whose most sensitive neurons restored most on held-out images.
        restored: by layer and "way/choice", for each fooled image the share of the sets of neurons that restore it.
        kept, kept_trained: which images stand within the plain model's own radius, and within `eps`.
        movers: images and patches that move a neuron most.
    """

    eps: float
    own: Mapping[str, float]
    right: Arrays
    moved: Mapping[str, Mapping[str, Arrays]]
    chosen: Mapping[str, str]
    restored: Mapping[str, Mapping[str, Arrays]]
    kept: Arrays
    kept_trained: Arrays
    movers: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)


def measure(study: Study) -> Measured:
    """Train all models; choose neurons, layers and radii on held-out images; measure on test images."""
    scale, eps, pictured = SCALES[study["scale"]], study["eps"], study.config.get("pictured layer")
    study.fit_all(trainings(study, eps))
    test, held = study.tables(), study.tables("held out")
    own, chosen, movers = {}, {}, {}
    restored: dict[str, dict[str, Arrays]] = {}
    for name in LABELS:
        own[name] = radius_leaving(held, name, _LEFT, study.first(scale["looked"], "held out"))
        title = "neurons within the own radius"
        looked = _pairs(study, name, own[name], scale["looked"], title, "held out")
        pairs = _pairs(study, name, own[name], scale["images"], title)
        best, restored[name] = -1.0, {}
        for layer, values in by_layer(looked).items():
            sigma, ways = values["sigma"], {w: NeuronsHeld(layer, _SHARE, scale["draws"], w, study.seed) for w in WAYS}
            tried = float(shares_right(held, name, looked, sigma, ways["patched"])["most"].sum())
            if tried > best:
                best, chosen[name] = tried, layer
            found = {way: shares_right(test, name, pairs, sigma, measure) for way, measure in ways.items()}
            restored[name][layer] = {f"{way}/{c}": right for way, row in found.items() for c, right in row.items()}
        if pictured:
            movers[name] = most_moved(held, name, looked, pictured, count=6)

    def withstands(eps: float) -> dict[str, Array]:
        return {name: study.withstands(name, SUITES["fast"], linf(eps), scale["suite"]) for name in LABELS}

    right = study.each(Predicted(), LABELS, "right")
    title = "neurons within the radius of the training"
    moved = {name: by_layer(_pairs(study, name, eps, scale["curves"], title)) for name in LABELS}
    return Measured(eps, own, right, moved, chosen, restored, withstands(own["plain"]), withstands(eps), movers)


def _pairs(study: Study, name: str, eps: float, count: int, title: str, on: str = "test") -> Samples:
    """How the neurons move from the first images to their adversarial partners, which are kept."""
    rows = study.first(count, on)
    return study.table(NeuronChanges(PAIRS, linf(eps)), name, on, rows=rows, keep=rows, title=title)


def find(study: Study, found: Measured) -> Findings:
    """Everything in numbers, judged and drawn."""
    pairs = len(study.first(SCALES[study["scale"]]["images"]))
    rows = Rows(LABELS, {name: _row(found, name, pairs) for name in LABELS})
    plain = found.moved["plain"]
    images = {
        "accuracy": study.size(),
        "pairs": pairs,
        "curves": len(next(iter(plain.values()))["change"]),
        "suite": len(found.kept["plain"]),
    }
    neurons = {layer: len(values["sigma"]) for layer, values in plain.items()}
    sections = [
        Section("What sensitive neurons carry", [_held(rows, pairs), _patched(rows)]),
        Section("How far neurons move", [*_changes(rows, found.eps, images["curves"], neurons), _spectra(found)]),
        Section("What attacks leave", [_robust(rows, found, images)]),
        *([Section("What moves a neuron", [_pictures(found)])] if found.movers else []),
        Section("Settings", [settings_table(LABELS, study["recipe"])]),
    ]
    results = {"rows": rows.found, "neurons": neurons, "radius": found.own["plain"], "images": images}
    headline = rows.headline(
        accuracy=("accuracy", "%"), suite_trained=("worst case within the radius of the training", "%")
    )
    return Findings(results, judge(found), sections, _left_out(study), headline)


def _row(found: Measured, name: str, pairs: int) -> dict[str, Any]:
    moved, restored, best = found.moved[name], found.restored[name], found.chosen[name]
    return {
        "accuracy": share_of(found.right[name]),
        "own": found.own[name],
        "fooled": wilson(len(restored[best]["patched/most"]), pairs),
        "suite": share_of(found.kept[name]),
        "suite_trained": share_of(found.kept_trained[name]),
        "change": {layer: mean(values["change"]) for layer, values in moved.items()},
        "relative": {layer: float(v["change"].mean() / max(v["size"].mean(), 1e-12)) for layer, v in moved.items()},
        "best": best,
        "restored": {
            layer: {key: mean(shares) if len(shares) else None for key, shares in values.items()}
            for layer, values in restored.items()
        },
    }


def judge(found: Measured) -> list[Claim]:
    """Every expectation with what was found."""
    best, radius = found.chosen["plain"], found.own["plain"]
    patched = {choice: found.restored["plain"][best][f"patched/{choice}"] for choice in CHOICES}
    text = "Patching brings back the class"
    where = f"plain model, layer {best}, linf {radius:.3g}, {len(patched['most'])} adversarial images"
    claims = [
        minus(
            f"Patching brings back the class: {CHOICES[one]} minus {CHOICES[other]}", patched, one, other, detail=where
        )
        for one, other in (("most", "random"), ("random", "least"))
    ]
    pairs = (("nat", "plain"), ("pat", "nat"))
    claims += [_calmer(found, calm, other, relative) for relative in (False, True) for calm, other in pairs]
    at, trained = f"linf {radius:.3g}", f"linf {found.eps:.3g}"
    # Without a radius that leaves the plain model a share, its worst case is its clean accuracy.
    kept = found.kept if radius > 0 else {}
    for text, values, one, other, bar, where in (
        ("SNS minus plain: worst case", kept, "sns", "plain", 0.1, at),
        ("SNS minus plain: clean accuracy", found.right, "sns", "plain", -0.02, "clean"),
        ("SNS without the adversarial loss minus plain: worst case", kept, "steady", "plain", 0.1, at),
        ("PAT + SNS minus PAT: worst case", found.kept_trained, "pat_sns", "pat", 0.0, trained),
    ):
        claims.append(minus(text, values, one, other, "at least", bar, detail=where))
    return claims


def _calmer(found: Measured, calm: str, other: str, relative: bool) -> Claim:
    """The share of layers that move less in one model than in another; the interval from the layers that are sure."""

    def moves(name: str, layer: str) -> Array:
        """Change of a layer by image (N,), or what makes its ratio to the size of the layer's output."""
        change, size = (found.moved[name][layer][what] for what in ("change", "size"))
        return ratio_values(change, size) if relative and size.mean() > 0 else change

    gaps = [mean_difference(moves(other, layer), moves(calm, layer)) for layer in found.moved[calm]]
    ends = zip(*((gap.value, gap.low, gap.high) for gap in gaps), strict=True)
    value, low, high = (sum(end > 0 for end in values) / len(gaps) for values in ends)
    names = calm.upper(), other if other == "plain" else other.upper()
    return Claim(
        f"Layers that move less{', over the size of their outputs' if relative else ''}: {names[0]} than {names[1]}",
        Estimate(value, low, high), "above", 0.5,
        detail=f"{len(gaps)} layers, mean change over each model's own pairs",
    )  # fmt: skip


def _left_out(study: Study) -> list[str]:
    return [
        "The paper's tables are not available to us: its three claims are what is tested, not its figures.",
        equally_long(study),
        f"One radius, linf {study['eps']:.3g}, for all defenses and the layer curves; for patching each model's own, "
        f"which leaves it about {100 * _LEFT:g} %. The weights of SNS are 1 and were not searched.",
        "Activations are not scaled: their size differs between models, so the change stands beside its ratio to it.",
    ]


def _held(rows: Rows, pairs: int) -> Table:
    def shares(name: str) -> list[Estimate | None]:
        row = rows.found[name]
        return [row["restored"][row["best"]][f"{way}/{choice}"] for way in WAYS for choice in CHOICES]

    return rows.table(
        f"Images that are right again (or still, for benign inputs), in percent of the fooled ones, with "
        f"{100 * _SHARE:g} % of one layer's neurons held. Neurons and layer were chosen on held-out images; random "
        f"sets are averaged. {pairs:,} test images, each model within the radius that leaves it about 30 % (found on "
        "held-out images).",
        {
            "Layer": "best",
            "linf": lambda name: f"{rows.found[name]['own']:.3g}",
            "Fooled": "fooled",
            tuple(f"{choice}, {way}" for way in WAYS.values() for choice in CHOICES.values()): shares,
        },
    )


def _patched(rows: Rows) -> Figure:
    def draw(axes: Axes, index: int) -> None:
        by_layer = list(rows.found.values())[index]["restored"]
        for place, (choice, label) in enumerate(CHOICES.items()):
            found = {at: v for at, layer in enumerate(by_layer.values()) if (v := layer[f"patched/{choice}"])}
            low, value, high = ([100 * getattr(v, e) for v in found.values()] for e in ("low", "value", "high"))
            if found:
                axes.fill_between(list(found), low, high, color=SERIES[place], alpha=0.13, linewidth=0)
                line(axes, place, list(found), value, label)
        axes.set_xticks(range(len(by_layer)), list(by_layer))
        axes.set_ylim(0, 101)

    title = "Fooled images that are right again with neurons of one layer at their benign values, in percent, by layer."
    return panels(list(LABELS.values()), draw, title, "layer")


def _changes(rows: Rows, eps: float, images: int, neurons: Mapping[str, int]) -> list[Block]:
    def by_layer(index: int, name: str) -> Points:
        row = rows.found[name]
        return range(len(neurons)), list(row["relative"].values()) if index else [
            v.value for v in row["change"].values()
        ]

    def cells(name: str, layer: str) -> list[Cell]:
        found, relative = (rows.found[name][key][layer] for key in ("change", "relative"))
        return [Cell(f"{found.value:.3g}", f"[{found.low:.3g}, {found.high:.3g}]"), Cell(f"{relative:.2f}")]

    return [
        rows.lines(
            ["mean change", "mean change / mean size"], by_layer,
            "Mean sensitivity of each layer, and the same relative to the size of its benign activations.", "layer",
            ticks=list(neurons), limits={"ylim": (0, None)},
        ),
        rows.table(
            f"Mean sensitivity by layer (its neurons in brackets) on the pairs of each model's own attack, linf "
            f"{eps:.3g}, first {images:,} test images.",
            {(f"{at} ({size})", "relative"): functools.partial(cells, layer=at) for at, size in neurons.items()},
        ),
    ]  # fmt: skip


def _spectra(found: Measured) -> Figure:
    layers = list(found.moved["plain"])

    def falling(index: int, name: str) -> Points:
        values = np.sort(found.moved[name][layers[index]]["sigma"])[::-1]
        return np.linspace(0, 100, len(values)).tolist(), values.tolist()

    title = "Sensitivity spectra: the neurons of each layer in falling order of their sensitivity."
    titles = [f"layer {layer}" for layer in layers]
    limits = {"ylim": (0, None)}
    return Rows(LABELS, found.moved).lines(titles, falling, title, "neurons, %", limits=limits, marks=False)


def _robust(rows: Rows, found: Measured, images: Mapping[str, int]) -> Table:
    return rows.table(
        f"Accuracy in percent: clean on {images['accuracy']:,} test images; what no attack of the fast suite changes "
        f"on the first {images['suite']:,}, within the radius at which the plain model keeps about 30 % (found on "
        "held-out images), and within the radius of the training.",
        {"Clean": "accuracy", (f"linf {found.own['plain']:.3g}", f"linf {found.eps:.3g}"): lambda name: [
            rows.found[name][key] for key in ("suite", "suite_trained")
        ]},
    )  # fmt: skip


def _pictures(found: Measured) -> Pictures:
    rows = [
        (LABELS[n], [strip(v, f"{w} that move a neuron of {LABELS[n]}") for w, v in zip(("images", "patches"), both)])
        for n, both in found.movers.items()
    ]
    return Pictures(
        "The held-out adversarial images that move the most sensitive neuron of the last layer of maps most, and the "
        "pixels in them that act on the place where it moves most.",
        ["Model", "Images", "Patches"],
        rows,
        wide=True,
    )


PAPER = Paper(**SETTINGS["paper"], samples=samples, plan=plan, measure=measure, find=find)
