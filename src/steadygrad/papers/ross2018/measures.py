"""What is measured on the six models: each measure is arrays, one row or entry per test image."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad import derivatives
from steadygrad.attacks import BIM, FGSM, JSMA, PGD, Attack
from steadygrad.classifier import Classifier, frozen
from steadygrad.data import Dataset
from steadygrad.evaluation.robustness import weights_key
from steadygrad.files import key
from steadygrad.papers.store import Array, Arrays, Store
from steadygrad.progress import task
from steadygrad.registry import describe
from steadygrad.threat import Threat, l0, linf

__all__ = ["Bench"]

_BATCH = 250


@dataclass
class Bench:
    """The trained models, the test images, and the pieces that are done.

    Args:
        unit: the size of one unit of epsilon in the inputs.
    """

    models: Mapping[str, Classifier]
    data: Dataset
    store: Store
    seed: int
    device: str
    unit: float = 1.0
    hashes: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.hashes = {name: weights_key(model) for name, model in self.models.items()}
        self.count = len(self.data.classes)

    def _batch(self, count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The first `count` samples in pieces: inputs, labels and a seed for each."""
        out = []
        for start in range(0, min(count, len(self.data)), _BATCH):
            piece = slice(start, min(start + _BATCH, count, len(self.data)))
            x, y = self.data.batch(piece)
            seeds = torch.tensor([int(key(self.seed, name), 16) % 2**62 for name in self.data.ids[piece]])
            out.append((x.to(self.device), y.to(self.device), seeds))
        return out

    def _logits(self, name: str, x: Tensor) -> Tensor:
        with frozen(self.models[name]), torch.no_grad():
            logits: Tensor = self.models[name](x)
        return logits

    def clean(self) -> dict[str, Array]:
        """Which test images (N,) each model gets right."""

        def compute(name: str) -> Arrays:
            hits = [(self._logits(name, x).argmax(1) == y).cpu() for x, y, _ in self._batch(len(self.data))]
            return {"right": torch.cat(hits).numpy()}

        return {
            name: self.store.get("clean accuracy", functools.partial(compute, name), value, self.data.fingerprint)[
                "right"
            ]
            for name, value in self.hashes.items()
        }

    def transferred(self, source: str, attack: Attack, eps: float, count: int, targeted: bool) -> Array:
        """Predictions (M, N) of all models on the points that a single step makes on one of them.

        The points are raw: they count whether the source falls for them or not.
        """

        def compute() -> Arrays:
            columns = []
            for x, y, seeds in self._batch(count):
                target = (y + 1) % self.count if targeted else None
                points = attack.perturb(
                    self.models[source], x, y, linf(eps * self.unit), target=target, generator=seeds
                )
                columns.append(torch.stack([self._logits(name, points).argmax(1).cpu() for name in self.models]))
            return {"predictions": torch.cat(columns, 1).numpy()}

        title = f"{'TGSM' if targeted else 'FGSM'} on {source}"
        parts = [self.hashes, source, describe(attack), eps * self.unit, count, targeted, self.data.fingerprint]
        return self.store.get(title, compute, *parts, self.seed)["predictions"]

    def resisted(self, name: str, attack: Attack, eps: float, count: int) -> Array:
        """Which of the first images (N,) withstand an attack on the model itself, as the engine judges it."""

        def compute() -> Arrays:
            model = self.models[name]
            threat = linf(eps * self.unit)
            kept = [~attack(model, x, y, threat, generator=seeds).success for x, y, seeds in self._batch(count)]
            return {"resisted": torch.cat(kept).cpu().numpy()}

        parts = [self.hashes[name], describe(attack), eps * self.unit, count, self.data.fingerprint, self.seed]
        return self.store.get(f"other judges on {name}", compute, *parts)["resisted"]

    def gradients(self, name: str, count: int) -> Arrays:
        """Norms (N,) of the input gradient for the label and for the class after it; log-probabilities (N, K)."""

        def compute() -> Arrays:
            model, rows = self.models[name], []
            for x, y, _ in self._batch(count):
                norms = []
                with frozen(model):
                    for label in (y, (y + 1) % self.count):
                        _, slope = derivatives.gradient(lambda z: F.cross_entropy(model(z), label, reduction="none"), x)  # noqa: B023
                        norms.append(slope.flatten(1).double().norm(dim=1))
                rows.append((*norms, self._logits(name, x).double().log_softmax(1)))
            first, second, logs = (torch.cat(part).cpu().numpy() for part in zip(*rows))
            return {"label": first, "next": second, "log_probabilities": logs.astype(np.float32)}

        return self.store.get("gradient norms", compute, self.hashes[name], count, self.data.fingerprint)

    def pictures(self, name: str, rows: list[int]) -> Array:
        """Input gradients (n, C, H, W) of the sum of all log-probabilities."""
        x, _ = self.data.batch(rows)
        model = self.models[name]
        with frozen(model):
            _, slope = derivatives.gradient(lambda z: model(z).log_softmax(1).sum(1), x.to(self.device))
        array: Array = slope.cpu().numpy()
        return array

    def every_target(self, name: str, kind: str, rows: list[int]) -> Arrays:
        """Attacks on some images towards every class.

        Returns `reached` (n, K) bool, `images` (n, K, *) and `changed` (n, K), the number of entries
        that changed; the column of the label holds the original.
        """

        def compute() -> Arrays:
            attack, threat = self._towards(kind)
            x, y = (t.to(self.device) for t in self.data.batch(rows))
            seeds = torch.arange(len(rows)) + 2**32 * self.seed
            shape = (len(rows), self.count)
            reached = torch.zeros(shape, dtype=torch.bool)
            changed = torch.zeros(shape)
            images = x[:, None].repeat(1, self.count, *[1] * (x.ndim - 1)).cpu()
            with task(f"{name}: {kind}, every target", self.count) as advance:
                for target in range(self.count):
                    aimed = (y != target).nonzero().flatten()
                    advance()
                    if not len(aimed):
                        continue
                    to = torch.full((len(aimed),), target, device=x.device)
                    found = attack(
                        self.models[name], x[aimed], y[aimed], threat, target=to, generator=seeds[aimed.cpu()]
                    )
                    place = aimed.cpu()
                    reached[place, target] = found.success.cpu()
                    images[place, target] = found.inputs.cpu()
                    changed[place, target] = (found.inputs != x[aimed]).flatten(1).sum(1).cpu().float()
            pixels = (images * 255).round().to(torch.uint8)
            return {"reached": reached.numpy(), "images": pixels.numpy(), "changed": changed.numpy()}

        parts = [self.hashes[name], kind, rows, self.data.fingerprint, self.unit, self.seed]
        return self.store.get(f"{kind} on {name}", compute, *parts)

    def _towards(self, kind: str) -> tuple[Attack, Threat]:
        if kind == "JSMA":
            return JSMA(theta=1.0, gamma=0.25), l0()
        # Ten steps of .1 each.
        return BIM(steps=10, loss="ce"), linf(1.0 * self.unit)


FGSM_CE = FGSM(loss="ce")
JUDGES: dict[str, Attack] = {
    "FGSM, margin": FGSM(loss="margin"),
    "PGD, margin": PGD(steps=20, loss="margin"),
}
