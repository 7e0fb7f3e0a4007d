"""The suite `standard` against its four algorithms written from the papers: verdicts and passes.

    python benchmarks/standard_against_the_papers.py --out runs/standard --result benchmarks/results/standard.json

trains two LeNets on MNIST (plain, and with PGD), then runs both suites with the same settings on the
first test images, fifty at a time, the two models in turn, until the images or the minutes of processor
time are used up. With --again N our suite then runs with N other seeds: how much of a difference is luck.
A run that was stopped goes on where it was, with the same code. The algorithms are those of tests/oracles.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steadygrad as sg
from steadygrad import files, provenance, randomness
from steadygrad.attacks import PGD, Standard
from steadygrad.defenses import AdversarialTraining, Plain
from steadygrad.measuring.code_keys import code_of
from steadygrad.measuring.statistics import wilson

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import standard as papers

CHUNK = 50
EPS = {"plain": 0.1, "pgd": 0.2}  # radii at which some samples fall and some stand
NONE = len(papers.MEMBERS)


def trained(name: str, train: sg.data.Dataset, out: Path, seed: int) -> sg.Classifier:
    """The plain model, or the same trained on against PGD."""
    if name == "plain":
        start: sg.Classifier = sg.models.build("lenet", train.shape, train.classes)
        return sg.fit(start, Plain(), train, settings=sg.FitSettings(epochs=2), out=out / name, seed=seed).classifier
    plain = trained("plain", train, out, seed)
    defense = AdversarialTraining(eps=EPS[name], attack=PGD(steps=5, loss="ce"))
    settings = sg.FitSettings(epochs=3, checkpoint_steps=50)
    return sg.fit(plain, defense, train.take(20_000), settings=settings, out=out / name, seed=seed).classifier


def compare(model: sg.Classifier, x: Tensor, y: Tensor, eps: float, seeds: Tensor) -> dict[str, Any]:
    """One chunk under both suites: who breaks each sample (-1 a clean mistake, 4 nobody), and all passes."""
    start = time.process_time()
    result = Standard()(model, x, y, sg.linf(eps), generator=seeds)
    by = torch.where(result.success, result.found_by, NONE)
    middle = time.process_time()
    with sg.frozen(model):
        theirs, budget = papers.fooled(model, x, y, eps, "linf")
    return {
        "ours": by.tolist(),
        "papers": theirs.tolist(),
        "ours_passes": int(result.forwards.sum() + result.backwards.sum()),
        "papers_passes": budget,
        "ours_seconds": middle - start,
        "papers_seconds": time.process_time() - middle,
    }


def again(model: sg.Classifier, x: Tensor, y: Tensor, eps: float, seed: int, path: Path) -> list[bool]:
    """Which of the samples stand up to our suite with another seed."""
    if not path.exists():
        seeds = randomness.sample_seeds(len(x), randomness.fresh(seed))
        parts = zip(x.split(CHUNK), y.split(CHUNK), seeds.split(CHUNK))
        stand = [~Standard()(model, a, b, sg.linf(eps), generator=c).success for a, b, c in parts]
        files.write_json(path, {"stands": torch.cat(stand).tolist()})
    stands: list[bool] = json.loads(path.read_text("utf-8"))["stands"]
    return stands


def summary(name: str, model: sg.Classifier, test: sg.data.Dataset, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """One model in plain data."""
    ours, theirs = ([by for chunk in chunks for by in chunk[side]] for side in ("ours", "papers"))
    spent, budget = (sum(chunk[f"{side}_passes"] for chunk in chunks) for side in ("ours", "papers"))
    count = len(ours)

    def robust(by: list[int]) -> dict[str, float]:
        share = wilson(by.count(NONE), count)
        return {"value": share.value, "low": share.low, "high": share.high}

    x, y = test.tensors()
    with sg.frozen(model), torch.no_grad():
        right = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500)))
    return {
        "model": name,
        "eps": EPS[name],
        "norm": "linf",
        "images": count,
        "clean_accuracy_test": right / len(test),
        "robust_ours": robust(ours),
        "robust_papers": robust(theirs),
        "difference_points": 100 * (ours.count(NONE) - theirs.count(NONE)) / count,
        "only_ours_breaks": sum(a != NONE and b == NONE for a, b in zip(ours, theirs)),
        "only_papers_break": sum(a == NONE and b != NONE for a, b in zip(ours, theirs)),
        "passes_ours": spent / count,
        "passes_papers": budget / count,
        "passes_ratio": spent / budget,
        "seconds_ours": sum(chunk["ours_seconds"] for chunk in chunks),
        "seconds_papers": sum(chunk["papers_seconds"] for chunk in chunks),
        "broken_by_ours": {m: ours.count(i) for i, m in enumerate(papers.MEMBERS)},
        "broken_by_papers": {m: theirs.count(i) for i, m in enumerate(papers.MEMBERS)},
    }


def line(row: dict[str, Any]) -> str:
    """The summary of one model in two lines."""
    a, b = row["robust_ours"], row["robust_papers"]
    return (
        f"{row['model']}: linf {row['eps']}, {row['images']} images, clean {row['clean_accuracy_test']:.2%} (all)\n"
        f"  robust: ours {a['value']:.1%} [{a['low']:.1%}, {a['high']:.1%}], papers {b['value']:.1%}; difference "
        f"{row['difference_points']:+.1f} points (broken by us alone {row['only_ours_breaks']}, by the papers alone "
        f"{row['only_papers_break']}); passes per sample {row['passes_ours']:.0f} against {row['passes_papers']:.0f}, "
        f"{row['passes_ratio']:.1%}"
        + "".join(
            f"\n  ours with seed {a['seed']}: {a['robust']:.1%} (breaks {a['only_this']} that the first seed does not, "
            f"misses {a['only_first']})"
            for a in row["again"]
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/standard"))
    parser.add_argument("--images", type=int, default=500, help="test images per model")
    parser.add_argument("--minutes", type=float, default=25.0, help="of processor time for the attacks, both models")
    parser.add_argument("--again", type=int, default=0, help="other seeds with which our suite runs too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, help="write the figures to this JSON file, too")
    given = parser.parse_args()
    train, test = (sg.data.load("mnist", split=split) for split in ("train", "test"))
    models = {name: trained(name, train, given.out / "models", given.seed) for name in EPS}
    x, y = test.batch(slice(0, given.images))
    seeds = randomness.sample_seeds(len(x), randomness.fresh(given.seed))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    used, code = 0.0, code_of(Standard)  # what another version found is not mixed in
    for start in range(0, len(x), CHUNK):
        rows = slice(start, min(start + CHUNK, len(x)))
        for name, model in models.items():
            path = given.out / f"chunks-{code}" / f"{name}-{given.seed}-{rows.start}-{rows.stop}.json"
            if not path.exists():
                if used > 60 * given.minutes:
                    continue
                files.write_json(path, compare(model, x[rows], y[rows], EPS[name], seeds[rows]))
            chunk = json.loads(path.read_text("utf-8"))
            used += chunk["ours_seconds"] + chunk["papers_seconds"]
            found[name].append(chunk)
            print(f"{name} {rows.stop}: {used / 60:.1f} minutes", file=sys.stderr, flush=True)
    results = [summary(name, models[name], test, chunks) for name, chunks in found.items() if chunks]
    for row in results:
        name, count = row["model"], row["images"]
        first = [by == NONE for chunk in found[name] for by in chunk["ours"]]
        row["again"] = []
        for seed in range(given.seed + 1, given.seed + 1 + given.again):
            path = given.out / f"chunks-{code}" / f"again-{name}-{seed}-{count}.json"
            stands = again(models[name], x[:count], y[:count], EPS[name], seed, path)
            missed, more = (sum(a and not b for a, b in zip(*pair)) for pair in ((stands, first), (first, stands)))
            row["again"].append({"seed": seed, "robust": sum(stands) / count, "only_first": missed, "only_this": more})
    print("\n".join(line(row) for row in results))
    if given.result:
        about = {
            "seed": given.seed,
            "version": sg.__version__,
            "code": code,
            "steps": 100,
            "queries": 5000,
            "targets": 9,
            "data": "mnist, first test images",
        }
        machine = provenance.machine()
        files.write_json(given.result, {**about, "machine": machine, "made": provenance.now(), "models": results})


if __name__ == "__main__":
    main()
