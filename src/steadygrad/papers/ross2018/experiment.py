"""The experiment: six networks trained, attacked and compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steadygrad import models
from steadygrad.classifier import Classifier, frozen
from steadygrad.data import Dataset
from steadygrad.defenses import Defense
from steadygrad.measuring.paired import mean_difference
from steadygrad.measuring.statistics import quantiles, share_of, wilson
from steadygrad.papers import published
from steadygrad.papers.base import Findings, Paper, Request
from steadygrad.papers.lessons import Lesson, Trained, learn
from steadygrad.papers.ross2018 import claims, pages
from steadygrad.papers.ross2018.measures import FGSM_CE, JUDGES, Bench
from steadygrad.papers.ross2018.search import searched
from steadygrad.papers.ross2018.settings import SCALES, WEIGHTS, Scale, defenses, fitting, weights_of
from steadygrad.papers.store import Array, Arrays, Store
from steadygrad.registry import describe
from steadygrad.threat import linf

__all__ = ["ROSS2018"]

_HELD_OUT = 1 / 12
_SCORED = 256
_CURVE_EPS = 0.2
_SHOWN = 6


def plan(request: Request, train: Dataset, test: Dataset) -> dict[str, Any]:
    """All that the numbers depend on besides data, scale and seed."""
    scale = SCALES[request.scale]
    weights = weights_of(train.name, request.scale)
    return {
        "network": "ross_cnn",
        "training": fitting(scale, len(_fitted(request, train, scale)[0])).outcome,
        "training samples": scale.training,
        "defenses": {name: describe(d) for name, d in defenses(weights, unit(train)).items()},
        "images": scale.images,
        "epsilons": list(scale.epsilons),
        "targeted images": scale.targeted,
    }


def unit(data: Dataset) -> float:
    """One unit of epsilon in the inputs: 1, but for SVHN a standard deviation of its pixels.

    The authors standardize each SVHN image and measure epsilon there.
    """
    if data.name != "svhn":
        return 1.0
    x, _ = data.take(1000, seed=0).tensors()
    return float(x.flatten(1).std(1).mean())


def run(request: Request, train: Dataset, test: Dataset, folder: Path, store: Store) -> Findings:
    """Train the six models and measure everything."""
    scale = SCALES[request.scale]
    fitted, validation = _fitted(request, train, scale)
    weights = weights_of(train.name, request.scale)
    tried: dict[str, Any] | None = None
    spent: dict[str, float] = {}
    classroom = _Classroom(request, scale, fitted, validation, folder, unit(train))
    if request.search:
        weights, tried, spent = searched(classroom.candidate, validation, scale, store, unit(train), request)
    trained = {name: classroom.train(name, d) for name, d in defenses(weights, unit(train)).items()}
    seconds = {**spent, **{f"train {name}": t.seconds for name, t in trained.items()}}
    bench = Bench(
        {name: t.classifier for name, t in trained.items()}, test, store, request.seed, request.device, unit(train)
    )
    measured = _Measured(bench, scale)
    results = measured.results()
    results["weights"] = dataclasses.asdict(weights)
    results["search"] = tried
    results["curves"] = {name: t.curve for name, t in trained.items()}
    results["curve_eps"] = _CURVE_EPS
    results["published"] = _published(test.name)
    return Findings(
        test,
        results,
        claims.judge(results, measured.right),
        measured.arrays(),
        _left_out(request, scale, fitted),
        seconds,
    )


def _fitted(request: Request, train: Dataset, scale: Scale) -> tuple[Dataset, Dataset]:
    """The samples that are trained on, and those held out."""
    taken = train if scale.training is None else train.take(scale.training, seed=request.seed)
    return taken.divide(_HELD_OUT, request.seed)


@dataclasses.dataclass(frozen=True)
class _Classroom:
    """Trains one network after the other from the same starting weights."""

    request: Request
    scale: Scale
    data: Dataset
    validation: Dataset
    folder: Path
    unit: float

    def start(self) -> Classifier:
        shape, classes = self.data.shape, self.data.classes
        return models.build("ross_cnn", shape, classes, seed=self.request.seed)

    def train(self, name: str, defense: Defense) -> Trained:
        lesson = Lesson(name, self.start(), defense, fitting(self.scale, len(self.data)))
        return learn(
            lesson,
            self.data,
            None,
            self.folder / "models" / name,
            seed=self.request.seed,
            device=self.request.device,
            score=self.score,
        )

    def candidate(self, name: str, defense: Defense) -> Trained:
        """A shorter training of a candidate of the search, not scored on the way."""
        part, _ = self.scale.search
        data, size = self.data, len(self.data)
        epochs = fitting(self.scale, size).epochs * part
        if epochs < 1:
            data = data.take(round(size * epochs), seed=self.request.seed)
        lesson = Lesson(name, self.start(), defense, fitting(self.scale, size, part))
        folder = self.folder / "search" / name
        return learn(lesson, data, None, folder, seed=self.request.seed, device=self.request.device)

    def score(self, model: Classifier) -> dict[str, float]:
        """Accuracy on some validation images, clean and under FGSM."""
        x, y = (t.to(self.request.device) for t in self.validation.batch(slice(0, _SCORED)))
        model.to(self.request.device)
        points = FGSM_CE.perturb(model, x, y, linf(_CURVE_EPS * self.unit))
        with frozen(model), torch.no_grad():
            right = [float((model(inputs).argmax(1) == y).float().mean()) for inputs in (x, points)]
        return {"clean": right[0], "fgsm": right[1]}


@dataclasses.dataclass
class _Measured:
    """All measures of the six models."""

    bench: Bench
    scale: Scale

    def __post_init__(self) -> None:
        bench, count = self.bench, min(self.scale.images, len(self.bench.data))
        self.labels = bench.data.labels[:count].numpy()
        self.count = count
        self.all_right = bench.clean()
        # (attack, source, eps) -> right (M, N) by judging model
        self.right: dict[tuple[str, str, float], Array] = {}
        for targeted in (False, True):
            for source in bench.models:
                for eps in self.scale.epsilons:
                    found = bench.transferred(source, FGSM_CE, eps, count, targeted)
                    self.right["tgsm" if targeted else "fgsm", source, eps] = found == self.labels
        self.norms = {name: bench.gradients(name, count) for name in bench.models}
        eps = _CURVE_EPS
        self.judges = {
            label: {name: bench.resisted(name, attack, eps, count) for name in bench.models}
            for label, attack in JUDGES.items()
        }
        self.rows = _easy(self.all_right, bench.data, self.scale.targeted)
        self.targeted = {
            kind: {name: bench.every_target(name, kind, self.rows) for name in bench.models}
            for kind in ("iterated TGSM", "JSMA")
        }

    def results(self) -> dict[str, Any]:
        """Everything but pictures and distributions, as plain data."""
        names = list(self.bench.models)
        return {
            "models": names,
            "images": self.count,
            "epsilons": list(self.scale.epsilons),
            "clean": {name: share_of(right).plain() for name, right in self.all_right.items()},
            "transfer": {
                kind: {
                    source: {
                        f"{eps:g}": {
                            name: share_of(self.right[kind, source, eps][i]).plain() for i, name in enumerate(names)
                        }
                        for eps in self.scale.epsilons
                    }
                    for source in names
                }
                for kind in ("fgsm", "tgsm")
            },
            "own_judges": {
                label: {name: share_of(kept).plain() for name, kept in rows.items()}
                for label, rows in self.judges.items()
            },
            "overlap": self._overlap(names),
            "gradient_norms": {name: self._norms(name) for name in names},
            "targeted": {
                kind: {
                    name: _targeted(found, self.bench.data.labels[self.rows].numpy()) for name, found in rows.items()
                }
                for kind, rows in self.targeted.items()
            },
            "targeted_images": len(self.rows),
        }

    def _overlap(self, names: list[str]) -> dict[str, Any]:
        """How often each set of models falls for the examples made on one of them."""
        out: dict[str, Any] = {"eps": _CURVE_EPS, "sources": {}}
        clean = np.stack([self.all_right[name][: self.count] for name in names]).all(0)
        out["count"] = int(clean.sum())
        for source in names:
            fooled = ~self.right["fgsm", source, _CURVE_EPS][:, clean]  # (M, n)
            sets, counts = np.unique(fooled.T, axis=0, return_counts=True)
            order = np.argsort(-counts, kind="stable")
            out["sources"][source] = [
                {"fooled": [n for n, hit in zip(names, sets[i]) if hit], "images": int(counts[i])} for i in order
            ]
        return out

    def _norms(self, name: str) -> dict[str, Any]:
        found = self.norms[name]
        ratio = np.abs(_decades(found["next"]) - _decades(found["label"]))
        own = found["log_probabilities"][np.arange(self.count), self.labels]
        return {
            "label": quantiles(found["label"]),
            "zero": share_of(found["label"] == 0).plain(),
            "next": quantiles(found["next"]),
            "decades_apart": quantiles(ratio),
            "log_probability_label": quantiles(own),
            "log_probability_all": quantiles(found["log_probabilities"].ravel()),
            "against_normal": self._against_normal(name),
        }

    def _against_normal(self, name: str) -> dict[str, dict[str, float]]:
        """Decades by which the normal model's norms are larger, and lie further apart, image by image."""
        logs = [{k: _decades(self.norms[n][k]) for k in ("label", "next")} for n in (name, "normal")]
        larger = [np.maximum(log["label"], log["next"]) for log in logs]
        apart = [np.abs(log["label"] - log["next"]) for log in logs]
        return {
            "smaller": mean_difference(larger[1], larger[0]).plain(),
            "more_equal": mean_difference(apart[1], apart[0]).plain(),
        }

    def arrays(self) -> Arrays:
        """Pictures and distributions."""
        shown = self.rows[:_SHOWN]
        x, y = self.bench.data.batch(shown)
        out: Arrays = {"shown": x.numpy(), "shown_labels": y.numpy(), "labels": self.labels}
        grid = _one_per_class(self.bench.data.labels[self.rows].numpy(), len(self.bench.data.classes))
        out["grid_labels"] = self.bench.data.labels[self.rows].numpy()[grid]
        for name in self.bench.models:
            out |= {f"{name}/{k}": v for k, v in self.norms[name].items()}
            out[f"{name}/gradient"] = self.bench.pictures(name, shown)
            for kind, rows in self.targeted.items():
                for key in ("images", "reached"):
                    out[f"{name}/{kind}/{key}"] = rows[name][key][grid]
        return out


def _decades(norms: Array) -> Array:
    # Gradients that underflow to zero count as the smallest that float32 holds.
    logs: Array = np.log10(np.maximum(norms, 1e-38))
    return logs


def _easy(right: Mapping[str, Array], data: Dataset, count: int) -> list[int]:
    """Positions of the first samples that all models get right, classes in turn."""
    everyone = np.stack(list(right.values())).all(0)
    everyone = everyone if everyone.any() else np.ones(len(data), dtype=bool)
    queues = [list(np.flatnonzero(everyone & (data.labels.numpy() == c))) for c in range(len(data.classes))]
    out: list[int] = []
    while len(out) < count and any(queues):
        out += [int(q.pop(0)) for q in queues if q]
    return out[:count]


def _one_per_class(labels: Array, classes: int) -> list[int]:
    first = [int(np.flatnonzero(labels == c)[0]) for c in range(classes) if (labels == c).any()]
    return first[:10]


def _targeted(found: Arrays, labels: Array) -> dict[str, Any]:
    """Share of (image, target) pairs that reached the target, and how many entries changed."""
    aimed = np.arange(found["reached"].shape[1])[None] != labels[:, None]
    reached = found["reached"] & aimed
    return {
        "reached": wilson(int(reached.sum()), int(aimed.sum())).plain(),
        "changed": quantiles(found["changed"][reached]),
    }


def _published(data: str) -> dict[str, Any]:
    clean = {
        r["model"]: float(r["accuracy_pct"]) / 100 for r in published.rows("ross2018_clean") if r["dataset"] == data
    }
    table: dict[str, Any] = {}
    for row in published.rows("ross2018_transfer"):
        if row["dataset"] == data:
            place = table.setdefault(row["attack"], {}).setdefault(row["source_model"], {})
            place.setdefault(row["eps"], {})[row["evaluated_model"]] = float(row["accuracy_pct"]) / 100
    return {"clean": clean, "transfer": table, "images": 256}


def _left_out(request: Request, scale: Scale, train: Dataset) -> list[str]:
    settings = fitting(scale, len(train))
    batches = math.ceil(len(train) / settings.batch_size) * settings.epochs
    falling = "" if settings.schedule == "constant" else ", falling to 0"
    lines = [
        f"Training: {batches:,} batches of {settings.batch_size} with Adam at {settings.lr:g}{falling} "
        "(the paper: 15,000 of 256 at 0.0002).",
        "One seed: the intervals say nothing about another training.",
        "A twelfth of the training data is held out for the curves and the search.",
        "The teacher of the distilled model is trained as long as its student (the paper: up to 10,000 batches).",
        "The weight of the penalty in the combined model is halved, since it belongs to the clean half of the loss.",
        "The study with people is not repeated.",
    ]
    if scale.training is not None:
        lines.append(f"Only {len(train):,} training samples and {scale.targeted} images for the targeted attacks.")
    if len(scale.epsilons) < 7:
        lines.append(f"FGSM and TGSM at {', '.join(map(str, scale.epsilons))} only.")
    if not request.search:
        lines.append("The weights of the penalties come from a table; --search chooses them on validation data.")
        if weights_of(train.name, request.scale) != WEIGHTS.get(train.name, WEIGHTS["mnist"]):
            lines.append(
                "The weight of the gradient penalty is milder than the paper's, with which so short a training leaves "
                "the network undecided."
            )
    if train.name not in WEIGHTS:
        lines.append(f"The paper has no {train.name}: weights from MNIST, and no published numbers beside ours.")
    if train.name == "svhn":
        lines.append(
            "SVHN: grey pixels in [0, 1] with epsilon in mean standard deviations of an image; the paper standardizes "
            "images first and adds a local contrast normalization inside the network, which is not done here."
        )
    return lines


ROSS2018 = Paper(
    name="ross2018",
    title="Regularizing input gradients",
    reference="Ross and Doshi-Velez, AAAI 2018, arXiv 1711.09404",
    says=(
        "A penalty on the input gradient of the loss resists adversarial examples, makes examples that transfer "
        "to other "
        "models, and makes input gradients readable. Together with adversarial training it is stronger still."
    ),
    data=("mnist", "notmnist", "svhn"),
    models=("ross_cnn",),
    plan=plan,
    run=run,
    sections=pages.sections,
    colors={"svhn": "grey"},
)
