"""Randomized smoothing: any model under Gaussian noise, with a radius in l2 within which its class is certified."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Inputs, Labels, named, public
from steadygrad.calling import logits_of
from steadygrad.classifier import bounds_of, check_inputs, check_logits, frozen
from steadygrad.errors import UsageError
from steadygrad.memory import at_once
from steadygrad.registry import Method
from steadygrad.values import Count, Fraction, NotNegative, Positive, Seed

_BLOCK = 64  # of noise, drawn at once for a sample, so that what is drawn does not depend on how much fits
_POINTS = 1024  # in one pass at most


@dataclass(frozen=True)
class SmoothedCertificate:
    """What is certified of the smoothed classifier, on the CPU; it says nothing about the model beneath it.

    Attributes:
        prediction: (N,) its class; -1 where it abstains.
        abstained: (N,) bool; the votes do not show a class of more than half of the noise.
        radius: (N,) float64; no change of a smaller l2 norm alters the prediction, each with the confidence of the
            settings; 0 where it abstains.
        p_lower: (N,) float64; lower bound on the share of the noise at which the model gives the class.
        counts: (N, K) votes of the estimation, by class.
    """

    prediction: Tensor
    abstained: Tensor
    radius: Tensor
    p_lower: Tensor
    counts: Tensor

    @public
    def holds(self, y: Labels, radius: NotNegative = 0.0) -> Tensor:
        """Which predictions (N,) are the labels y (N,), and stay so under every change of an l2 norm up to a radius."""
        if len(y) != len(self.prediction):
            raise UsageError(f"y must hold a label for each of {len(self.prediction)} samples, got {len(y)}")
        # Within the radius itself nothing is certified on its rim, and an abstention has the radius 0.
        return (self.prediction == y.cpu()) & (self.radius > radius)


@named
@dataclass(frozen=True)
class RandomizedSmoothing(Method):
    """The settings of a smoothed classifier: the class that a model gives most often under Gaussian noise.

    If the most frequent class has a share of at least p > 1/2 of the noise N(0, sigma^2), no change of an l2 norm below
    sigma * Phi^-1(p) makes it another one. `certify` finds that class and a lower bound on p from samples of the noise;
    `predict` finds the class alone. Called with a model, the settings give a differentiable model in its place, for
    attacks and audits.

    Noise is not clipped: the model is asked outside of the bounds of its inputs too, without which the radius would
    not hold. It holds for exact Gaussian noise and for the model as it is computed; the rounding of the noisy inputs
    is not covered.

    Args:
        sigma: standard deviation of the noise, in units of the inputs.
        n0: draws that choose the class.
        n: draws that estimate its share.
        alpha: probability, per sample, with which a certificate may be wrong.
        draws: of the noise, over which the model for attacks averages probabilities.
        seed: of that noise, which is the same for all samples.

    Source: Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918; the bound on p: Clopper and Pearson 1934.

    >>> smoothing = RandomizedSmoothing(sigma=0.25, n=1000)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> smoothing.certify(model, torch.rand(5, 1, 2, 2)).radius.shape
    torch.Size([5])
    >>> smoothing(model)(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """

    sigma: Positive
    n0: Count = 100
    n: Count = 10_000
    alpha: Fraction = 0.001
    draws: Count = 32
    seed: Seed = 0

    @public
    def __call__(self, model: nn.Module) -> SmoothedModel:
        """The model that stands for the smoothed classifier wherever a gradient is followed, sharing its weights."""
        return SmoothedModel(_unsmoothed(model), self)

    @public
    def certify(self, model: nn.Module, x: Inputs, *, generator: randomness.Seeds = None) -> SmoothedCertificate:
        """Class and certified radius of inputs x (N, *); n0 + n forwards of the model each, which is left as it was.

        Args:
            model: maps inputs to logits (N, K); it needs no gradient. Draws at which its logits are not finite are
                votes for no class.
            generator: gives one seed per sample, in order; or the seeds (N,) themselves; None means seed 0.

        Raises:
            UsageError: inputs or the model's output are not as expected, or the model is smoothed already.
        """
        from scipy.stats import beta, norm

        choice = self._votes(model, x, generator, 0, self.n0).cpu()
        counts = self._votes(model, x, generator, math.ceil(self.n0 / _BLOCK), self.n).cpu()
        best = choice.argmax(1)
        hits = counts.gather(1, best[:, None])[:, 0].numpy()
        lower = np.where(hits > 0, beta.ppf(self.alpha, np.maximum(hits, 1), self.n - hits + 1), 0.0)
        radius = torch.from_numpy(self.sigma * norm.ppf(np.maximum(lower, 0.5)))
        p_lower = torch.from_numpy(lower)
        abstained = p_lower <= 0.5
        return SmoothedCertificate(torch.where(abstained, -1, best), abstained, radius, p_lower, counts)

    @public
    def predict(self, model: nn.Module, x: Inputs, *, generator: randomness.Seeds = None) -> Tensor:
        """Classes (N,) of the smoothed classifier at inputs x (N, *), by n forwards of the model; -1 where it abstains.

        A class is wrong with a probability of at most alpha: the exact two-sided test that the two most frequent
        classes are equally likely (Hung and Fithian 2019). Arguments and errors as for `certify`.
        """
        from scipy.stats import binom

        counts = self._votes(model, x, generator, 0, self.n)
        two = counts.topk(2, dim=1)
        first, second = (part.cpu().numpy() for part in two.values.unbind(1))
        p = 2 * binom.sf(first - 1, first + second, 0.5)
        return torch.where(torch.from_numpy(p <= self.alpha).to(x.device), two.indices[:, 0], -1)

    def _votes(self, model: nn.Module, x: Tensor, generator: randomness.Seeds, start: int, count: int) -> Tensor:
        """How often (N, K) the model gives each class at so many draws of the noise, from a block of them on."""
        check_inputs(x, None, bounds_of(_unsmoothed(model)) or (-math.inf, math.inf))
        seeds = randomness.sample_seeds(len(x), generator)
        size = at_once(_POINTS, x.shape[1:], x.device)
        found = []
        with frozen(model, seeds) as model, torch.no_grad():
            for rows in torch.split(torch.arange(len(x)), max(1, size // _BLOCK)):
                some = x.detach()[rows.to(x.device), None]  # (n, 1, *)
                votes: Any = 0
                for block in range(math.ceil(count / _BLOCK)):
                    noise = self._noise(seeds[rows], some[:, 0], _BLOCK, start + block)
                    points = (some + noise[:, : count - block * _BLOCK]).flatten(0, 1)
                    logits = torch.cat([model(part) for part in torch.split(points, size)])
                    check_logits(logits, len(points))
                    classes = torch.where(torch.isfinite(logits).all(1), logits.argmax(1), logits.shape[1])
                    classes = classes.view(len(rows), -1)
                    empty = torch.zeros(len(rows), logits.shape[1] + 1, dtype=torch.int64, device=x.device)
                    votes = votes + empty.scatter_add(1, classes, torch.ones_like(classes))
                found.append(votes[:, :-1])
        return torch.cat(found)

    def _noise(self, seeds: Tensor, like: Tensor, count: int, draw: int = 0) -> Tensor:
        """Noise (N, count, *) for inputs (N, *)."""
        return self.sigma * randomness.normal(seeds, like[:, None].expand(-1, count, *like.shape[1:]), draw)


class SmoothedModel(nn.Module):
    """The mean probabilities of a model over some draws of noise, as their logarithms: a soft vote, differentiable.

    The noise is drawn once, alike for all inputs: the same input gives the same logits. It stands for the smoothed
    classifier, from which it differs by its few draws and by averaging probabilities in the place of votes; no
    certificate is about it, or about the model beneath it.

    Args:
        model: maps inputs (N, *) to logits (N, K).
        smoothing: the settings.
    """

    same_inputs = True

    def __init__(self, model: nn.Module, smoothing: RandomizedSmoothing) -> None:
        super().__init__()
        self.model, self.smoothing = model, smoothing
        self.name = f"{getattr(model, 'name', type(model).__name__)} (smoothed)"

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms (N, K) of the mean probabilities at inputs (N, *)."""
        draws = self.smoothing.draws
        noise = self.smoothing._noise(torch.tensor([self.smoothing.seed]), x[:1], draws)[0]
        points = (x + noise[:, None]).flatten(0, 1)
        size = at_once(max(len(x), _POINTS), x.shape[1:], x.device)
        logits = torch.cat([logits_of(self.model, part) for part in torch.split(points, size)])
        return logits.view(draws, len(x), -1).log_softmax(2).logsumexp(0) - math.log(draws)

    def extra_repr(self) -> str:
        return str(self.smoothing)


def _unsmoothed(model: nn.Module) -> nn.Module:
    if isinstance(model, SmoothedModel):
        raise UsageError(f"model is smoothed already ({model.smoothing}): give the one beneath it, model.model")
    return model
