"""How far explanations can be moved while the prediction stays, and how far at most: attacks beside bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attacks import AttributionPGD, AttributionResult, ExplanationAttack, explanation_suite, worst_similarity
from steadygrad.attacks.expectation import base_of
from steadygrad.attacks.maps.worst_similarity import both
from steadygrad.attributions import Attribution, BlurSaliency
from steadygrad.attributions.faithfulness import scores
from steadygrad.attributions.pixels import count_of, image_array, magnitude, plane_of, top
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.bounds import deviation
from steadygrad.classifier import predict
from steadygrad.errors import UsageError
from steadygrad.measuring.measure import MEASURES, Batch, Columns, Measure, settings_of
from steadygrad.measuring.measures.map_bounds import DISTANCES, KINDS, K, MapBound, bounds_on_maps, length_of
from steadygrad.measuring.measures.map_faithfulness import DRAWN_ANEW
from steadygrad.smoothing import has_rectifiers, smooth
from steadygrad.threat import Threat, per_sample

_SIMILAR = ("top_k_intersection", "kendall", "cosine", "mass_center_displacement")


def similarities(pictures: bool) -> list[str]:
    """Names of the similarities that are written down; place counts for pictures only."""
    return [name for name in _SIMILAR if pictures or not SIMILARITIES[name].needs_place]


@MEASURES.register(
    "map_attacks",
    summary="how far attacks that leave the prediction as it is move a map, beside bounds on it",
    reference="Ghorbani et al. 2019, arXiv 1710.10547; Wang and Kong 2023, arXiv 2303.00340",
    cost="the passes of the attacks and of the bounds, and some 50 forwards and ten maps",
    soundness="attack",
    order=2,
)
@dataclass(frozen=True)
class MapAttacks(Measure):
    """Attacks the maps of one attribution, and bounds them.

    A map of a piecewise linear network has no derivative to follow and no tangent to bound: where the model has
    rectifiers its softplus surrogate is attacked (`surrogate`), and columns with `own` tell what the same points
    do to the maps of the model itself. Deviations are of signed maps, Euclidean ones in units of the clean map's
    length. Certified bounds, which cost most, are for samples with True in a given column `certify`. Why there are
    no bounds of a kind stands in `why_linearized` and `why_certified`; numbers that it concerns are NaN. Images
    have the measures of `faithfulness` too, of the model's own clean maps.

    Args:
        attribution: whose maps are attacked.
        threat: linf or l2, with a radius.
        steps, restarts: of each attack.
        draws: random points beside each attack.
        beta: of the softplus that stands in for the rectifiers of a network.
    """

    attribution: Attribution
    threat: Threat
    steps: int = 20
    restarts: int = 2
    draws: int = 10
    beta: float = 50.0
    shard: ClassVar[int] = 10
    kept: ClassVar[tuple[str, ...]] = ("clean", "shown", "map_clean", "map_shown", "marks", "salience")
    may_refuse: ClassVar[bool] = True
    titled: ClassVar[str] = "attacks on the maps of {attribution}"

    @property
    def draws_as(self) -> Any:
        """The same at every radius and cost."""
        return {"explained": settings_of(self.attribution)}

    def suite(self, pictures: bool) -> tuple[ExplanationAttack, ...]:
        """The attacks: top k, center of mass (of pictures), cosine, Euclidean distance."""
        cost = {"steps": self.steps, "restarts": self.restarts, "noise_draws": self.draws}
        suite = explanation_suite(self.attribution, k=K, pictures=pictures, **cost)
        return (*suite, AttributionPGD(self.attribution, **cost))  # type: ignore[arg-type]

    def goals(self, pictures: bool) -> list[str]:
        """What each of the attacks raises."""
        return [attack.objective for attack in self.suite(pictures)]

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        model, x, seeds, threat, attribution = models[0], batch.x, batch.seeds, self.threat, self.attribution
        if base_of(model) is not model:
            raise UsageError(DRAWN_ANEW)
        subject = smooth(model, self.beta, pooling=False) if has_rectifiers(model, x) else model
        pictures = x.ndim in (3, 4)
        names = similarities(pictures)
        found = worst_similarity(
            subject, x, None, threat, attribution, attacks=self.suite(pictures), similarities=names, generator=seeds
        )
        first, results = found.results[0], both(found.results)
        groups = {"attack": results, "noise": results[len(found.results) :]}
        columns: dict[str, Any] = {
            "surrogate": torch.full((len(x),), subject is not model),
            "prediction": first.prediction,
            "confidence": predict(subject, x)[1],
        }
        for name in names:
            columns |= {f"similarity_{name}_attack": found.worst[name], f"similarity_{name}_noise": found.noise[name]}
        for way in ("forwards", "backwards"):
            columns[way] = torch.stack([getattr(result, way) for result in results]).sum(0)
        certify = batch.of("certify") if "certify" in batch.given else torch.zeros_like(batch.y, dtype=torch.bool)
        bounds, refused = bounds_on_maps(subject, attribution, x, first.target, threat, seeds, certify)
        columns |= _deviations(subject, attribution, x, threat, results, bounds)
        columns |= {f"why_{kind}": np.array([refused.get(kind, "")] * len(x)) for kind in KINDS}
        if subject is not model:
            columns |= _own(model, attribution, x, first, groups, names)
        if x.ndim == 4:
            columns |= _faithful(model, attribution, x, threat.bounds[0], seeds)
        # Where the first similarity is worst.
        columns["by"] = found.by[names[0]]
        shown, _, after = (torch.stack(t) for t in zip(*(found.example(names[0], i) for i in range(len(x)))))
        columns["shown_confidence"] = predict(subject, shown)[1]
        columns |= {"clean": image_array(x), "shown": image_array(shown)}
        return columns | _marked(x, first.clean_maps, after, bounds)


def _deviations(
    subject: nn.Module,
    attribution: Attribution,
    x: Tensor,
    threat: Threat,
    results: Sequence[AttributionResult],
    bounds: Sequence[MapBound],
) -> dict[str, Tensor]:
    """The largest deviation found, the bounds on it, and how many points are above them."""
    clean, target = results[0].clean_maps, results[0].target
    tried = [(result.clean_maps, result.maps, result.moved) for result in results]
    for bound in bounds:
        # A bound knows points of its own; they count where the prediction stays, as all others do.
        stays = (predict(subject, bound.inputs)[0] == target) & threat.allows(x, bound.inputs)
        stays &= (bound.inputs != x).flatten(1).any(1)
        tried.append((clean, attribution(subject, bound.inputs, target), stays))
    stays = torch.stack([s for _, _, s in tried])  # (T, N)
    length = length_of(clean)
    scale = torch.where(length > 0, length, 1.0)
    # The maps are computed in the type of the inputs, the certified bounds for exact arithmetic.
    slack = 128 * torch.finfo(x.dtype).eps
    columns: dict[str, Tensor] = {"points": stays.sum(0)}
    for distance in DISTANCES:
        unit = scale if distance == "euclidean" else torch.ones_like(scale)
        far = torch.stack([deviation(distance, before, after) / unit for before, after, _ in tried])
        far = torch.where(stays, far, 0.0)
        columns[f"deviation_{distance}_attack"] = far.amax(0)
        for kind in KINDS:
            upper = torch.full_like(length, torch.nan)
            for bound in (b for b in bounds if b.kind == kind and distance in b.upper):
                upper = bound.upper[distance] / unit
            # A cosine is half a squared chord.
            size = [v if distance == "euclidean" else (2 * v).sqrt() for v in (far, upper)]
            over = (size[0] > size[1] + slack).sum(0)
            columns |= {f"deviation_{distance}_{kind}": upper, f"over_{distance}_{kind}": over}
    return columns


def _own(
    model: nn.Module,
    attribution: Attribution,
    x: Tensor,
    first: AttributionResult,
    groups: Mapping[str, Sequence[AttributionResult]],
    names: Sequence[str],
) -> dict[str, Tensor]:
    """What points found on a surrogate do to the maps of the model itself, where it keeps its prediction too."""
    label, clean = predict(model, x)[0], attribution(model, x, first.target)
    columns = {
        "own_prediction": label,
        "own_alike": SIMILARITIES["top_k_intersection"].function(clean, first.clean_maps),
    }
    for group, results in groups.items():
        maps = []
        for result in results:
            stays = per_sample(predict(model, result.inputs)[0] == label, x)
            maps.append(torch.where(stays, attribution(model, result.inputs, first.target), clean))
        for name in names:
            row = SIMILARITIES[name]
            sign = 1 if row.higher_is_more_similar else -1
            columns[f"similarity_{name}_own_{group}"] = sign * (
                sign * torch.stack([row.function(clean, m) for m in maps])
            ).amin(0)
    return columns


def _faithful(model: nn.Module, attribution: Attribution, x: Tensor, lowest: float, seeds: Tensor) -> dict[str, Tensor]:
    """Whether the map of the model itself, unchanged, points at what it uses; beside it a map of random numbers."""
    target = predict(model, x)[0]
    salience = BlurSaliency()(model, x, target)
    columns = {"salience": magnitude(salience).float().view(len(x), *plane_of(x))}
    for name, maps in (("map", attribution(model, x, target)), ("chance", randomness.uniform(seeds, salience))):
        columns |= {f"{m}_{name}": v for m, v in scores(model, x, maps, salience, target, fill=lowest).items()}
    return columns


def _marked(x: Tensor, clean: Tensor, shown: Tensor, bounds: Sequence[MapBound]) -> dict[str, Tensor]:
    """The maps before and after as pictures (N, H, W), and what became of the top pixels.

    Marks: 4 for pixels that are certain to stay in the top, 3 for others that stayed, 2 for those that
    left it, 1 for those that came in, 0 for all else.
    """
    before, after = magnitude(clean), magnitude(shown)  # (N, P)
    count = count_of(K, before.shape[1])
    was, comes = top(before, count), top(after, count)
    marks = was.long() * 2 + comes.long()
    number = torch.full_like(before[:, 0], torch.nan)
    for certain in (bound.certain for bound in bounds if bound.certain is not None):
        proven = (certain >= 0).all(1)
        marks = torch.where(certain == 1, 4, marks)
        number = torch.where(proven, (certain == 1).sum(1), torch.nan)
    planes = {"map_clean": before.float(), "map_shown": after.float(), "marks": marks.to(torch.uint8)}
    return {"certain": number} | {name: values.view(len(x), *plane_of(x)) for name, values in planes.items()}
