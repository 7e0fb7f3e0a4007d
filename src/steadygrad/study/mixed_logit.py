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
from steadygrad.study.clusters import student

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
    members = [np.unique(np.asarray(g, dtype=object).astype(str), return_inverse=True)[1] for g in (persons, images)]
    sizes = [int(m.max()) + 1 for m in members]
    k, rows = fixed.shape[1], np.arange(len(yes))
    columns = np.zeros((len(yes), k + sum(sizes)))
    columns[:, :k] = fixed
    columns[rows, k + members[0]] = columns[rows, k + sizes[0] + members[1]] = 1
    nodes, shares = np.polynomial.hermite_e.hermegauss(15)
    shares = shares / shares.sum()
    mean, spread, variances = np.zeros(columns.shape[1]), np.full(len(yes), 0.5), np.array([0.5, 0.5])
    for step in range(_STEPS):
        prior = np.concatenate([np.full(k, _PRIOR), np.repeat(1 / variances, sizes)])
        # Newton's step, with the logistic curve averaged over what is not known of each answer's logit.
        curve = 1 / (1 + np.exp(-np.clip((columns @ mean)[:, None] + spread[:, None] * nodes, -40, 40)))
        covariance = np.linalg.inv((columns.T * ((curve * (1 - curve)) @ shares)) @ columns + np.diag(prior))
        mean = mean + covariance @ (columns.T @ (yes - curve @ shares) - prior * mean)
        spread = np.sqrt(np.einsum("ij,ij->i", columns @ covariance, columns))
        square = mean**2 + np.diag(covariance)
        found = np.maximum(_LEAST, [part.mean() for part in np.split(square[k:], [sizes[0]])])
        moved, variances = float(np.abs(np.log(found / variances)).max()), found
        if moved < _CLOSE and step > 5:
            break
    first, second = np.sqrt(variances).tolist()
    return MixedLogit(mean[:k], covariance[:k, :k], (first, second), min(sizes))
