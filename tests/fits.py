"""Tiny training runs for tests, in this process or as a program.

`python fits.py OUT DEFENSE [key=value ...]` is one run; `python fits.py OUT suite` all of `SUITE`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from steadygrad.attacks import FGSM, PGD, DeepFool
from steadygrad.attributions import BlurSaliency
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.defenses import Defense, JacobianPenalty, SelectiveGradientPenalty, parse
from steadygrad.defenses.adversarial import AdversarialTraining
from steadygrad.training import FitResult, FitSettings, fit
from steadygrad.training.loop import Loop


def dataset(count: int = 60, *, classes: int = 3, shape: tuple[int, ...] = (1, 6, 6), seed: int = 0) -> Dataset:
    """Noisy images with one bright row per class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 120, (count, *shape), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), :, labels] += 110
    names = tuple("abcdefghij"[:classes])
    return Dataset(images, labels, names, tuple(f"{seed}/{i}" for i in range(count)), name="rows")


def classifier(kind: str = "linear", *, seed: int = 0) -> Classifier:
    """A small network: of linear layers, of two convolutions ("conv"), or with batch normalization ("norm")."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "norm":
            module = nn.Sequential(
                *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
                *(nn.Dropout(0.3), nn.Linear(16, 3)),
            )
        elif kind == "conv":
            module = nn.Sequential(
                nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
            )
        else:
            module = nn.Sequential(nn.Flatten(), nn.Linear(36, 10), nn.ReLU(), nn.Linear(10, 3))
    architecture = {"name": f"tests/{kind}"}
    return Classifier(module, classes=("a", "b", "c"), input_shape=(1, 6, 6), architecture=architecture)


DEFENSES: dict[str, Defense] = {
    "fgsm": AdversarialTraining(eps=0.1, attack=FGSM("ce"), clean_weight=0.5),
    "pgd": AdversarialTraining(eps=0.05, attack=PGD(steps=2, loss="ce")),
    "deepfool": AdversarialTraining(eps=None, norm="l2", attack=DeepFool(steps=5), clean_weight=0.5),
    "jsigr": JacobianPenalty(0.01) + SelectiveGradientPenalty(0.1, saliency=BlurSaliency(grid=3), refresh=2),
}


def run(out: Path | None = None, defense: str = "plain", *, kind: str = "norm", **settings: Any) -> FitResult:
    """Train for a few epochs with a batch size that leaves uneven batches."""
    chosen = DEFENSES.get(defense) or parse(defense)
    values: dict[str, Any] = {"epochs": 3, "batch_size": 16, "augment": "crop_flip", "schedule": "cosine", **settings}
    return fit(
        *(classifier(kind), chosen, dataset(61), dataset(20, seed=1)), settings=FitSettings(**values), out=out, seed=5
    )


SUITE = (
    *("plain", "fgsm", "pgd", "deepfool", "jsigr"),
    *("input_gradient:weight=0.1", "parseval:weight=0.1", "distillation:temperature=2", "deep_defense:weight=0.01"),
    "stable_neurons:eps=0.1,refresh=2,samples=20",
)
IN_SUITE: dict[str, Any] = {"kind": "linear", "optimizer": "sgd", "lr": 0.1, "select": "robust", "robust_eps": 0.1}
LAST, IN_LAST = "input_gradient:weight=0.1", IN_SUITE | {"kind": "conv", "channels_last": True}


class Stopped(BaseException):
    """What ends a run early."""


@contextlib.contextmanager
def stopped_at(steps: int) -> Iterator[None]:
    """Training stops, without any notice, before step number `steps` of the block."""
    original, count = Loop.step, 0

    def step(self: Loop, *batches: torch.Tensor) -> None:
        nonlocal count
        if count == steps:
            raise Stopped
        count += 1
        original(self, *batches)

    Loop.step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        Loop.step = original  # type: ignore[method-assign]


def suite(out: Path) -> None:
    """All defenses; one with channels last; and a network with running statistics, whole and in two parts."""
    for defense in SUITE:
        run(out / defense, defense, **IN_SUITE)
    run(out / "channels last", LAST, **IN_LAST)
    run(out / "whole", "pgd", epochs=2)
    with contextlib.suppress(Stopped), stopped_at(7):
        run(out / "parts", "pgd", epochs=2, checkpoint_steps=3)
    run(out / "parts", "pgd", epochs=2)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if sys.argv[2] == "suite":
        suite(Path(sys.argv[1]))
    else:
        given = dict(item.split("=") for item in sys.argv[3:])
        run(Path(sys.argv[1]), sys.argv[2], **{key: _value(value) for key, value in given.items()})
