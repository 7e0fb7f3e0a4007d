"""Mean relative DeepFool distance: the robustness score of Moosavi-Dezfooli et al. and Yan et al."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad import progress
from steadygrad.attacks import DeepFool
from steadygrad.attacks.deepfool_change import deepfool_change
from steadygrad.classifier import check_inputs, frozen
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation import robustness
from steadygrad.evaluation.records import Cells, Records
from steadygrad.evaluation.robustness import Bench, code_key, label_of, predict, weights_key
from steadygrad.files import key
from steadygrad.measuring.statistics import Estimate, mean, wilson
from steadygrad.registry import describe

__all__ = ["Rho2", "mean_image", "raw_change", "relative", "rho2"]

FIVE_STEPS = DeepFool(steps=5, candidates=9)
"""DeepFool as the score is defined by Yan et al. 2018: five steps, overshoot 0.02, the nine likeliest classes."""


@dataclass(frozen=True)
class Rho2:
    """The score with the norm of the pixels below the line, and with that of pixels minus a center.

    The two are different scales: published MNIST figures are centered. Intervals are 95 %, by
    Student's t over samples. `turned` is the share of samples whose prediction the changes turned:
    where it is low, the score says how far DeepFool went and not how far it is. A sample of norm
    zero has no relative distance and is left out, which the count shows; None where no center was
    given, or no sample has a norm.
    """

    pixels: Estimate | None
    centered: Estimate | None
    turned: Estimate
    attack: str

    def plain(self) -> dict[str, Any]:
        """The scores as plain data for `summary.json`."""
        pixels, centered = (None if e is None else e.plain() for e in (self.pixels, self.centered))
        return {"attack": self.attack, "pixels": pixels, "centered": centered, "turned": self.turned.plain()}


def rho2(
    model: nn.Module,
    data: Dataset,
    *,
    center: Tensor | None = None,
    attack: DeepFool = FIVE_STEPS,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = robustness.CHUNK,
    cells: Cells | None = None,
) -> Rho2:
    """Mean over all samples of the l2 norm of DeepFool's change over that of the input.

    Every sample counts with the change that DeepFool made, whether it sufficed or not, and misclassified
    ones with the change away from the predicted class. Changes may leave the bounds of the inputs, as those
    of the published figures do.

    Source: Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, eq. 12; Yan, Guo and Zhang 2018, arXiv 1803.00404.

    Args:
        center: an input (*), such as the mean training image (`mean_image`), for the centered score.

    Raises:
        UsageError: a center of another shape, data outside the bounds, or a model that returns no logits.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> sg.evaluation.rho2(model, data).pixels.count
    20
    """
    bench = Bench(data, cells or Cells(), seed, device, batch_size)
    x, y = data.batch(slice(0, 1))
    check_inputs(x, y, bounds)
    name = getattr(model, "name", type(model).__name__)
    return relative(bench, model.to(device), str(name), attack, center)


def relative(
    bench: Bench,
    model: nn.Module,
    name: str,
    attack: DeepFool = FIVE_STEPS,
    center: Tensor | None = None,
) -> Rho2:
    """`rho2` of a model on a bench, in cells."""
    if center is not None and center.shape != bench.data.shape:
        raise UsageError(f"center must be one input of shape {bench.data.shape}, got {tuple(center.shape)}")
    frame = _changes(bench, model, name, attack).frame
    size = torch.tensor(frame["distance"].to_numpy(), dtype=torch.float64)
    x, _ = bench.data.tensors()
    middle = None if center is None else _ratio(size, x - center.to(x))
    return Rho2(_ratio(size, x), middle, wilson(int(frame["success"].sum()), len(frame)), label_of(attack))


def mean_image(data: Dataset) -> Tensor:
    """The mean of all inputs (*), float32."""
    total = torch.zeros(data.shape, dtype=torch.float64)
    for start in range(0, len(data), 1000):
        total += data.batch(slice(start, start + 1000))[0].double().sum(0)
    return (total / len(data)).float()


def _ratio(size: Tensor, x: Tensor) -> Estimate | None:
    norm = torch.linalg.vector_norm(x.double().flatten(1), dim=1)
    there = norm > 0
    return mean((size[there] / norm[there]).numpy()) if bool(there.any()) else None


def _changes(bench: Bench, model: nn.Module, name: str, attack: DeepFool) -> Records:
    """Records whose distance is the l2 norm of the raw change, away from the predicted class."""
    base = ["rho2", weights_key(model), name, describe(attack), bench.seed, code_key(), bench.data.fingerprint]
    parts, count = [], len(bench.data)
    with progress.task(f"{name}: rho2", count) as advance:
        for start in range(0, count, robustness.CHUNK):
            stop = min(start + robustness.CHUNK, count)
            compute = functools.partial(_compute, bench, start, stop, model, name, attack)
            parts.append(bench.cells.get(key(base, torch.device(bench.device).type, start, stop), compute))
            advance(stop - start)
    return Records.join(parts)


def raw_change(model: nn.Module, x: Tensor, labels: Tensor, seeds: Tensor, attack: DeepFool = FIVE_STEPS) -> Tensor:
    """DeepFool's l2 change (N, *) away from labels (N,), sufficient or not, regardless of the bounds."""
    with frozen(model, seeds):
        return deepfool_change(
            model, x, labels, steps=attack.steps, overshoot=attack.overshoot, candidates=attack.candidates
        ).change


def _compute(bench: Bench, start: int, stop: int, model: nn.Module, name: str, attack: DeepFool) -> Records:
    import pandas as pd

    rows = []
    for x, y, ids in bench.batches(start, stop):
        seeds = bench.seeds(describe(attack), ids)
        clean, sure = predict(model, x, seeds)
        change = raw_change(model, x, clean, seeds, attack)
        now, confidence = predict(model, x + change, seeds)
        columns = {
            "sample": ids,
            "label": y.tolist(),
            "clean_prediction": clean.tolist(),
            "clean_confidence": sure.tolist(),
            "success": (now != clean).tolist(),
            "prediction": now.tolist(),
            "confidence": confidence.tolist(),
            "distance": change.flatten(1).double().norm(dim=1).tolist(),
        }
        rows.append(pd.DataFrame(columns))
    constants: dict[str, Any] = {"source": name, "attack": f"{label_of(attack)} (rho2)", "norm": "l2", "broken_by": ""}
    unused = dict.fromkeys(("forwards", "backwards"), 0) | dict.fromkeys(("zero_gradient", "rounded_success"), False)
    frame = pd.concat(rows, ignore_index=True).assign(model=name, eps=float("nan"), seed=bench.seed)
    return Records(frame.assign(**constants, **unused))
