"""The pictures of an audit as arrays: inputs, perturbed inputs and maps of a few samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attacks import Attack
from steadygrad.attributions import Attribution, similarity
from steadygrad.data import Dataset
from steadygrad.evaluation.robustness import Bench, label_of, predict
from steadygrad.threat import Threat

__all__ = ["Gallery", "image_array", "plane_of"]

Arrays = dict[str, NDArray[Any]]


@dataclass
class Gallery:
    """Collects arrays for `pictures.npz` and their captions for `summary.json`."""

    bench: Bench
    attack: Attack
    threat: Threat
    attributions: Sequence[Attribution]
    arrays: Arrays = field(default_factory=dict)
    captions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    grid: dict[str, Any] | None = None

    def add(self, index: int, name: str, model: nn.Module, rows: Sequence[int]) -> None:
        """Attack the samples `rows` of the data once more and keep inputs, results and maps."""
        data = self.bench.data.select(list(rows))
        x, y = (t.to(self.bench.device) for t in data.batch(slice(None)))
        found = self.attack(model, x, y, self.threat, generator=randomness.fresh(self.bench.seed))
        clean, attacked = predict(model, x), predict(model, found.inputs)
        self.arrays[f"clean_{index}"], self.arrays[f"adversarial_{index}"] = image_array(x), image_array(found.inputs)
        for place, attribution in enumerate(self.attributions):
            for kind, inputs in (("clean", x), ("adversarial", found.inputs)):
                maps = similarity.pixel_maps(attribution(model, inputs, clean[0]))
                self.arrays[f"map_{kind}_{index}_{place}"] = _float(maps.view(len(x), *plane_of(x)))
        self.captions[name] = [
            {
                "index": i,
                "id": data.ids[i],
                "label": data.classes[int(y[i])],
                "clean_prediction": data.classes[int(clean[0][i])],
                "clean_confidence": float(clean[1][i]),
                "adversarial_prediction": data.classes[int(attacked[0][i])],
                "adversarial_confidence": float(attacked[1][i]),
                "distance": float(found.distance[i]) if bool(found.success[i]) else None,
                "attack": label_of(self.attack),
            }
            for i in range(len(data))
        ]

    def add_grid(self, name: str, model: nn.Module, classes: int = 10) -> None:
        """One sample of each class (rows) attacked towards every other class (columns)."""
        data = self.bench.data
        classes = min(classes, len(data.classes))
        labels = data.labels.tolist()
        if any(c not in labels for c in range(classes)):
            return
        x, y = (t.to(self.bench.device) for t in data.batch([labels.index(c) for c in range(classes)]))
        target = torch.arange(classes, device=x.device).repeat(classes)  # (R * K,)
        inputs, own = x.repeat_interleave(classes, 0), y.repeat_interleave(classes, 0)
        seeds = randomness.sample_seeds(len(inputs), randomness.fresh(self.bench.seed))
        found = self.attack(model, inputs, own, self.threat, target=target, generator=seeds)
        same = target == own
        flags = [None if s else bool(hit) for s, hit in zip(same.tolist(), found.success.tolist(), strict=True)]
        # A clean mistake can be attacked towards its own label too; the diagonal shows the original.
        shown = torch.where(same.view(-1, *[1] * (x.ndim - 1)), inputs, found.inputs)
        self.arrays["grid"] = image_array(shown).reshape(classes, classes, *x.shape[1:])
        self.grid = {
            "model": name,
            "attack": f"{label_of(self.attack)}, targeted",
            "classes": list(data.classes[:classes]),
            "success": [flags[r * classes : (r + 1) * classes] for r in range(classes)],
        }

    def plain(self) -> dict[str, Any]:
        """The captions as plain data for `summary.json`."""
        names = [label_of(a) for a in self.attributions]
        return {"models": self.captions, "attributions": names, "grid": self.grid}


def spread(data: Dataset, count: int, prefer: Mapping[int, bool]) -> list[int]:
    """Up to `count` sample places, one class after the other, preferred ones first."""
    chosen: list[int] = []
    order = sorted(range(len(data)), key=lambda i: (not prefer.get(i, False), i))
    labels = data.labels.tolist()
    while order and len(chosen) < count:
        seen: set[int] = set()
        rest: list[int] = []
        for i in order:
            (rest if labels[i] in seen or len(chosen) >= count else chosen).append(i)
            seen.add(labels[i])
        order = rest
    return chosen


def plane_of(x: Tensor) -> tuple[int, int]:
    """Height and width of the picture of an input of a batch (N, *): a row, where it is no image."""
    return (int(x.shape[2]), int(x.shape[3])) if x.ndim == 4 else (1, int(x[0].numel()))


def image_array(x: Tensor) -> NDArray[Any]:
    """Inputs (N, *) as pictures (N, C, H, W) of float32."""
    x = x if x.ndim == 4 else x.flatten(1)[:, None, None]
    return _float(x)


def _float(x: Tensor) -> NDArray[Any]:
    return x.detach().cpu().numpy().astype(np.float32)
