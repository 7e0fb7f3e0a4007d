"""How often the intervals of a study's answers hold, on simulated persons whose rates are known.

    python benchmarks/judgements.py --simulations 100 --result benchmarks/results/judgements.json

Persons and images differ, by normal intercepts of a logit, and cross: each person judges some images of each model,
none twice. The true share of a model is that over all persons and images. Prints for each design and interval how many
of 100 held it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

CLASSES = tuple("0123456789")


class Design(NamedTuple):
    """A simulated study: persons, images of each model that a person sees, images there are, and the two spreads."""

    persons: int
    each: int
    images: int
    by_person: float
    by_image: float


DESIGNS = (
    Design(11, 10, 30, 0.0, 0.0),
    Design(11, 10, 30, 0.7, 0.7),
    Design(11, 10, 30, 1.0, 1.5),
    Design(30, 10, 30, 0.7, 1.0),
    Design(30, 10, 100, 0.5, 2.0),
    Design(40, 10, 100, 1.0, 1.0),
)
RATES = {"plain": (0.02, 0.2), "distilled": (0.1, 0.3), "regularized": (0.3, 0.6)}
"""The true shares of judgements that are fooled, and reasonable."""


def intercept(rate: float, spread: float) -> float:
    """The logit around which persons and images lie whose mean probability is a rate."""
    from scipy.optimize import brentq

    nodes, shares = np.polynomial.hermite_e.hermegauss(60)
    shares = shares / shares.sum()
    return float(brentq(lambda a: float(shares @ (1 / (1 + np.exp(-a - spread * nodes)))) - rate, -40, 40))


def answers(design: Design, rates: dict[str, tuple[float, float]], seed: int) -> pd.DataFrame:
    """The table of answers of a simulated study."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    spread = float(np.hypot(design.by_person, design.by_image))
    of_person = rng.normal(0, design.by_person, design.persons)
    rows: list[dict[str, Any]] = []
    for model, (fooled, reasonable) in rates.items():
        middle = [intercept(rate, spread) for rate in (fooled, reasonable)]
        of_image = rng.normal(0, design.by_image, design.images)
        # Each image is shown as often as the others, and to nobody twice.
        start = rng.permutation(design.images)
        for person in range(design.persons):
            for k in range(design.each):
                image = int(start[(person * design.each + k) % design.images])
                # One draw for both scores: who is fooled is reasonable.
                uniform = rng.random()
                logits = [m + of_person[person] + of_image[image] for m in middle]
                hits = [bool(uniform < 1 / (1 + np.exp(-logit))) for logit in logits]
                rows.append(answer(person, f"{model}-{image}", model, *hits))
    table = pd.DataFrame(rows)
    table["position"] = table.groupby("person").cumcount()
    return table


def answer(
    person: int,
    sample: str,
    model: str | None = None,
    fooled: bool | None = None,
    reasonable: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """A row of the table: label 3, predicted 5."""
    chosen = ["5"] if fooled else ["3", "5"] if reasonable else ["3"]
    return {
        "person": f"p{person}", "position": 0, "block": person % 3, "kind": "labels", "stimulus": f"s-{sample}",
        "sample": sample, "model": model, "attack": "PGD", "threat": "ℓ∞ ≤ 0.2", "left": None, "right": None,
        "label": "3", "predicted": "5", "options": list(CLASSES), "chosen": chosen, "best": chosen[0],
        "unrecognizable": False, "preferred": None, "fooled": fooled,
        "reasonable": None if fooled is None else reasonable or fooled,
        "correct": None, "seconds": 4.0, "language": "en", "finished": True, **more,
    }  # fmt: skip


def held(design: Design, seed: int) -> dict[str, list[bool]]:
    """Which intervals of one simulated study hold the truth, by what they are of."""
    from steadygrad.study.judgements import judge

    people = judge(answers(design, RATES, seed))
    found: dict[str, list[bool]] = {}
    for row in people.models:
        for score, truth in zip(("fooled", "reasonable"), RATES[row.model], strict=True):
            share = getattr(row, score)
            for name, (low, high) in {
                "share": (share.low, share.high), "share, Wilson": share.wilson, "share, persons": share.by_persons
            }.items():  # fmt: skip
                found.setdefault(name, []).append(low <= truth <= high)
    spread = float(np.hypot(design.by_person, design.by_image))
    for row in people.contrasts:
        which = ("fooled", "reasonable").index(row.score)
        first, second = (RATES[name][which] for name in (row.first, row.second))
        found.setdefault("difference", []).append(row.difference.low <= first - second <= row.difference.high)
        if row.odds is not None:
            truth = float(np.exp(intercept(first, spread) - intercept(second, spread)))
            found.setdefault("odds ratio", []).append(row.odds.low <= truth <= row.odds.high)
    return found


def mean_field(design: Design, seed: int) -> list[bool]:
    """The same for the ratio of odds of reasonable judgements by the mean-field approximation of statsmodels."""
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    table = answers(design, RATES, seed)
    parts = [np.asarray([table[c] == v for v in table[c].unique()], float).T for c in ("model", "person", "stimulus")]
    which = np.repeat([0, 1], [parts[1].shape[1], parts[2].shape[1]])
    y = table["reasonable"].to_numpy(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = BinomialBayesMixedGLM(y, parts[0], np.hstack(parts[1:]), which, vcp_p=1, fe_p=2).fit_vb()
    spread = float(np.hypot(design.by_person, design.by_image))
    truth = [intercept(RATES[name][1], spread) for name in table["model"].unique()]
    return [
        abs(fit.fe_mean[a] - fit.fe_mean[b] - truth[a] + truth[b]) <= 1.96 * np.hypot(fit.fe_sd[a], fit.fe_sd[b])
        for a, b in itertools.combinations(range(3), 2)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=100, help="of each design")
    parser.add_argument("--mean-field", type=int, default=0, help="simulations that statsmodels judges too")
    parser.add_argument("--result", type=Path, help="JSON file to write")
    args = parser.parse_args()
    results = []
    for design in DESIGNS:
        found: dict[str, list[bool]] = {}
        for seed in range(args.simulations):
            for name, values in held(design, seed).items():
                found.setdefault(name, []).extend(values)
            if seed < args.mean_field:
                found.setdefault("odds ratio, mean field", []).extend(mean_field(design, seed))
        shares = {name: round(100 * float(np.mean(values)), 1) for name, values in found.items()}
        print(design._asdict(), shares, flush=True)
        results.append({**design._asdict(), "simulations": args.simulations, "held of 100": shares})
    if args.result:
        args.result.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
