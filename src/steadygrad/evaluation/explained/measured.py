"""How far explanations can be pushed while the prediction stays, and how far at most: attacks beside bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.attacks import AttributionResult, worst_similarity
from steadygrad.attacks.expectation import base_of
from steadygrad.attacks.maps.worst_similarity import WorstSimilarity
from steadygrad.attributions import Attribution, BlurSaliency
from steadygrad.attributions.pixels import count_of, magnitude, top
from steadygrad.attributions.similarity import SIMILARITIES
from steadygrad.bounds import deviation
from steadygrad.classifier import predict
from steadygrad.errors import Failure, UsageError
from steadygrad.evaluation.columns import Columns
from steadygrad.evaluation.explained.bounds import DISTANCES, KINDS, Bound, bounds_of
from steadygrad.evaluation.explained.settings import Explaining, K, attacks_on, measures
from steadygrad.evaluation.faithfulness import scores
from steadygrad.threat import Threat

__all__ = ["measure"]


def measure(
    model: nn.Module,
    subject: nn.Module,
    attribution: Attribution,
    x: Tensor,
    threat: Threat,
    settings: Explaining,
    seeds: Tensor,
    certify: int,
) -> Columns:
    """All that is known about the maps of a subject at inputs x (N, *): columns with one entry per sample.

    Deviations are of signed maps, Euclidean ones in units of the clean map's length; the first `certify` samples
    have certified bounds. A refusal becomes a column of text, `why`, `why_linearised` or `why_certified`; numbers
    that it concerns are NaN. Where the subject is a surrogate, columns with `own` tell what the same points do to
    the maps of the model itself. Images have the measures of `faithfulness` too, of the model's own clean maps.
    """
    if base_of(model) is not model:
        return {"why": np.array(["its predictions, and so its maps, are drawn anew in every call"] * len(x))}
    pictures = x.ndim in (3, 4)
    names, attacks = measures(pictures), attacks_on(attribution, settings, pictures)
    try:
        found = worst_similarity(
            subject, x, None, threat, attribution, attacks=attacks, similarities=names, generator=seeds
        )
    except (UsageError, Failure) as error:
        return {"why": np.array([str(error)] * len(x))}
    groups = {"attack": list(found.results), "noise": [r.noise for r in found.results if r.noise is not None]}
    first, results = found.results[0], [*groups["attack"], *groups["noise"]]
    columns: dict[str, Tensor] = {"prediction": first.prediction, "confidence": predict(subject, x)[1]}
    for name in names:
        columns |= {f"similarity_{name}_attack": found.worst[name], f"similarity_{name}_noise": found.noise[name]}
    for way in ("forwards", "backwards"):
        columns[way] = torch.stack([getattr(result, way) for result in results]).sum(0)
    bounds, whys = bounds_of(subject, attribution, x, first.target, threat, seeds, certify)
    columns |= _deviations(subject, attribution, x, threat, results, bounds)
    if subject is not model:
        columns |= _own(model, attribution, x, first, groups, names)
    certain = next((bound.certain for bound in bounds if bound.certain is not None), None)
    columns |= _pictures(subject, x, first.clean_maps, found, names[0], certain)
    if x.ndim == 4:
        columns |= _faithful(model, attribution, x, threat.bounds[0], seeds)
    texts = {f"why_{kind}": np.array([whys.get(kind, "")] * len(x)) for kind in KINDS}
    return {name: value.detach().cpu().numpy() for name, value in columns.items()} | texts


def _deviations(
    subject: nn.Module,
    attribution: Attribution,
    x: Tensor,
    threat: Threat,
    results: Sequence[AttributionResult],
    bounds: Sequence[Bound],
) -> dict[str, Tensor]:
    """The largest deviation found, the bounds on it, and how many points are above them."""
    clean, target = results[0].clean_maps, results[0].target
    tried = [(result.clean_maps, result.maps, result.moved) for result in results]
    for bound in bounds:
        # A bound knows points of its own; they count where the prediction stays, as all others do.
        kept = (predict(subject, bound.inputs)[0] == target) & threat.allows(x, bound.inputs)
        kept &= (bound.inputs != x).flatten(1).any(1)
        tried.append((clean, attribution(subject, bound.inputs, target), kept))
    kept = torch.stack([k for _, _, k in tried])  # (T, N)
    length = torch.linalg.vector_norm(clean.flatten(1).double(), dim=1)
    scale = torch.where(length > 0, length, 1.0)
    # The maps are computed in the type of the inputs, the certified bounds for exact arithmetic.
    slack = 128 * torch.finfo(x.dtype).eps
    columns: dict[str, Tensor] = {"points": kept.sum(0)}
    for distance in DISTANCES:
        unit = scale if distance == "euclidean" else torch.ones_like(scale)
        far = torch.stack([deviation(distance, before, after) / unit for before, after, _ in tried])
        far = torch.where(kept, far, 0.0)
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
            kept = (predict(model, result.inputs)[0] == label).view(-1, *[1] * (x.ndim - 1))
            maps.append(torch.where(kept, attribution(model, result.inputs, first.target), clean))
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
    columns = {"salience": magnitude(salience)}
    for name, maps in (("map", attribution(model, x, target)), ("chance", randomness.uniform(seeds, salience))):
        columns |= {f"{m}_{name}": v for m, v in scores(model, x, maps, salience, target, fill=lowest).items()}
    return columns


def _pictures(
    subject: nn.Module, x: Tensor, clean: Tensor, found: WorstSimilarity, name: str, certain: Tensor | None
) -> dict[str, Tensor]:
    """Where the similarity of this name is worst: the input, the maps, and what became of the top pixels (N, P).

    Marks: 4 for pixels that are certain to stay in the top, 3 for others that stayed, 2 for those that
    left it, 1 for those that came in, 0 for all else.
    """
    examples = [found.example(name, sample) for sample in range(len(x))]
    shown = torch.stack([point for point, _, _ in examples])
    before, after = magnitude(clean), magnitude(torch.stack([maps for _, _, maps in examples]))
    count = count_of(K, before.shape[1])
    was, comes = top(before, count), top(after, count)
    marks = was.long() * 2 + comes.long()
    columns = {"certain": torch.full_like(before[:, 0], torch.nan)}
    if certain is not None:
        proven = certain >= 0
        marks = torch.where(certain == 1, 4, marks)
        columns["certain"] = torch.where(proven.all(1), (certain == 1).sum(1), torch.nan)
    return columns | {
        "by": found.by[name],
        "shown": shown,
        "shown_confidence": predict(subject, shown)[1],
        "map_clean": before,
        "map_shown": after,
        "marks": marks,
    }
