"""What is measured of each model: bounds on its maps, and attacks held against them, image by image."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steadygrad.bounds import CertifiedDeviation, LinearizedDeviation
from steadygrad.bounds.result import cosine_bound
from steadygrad.classifier import Classifier, frozen
from steadygrad.data import Dataset
from steadygrad.evaluation.robustness import weights_key
from steadygrad.files import key
from steadygrad.papers.store import Array, Arrays, Store
from steadygrad.papers.wang2023 import witness
from steadygrad.papers.wang2023.settings import MAPS, Scale, attacks
from steadygrad.progress import task
from steadygrad.registry import describe
from steadygrad.threat import Threat

__all__ = ["KINDS", "Bench", "Cell"]

KINDS = ("linearized", "certified")
_SHOWN = 5
_BATCH = 16


@dataclass(frozen=True)
class Cell:
    """One model, one attribution and one threat: arrays of bounds (N,) and of attacks (A, N)."""

    model: str
    attribution: str
    threat: Threat
    bounds: Arrays
    found: Arrays

    @property
    def strongest(self) -> Array:
        """The largest Euclidean deviation (N,) that any attack found, random points included."""
        best: Array = self.found["far/euclidean"].max(0)
        return best

    def bound(self, kind: str, distance: str = "euclidean") -> Array:
        """A bound (N,)."""
        return self.bounds[f"{kind}/{distance}"]


@dataclass
class Bench:
    """The trained models, the test images, and the pieces that are done."""

    models: Mapping[str, Classifier]
    data: Dataset
    store: Store
    scale: Scale
    seed: int
    device: str

    def right(self, name: str) -> Array:
        """Which test images (N,) a model gets right."""

        def compute() -> Arrays:
            hits = []
            with frozen(self.models[name]), torch.no_grad():
                for first in range(0, len(self.data), 500):
                    x, y = self.data.batch(slice(first, min(first + 500, len(self.data))))
                    hits.append(self.models[name](x.to(self.device)).argmax(1).cpu() == y)
            return {"right": torch.cat(hits).numpy()}

        parts = [weights_key(self.models[name]), self.data.fingerprint]
        return self.store.get("clean accuracy", compute, *parts)["right"]

    def cell(self, name: str, attribution: str, threat: Threat) -> Cell:
        """The bounds on the maps of the first images, and the attacks on them."""
        model, method = self.models[name], MAPS[attribution]
        x, target, seeds = self._images(name, self.scale.images[attribution])
        parts = [weights_key(model), describe(method), str(threat), len(x), self.data.fingerprint, self.seed]

        def bound() -> Arrays:
            rows = []
            with task(f"{name}: bounds on {attribution}, {threat}", len(x)) as advance:
                for first in range(0, len(x), _BATCH):
                    some = slice(first, first + _BATCH)
                    rows.append(self._bounds(name, attribution, x[some], target[some], threat, seeds[some]))
                    advance(len(x[some]))
            return {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}

        bounds = self.store.get(f"bounds on {attribution}", bound, *parts)

        def attack() -> Arrays:
            limits: witness.Limits = {
                (kind, distance): torch.from_numpy(bounds[f"{kind}/{distance}"]).to(self.device)
                for kind in KINDS
                for distance in witness.DISTANCES
            }
            every = attacks(method, self.scale)
            with task(f"{name}: attacks on {attribution}, {threat}", 1) as advance:
                tallies = witness.witnessed(model, x, target, threat, every, limits, seeds)
                advance()
            shown = tallies["PGD, Euclidean"].best[:_SHOWN]
            maps = {"shown/clean": x[:_SHOWN], "shown/moved": shown}
            pictures = {k: method(model, v, target[:_SHOWN]).cpu().numpy() for k, v in maps.items()}
            return {**witness.plain(tallies), **pictures}

        made = {name: describe(a) for name, a in attacks(method, self.scale).items()}
        code = inspect.getsource(witness)
        found = self.store.get(f"attacks on {attribution}", attack, *parts, made, code)
        return Cell(name, attribution, threat, bounds, found)

    def _images(self, name: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The first images, the classes that a model predicts for them, and a seed for each."""
        piece = slice(0, min(count, len(self.data)))
        x = self.data.batch(piece)[0].to(self.device)
        with frozen(self.models[name]), torch.no_grad():
            target = self.models[name](x).argmax(1)
        seeds = torch.tensor([int(key(self.seed, i), 16) % 2**62 for i in self.data.ids[piece]])
        return x, target, seeds

    def _bounds(self, name: str, attribution: str, x: Tensor, target: Tensor, threat: Threat, seeds: Tensor) -> Arrays:
        model, method = self.models[name], MAPS[attribution]
        out: dict[str, Tensor] = {}
        for distance in witness.DISTANCES:
            tangent = LinearizedDeviation(method, distance)
            found = tangent(model, x, target, threat, generator=seeds)
            out[f"linearized/{distance}"] = found.upper
            if distance == "euclidean":
                out["tangent"] = found.lower
        # What is reached is left to the attacks. Intervals are narrowed by the exact derivatives, which makes lines
        # carried back from every unit superfluous where these are affordable.
        affordable = x[0].numel() <= 1024
        proof = CertifiedDeviation(method, restarts=4, steps=0, units=0 if affordable else 2048)
        upper = proof(model, x, target, threat, generator=seeds).upper
        size = torch.linalg.vector_norm(method(model, x, target).flatten(1).double(), dim=1)
        # The length of the map in float32: a little less turns it further.
        out["certified/euclidean"] = upper
        out["certified/cosine"] = cosine_bound(size * (1 - 1e-5), upper, upper, upper)
        out["size"] = size
        return {k: v.double().cpu().numpy() for k, v in out.items()}
