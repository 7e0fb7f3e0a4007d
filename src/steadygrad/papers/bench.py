"""What is measured on each model: one entry per test image, so that models can be compared pairwise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad import derivatives
from steadygrad.attacks import DDN
from steadygrad.classifier import Classifier, frozen
from steadygrad.data import Dataset
from steadygrad.evaluation import SUITES
from steadygrad.evaluation.rho import FIVE_STEPS, raw_change
from steadygrad.evaluation.robustness import weights_key
from steadygrad.files import key
from steadygrad.papers.store import Array, Store
from steadygrad.progress import task
from steadygrad.registry import describe
from steadygrad.threat import l2, linf

__all__ = ["Bench"]

_BATCH = 500


@dataclass
class Bench:
    """Where models are measured: the test images, in their order, and the pieces that are done."""

    data: Dataset
    store: Store
    seed: int
    device: str

    def _batches(self, count: int | None = None) -> list[tuple[Tensor, Tensor, Tensor]]:
        stop = len(self.data) if count is None else min(count, len(self.data))
        out = []
        for start in range(0, stop, _BATCH):
            piece = slice(start, min(start + _BATCH, stop))
            x, y = self.data.batch(piece)
            seeds = torch.tensor([int(key(self.seed, name), 16) % 2**62 for name in self.data.ids[piece]])
            out.append((x.to(self.device), y.to(self.device), seeds))
        return out

    def _keys(self, model: Classifier, *parts: object) -> list[object]:
        return [weights_key(model), self.data.fingerprint, self.seed, *parts]

    def right(self, model: Classifier) -> Array:
        """Which test images (N,) the model gets right."""

        def compute() -> dict[str, Array]:
            return {"right": torch.cat([(_predict(model, x) == y).cpu() for x, y, _ in self._batches()]).numpy()}

        return self.store.get("accuracy", compute, *self._keys(model))["right"]

    def changes(self, model: Classifier, count: int | None = None) -> Array:
        """The l2 norm (N,) of DeepFool's change of each image, away from the predicted class, found or not."""

        def compute() -> dict[str, Array]:
            sizes = []
            batches = self._batches(count)
            with task(f"{model.name}: rho2", len(batches)) as advance:
                for x, _, seeds in batches:
                    change = raw_change(model, x, _predict(model, x), seeds)
                    sizes.append(change.flatten(1).double().norm(dim=1).cpu())
                    advance()
            return {"sizes": torch.cat(sizes).numpy()}

        return self.store.get("rho2", compute, *self._keys(model, describe(FIVE_STEPS), count))["sizes"]

    def norms(self, center: Tensor | None, count: int | None = None) -> Array:
        """The l2 norm (N,) of each image, or of its difference from a center."""
        rows = []
        for x, _, _ in self._batches(count):
            moved = x if center is None else x - center.to(x)
            rows.append(moved.flatten(1).double().norm(dim=1).cpu())
        found: Array = torch.cat(rows).numpy()
        return found

    def under_fgs(self, model: Classifier, radii: list[float]) -> Array:
        """Which test images (E, N) the model gets right after one FGS step of each radius."""

        def compute() -> dict[str, Array]:
            return {"right": torch.stack([self._after(model, self._signs(model), r) for r in radii]).numpy()}

        return self.store.get("FGS", compute, *self._keys(model, radii))["right"]

    def rounded(self, model: Classifier) -> Array:
        """For which test images (N,) nothing is left of 1 - p of the label: FGS then has lost a part of its slope."""

        def compute() -> dict[str, Array]:
            rows = []
            with frozen(model), torch.no_grad():
                for x, y, _ in self._batches():
                    rows.append((model(x).softmax(1).gather(1, y[:, None])[:, 0] == 1).cpu())
            return {"rounded": torch.cat(rows).numpy()}

        return self.store.get("rounded", compute, *self._keys(model))["rounded"]

    def reference_radius(self, model: Classifier) -> float:
        """The smallest radius at which FGS makes half of the test images wrong, by bisection to 1e-4."""

        def compute() -> dict[str, Array]:
            import numpy as np

            signs = self._signs(model)
            low, high = 0.0, 1.0
            while high - low > 1e-4:
                middle = (low + high) / 2
                half = float(self._after(model, signs, middle).double().mean()) <= 0.5
                low, high = (low, middle) if half else (middle, high)
            return {"radius": np.asarray(high)}

        return float(self.store.get("reference radius", compute, *self._keys(model))["radius"])

    def _signs(self, model: Classifier) -> list[Tensor]:
        out = []
        with frozen(model):
            for x, y, _ in self._batches():
                _, slope = derivatives.gradient(lambda z: F.cross_entropy(model(z), y, reduction="none"), x)  # noqa: B023
                out.append(slope.sign().to(torch.int8))
        return out

    def _after(self, model: Classifier, signs: list[Tensor], radius: float) -> Tensor:
        low, high = model.bounds
        rows = [_predict(model, (x + radius * s).clamp(low, high)) == y for (x, y, _), s in zip(self._batches(), signs)]
        return torch.cat(rows).cpu()

    def distances(self, model: Classifier, count: int) -> Array:
        """The smallest l2 change (n,) that DDN finds for the first images; infinite where it finds none."""

        def compute() -> dict[str, Array]:
            sizes = []
            batches = self._batches(count)
            with task(f"{model.name}: DDN", len(batches)) as advance:
                for x, y, seeds in batches:
                    sizes.append(DDN()(model, x, y, l2(), generator=seeds).distance.double().cpu())
                    advance()
            return {"sizes": torch.cat(sizes).numpy()}

        return self.store.get("DDN", compute, *self._keys(model, describe(DDN()), count))["sizes"]

    def withstands(self, model: Classifier, radius: float, count: int) -> Array:
        """Which of the first images (n,) no attack of the fast suite changes within a radius (linf)."""
        suite = SUITES["fast"]

        def compute() -> dict[str, Array]:
            rows = []
            batches = self._batches(count)
            with task(f"{model.name}: suite", len(batches)) as advance:
                for x, y, seeds in batches:
                    left = torch.arange(len(x))
                    for attack in suite:
                        if not len(left):
                            break
                        where = left.to(x.device)
                        found = attack(model, x[where], y[where], linf(radius), generator=seeds[left])
                        left = left[~found.success.cpu()]
                    kept = torch.zeros(len(x), dtype=torch.bool)
                    kept[left] = True
                    rows.append(kept)
                    advance()
            return {"kept": torch.cat(rows).numpy()}

        keys = self._keys(model, [describe(a) for a in suite], radius, count)
        return self.store.get("worst case of the suite", compute, *keys)["kept"]


def _predict(model: Classifier, x: Tensor) -> Tensor:
    with frozen(model), torch.no_grad():
        found: Tensor = model(x).argmax(1)
    return found
