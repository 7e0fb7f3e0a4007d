"""What each attack spends on the bundled digits, and what it finds there.

    python benchmarks/passes_of_attacks.py --result benchmarks/results/passes.json

trains the small CNN of the demo and runs every registered attack with its default settings on the first
test digits that it gets right: once within a radius, and, where the attack looks for the smallest change
by itself, once without one. Prints the table of docs/attacks.md.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

import steadygrad as sg
from steadygrad import files, provenance, randomness
from steadygrad.attacks import ATTACKS
from steadygrad.measuring.code_keys import code_of
from steadygrad.measuring.statistics import wilson

HEAD = ("attack", "norm", "eps", "forwards + backwards", "success", "median distance")
EPS = {"linf": 0.1, "l2": 0.6, "l1": 2.0, "l0": 6.0}


def trained(seed: int) -> sg.Classifier:
    model: sg.Classifier = sg.models.build("digits_cnn", (1, 8, 8), 10, seed=seed)
    train = sg.data.load("digits", split="train")
    return sg.fit(model, sg.defenses.Plain(), train, settings=sg.FitSettings(epochs=10), seed=seed).classifier


def measured(name: str, norm: str, eps: float | None, model: sg.Classifier, count: int, seed: int) -> dict[str, Any]:
    """One attack in plain data: mean passes per sample, success with its interval, median distance."""
    x, y = sg.data.load("digits", split="test").tensors()
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:count]
    threat = sg.Threat(norm, eps)  # type: ignore[arg-type]
    result = ATTACKS[name].method()(model, x[right], y[right], threat, generator=randomness.fresh(seed))
    share = wilson(int(result.success.sum()), len(right))
    distance = statistics.median(result.distance.tolist())
    return {
        "attack": name,
        "norm": norm,
        "eps": eps,
        "images": len(right),
        "forwards": float(result.forwards.double().mean()),
        "backwards": float(result.backwards.double().mean()),
        "success": {"value": share.value, "low": share.low, "high": share.high},
        "median_distance": distance if distance < float("inf") else None,
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    share = row["success"]
    found = f"{share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"
    distance = "" if row["eps"] is not None else f"{row['median_distance']:.3g}"
    eps = "smallest" if row["eps"] is None else f"{row['eps']:g}"
    name, spent = f"`{row['attack']}`", f"{row['forwards']:.1f} + {row['backwards']:.1f}"
    return f"| {name} | {row['norm']} | {eps} | {spent} | {found} | {distance} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, help="write the figures to this JSON file, too")
    given = parser.parse_args()
    model, rows = trained(given.seed), []
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for attack in ATTACKS:
        norm = attack.norms[0]
        for eps in (EPS[norm], None) if attack.method.minimum_norm else (EPS[norm],):
            rows.append(measured(attack.name, norm, eps, model, given.images, given.seed))
            print(line(rows[-1]), flush=True)
    if given.result:
        about = {"data": "digits, first test images that are right", "model": "digits_cnn, plain", "seed": given.seed}
        about |= {"version": sg.__version__, "code": code_of(*(row.method for row in ATTACKS))}
        files.write_json(
            given.result, {**about, "machine": provenance.machine(), "made": provenance.now(), "rows": rows}
        )


if __name__ == "__main__":
    main()
