"""A copy of a model with adversarial points that surely exist: an attack that misses them shows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attacks import Attack, Square
from steadygrad.classifier import frozen
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.threat import Threat

REACH = 0.7
"""Where the points are planted, as a share of the radius."""
_QUERIES = 128


class Planted(nn.Module):
    """Two classes in place of the model's own: "as it was" around each anchor, and "planted" beyond a threshold.

    The score of an input is a fixed combination of the model's logits, chosen for the anchor (the
    clean input) that is nearest: `(logits * directions).sum(1) - thresholds`.

    Args:
        anchors: clean inputs (N, *).
        directions: (N, K), one combination of logits per anchor.
        thresholds: (N,), the score at which the class changes.
    """

    gives_logits: ClassVar[bool] = True
    anchors: Tensor
    directions: Tensor
    thresholds: Tensor

    def __init__(self, model: nn.Module, anchors: Tensor, directions: Tensor, thresholds: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("anchors", anchors.flatten(1))
        self.register_buffer("directions", directions)
        self.register_buffer("thresholds", thresholds)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2)."""
        which = torch.cdist(x.detach().flatten(1).float(), self.anchors.float()).argmin(1)  # (N,)
        score = (self.model(x) * self.directions[which]).sum(1) - self.thresholds[which]
        return torch.stack([-score, score], 1) / 2


@dataclass(frozen=True)
class Plant:
    """A planted model, the points (N, *) that it calls planted, and which of them (N,) were verified."""

    model: Planted
    points: Tensor
    sure: Tensor


def plant(model: nn.Module, x: Tensor, seeds: Tensor, threat: Threat) -> Plant:
    """Plant a wrong point within 0.7 radii of each input x (N, *).

    For each input a random combination of the logits is drawn, a search without gradients (Square, 128 queries)
    raises it within 0.7 of the radius, and the class is made to change at nine tenths of what that search gained.
    So a wrong point exists, which is verified. An attack with a useful gradient finds it, since at the full radius
    a gradient gains more than a short blind search at 0.7 of it; chance does not, since the point is well beyond
    what random points reach. All goes through the model's own logits, so whatever hides the gradients of the model
    hides those of the plant: the binarization test of Zimmermann et al. 2022 (arXiv 2206.13991) with logits in
    place of features, which needs no access to layers.

    Raises:
        UsageError: no radius, or a norm that Square does not work for.

    >>> from steadygrad.threat import linf
    >>> seeds = torch.arange(4)
    >>> made = plant(nn.Linear(6, 3), torch.full((4, 6), 0.5), seeds, linf(0.1))
    >>> made.sure.all(), made.model(made.points).argmax(1).tolist()
    (tensor(True), [1, 1, 1, 1])
    """
    with frozen(model, seeds), torch.no_grad():
        logits = model(x)
        ways = randomness.normal(seeds, logits, draw=1)
        ways = ways - ways.mean(1, keepdim=True)  # a constant added to all logits means nothing
        ways = ways / torch.linalg.vector_norm(ways, dim=1, keepdim=True).clamp_min(torch.finfo(ways.dtype).tiny)
        start = (logits * ways).sum(1)
    anchored = Planted(model, x, ways, start)
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    points = Square(queries=_QUERIES).perturb(anchored, x, labels, threat.at(REACH * threat.radius(x)), generator=seeds)
    with frozen(anchored, seeds), torch.no_grad():
        gain = anchored(points)[:, 1] * 2  # the score, above that of the clean input
        made = Planted(model, x, ways, start + 0.9 * gain)
        spread = logits.amax(1) - logits.amin(1)
        # In another order, as the judge of an attack will do.
        there, here = (made(inputs.flip(0)).argmax(1).flip(0) for inputs in (points, x))
    sure = (there == 1) & (here == 0) & (gain > 1e-4 * spread) & threat.allows(x, points)
    return Plant(made, points, sure)


@MEASURES.register(
    "planted",
    summary="whether an attack finds wrong points that surely exist",
    reference="Zimmermann et al. 2022, arXiv 2206.13991",
    cost="128 forwards, and the passes of the attack",
    soundness="attack",
)
@dataclass(frozen=True)
class PlantedFound(Measure):
    """Plants a wrong point for each sample, `sure` where it was verified, and says whether the attack `found` one."""

    attack: Attack
    threat: Threat
    shard: ClassVar[int] = 100
    titled: ClassVar[str] = "{attack} (planted)"
    draws_as: ClassVar[Any] = {"planted": True}  # the points do not depend on the attack that searches them

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        made = plant(models[0], batch.x, batch.seeds, self.threat)
        found = torch.zeros_like(made.sure)
        rows = made.sure.nonzero().squeeze(1)
        if len(rows):
            labels = torch.zeros(len(rows), dtype=torch.int64, device=batch.x.device)
            seeds = batch.seeds[rows.cpu()]
            found[rows] = self.attack(made.model, batch.x[rows], labels, self.threat, generator=seeds).success
        return {"sure": made.sure, "found": found}
