"""Plausible summaries without an audit: a full one with six models, and the smallest one that is allowed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad.audit.schema import HardenSummary, Summary
from steadygrad.report import page

EPS = 0.1
SAMPLES = 300
NAMES = ["plain", "distilled", "FGSM-trained", "PGD-trained", "gradient penalty", "PGD + gradient penalty"]
STRENGTH = [0.25, 0.62, 0.5, 0.82, 0.66, 0.86]
ATTACKS = [("random_noise", "random noise"), ("fgsm", "FGSM"), ("pgd", "PGD-40"), ("pgd", "PGD-40 (cross-entropy)")]
REASON = (
    "number refuted, because logits × 100 change the accuracy by 38.2 points, "
    "and 71.3 % of the samples have a zero gradient"
)
GLYPHS = {
    0: "01110 10001 10001 10001 10001 10001 01110",
    1: "00100 01100 00100 00100 00100 00100 01110",
    2: "01110 10001 00001 00110 01000 10000 11111",
    3: "11110 00001 00001 01110 00001 00001 11110",
    4: "00010 00110 01010 10010 11111 00010 00010",
    5: "11111 10000 11110 00001 00001 10001 01110",
    6: "00110 01000 10000 11110 10001 10001 01110",
    7: "11111 00001 00010 00100 01000 01000 01000",
    8: "01110 10001 10001 01110 10001 10001 01110",
    9: "01110 10001 10001 01111 00001 00010 01100",
}


def estimate(share: float, count: int = SAMPLES) -> dict[str, Any]:
    """A share with its Wilson interval."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return {"value": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half), "count": count}


def quantiles(values: np.ndarray) -> dict[str, float]:
    return {str(q): float(np.quantile(values, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}


def digit(label: int, rng: np.random.Generator, side: int = 16) -> np.ndarray:
    """A blurred glyph on a (1, side, side) canvas, about like a scanned digit."""
    rows = np.array([[int(c) for c in row] for row in GLYPHS[label].split()], dtype=float)
    glyph = np.kron(rows, np.ones((2, 2)))
    canvas = np.zeros((side, side))
    top, left = rng.integers(0, side - 13), rng.integers(1, side - 10)
    canvas[top : top + 14, left : left + 10] = glyph
    soft = sum(np.roll(canvas, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    return np.clip(0.55 * canvas + 0.5 * soft, 0, 1)[None]


def _checks(trusted: bool) -> list[dict[str, Any]]:
    def row(name: str, passed: bool | None, value: float | None, limit: str, text: str) -> dict[str, Any]:
        return {"name": name, "passed": passed, "value": value, "limit": limit, "text": text}

    return [
        row("logit scale", trusted, 0.3 if trusted else 38.2, "below 1 point",
            "Multiplying the logits by 100 must not move the accuracy under attack."),
        row("zero gradient", trusted, 0.0 if trusted else 71.3, "at most 5 %",
            "Share of samples on which the attack saw no gradient at all."),
        row("iterative beats single step", True, 4.7, "at least 0 points", "PGD must find what FGSM finds."),
        row("monotone", True, 0.0, "no rise above 1 point", "Accuracy must not rise with a larger budget."),
        row("unbounded", True, 2.0, "at most 10 %", "Without a budget every model must fall to chance."),
        row("more steps", True, 0.3, "below 1 point", "Twice the steps must not change the accuracy."),
        row("beats noise", trusted, 100.0 if trusted else 81.4, "every sample", "The gradient must beat chance."),
        row("batch size", True, 0.0, "0 points", "The same samples in other batches must give the same result."),
        row("rounding", None, None, "–", "Does not apply: the data are not 8-bit images."),
    ]  # fmt: skip


def _smoothed(robust: float) -> dict[str, Any]:
    return {
        "sigma": 0.25,
        "n0": 100,
        "n": 10_000,
        "alpha": 0.001,
        "draws": 32,
        "seed": 0,
        "abstained": estimate(0.04),
        "reach": 1.6,
        "within": estimate(0.0),
        "crossed": 3,
        "certified": [{"radius": r, "accuracy": estimate(robust * (1 - r))} for r in (0.0, 0.125, 0.25, 0.5)],
    }


def _certified(robust: float, curve: list[tuple[float, float]]) -> dict[str, Any]:
    fallen, sure = SAMPLES - round(robust * SAMPLES), round((robust - 0.1) * SAMPLES)
    return {
        "refused": None,
        "borders": {
            "accuracy": estimate(sure / SAMPLES),
            "gap": estimate((SAMPLES - fallen - sure) / SAMPLES),
            "attacked": fallen,
            "certified": sure,
            "open": SAMPLES - fallen - sure,
            "crossed": 0,
            "curve": [{"eps": eps, "accuracy": estimate(share * (1 - eps / (4 * EPS)))} for eps, share in curve],
            "distances": {"count": 292, "crossed": 0, "quantiles": _smallest(0.8 * robust, True)["quantiles"]},
            "forwards": 22.0,
            "backwards": 120.0,
        },
    }


def _model(index: int, name: str, rng: np.random.Generator) -> dict[str, Any]:
    robust, trusted = STRENGTH[index], name != "distilled"
    clean = 0.972 - 0.006 * index
    verdict = {"state": "holds" if trusted else "refuted", "text": "number holds" if trusted else REASON}
    attacks = []
    for order, (kind, label) in enumerate(ATTACKS):
        accuracy = clean - (clean - robust) * (0.06, 0.62, 1.0, 0.97)[order]
        fooled = trusted or kind == "random_noise"
        steps = {"fgsm": 1, "random_noise": 0}.get(kind, 40)
        attacks.append(
            {
                "name": kind,
                "label": label,
                "settings": {"steps": steps, "loss": "ce" if "cross" in label else "margin", "restarts": 1},
                "accuracy": estimate(accuracy),
                "success_rate": estimate(1 - accuracy / clean, round(SAMPLES * clean)),
                "after_rounding": estimate(min(1.0, accuracy + 0.007)),
                "zero_gradient": 0.0 if fooled else 0.713,
                "forwards": steps * accuracy + 2,
                "backwards": steps * accuracy,
                "median_distance": None if kind == "random_noise" else EPS * (1 - 0.1 * order),
                "verdict": {"state": "holds" if fooled else "refuted", "text": "upper bound" if fooled else REASON},
            }
        )
    grid = np.linspace(0, 2 * EPS, 9)
    tail = 0.02 if trusted else robust - 0.05
    curve = tail + (clean - tail) / (1 + np.exp((grid - EPS * (0.5 + robust)) / 0.02))
    curve[0] = clean
    norms, next_norms, sure, fooled_sure = _distributions(index, rng)
    return {
        "name": name,
        "file": f"models/{index}.safetensors" if index else None,
        "architecture": {"name": "small_cnn", "width": 32},
        "draws": 1,
        "gradients": True,
        "parameters": 38_922,
        "samples": SAMPLES,
        "weights": f"{index:02d}c0ffee5eed",
        "findings": [{"about": "classes", "warning": False, "text": "matched by name"}] if index == 1 else [],
        "clean": estimate(clean),
        "robust": estimate(robust),
        "verdict": {**verdict, "checks": _checks(trusted)},
        "by_class": [
            {"name": str(c), "clean": estimate(clean, SAMPLES // 10), "robust": estimate(robust, SAMPLES // 10)}
            for c in range(10)
        ],
        "eligibility": {"deterministic": True, "gradients": trusted, "no_optimization": True},
        "attacks": attacks,
        "broken_by": [
            {"attack": label, "member": None, "samples": 40 + 10 * order, "alone": order}
            for order, (_, label) in enumerate(ATTACKS)
        ],
        "distances": _smallest(robust, trusted),
        "certified": _certified(robust, list(zip(map(float, grid), map(float, curve), strict=True)))
        if name.startswith("PGD +")
        else None,
        "smoothed": _smoothed(robust) if name == "gradient penalty" else None,
        "rho2": {
            "attack": "DeepFool, 5 steps",
            "pixels": {"value": 0.1 + robust / 10, "low": 0.1, "high": 0.25, "count": SAMPLES},
            "centered": None,
            "turned": estimate(0.98 if trusted else 0.3),
        },
        "curve": {
            "attack": "PGD-40",
            "points": [{"eps": float(e), "accuracy": estimate(float(a))} for e, a in zip(grid, curve, strict=True)],
        },
        "gradient_norm": {"quantiles": quantiles(norms), "next_class": quantiles(next_norms)},
        "confidence": {"clean": quantiles(sure), "adversarial": quantiles(fooled_sure)},
        "further": {
            "noise_insensitivity": {
                "settings": {"eps": 0.1, "draws": 10},
                "means": {"insensitivity": {"value": 0.3, "low": 0.25, "high": 0.35, "count": 200}},
            },
        },
        "corruptions": {
            "mean_error": 0.25,
            "rows": [
                {"corruption": "fog", "severity": s, "accuracy": estimate(0.9 - 0.1 * s, 100)} for s in range(1, 6)
            ],
        },
        "explanations": [
            {"attribution": a, "under": u, "measure": m, "value": v, "low": v - 0.03, "high": v + 0.03, "count": 64}
            for k, a in enumerate(["saliency", "integrated_gradients"])
            for u, drop in (("random noise", 0.1), ("attack on the prediction", 0.4))
            for m, shift in (("top_k_intersection", 0.1), ("spearman", 0.0))
            for v in [0.95 - drop * (1.2 - robust) - shift + 0.05 * k]
        ],
    }


def _smallest(robust: float, trusted: bool) -> dict[str, Any]:
    values = dict(zip(("0.05", "0.25", "0.5", "0.75", "0.95"), (0.3, 0.7, 1.0, 1.3, 1.9), strict=True))
    rows: dict[str, Any] = {
        q: {"value": EPS * robust * v, "low": 0.9 * EPS * robust * v, "high": 1.1 * EPS * robust * v}
        for q, v in values.items()
    }
    if not trusted:
        rows["0.75"] = {"value": None, "low": 0.2, "high": None}
        rows["0.95"] = {"value": None, "low": None, "high": None}
    return {"attack": "FMN", "count": 292, "censored": 0 if trusted else 100, "limit": 1.0, "quantiles": rows}


def _distributions(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    robust = STRENGTH[index]
    norms = np.exp(rng.normal(-2 - 3 * robust, 1.4, SAMPLES))
    if NAMES[index] == "distilled":
        norms = np.where(rng.random(SAMPLES) < 0.713, 0.0, 1e-5 * norms)
    sure = 1 - 0.3 * rng.random(SAMPLES) ** 3
    return norms, 2 * norms, sure, np.clip(sure - 0.4 * robust * rng.random(SAMPLES), 0.1, 1)


def full(names: list[str] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Six models, four attacks, transfer, a gallery with two attributions and a grid; a pair (summary, arrays)."""
    rng = np.random.default_rng(0)
    names = list(NAMES if names is None else names)
    arrays: dict[str, np.ndarray] = {}
    models, entries = [], {}
    for index, name in enumerate(names):
        model = _model(index, NAMES[index], rng)
        models.append({**model, "name": name})
        entries[name] = _pictures(index, arrays, rng)
        norms, next_norms, sure, fooled = _distributions(index, rng)
        arrays |= {f"gradient_norms_{index}": norms, f"next_gradient_norms_{index}": next_norms}
        arrays |= {f"confidence_clean_{index}": sure, f"confidence_adversarial_{index}": fooled}
    grid = np.stack([[digit(r, rng) + 0.0 for _ in range(10)] for r in range(10)])
    noise = EPS * np.sign(rng.normal(size=grid.shape))
    noise[np.arange(10), np.arange(10)] = 0
    arrays["grid"] = np.clip(grid + noise, 0, 1)
    summary = _frame(models, SAMPLES)
    order = range(len(names))
    summary["transfer"] = {
        "attack": "PGD-40",
        "eps": EPS,
        "names": names,
        "accuracy": [
            [estimate(STRENGTH[j] if i == j else min(0.97, STRENGTH[j] + 0.1 + 0.03 * abs(i - j))) for j in order]
            for i in order
        ],
        "note": "Points made against one model and shown to another: weak evidence.",
    }  # fmt: skip
    summary["gallery"] = {
        "models": entries,
        "attributions": ["saliency", "integrated_gradients"],
        "grid": {
            "model": names[0],
            "attack": "PGD-40, targeted",
            "classes": [str(d) for d in range(10)],
            "success": [[None if r == k else bool((3 * r + k) % 4) for k in range(10)] for r in range(10)],
        },
    }
    return summary, arrays


def _pictures(index: int, arrays: dict[str, np.ndarray], rng: np.random.Generator) -> list[dict[str, Any]]:
    labels = [7, 2, 1, 0, 4]
    clean = np.stack([digit(label, rng) for label in labels])
    delta = EPS * np.sign(rng.normal(size=clean.shape))
    delta[-1] = 0  # the last sample withstood every attack
    adversarial = np.clip(clean + delta, 0, 1)
    arrays |= {f"clean_{index}": clean, f"adversarial_{index}": adversarial}
    for a in range(2):
        base = clean[:, 0] * rng.random(clean[:, 0].shape) * (1.4 - STRENGTH[index])
        arrays[f"map_clean_{index}_{a}"] = base
        arrays[f"map_adversarial_{index}_{a}"] = np.abs(
            base + 0.15 * (1 - STRENGTH[index]) * rng.normal(size=base.shape)
        )
    return [
        {
            "index": 11 * k + index,
            "id": f"digits-test-{11 * k + index:05d}",
            "label": str(label),
            "clean_prediction": str(label),
            "adversarial_prediction": str(label if k == 4 else (label + 3) % 10),
            "clean_confidence": 0.997 - 0.01 * k,
            "adversarial_confidence": 0.91 - 0.05 * k,
            "distance": None if k == 4 else EPS,
            "attack": None if k == 4 else "PGD-40",
            "steps": [],
        }
        for k, label in enumerate(labels)
    ]


def _frame(models: list[dict[str, Any]], samples: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "version": "0.1.0",
        "created": "2025-01-31T12:00:00Z",
        "machine": {
            "host": "laptop",
            "platform": "Linux x86_64",
            "python": "3.11.9",
            "torch": "2.13.0",
            "device": "cpu",
            "threads": 2,
        },
        "machines": [],
        "seconds": 74.3,
        "command": "steadygrad audit runs/digits/models/*.safetensors --data digits --norm linf --eps 0.1 --seed 0",
        "config": {
            "seed": 0,
            "data": {"name": "digits", "split": "test", "samples": samples},
            "threat": {"norm": "linf", "eps": EPS},
            "attacks": [{"name": name, "label": label} for name, label in ATTACKS],
        },
        "data": {
            "name": "digits",
            "split": "test",
            "samples": samples,
            "available": 2 * samples,
            "seed": 0,
            "classes": [str(d) for d in range(10)],
            "samples_of_classes": [samples // 10] * 10,
            "available_of_classes": [samples // 5] * 10,
            "shape": [1, 16, 16],
            "fingerprint": "9f3a1c0de5",
            "notes": ["there is no split called test: val stands in for it"],
        },
        "threat": {"norm": "linf", "eps": EPS, "bounds": [0.0, 1.0], "mask": None},
        "models": models,
        "transfer": None,
        "explained": None,
        "neurons": None,
        "gallery": None,
    }


def minimal() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One model, one attack that found nothing, no transfer, no grid, no distances; a pair (summary, arrays)."""
    rng = np.random.default_rng(1)
    model = _model(0, "plain", rng)
    model["attacks"] = [{**model["attacks"][0], "median_distance": None, "success_rate": None}]
    model["broken_by"] = model["broken_by"][:1]
    model["rho2"] = None
    model["robust"] = model["attacks"][0]["accuracy"]
    model["explanations"] = []
    model["further"], model["corruptions"] = {}, None
    model["curve"]["points"] = model["curve"]["points"][:1]
    arrays: dict[str, np.ndarray] = {}
    entries = _pictures(0, arrays, rng)
    for entry in entries:
        entry |= {"distance": None, "attack": None}
    norms, next_norms, sure, fooled = _distributions(0, rng)
    arrays |= {"gradient_norms_0": norms, "next_gradient_norms_0": next_norms}
    arrays |= {"confidence_clean_0": sure, "confidence_adversarial_0": fooled}
    arrays = {name: value for name, value in arrays.items() if not name.startswith("map_")}
    summary = _frame([model], SAMPLES)
    summary["gallery"] = {"models": {"plain": entries}, "attributions": [], "grid": None}
    return summary, arrays


def draw(summary: dict[str, Any], arrays: dict[str, np.ndarray], hardened: dict[str, Any] | None = None) -> str:
    """The page of a pair."""
    compared = None if hardened is None else HardenSummary.model_validate(hardened)
    return page.render(Summary.model_validate(summary), arrays, compared)


def reread(folder: Path, summary: dict[str, Any]) -> Summary:
    """What is read of a summary that was written down as plain data."""
    (folder / "summary.json").write_text(json.dumps(summary, allow_nan=False), encoding="utf-8")
    return Summary.read(folder)
