"""The paper's expectations on MNIST-like data, decided from the results."""

from __future__ import annotations

from typing import Any

from steadygrad.measuring.paired import mean_difference
from steadygrad.measuring.statistics import Estimate, share_of
from steadygrad.papers.claims import Claim, above, at_least, below
from steadygrad.papers.ross2018.settings import LABELS
from steadygrad.papers.store import Array

__all__ = ["judge"]

Right = dict[tuple[str, str, float], Array]


def judge(results: dict[str, Any], right: Right) -> list[Claim]:
    """Every expectation of the paper with what was found; `right` is by (attack, source, eps), (M, N)."""
    names: list[str] = results["models"]
    theirs = results["published"]["transfer"].get("fgsm", {})

    def hits(judged: str, source: str, eps: float, kind: str = "fgsm") -> Array:
        found: Array = right[kind, source, eps][names.index(judged)].astype(float)
        return found

    def paper(judged: str, source: str, eps: float) -> float | None:
        value: float | None = theirs.get(source, {}).get(f"{eps:g}", {}).get(judged)
        return value

    epsilons = [e for e in results["epsilons"]]
    out = [
        at_least(
            "Gradient penalty minus normal, each under its own FGSM at ε .2",
            mean_difference(hits("doubleback", "doubleback", 0.2), hits("normal", "normal", 0.2)),
            0.25,
            "at least 25 points",
            unit="points",
            paper=_minus(paper("doubleback", "doubleback", 0.2), paper("normal", "normal", 0.2)),
        ),
        at_least(
            "Gradient penalty on examples of normal at ε .2",
            share_of(hits("doubleback", "normal", 0.2)),
            0.85,
            "at least 85 %",
            paper=_percent(paper("doubleback", "normal", 0.2)),
        ),
    ]
    rivals = ("normal", "insensitive", "doubleback")
    for eps in [e for e in epsilons if e <= 0.3]:
        best = max(rivals, key=lambda name: hits(name, name, eps).mean())
        out.append(
            at_least(
                f"Adversarial training minus the best other defense under its own FGSM at ε {eps:g}",
                mean_difference(hits("advtrain", "advtrain", eps), hits(best, best, eps)),
                0.0,
                "at least 0 points",
                unit="points",
                paper=_minus(
                    paper("advtrain", "advtrain", eps),
                    max((p for n in rivals if (p := paper(n, n, eps)) is not None), default=None),
                ),
                detail=f"best other: {best}; the distilled and the combined model are left out",
            )
        )
    if 0.5 in epsilons:
        drop = [hits(n, n, 0.3) - hits(n, n, 0.5) for n in ("advtrain", "doubleback")]
        out.append(
            above(
                "Adversarial training falls faster from ε .3 to .5 than the gradient penalty",
                mean_difference(*drop),
                0.0,
                "above 0 points",
                unit="points",
                paper=_minus(
                    _drop(paper("advtrain", "advtrain", 0.3), paper("advtrain", "advtrain", 0.5)),
                    _drop(paper("doubleback", "doubleback", 0.3), paper("doubleback", "doubleback", 0.5)),
                ),
            )
        )
    out += _distilled(results, hits, paper)
    if 0.3 in epsilons:
        better = max(("advtrain", "doubleback"), key=lambda name: hits(name, name, 0.3).mean())
        out.append(
            at_least(
                "Both defenses minus the better one under its own FGSM at ε .3",
                mean_difference(hits("both", "both", 0.3), hits(better, better, 0.3)),
                0.0,
                "at least 0 points",
                unit="points",
                detail=f"the better one: {better}",
            )
        )
    out += _norms(results)
    return out


def _distilled(results: dict[str, Any], hits: Any, paper: Any) -> list[Claim]:
    tgsm = share_of(hits("distilled", "distilled", 0.2, "tgsm"))
    margin = Estimate(**results["own_judges"]["PGD, margin"]["distilled"])
    least = min(tgsm, margin, key=lambda found: found.value)
    theirs = results["published"]["transfer"].get("tgsm", {}).get("distilled", {}).get("0.2", {}).get("distilled")
    return [
        above(
            "Distilled looks robust: its own cross-entropy FGSM at ε .2",
            share_of(hits("distilled", "distilled", 0.2)),
            0.9,
            "above 90 %",
            paper=_percent(paper("distilled", "distilled", 0.2)),
        ),
        below(
            "Distilled is not: its own TGSM or margin attack at ε .2, whichever leaves less",
            least,
            0.15,
            "below 15 %",
            paper=_percent(theirs) + " (TGSM)" if theirs is not None else "",
            detail=f"TGSM leaves {100 * tgsm.value:.1f} %, PGD on the margin {100 * margin.value:.1f} %",
        ),
    ]


def _norms(results: dict[str, Any]) -> list[Claim]:
    texts = {
        "smaller": "the larger of its two gradient norms is smaller than the normal model's",
        "more_equal": "its two gradient norms are more alike than the normal model's",
    }
    return [
        above(
            f"{LABELS[name]}: {text}",
            Estimate(**results["gradient_norms"][name]["against_normal"][key]),
            0.0,
            "above 0 decades",
            unit="decades",
            detail="mean over the images; norms for the label and for the class after it",
        )
        for name in ("doubleback", "insensitive", "both")
        for key, text in texts.items()
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _minus(first: float | None, second: float | None) -> str:
    return "" if first is None or second is None else f"{100 * (first - second):+.1f} points"


def _drop(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
