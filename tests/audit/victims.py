"""Models and attacks that are broken on purpose, each in one way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad.attacks import PGD, Attack
from steadygrad.attacks.run import Run
from steadygrad.data import Dataset


class Sharp(nn.Module):
    """Logits times a large factor: cross-entropy saturates, the predictions stay."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.factor


class Quantized(nn.Module):
    """Inputs rounded to a few levels: the gradient is zero almost everywhere."""

    def __init__(self, model: nn.Module, levels: int = 4) -> None:
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x * self.levels).round() / self.levels)


class Noisy(nn.Module):
    """Logits with noise that is drawn anew for every call."""

    def __init__(self, model: nn.Module, sigma: float) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits + self.sigma * torch.randn_like(logits)


class BatchCentered(nn.Module):
    """Logits minus their mean over the batch: a sample's answer depends on its neighbors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits - 0.8 * logits.mean(0)


class Shattered(nn.Module):
    """Logits with a steep high-frequency ripple: a function, but no two neighbors agree."""

    def __init__(self, model: nn.Module, height: float = 50.0) -> None:
        super().__init__()
        self.model, self.height = model, height

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        phase = 1e4 * x.flatten(1).sum(1, keepdim=True) * torch.arange(1.0, 1 + logits.shape[1])
        return logits + self.height * phase.sin()


class Purified(nn.Module):
    """Moves its input to where it is more certain before it answers: an optimization in the forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.model(inner).amax(1).sum(), inner)
        return self.model((x + 0.01 * slope.sign()).clamp(0, 1))


class Counting(nn.Module):
    """Counts the rows and calls of all forward passes since one was made last.

    The counts belong to the class: settings of an instance would name its tables.
    """

    rows = 0
    calls = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        Counting.rows = Counting.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counting.rows += len(x)
        Counting.calls += 1
        return self.model(x)


class Halfspace(nn.Module):
    """Two classes, split at w.x = bias; the logits are -+ (w.x - bias) / 2."""

    def __init__(self, w: Sequence[float], bias: float) -> None:
        super().__init__()
        self.register_buffer("w", torch.tensor(w))
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w - self.bias
        return torch.stack([-score, score], 1) / 2


@dataclass(frozen=True)
class Idle(Attack):
    """Does nothing."""

    def search(self, run: Run) -> Tensor | None:
        return run.x


@dataclass(frozen=True)
class Shy(Attack):
    """Works for small radii only."""

    below: float = 0.1
    loss: str = "margin"

    def search(self, run: Run) -> Tensor | None:
        assert isinstance(run.threat.eps, float)
        return PGD(steps=10).search(run) if run.threat.eps < self.below else run.x


@dataclass(frozen=True)
class Slow(Attack):
    """Steps of a fixed small length: how far it comes depends on their number."""

    steps: int = 5
    step: float = 0.1
    loss: str = "margin"

    def search(self, run: Run) -> Tensor | None:
        points = run.x
        for _ in range(self.steps):
            _, slope = run.gradient(points)
            points, slope = run.drop_solved(points, slope)
            if len(run.index) == 0:
                return None
            reach = self.step * run.threat.radius(run.x).view(-1, *[1] * (points.ndim - 1))
            points = run.threat.constrain(run.x, points + reach * run.threat.steepest(slope))
        return points


ATTACKS: tuple[type[Attack], ...] = (Idle, Shy, Slow)


def features(rows: Sequence[Sequence[float]], labels: Sequence[int], classes: int = 2) -> Dataset:
    """A data set of feature vectors."""
    names = tuple(f"s{i}" for i in range(len(rows)))
    return Dataset(torch.tensor(rows), torch.tensor(labels), tuple("abcdefghij"[:classes]), names)
