"""What an attack does to the neurons of models, layer by layer, and what holding a few of them brings back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadygrad import neurons, progress
from steadygrad.attacks import PGD, Attack, Expectation
from steadygrad.classifier import frozen
from steadygrad.errors import UsageError
from steadygrad.evaluation.columns import Columns, cell
from steadygrad.evaluation.robustness import Bench, code_key, label_of, predict, weights_key
from steadygrad.evaluation.statistics import mean, wilson
from steadygrad.files import key
from steadygrad.registry import describe
from steadygrad.threat import Threat

__all__ = ["CHOICES", "Probing", "probe"]

CHOICES = ("most", "random", "least")
"""Which neurons of a layer are held at their benign values, by sensitivity."""
Pair: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Inputs, their adversarial partners (n, *), labels (n,)."""
_PART = 50
_NAMED = 5


@dataclass(frozen=True)
class Probing:
    """What an audit of neurons looks at.

    Args:
        samples: the first so many samples of the data. On every other one, from the first, the sensitive
            neurons are chosen; on the rest they are held.
        share: of the neurons of a layer that are held.
        draws: of as many random neurons.
        attack: what makes the adversarial partners.

    >>> Probing(samples=100).attack.steps
    20
    """

    samples: int = 200
    share: float = 0.1
    draws: int = 5
    attack: Attack = PGD(steps=20)

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UsageError(f"samples of neurons must be at least 2, got {self.samples}")
        if self.draws < 1:
            raise UsageError(f"draws of neurons must be at least 1, got {self.draws}")
        if not 0 < self.share <= 1:
            raise UsageError(f"share of neurons must be within (0, 1], got {self.share}")

    def plain(self) -> dict[str, Any]:
        """The settings as plain data."""
        return {**dataclasses.asdict(self), "attack": describe(self.attack)}

    def check(self, threat: Threat) -> None:
        """Refuse a threat that the attack does not know."""
        if threat.norm not in self.attack.norms:
            known = ", ".join(self.attack.norms)
            raise UsageError(f"neurons are looked at under {label_of(self.attack)}: {known}, not {threat.norm}")


def probe(bench: Bench, models: Mapping[str, nn.Module], threat: Threat, settings: Probing) -> dict[str, Any]:
    """The sensitivity of every layer, and what holding its neurons restores: plain data for `summary.json`.

    Sensitivity is the mean change of a neuron's output between a sample and its adversarial partner, as in
    `neurons.sensitivity`. What a model does not let us look at is written down in its place.

    Source: Zhang et al. 2021, arXiv 1909.06978, sections III and IV.
    """
    count = min(settings.samples, len(bench.data))
    found = {}
    for name, model in models.items():
        base = ["neurons", weights_key(model), settings.plain(), str(threat._key()), count]
        base += [bench.data.fingerprint, bench.seed, torch.device(bench.device).type, code_key()]
        compute = functools.partial(_columns, bench, name, model, threat, settings, count)
        found[name] = _row(cell(bench.cells.folder, key(*base), compute))
    return {
        "attack": label_of(settings.attack),
        "threat": {"norm": threat.norm, "eps": float(threat.eps), "bounds": list(threat.bounds)},  # type: ignore[arg-type]
        "samples": count,
        "share": settings.share,
        "draws": settings.draws,
        "models": found,
    }


def _columns(bench: Bench, name: str, model: nn.Module, threat: Threat, settings: Probing, count: int) -> Columns:
    """Everything measured on one model; `why` alone where nothing could be."""
    if isinstance(model, Expectation):
        return {"why": np.array("its activations are drawn anew in every call")}
    with progress.task(f"{name}: neurons under {label_of(settings.attack)}, {threat}", 2 * count) as advance:
        pairs = _pairs(bench, model, threat, settings.attack, count, advance)
        try:
            change, size = _moved(model, pairs)
        except UsageError as error:
            return {"why": np.array(str(error))}
        right, after = (torch.cat([predict(model, p[i])[0] == p[2] for p in pairs]).cpu() for i in (0, 1))
        fooled = right & ~after
        chosen = torch.arange(count) % 2 == 0
        sigma = {layer: rows[chosen].double().mean(0) for layer, rows in change.items()}
        columns = {"layers": np.array(list(sigma)), "fooled": fooled.numpy()}
        for place, layer in enumerate(sigma):
            columns[f"sigma_{place}"] = sigma[layer].numpy()
            columns[f"change_{place}"] = change[layer].double().mean(1).numpy()
            columns[f"size_{place}"] = size[layer].numpy()
        return columns | _restored(model, pairs, fooled & ~chosen, _sets(sigma, settings), advance)


def _pairs(
    bench: Bench, model: nn.Module, threat: Threat, attack: Attack, count: int, advance: progress.Advance
) -> list[Pair]:
    pairs: list[Pair] = []
    for x, y, ids in bench.batches(0, count):
        x_adv = attack.perturb(model, x, y, threat, generator=bench.seeds({"neurons": describe(attack)}, ids))
        # In parts, because all activations of a part are kept at once.
        pairs += zip(*(torch.split(part, _PART) for part in (x, x_adv, y)), strict=True)
        advance(len(x))
    return pairs


def _moved(model: nn.Module, pairs: Sequence[Pair]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By layer: how far each neuron moves (N, neurons), and the mean size (N,) of the benign output."""
    change: dict[str, list[Tensor]] = {}
    size: dict[str, list[Tensor]] = {}
    for x, x_adv, _ in pairs:
        with frozen(model), torch.no_grad(), neurons.recorded(model) as benign:
            model(x)
        outputs = dict(benign)
        with frozen(model), torch.no_grad(), neurons.recorded(model) as adversarial:
            model(x_adv)
        for layer, values in outputs.items():
            change.setdefault(layer, []).append(neurons.change(values, adversarial[layer]).cpu())
            size.setdefault(layer, []).append(values.abs().flatten(1).double().mean(1).cpu())
    return {layer: torch.cat(rows) for layer, rows in change.items()}, {
        layer: torch.cat(r) for layer, r in size.items()
    }


def _sets(sigma: Mapping[str, Tensor], settings: Probing) -> dict[str, list[dict[str, Tensor]]]:
    """By choice, the neurons of all layers: one set, or as many as are drawn."""
    most, least = (neurons.select(sigma, settings.share, which=which) for which in ("most", "least"))
    drawn = [neurons.select(sigma, settings.share, which="random", seed=seed) for seed in range(settings.draws)]
    return {"most": [most], "random": drawn, "least": [least]}


def _restored(
    model: nn.Module,
    pairs: Sequence[Pair],
    judged: Tensor,
    sets: Mapping[str, Sequence[Mapping[str, Tensor]]],
    advance: progress.Advance,
) -> Columns:
    """By layer and choice, for each judged sample (n,): the share of the sets with which it is right again."""
    found: dict[str, list[Tensor]] = {}
    for (x, x_adv, y), here in zip(pairs, torch.split(judged, [len(y) for _, _, y in pairs]), strict=True):
        here = here.to(x.device)
        for choice, drawn in sets.items():
            for place, layer in enumerate(drawn[0]):
                hits = [torch.zeros(int(here.sum()), dtype=torch.bool)]
                if here.any():
                    hits = []
                    for chosen in drawn:
                        with neurons.patched(model, x[here], {layer: chosen[layer]}):
                            hits.append((predict(model, x_adv[here])[0] == y[here]).cpu())
                found.setdefault(f"{choice}_{place}", []).append(torch.stack(hits).double().mean(0))
        advance(len(x))
    return {name: torch.cat(rows).numpy() for name, rows in found.items()}


def _row(columns: Columns) -> dict[str, Any]:
    """What the columns of one model say, with intervals."""
    if "why" in columns:
        return {"refused": str(columns["why"]), "fooled": None, "judged": None, "layers": []}
    layers = []
    for place, layer in enumerate(columns["layers"].tolist()):
        sigma, change, size = (columns[f"{name}_{place}"] for name in ("sigma", "change", "size"))
        held = {choice: columns[f"{choice}_{place}"] for choice in CHOICES}
        judged = len(held["most"])
        order = np.argsort(-sigma, kind="stable")[:_NAMED].tolist()
        layers.append(
            {
                "name": layer,
                "neurons": len(sigma),
                "change": mean(change).plain(),
                "relative": _ratio(change, size),
                "most": [{"neuron": i, "sensitivity": float(sigma[i])} for i in order],
                "restored": {choice: _share(values) for choice, values in held.items()} if judged else None,
                "gain": mean(held["most"] - held["random"]).plain() if judged else None,
            }
        )
    judged = len(columns["most_0"]) if layers else 0
    return {"refused": None, "fooled": int(columns["fooled"].sum()), "judged": judged, "layers": layers}


def _share(values: NDArray[np.float64]) -> dict[str, Any]:
    """The mean of shares (n,) with Wilson's interval, as wide as if each were one yes or no."""
    share = wilson(round(float(values.sum())), len(values))
    value = float(values.mean())
    return {**share.plain(), "value": value, "low": min(value, share.low), "high": max(value, share.high)}


def _ratio(change: NDArray[np.float64], size: NDArray[np.float64]) -> dict[str, Any] | None:
    """The mean change over the mean size, with the interval of its linearisation; None for a layer that is silent."""
    if not size.mean() > 0:
        return None
    value = float(change.mean() / size.mean())
    spread = mean((change - value * size) / size.mean()).plain()
    return {**spread, "value": value, "low": max(0.0, value + spread["low"]), "high": value + spread["high"]}
