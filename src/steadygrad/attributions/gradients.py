"""Attributions from input gradients: at the input, along a path, under noise."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import curvature, derivatives, randomness
from steadygrad.arguments import Classes, Inputs, arithmetic
from steadygrad.attributions.attribution import ATTRIBUTIONS, Attribution, Forward, Of, score
from steadygrad.attributions.baselines import Baseline, of_inputs
from steadygrad.classifier import check_classes, check_inputs, check_logits, frozen
from steadygrad.memory import at_once
from steadygrad.values import Count, Limit

_Sigma = Annotated[float, Limit("finite and positive, in units of the inputs", lambda value: 0 < value < math.inf)]


class GradientAttribution(Attribution):
    """An attribution made of gradients of one score per sample, named by its setting `of`."""

    of: Of

    def require_curvature(self, model: nn.Module, x: Tensor, target: Tensor) -> None:
        """Refuse a score without second derivative (a logit of an all-ReLU network), by four samples; no trace."""
        with frozen(model) as model:
            curvature.require_curvature(model, lambda p: score(model(p), target[: len(p)], self.of), x)

    def _gradient(self, forward: Forward, x: Tensor, target: Tensor, create_graph: bool) -> Tensor:
        return derivatives.gradient(lambda p: score(forward(p), target, self.of), x, create_graph=create_graph)[1]


@ATTRIBUTIONS.register(
    "saliency",
    summary="gradient of the score",
    reference="Simonyan et al. 2014, arXiv:1312.6034",
    cost="1 forward + 1 backward",
)
@dataclass(frozen=True)
class Saliency(GradientAttribution):
    """The gradient of the score with respect to the input, signed.

    Args:
        of: the score: "logit", "log_probability", "probability", "loss" or "log_odds".

    Source: Simonyan et al. 2014, section 3, without the absolute value, which `similarity.pixel_maps` takes.
    """

    of: Of = "logit"

    def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
        """Gradients (N, *): one forward, one backward."""
        return self._gradient(forward, x, target, create_graph)


@ATTRIBUTIONS.register(
    "input_x_gradient",
    summary="input times the gradient of the score",
    reference="Shrikumar et al. 2016, arXiv:1605.01713",
    cost="1 forward + 1 backward",
)
@dataclass(frozen=True)
class InputXGradient(GradientAttribution):
    """Input times gradient, element by element; pixels at 0 get nothing. Arguments as for `Saliency`."""

    of: Of = "logit"

    def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
        """Products (N, *): one forward, one backward."""
        return (x if create_graph else x.detach()) * self._gradient(forward, x, target, create_graph)


class _Averaged(GradientAttribution):
    """A weighted mean of the gradients at several points per sample, `chunk` points at a time; maps may scale it."""

    chunk: Count

    @property
    @abstractmethod
    def _weights(self) -> list[float]:
        """Of the points, which sum to 1."""

    @abstractmethod
    def _points(self, x: Tensor, which: range) -> Tensor:
        """The points (len(which), N, *) of inputs (N, *)."""

    def _scale(self, x: Tensor) -> Tensor:
        """By which (N, *) the mean is multiplied."""
        return torch.ones_like(x)

    def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
        """Maps (N, *): a forward and a backward per sample for each point."""

        def mean(some: Tensor, classes: Tensor) -> Tensor:
            total = torch.zeros_like(some)
            for which in self._parts(some, order=1):
                total = total + self._part(forward, some, classes, which, create_graph)
            return total

        x = x if create_graph else x.detach()
        return self._scale(x) * derivatives.in_chunks(mean, self.chunk, x, target)

    def pulled_back(self, forward: Forward, x: Tensor, target: Tensor, v: Tensor) -> Tensor:
        """J^T v (N, *) for v (N, *): two backwards per point, the graph of few points at a time."""

        def pulled(some: Tensor, classes: Tensor, v: Tensor) -> Tensor:
            leaf = some.clone().requires_grad_()
            scale = self._scale(leaf)
            mean, product, along = torch.zeros_like(some), torch.zeros_like(some), v * scale.detach()
            for which in self._parts(some, order=2):
                inner = some.clone().requires_grad_()
                slope = self._part(forward, inner, classes, which, create_graph=True)
                mean = mean + slope.detach()
                if slope.requires_grad:
                    (part,) = torch.autograd.grad(slope, inner, along, allow_unused=True)
                    product = product if part is None else product + part
            if scale.requires_grad:
                product = product + torch.autograd.grad(scale, leaf, v * mean)[0]
            return product

        with torch.enable_grad(), derivatives.math_attention():
            return derivatives.in_chunks(pulled, self.chunk, x.detach(), target, v, order=2)

    def _parts(self, x: Tensor, order: int) -> Iterator[range]:
        """The points that are taken at a time, of inputs (N, *)."""
        step = max(1, at_once(self.chunk, x.shape[1:], x.device, order=order) // len(x))
        count = len(self._weights)
        return (range(start, min(start + step, count)) for start in range(0, count, step))

    def _part(self, forward: Forward, x: Tensor, target: Tensor, which: range, create_graph: bool) -> Tensor:
        """What some of the points bring to the mean (N, *)."""
        points = self._points(x, which).flatten(0, 1)
        slope = self._gradient(forward, points, target.repeat(len(which)), create_graph)
        share = torch.tensor([self._weights[j] for j in which], dtype=slope.dtype, device=slope.device)
        part: Tensor = torch.tensordot(share, slope.reshape(len(which), *x.shape), 1)
        return part


@ATTRIBUTIONS.register(
    "integrated_gradients",
    summary="input minus baseline, times the mean gradient on the line between them",
    reference="Sundararajan et al. 2017, arXiv:1703.01365",
    cost="`steps` forwards + `steps` backwards",
)
@dataclass(frozen=True)
class IntegratedGradients(_Averaged):
    """(x - b) times the mean of the gradients at b + a (x - b), a in [0, 1].

    The mean is a Gauss-Legendre sum: its weights are positive and sum to 1, it is exact for polynomials
    in a of degree 2 steps - 1. On a network with kinks it errs by about 1 / steps; `delta` says how much.

    Args:
        steps: points on the path.
        baseline: b, in units of the inputs: one number, one for each channel, an image of the shape of an input (an
            array, a tensor, or the name of an .npy file), or "blur" for the input under a Gaussian blur of 5 pixels.
        of: the score, as for `Saliency`.
        chunk: points (of all samples together) in one pass; bounds the memory, changes no value.

    Source: Sundararajan et al. 2017, equation 1.
    """

    steps: Count = 32
    baseline: Baseline = 0.0
    of: Of = "logit"
    chunk: Count = 128

    @property
    def _weights(self) -> list[float]:
        return gauss_legendre(self.steps)[1]

    def _scale(self, x: Tensor) -> Tensor:
        return x - of_inputs(self.baseline, x)

    def _points(self, x: Tensor, which: range) -> Tensor:
        nodes = torch.tensor([gauss_legendre(self.steps)[0][j] for j in which], dtype=x.dtype, device=x.device)
        baseline = of_inputs(self.baseline, x)
        return baseline + nodes.view(-1, *[1] * x.ndim) * (x - baseline)

    @arithmetic
    def delta(self, model: nn.Module, x: Inputs, target: Classes, maps: Tensor) -> Tensor:
        """Completeness error (N,) of maps (N, *): their sum minus (F(x) - F(baseline)); two forwards, no trace."""
        with frozen(model) as model, torch.no_grad():
            start = of_inputs(self.baseline, x).expand_as(x)
            logits = [model(p) for p in (x, start)]
        check_inputs(x, target, (-math.inf, math.inf), name="target")
        check_logits(logits[0], len(x))
        check_classes(target, logits[0].shape[1], "target")
        ends = [score(one, target, self.of) for one in logits]
        return maps.detach().flatten(1).sum(1) - (ends[0] - ends[1])


@ATTRIBUTIONS.register(
    "smooth_grad",
    summary="mean gradient of the score under Gaussian noise",
    reference="Smilkov et al. 2017, arXiv:1706.03825",
    cost="`samples` forwards + `samples` backwards",
)
@dataclass(frozen=True)
class SmoothGrad(_Averaged):
    """The mean of the gradients at x + sigma n_j with standard normal n_j.

    The noise follows from the seed and j alone and is the same for all samples: two calls, and the
    clean and the attacked input, see the same noise, and a sample's map does not depend on its batch.
    Noisy points may leave the bounds of the inputs, as in the paper.

    Args:
        samples: noisy copies per input.
        sigma: standard deviation of the noise, absolute, in units of the inputs.
        of, chunk: as for `IntegratedGradients`.
        antithetic: use n and -n in turn, which cancels the error of first order in sigma.

    Source: Smilkov et al. 2017, section 3.
    """

    samples: Count = 32
    sigma: _Sigma = 0.1
    seed: int = 0
    of: Of = "logit"
    chunk: Count = 128
    antithetic: bool = False

    @property
    def _weights(self) -> list[float]:
        return [1 / self.samples] * self.samples

    def _points(self, x: Tensor, which: range) -> Tensor:
        draws = [(j // 2, 1 - 2 * (j % 2)) if self.antithetic else (j, 1) for j in which]
        seed, like = torch.tensor([self.seed]), x[:1].detach()
        return x + self.sigma * torch.stack([sign * randomness.normal(seed, like, draw) for draw, sign in draws])


@functools.cache
def gauss_legendre(steps: int) -> tuple[list[float], list[float]]:
    """Where a path from 0 to 1 is evaluated, and the weights of the values there, which sum to 1.

    >>> gauss_legendre(1)
    ([0.5], [1.0])
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return [float(v) for v in (nodes + 1) / 2], [float(v) for v in weights / 2]
