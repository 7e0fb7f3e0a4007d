"""What neurons do on each model: one entry per image, so that models and choices can be compared pairwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from steadygrad import neurons
from steadygrad.attacks import FMN, PGD
from steadygrad.classifier import Classifier, frozen
from steadygrad.files import key
from steadygrad.papers.bench import Bench
from steadygrad.papers.store import Array, Arrays
from steadygrad.registry import describe
from steadygrad.threat import linf

__all__ = ["WAYS", "Measured", "NeuronBench"]

Pair = tuple[Tensor, Tensor, Tensor]
PAIRS = PGD(steps=20)
"""What makes the adversarial partners."""
WAYS = ("patched", "off", "clean")
"""Held at their benign values; at zero for the adversarial input; at zero for the benign one."""


@dataclass
class Measured:
    """All measures by model, one entry per image.

    `own` holds, by model, the radius of the pairs whose neurons are patched, and `chosen` the layer
    whose most sensitive neurons restored most on held-out images; `moved` is at `eps`. `kept` and
    `kept_trained` say which images stand at the plain model's own radius and at `eps`.
    """

    eps: float
    own: dict[str, float]
    layers: list[str]
    right: dict[str, Array]
    moved: dict[str, Arrays]
    chosen: dict[str, str]
    restored: dict[str, dict[str, Arrays]]
    kept: dict[str, Array]
    kept_trained: dict[str, Array]


@dataclass
class NeuronBench(Bench):
    """Where the neurons of models are measured, on the pairs of each model's own white-box attack."""

    made: dict[str, list[Pair]] = field(default_factory=dict)

    def radius(self, model: Classifier, share: float, count: int) -> float:
        """The radius (linf) within which FMN leaves a share of the first images right; at most 1.

        0 where no larger share of them is right to begin with.
        """

        def compute() -> Arrays:
            found = [FMN()(model, x, y, linf(), generator=s).distance.cpu() for x, y, s in self._batches(count)]
            return {"distance": torch.cat(found).double().numpy()}

        distance = self.store.get("radius", compute, *self._keys(model, describe(FMN()), count))["distance"]
        return min(1.0, float(np.quantile(distance, 1 - share, method="lower")))

    def _pairs(self, model: Classifier, eps: float, count: int) -> list[Pair]:
        place = key(*self._keys(model), eps, count)
        if place not in self.made:
            batches = self._batches(count)
            made = [(x, PAIRS.perturb(model, x, y, linf(eps), generator=seeds), y) for x, y, seeds in batches]
            self.made = {place: made}  # only the last ones: those of all models would fill the memory
        return self.made[place]

    def moved(self, model: Classifier, eps: float, count: int) -> Arrays:
        """By layer: `change` (N,) and benign `size` (N,), means over neurons and entries, and `sigma` (neurons,).

        And `fooled` (N,): which images are right, and wrong under attack.
        """

        def compute() -> Arrays:
            rows: dict[str, list[Tensor]] = {}
            for x, x_adv, y in self._pairs(model, eps, count):
                for layer, values in neurons.changes(model, x, x_adv).items():
                    rows.setdefault(f"{layer}/neurons", []).append(values.cpu().double())
                with neurons.recorded(model) as outputs:
                    right = _right(model, x, y)
                for layer, values in outputs.items():
                    rows.setdefault(f"{layer}/size", []).append(values.abs().flatten(1).mean(1).cpu().double())
                rows.setdefault("fooled", []).append(right & ~_right(model, x_adv, y))
            found = {name: torch.cat(parts).numpy() for name, parts in rows.items()}
            for layer in [n.removesuffix("/neurons") for n in found if n.endswith("/neurons")]:
                change = found.pop(f"{layer}/neurons")  # (N, neurons)
                found |= {f"{layer}/change": change.mean(1), f"{layer}/sigma": change.mean(0)}
            return found

        return self.store.get("neuron changes", compute, *self._keys(model, describe(PAIRS), eps, count))

    def restored(
        self, model: Classifier, eps: float, count: int, sets: Mapping[str, Sequence[Array]], layer: str
    ) -> Arrays:
        """For each fooled image (n,), by "way/choice": the share of the sets of neurons with which it is right.

        `sets` are indices (k,) of neurons of the layer, by choice ("most", ...); the ways are `WAYS`.
        """
        plain = {choice: [index.tolist() for index in indices] for choice, indices in sets.items()}

        def compute() -> Arrays:
            found: dict[str, list[Tensor]] = {f"{way}/{choice}": [] for way in WAYS for choice in plain}
            for x, x_adv, y in self._pairs(model, eps, count):
                fooled = (_right(model, x, y) & ~_right(model, x_adv, y)).to(x.device)
                batch = x[fooled], x_adv[fooled], y[fooled]
                if not fooled.any():
                    continue
                with frozen(model), torch.no_grad(), neurons.recorded(model, (layer,)) as benign:
                    model(batch[0])
                for name, rows in found.items():
                    way, choice = name.split("/")
                    hits = [_held(model, way, benign, {layer: torch.tensor(index)}, *batch) for index in plain[choice]]
                    rows.append(torch.stack(hits).double().mean(0))
            return {name: torch.cat(rows).numpy() if rows else np.zeros(0) for name, rows in found.items()}

        parts = (describe(PAIRS), eps, count, layer, plain)
        return self.store.get("patching", compute, *self._keys(model, *parts))

    def movers(self, model: Classifier, eps: float, count: int, layer: str, neuron: int, shown: int) -> Arrays:
        """The adversarial images (K, C, H, W) that move a neuron most, and their patches (K, C, h, w)."""
        x, x_adv = (torch.cat(part) for part in list(zip(*self._pairs(model, eps, count)))[:2])
        found = neurons.movers(model, x, x_adv, layer, neuron, count=shown)
        return {"images": x_adv[found.index].cpu().numpy(), "patches": found.patches(x_adv.cpu()).numpy()}


def _held(
    model: Classifier,
    way: str,
    benign: Mapping[str, Tensor],
    chosen: Mapping[str, Tensor],
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
) -> Tensor:
    """Which images (n,) are right with neurons held in one of the `WAYS`."""
    edited = neurons.patched(model, benign, chosen) if way == "patched" else neurons.switched_off(model, chosen)
    with edited:
        return _right(model, x if way == "clean" else x_adv, y)


def _right(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    with frozen(model), torch.no_grad():
        right: Tensor = (model(x).argmax(1) == y).cpu()
    return right
