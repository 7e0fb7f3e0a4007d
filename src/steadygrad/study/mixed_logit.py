"""A logit whose intercept varies between persons and images at once: how much more one model fools than another.

    logit P(yes) = effect of the model (and of the attack) + of the person + of the image,

persons and images drawn from normal distributions around 0. The posterior is approximated by the nearest normal
distribution with all its correlations (Gaussian variational approximation, Ormerod & Wand 2012, J. Comput. Graph. Stat.
21:2), under a wide prior of the effects; the two spreads are where its bound is greatest. A Laplace approximation pulls
the effects of such short series of yes and no towards 0, and the mean-field one of statsmodels
(`BinomialBayesMixedGLM.fit_vb`) leaves its intervals too narrow: `benchmarks/judgements.py` counts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadygrad.measuring.statistics import Estimate
from steadygrad.study.clusters import Places, numbered, student

Array = NDArray[np.float64]
LARGEST = 2000
"""The most effects, persons and images together: the work grows with the third power."""
_PRIOR = 1e-2  # precision of the effects: a standard deviation of 10 on the scale of the logit
_LEAST = 1e-4  # of the two variances
_STEPS, _CLOSE = 500, 2e-3


@dataclass(frozen=True)
class MixedLogit:
    """A fit: the effects (K,) with their covariance, and the standard deviations of persons and images."""

    effects: Array
    covariance: Array
    spreads: tuple[float, float]
    groups: int

    def contrast(self, weights: Any) -> Estimate:
        """A weighted sum of the effects, as a logarithm of odds, with its interval by Student's t.

        >>> MixedLogit(np.array([0.0, 1.0]), np.eye(2), (0.5, 0.5), 100).contrast([-1, 1]).value
        1.0
        """
        w = np.asarray(weights, dtype=np.float64)
        value, half = float(w @ self.effects), student(self.groups) * math.sqrt(float(w @ self.covariance @ w))
        return Estimate(value, value - half, value + half)


def fit(hits: Any, design: Any, persons: Any, images: Any) -> MixedLogit:
    """The fit to hits (N,), with fixed effects of the columns of design (N, K).

    >>> rng = np.random.default_rng(0)
    >>> persons, images = np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)
    >>> found = fit(rng.random(400) < 0.5, np.ones((400, 1)), persons, images)
    >>> bool(abs(found.effects[0]) < 0.5)
    True
    """
    yes, fixed = np.asarray(hits, dtype=np.float64), np.asarray(design, dtype=np.float64)
    k = fixed.shape[1]
    answers = _Answers(fixed, numbered(persons), numbered(images))
    nodes, shares = np.polynomial.hermite_e.hermegauss(15)
    shares = shares / shares.sum()
    mean, spread, variances = np.zeros(k + sum(answers.sizes)), np.full(len(yes), 0.5), np.array([0.5, 0.5])
    for step in range(_STEPS):
        prior = np.concatenate([np.full(k, _PRIOR), np.repeat(1 / variances, answers.sizes)])
        # Newton's step, with the logistic curve averaged over what is not known of each answer's logit.
        logits = answers.sums(mean)[:, None] + spread[:, None] * nodes
        curve = 1 / (1 + np.exp(-np.clip(logits, -40, 40)))
        known = answers.products((curve * (1 - curve)) @ shares) + np.diag(prior)
        covariance = np.asarray(np.linalg.inv(known), dtype=np.float64)
        mean = mean + covariance @ (answers.gathered(yes - curve @ shares) - prior * mean)
        spread = np.sqrt(answers.variances(covariance))
        square = mean**2 + np.diag(covariance)
        found = np.maximum(_LEAST, [part.mean() for part in np.split(square[k:], [answers.sizes[0]])])
        moved, variances = float(np.abs(np.log(found / variances)).max()), found
        if moved < _CLOSE and step > 5:
            break
    first, second = np.sqrt(variances).tolist()
    return MixedLogit(mean[:k], covariance[:k, :k], (first, second), min(answers.sizes))


class _Answers:
    """The matrix X (N, K + P + I) of the effects, one person and one image of each answer, without its zeros."""

    def __init__(self, fixed: Array, persons: Places, images: Places) -> None:
        self.fixed, self.persons, self.images = fixed, persons, images
        self.sizes = [int(persons.max()) + 1, int(images.max()) + 1]
        self._ends = [fixed.shape[1], fixed.shape[1] + self.sizes[0]]

    def sums(self, effects: Array) -> Array:
        """X times effects."""
        own, of_persons, of_images = np.split(effects, self._ends)
        found: Array = self.fixed @ own + of_persons[self.persons] + of_images[self.images]
        return found

    def gathered(self, values: Array) -> Array:
        """X transposed times values."""
        groups = (np.bincount(self.persons, values), np.bincount(self.images, values))
        return np.concatenate([self.fixed.T @ values, *groups])

    def products(self, weights: Array) -> Array:
        """X transposed times diag(weights) times X."""
        k, middle = self._ends
        rows, columns = self.sizes
        both = np.bincount(self.persons * columns + self.images, weights, rows * columns).reshape(rows, columns)
        found = np.diag(self.gathered(weights))
        found[:k] = [self.gathered(weights * column) for column in self.fixed.T]
        found[k:middle, middle:] = both
        upper = np.triu(found, 1)
        return np.triu(found) + upper.T

    def variances(self, covariance: Array) -> Array:
        """The diagonal of X times covariance times X transposed."""
        k, middle = self._ends
        p, i = k + self.persons, middle + self.images
        own = np.einsum("nj,jl,nl->n", self.fixed, covariance[:k, :k], self.fixed)
        mixed = np.einsum("nj,nj->n", self.fixed, covariance[p, :k] + covariance[i, :k])
        found: Array = own + covariance[p, p] + covariance[i, i] + 2 * (mixed + covariance[p, i])
        return found
