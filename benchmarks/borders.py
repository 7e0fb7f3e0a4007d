"""Robust accuracy from both sides, attacked and certified, of models that were trained in several ways.

    python -m benchmarks.borders --data mnist --model mlp --out runs/borders

trains each model with seed 0 on all training images and takes the first test images in their order. From above:
the suite `fast`, and PGD with 40 steps; from below: `CertifiedMargin`. It prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import torch

import steadygrad as sg
from steadygrad.attacks import PGD
from steadygrad.attacks.suites import suite_of
from steadygrad.defenses import AdversarialTraining, CertifiedTraining, Defense, InputGradientPenalty, Plain
from steadygrad.measuring.statistics import wilson

RADII = (0.01, 0.02, 0.05, 0.1)
"""In linf, of pixels within [0, 1]."""


def defenses(eps: float) -> dict[str, Defense]:
    """How the models are trained, by what they are called."""
    return {
        "plain": Plain(),
        "input-gradient penalty": InputGradientPenalty(0.1),
        "PGD": AdversarialTraining(eps=eps, attack=PGD(steps=5, loss="ce")),
        "certified": CertifiedTraining(eps, ramp=12),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--eps", type=float, default=0.1, help="that the defenses train for")
    parser.add_argument("--epochs", type=int, default=10, help="of all but the certified model")
    parser.add_argument("--certified-epochs", type=int, default=30)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--only", nargs="*", help="some of the models")
    parser.add_argument("--out", type=Path, default=Path("runs/borders"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (sg.data.load(options.data, part) for part in ("train", "test"))
    x, y = test.take(options.samples).tensors()
    print(f"{options.data}, {options.model}, {len(x)} test images, linf; {platform.machine()}, one thread\n")
    print("| trained | clean | " + " | ".join(f"{eps}: certified, attacked" for eps in RADII) + " | certifying one |")
    print("|---" * (len(RADII) + 3) + "|")
    for name, defense in defenses(options.eps).items():
        if options.only and name not in options.only:
            continue
        start = sg.models.build(options.model, train.shape, train.classes, seed=0)
        epochs = options.certified_epochs if name == "certified" else options.epochs
        settings = sg.FitSettings(epochs=epochs, schedule="cosine")
        out = options.out / f"{options.data}-{options.model}-{name}"
        model = sg.fit(start, defense, train, settings=settings, out=out).classifier
        print(row(name, model, x, y), flush=True)


def row(name: str, model: sg.Classifier, x: torch.Tensor, y: torch.Tensor) -> str:
    """One line of the table."""

    def share(hits: torch.Tensor) -> str:
        found = wilson(int(hits.sum()), len(hits))
        return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"

    right = model(x).argmax(1) == y
    cells, seconds = [name, share(right)], 0.0
    for eps in RADII:
        threat = sg.linf(eps)
        begin = time.process_time()
        certified = sg.bounds.CertifiedMargin()(model, x, y, threat).certified
        seconds += time.process_time() - begin
        standing = right & ~PGD(steps=40, restarts=2)(model, x, y, threat).success
        for attack in suite_of("fast", threat):
            standing &= ~attack(model, x, y, threat).success
        assert not (certified & ~standing).any(), "a certified sample was broken"
        cells.append(f"{share(certified)}, {share(standing)}")
    return "| " + " | ".join([*cells, f"{1000 * seconds / len(RADII) / len(x):.0f} ms"]) + " |"


if __name__ == "__main__":
    main()
