"""Attacks on explanations: allowed inputs of the same prediction whose map is another one."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.arguments import Classes, Inputs, public
from steadygrad.attacks.attack import check_call
from steadygrad.attacks.maps.map_losses import check_reference
from steadygrad.attacks.maps.map_run import AttributionResult, ExplanationRun
from steadygrad.attributions import Attribution, Saliency
from steadygrad.classifier import frozen
from steadygrad.errors import UsageError
from steadygrad.registry import Method, Registry
from steadygrad.smoothing import Lead, lead_of
from steadygrad.threat import Threat, per_sample
from steadygrad.values import Count, Limit, Positive

Objective = Literal["top-k", "mass-center", "target-map", "euclidean", "cosine"]

ATTRIBUTION_ATTACKS: Registry[ExplanationAttack] = Registry("attribution attack", soundness="attack")

# The points of the baseline and those where a search begins must not be the same.
_OTHER_DRAWS = 1000
_Draws = Annotated[int, Limit("at least 0 (0 leaves the baseline out)", lambda value: value >= 0)]


@dataclass(frozen=True)
class ExplanationAttack(Method, abc.ABC):
    """Searches for allowed inputs that keep the prediction and change its map.

    Random points of the same threat are looked at beside it, and what it finds is never less than these. Subclasses
    name their `objective` and write `search`.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    attribution: Attribution = Saliency()

    @property
    @abc.abstractmethod
    def objective(self) -> Objective:
        """The name in `MAP_LOSSES` of what is raised and reported."""

    @property
    def top_share(self) -> float:
        """The share of the pixels that counts as the top k."""
        return float(getattr(self, "k", 0.1))

    @abc.abstractmethod
    def search(self, run: ExplanationRun) -> None:
        """Show the run points to choose from."""

    @property
    def noise(self) -> AttributionNoise | None:
        """The baseline to be run beside it."""
        return None

    def follow(self, model: nn.Module, x: Tensor, target: Tensor) -> Lead:
        """The models whose derivatives lead the way; refuses those that have none of second order."""
        return lambda share: model

    @public
    def __call__(
        self,
        model: nn.Module,
        x: Inputs,
        target: Classes | None,
        threat: Threat,
        *,
        aim: Tensor | None = None,
        generator: randomness.Seeds = None,
    ) -> AttributionResult:
        """Attack the maps of inputs x (N, *) under a threat with a radius; the model is left as it was.

        Args:
            target: classes (N,) to explain; None means the predicted ones. Whichever is explained,
                it is the prediction that must not change.
            aim: maps (N, *) or (*) to lead to, for the goal "target-map".
            generator: gives one seed per sample, in order; or the seeds (N,) themselves; None means seed 0.

        Raises:
            UsageError: inputs, classes, threat, aim or the model's output are not as expected; the
                maps of the model cannot be moved by following derivatives (steps that have no smooth form).
            Failure: clean maps that are not finite.
        """
        check_call(self, model, x, target, threat)
        if threat.eps is None:
            raise UsageError("an attack on an explanation needs a radius: give the threat an eps")
        aim = check_reference(self.objective, x, self.top_share, aim)
        seeds = randomness.sample_seeds(len(x), generator)
        beside = self.noise(model, x, target, threat, aim=aim, generator=seeds) if self.noise is not None else None
        with frozen(model, seeds) as model:
            run = ExplanationRun(self, model, x.detach(), target, threat, seeds, aim)
            if beside is not None:
                run.begin(beside)
            self.search(run)
            return run.result(beside)


@ATTRIBUTION_ATTACKS.register(
    "attribution_noise",
    summary="random points as far out as allowed (linf: signs): the baseline beside every attack on an explanation",
    reference="baseline",
    cost="draws maps",
)
@dataclass(frozen=True)
class AttributionNoise(ExplanationAttack):
    """The worst map among `draws` random points of unchanged prediction, in linf random signs, in l2 random directions.

    They lie as far out as the threat allows, where they move a map further than uniform points of the ball.

    Args:
        measure: what worst means, a name in `MAP_LOSSES`.
        k: share of the pixels, for "top-k".

    >>> AttributionNoise(draws=3).objective
    'top-k'
    """

    measure: Objective = "top-k"
    draws: Count = 10
    k: float = 0.1

    @property
    def objective(self) -> Objective:
        return self.measure

    def search(self, run: ExplanationRun) -> None:
        for draw in range(self.draws):
            run.look(_far_out(run, _OTHER_DRAWS + draw))


def _far_out(run: ExplanationRun, draw: int) -> Tensor:
    """A random point (N, *) at the border of the threat."""
    way = run.threat.steepest(run.threat.random(run.x, run.seeds, draw) - run.x)
    return run.threat.constrain(run.x, run.x + per_sample(run.threat.radius(run.x), run.x) * way)


@dataclass(frozen=True)
class _Ascent(ExplanationAttack):
    """Steps of falling length along the slope of the loss, from random points, with a baseline beside.

    A model with kinks is followed through smooth ones, `lead_of`; what counts are its own maps.
    """

    steps: Count = 40
    step: Positive | None = None
    restarts: Count = 3
    noise_draws: _Draws = 10

    @property
    def noise(self) -> AttributionNoise | None:
        made = (self.attribution, self.objective, self.noise_draws, self.top_share)
        return AttributionNoise(*made) if self.noise_draws else None

    def follow(self, model: nn.Module, x: Tensor, target: Tensor) -> Lead:
        lead = lead_of(model, x)
        self.attribution.require_curvature(lead(0.0), x, target)
        return lead

    def search(self, run: ExplanationRun) -> None:
        first = self.step or max(0.25, 5 / (self.steps + 1))
        radius = per_sample(run.threat.radius(run.x), run.x)
        for restart in range(self.restarts):
            points = _far_out(run, restart)
            for i in range(self.steps):
                way = run.threat.steepest(run.gradient(points, (i + 0.5) / self.steps))
                points = run.threat.constrain(run.x, points + first * (1 - i / self.steps) * radius * way)
            run.look(points)


_COST = "restarts x steps x (1 map + 1 backward through it; with kinks 1 map more) + noise_draws maps"


@ATTRIBUTION_ATTACKS.register(
    "ifia",
    summary="iterative feature importance attack: mass out of the top k, the center of mass away, or toward a map",
    reference="Ghorbani, Abid and Zou 2019, arXiv 1710.10547; toward a map: Dombrowski et al. 2019, 1906.07983",
    cost=_COST,
    order=2,
)
@dataclass(frozen=True)
class IFIA(_Ascent):
    """Moves what the map calls important while the prediction stays.

    Args:
        goal: "top-k" lowers the mass in the clean top k; "mass-center" moves the center of mass;
            "target-map" raises the cosine to the pixel map of `aim`.
        k: share of the pixels, for "top-k".
        step: length of the first of `steps` steps in radii, by default max(0.25, 5 / (steps + 1)); the others
            fall linearly to zero.
        restarts: random points to begin at, as far out as allowed; the best point of all is kept.
        noise_draws: random points of the baseline, 0 for none.

    The kept point has the fewest top pixels in common with the clean map and, among those, the least
    mass in them.

    >>> IFIA(goal="mass-center", steps=10).steps
    10
    """

    goal: Literal["top-k", "mass-center", "target-map"] = "top-k"
    k: float = 0.1

    @property
    def objective(self) -> Objective:
        return self.goal


@ATTRIBUTION_ATTACKS.register(
    "attribution_pgd",
    summary="projected ascent of the distance of the signed maps, which the bounds are about",
    reference="Wang and Kong 2023, arXiv 2303.00340",
    cost=_COST,
    order=2,
)
@dataclass(frozen=True)
class AttributionPGD(_Ascent):
    """Raises the distance of the map from the clean one while the prediction stays.

    Args:
        distance: of the signed maps: "euclidean", in units of the maps, or "cosine", 1 - cosine in [0, 2].
        steps, step, restarts, noise_draws: as for `IFIA`.

    >>> AttributionPGD(distance="cosine").objective
    'cosine'
    """

    distance: Literal["euclidean", "cosine"] = "euclidean"

    @property
    def objective(self) -> Objective:
        return self.distance
