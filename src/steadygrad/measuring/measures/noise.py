"""How a model takes noise: change of its loss nearby, and the way to its boundary in random directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Inputs, Labels, public
from steadygrad.classifier import bounds_of, check_inputs, check_logits, frozen
from steadygrad.derivatives import in_chunks
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure
from steadygrad.measuring.statistics import Estimate, mean
from steadygrad.measuring.table import Table
from steadygrad.memory import at_once
from steadygrad.precision import wide, widened
from steadygrad.threat import Threat, linf, per_sample

_BISECTIONS = 12


@MEASURES.register(
    "noise_insensitivity",
    summary="mean change of the loss under noise, per unit of its linf norm",
    reference="Zhang et al. 2021, arXiv 1909.06978",
    cost="a forward, and one for each draw",
    order=0,
)
@dataclass(frozen=True)
class NoiseInsensitivity(Measure):
    """Writes `insensitivity`, as `noise_insensitivity` gives it with these settings; smaller is steadier."""

    eps: float
    draws: int = 10

    titled: ClassVar[str] = "loss under noise"

    @classmethod
    def for_audit(cls, threat: Threat) -> NoiseInsensitivity | None:
        """With noise as large as the threat, if that is in linf and for all entries."""
        return cls(float(threat.eps)) if threat.norm == "linf" and threat.mask is None else None  # type: ignore[arg-type]

    def summarize(self, table: Table) -> dict[str, Estimate]:
        """The mean insensitivity."""
        return {"insensitivity": mean(table["insensitivity"]).within(0.0, math.inf)}

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        found = noise_insensitivity(models[0], batch.x, batch.y, self.eps, draws=self.draws, generator=batch.seeds)
        return {"insensitivity": found}


@MEASURES.register(
    "boundary_distance",
    summary="smallest l2 step along random orthogonal directions that changes the prediction",
    reference="Zhang et al. 2021, arXiv 1909.06978",
    cost="a forward for each direction and step walked",
    order=0,
)
@dataclass(frozen=True)
class BoundaryDistance(Measure):
    """Writes `distance`, as `boundary_distance` gives it with these settings; infinite where nothing is left."""

    count: int | None = None
    limit: float = 10.0
    steps: int = 100
    seed: int = 0

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        found = boundary_distance(
            models[0], batch.x, count=self.count, limit=self.limit, steps=self.steps, seed=self.seed
        )
        return {"distance": found}


@public
def noise_insensitivity(
    model: nn.Module, x: Inputs, y: Labels, eps: float, *, draws: int = 10, generator: randomness.Seeds = None
) -> Tensor:
    """Mean change of the loss under noise, per unit of its linf norm, (N,); smaller is steadier: an estimate.

    The mean over the draws of |loss(x, y) - loss(x', y)| / ||x - x'||_inf, the loss being the
    cross-entropy of the sample's own true label. Costs draws + 1 forwards per sample; leaves no trace.

    Args:
        model: maps inputs to logits (N, K).
        x: inputs (N, *).
        y: true labels (N,).
        eps: half width of the uniform noise, in units of the inputs; it is cut off at their bounds.
        draws: noisy points per sample.
        generator: gives one seed per sample.

    Source: Zhang et al. 2021, arXiv:1909.06978, epsilon-empirical noise insensitivity.

    >>> model = nn.Linear(4, 2)
    >>> noise_insensitivity(model, torch.rand(3, 4), torch.tensor([0, 1, 0]), 0.1).shape
    torch.Size([3])
    """
    threat = linf(eps, bounds=bounds_of(model) or (0.0, 1.0))
    check_inputs(x, y, threat.bounds)
    if draws < 1 or not eps > 0:
        raise UsageError(f"draws must be at least 1 and eps positive, got draws={draws} and eps={eps}")
    x = x.detach()
    seeds = randomness.sample_seeds(len(x), generator)
    total = torch.zeros(len(x), dtype=wide(x.device), device=x.device)
    with frozen(model, seeds) as model, torch.no_grad():
        logits = model(x)
        check_logits(logits, len(x))
        check_inputs(x, y, threat.bounds, logits.shape[1])
        clean = _loss(logits, y)
        for draw in range(draws):
            points = threat.random(x, seeds, draw)
            size = widened((points - x).flatten(1).abs().amax(1))
            change = (_loss(model(points), y) - clean).abs()
            # A pixel at its bound may stay where it is; a point that has not moved says nothing.
            total += torch.where(size > 0, change / torch.where(size > 0, size, 1.0), 0.0)
    return total / draws


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(widened(logits), y, reduction="none")


def directions(count: int, x: Tensor, seed: int = 0) -> Tensor:
    """Random orthogonal directions (count, *) of unit l2 norm, of the shape and type of a sample of x (N, *).

    Raises:
        UsageError: more directions than a sample has entries.
    """
    entries = x[0].numel()
    if not 1 <= count <= entries:
        raise UsageError(f"there are at most {entries} orthogonal directions of inputs {tuple(x.shape)}, got {count}")
    normal = torch.randn(entries, count, generator=randomness.fresh(seed), dtype=torch.float64)
    # Signs of the diagonal taken out, the directions are spread evenly (Mezzadri 2007).
    basis, upper = torch.linalg.qr(normal)
    spread: Tensor = (basis * upper.diagonal().sign()).T
    return spread.reshape(count, *x.shape[1:]).to(x)


def boundary_distance(
    model: nn.Module,
    x: Tensor,
    *,
    count: int | None = None,
    limit: float = 10.0,
    steps: int = 100,
    seed: int = 0,
    chunk: int = 500,
) -> Tensor:
    """Smallest l2 step (N,) along random orthogonal directions that changes the prediction: an estimate.

    All directions are walked at once in equal steps until one of them leaves the class; the crossing
    is then bisected. Infinite where none does up to the limit. The directions are the same for all
    samples and models; the points may leave the bounds of the inputs. Costs `count` forwards per sample
    and step walked; leaves no trace. Meant for samples that are classified rightly.

    Args:
        model: maps inputs to logits (N, K).
        x: inputs (N, *).
        count: directions, at most one per entry of a sample; None for 1,000, or as many as there can be.
        limit: longest step, in units of the inputs.
        steps: to the limit; a class entered and left again within a step is not seen.
        seed: of the directions.
        chunk: points in one pass; bounds the memory, changes no value.

    Source: Zhang et al. 2021, arXiv:1909.06978, empirical boundary distance.

    >>> model = nn.Linear(2, 2)
    >>> bool((boundary_distance(model, torch.rand(3, 2), count=2, limit=1e6) > 0).all())
    True
    """
    check_inputs(x, None, bounds_of(model) or (-torch.inf, torch.inf))
    if steps < 1 or chunk < 1 or not limit > 0:
        raise UsageError(f"steps and chunk must be at least 1 and limit positive, got {steps}, {chunk} and {limit}")
    count = min(1000, x[0].numel()) if count is None else count
    chunk = at_once(chunk, x.shape[1:], x.device)
    x, basis = x.detach(), directions(count, x, seed)
    found = torch.full((len(x),), torch.inf, dtype=wide(x.device), device=x.device)
    with frozen(model) as model, torch.no_grad():
        logits = model(x)
        check_logits(logits, len(x))
        label = logits.argmax(1)

        def leaves(sample: Tensor, way: Tensor, length: Tensor) -> Tensor:
            """Whether (M,) steps of these lengths from these samples in these directions change the class."""
            changed: Tensor = model(x[sample] + per_sample(length.to(x), x) * basis[way]).argmax(1) != label[sample]
            return changed

        active = torch.arange(len(x), device=x.device)
        ways = torch.arange(count, device=x.device)
        for step in range(steps):
            sample, way = active.repeat_interleave(count), ways.repeat(len(active))
            low, high = (found.new_full((len(sample),), limit * s / steps) for s in (step, step + 1))
            out = in_chunks(leaves, chunk, sample, way, high)
            sample, way, low, high = (t[out] for t in (sample, way, low, high))
            for _ in range(_BISECTIONS if len(sample) else 0):
                middle = (low + high) / 2
                beyond = in_chunks(leaves, chunk, sample, way, middle)
                low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
            found.scatter_reduce_(0, sample, high, "amin")
            active = active[found[active].isinf()]
            if len(active) == 0:
                break
    return found
