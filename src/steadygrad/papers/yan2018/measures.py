"""What is measured on each model, and at which radii."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from steadygrad.classifier import Classifier
from steadygrad.papers.bench import Bench
from steadygrad.papers.store import Array

__all__ = ["MULTIPLES", "Measured", "measure"]

MULTIPLES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5)
"""Radii of the FGS curve as multiples of the reference radius; the paper's table has .2, .5 and 1."""


@dataclass
class Measured:
    """All measures by model, one entry per image; `rounded` says for which of them FGS has lost a part of its slope."""

    radius: float
    suite_radius: float
    right: dict[str, Array]
    changes: dict[str, Array]
    norms: Array
    centered_norms: Array
    fgs: dict[str, Array]
    distances: dict[str, Array]
    withstands: dict[str, Array]
    rounded: dict[str, Array]

    @property
    def halved(self) -> bool:
        """Whether there is a radius that halves: from a clean accuracy above a half, FGS goes down to it.

        Without one, as where gradients vanish in float32, accuracies at multiples of the radius say nothing.
        """
        at = self.fgs["deep_defense"][MULTIPLES.index(1.0)]
        return bool(at.mean() <= 0.5 < self.right["deep_defense"].mean())


def measure(named: dict[str, Classifier], bench: Bench, center: Tensor, *, distances: int, suite: int) -> Measured:
    """Measure all models; DDN and the suite on so many first images."""
    radius = bench.reference_radius(named["deep_defense"])
    radii = [m * radius for m in MULTIPLES]
    return Measured(
        radius=radius,
        suite_radius=radius / 2,
        right={name: bench.right(model) for name, model in named.items()},
        changes={name: bench.changes(model) for name, model in named.items()},
        norms=bench.norms(None),
        centered_norms=bench.norms(center),
        fgs={name: bench.under_fgs(model, radii) for name, model in named.items()},
        distances={name: bench.distances(model, distances) for name, model in named.items()},
        withstands={name: bench.withstands(model, radius / 2, suite) for name, model in named.items()},
        rounded={name: bench.rounded(model) for name, model in named.items()},
    )
