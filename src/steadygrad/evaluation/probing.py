"""What an attack does to the neurons of models, layer by layer, and what holding a few of them brings back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadygrad import neurons, progress
from steadygrad.attacks import PGD, Attack
from steadygrad.attacks.expectation import base_of
from steadygrad.classifier import frozen, predict
from steadygrad.errors import UsageError
from steadygrad.evaluation.columns import Columns, cell
from steadygrad.evaluation.robustness import Bench, code_key, label_of, predict, weights_key
from steadygrad.evaluation.statistics import mean, ratio_values, wilson
from steadygrad.files import key
from steadygrad.measuring.paired import mean_difference, ratio_values
from steadygrad.measuring.statistics import mean, wilson
from steadygrad.neurons import Layers
from steadygrad.registry import describe, label_of
from steadygrad.threat import Threat

__all__ = ["CHOICES", "Probing", "probe"]

CHOICES = ("most", "random", "least")
"""Which neurons of a layer are held at their benign values, by sensitivity."""
Pair: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Inputs, their adversarial partners (n, *), labels (n,)."""
_NAMED = 5
_BYTES = 2**28
"""Of activations that are kept at once."""


@dataclass(frozen=True)
class Probing:
    """What an audit of neurons looks at.

    Args:
        samples: the first so many samples of the data. On every other one, from the first, the sensitive
            neurons are chosen; on the rest they are held.
        share: of the neurons of a layer that are held.
        draws: of as many random neurons.
        attack: what makes the adversarial partners.
        layers: glob patterns of layer names; None for the outputs of the activation modules.

    >>> Probing(samples=100).attack.steps
    20
    """

    samples: int = 200
    share: float = 0.1
    draws: int = 5
    attack: Attack = PGD(steps=20)
    layers: Layers = None

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UsageError(f"samples of neurons must be at least 2, got {self.samples}")
        if self.draws < 1:
            raise UsageError(f"draws of neurons must be at least 1, got {self.draws}")
        if not 0 < self.share <= 1:
            raise UsageError(f"share of neurons must be within (0, 1], got {self.share}")

    def plain(self) -> dict[str, Any]:
        """The settings as plain data."""
        layers = None if self.layers is None else list(self.layers)
        return {**dataclasses.asdict(self), "attack": describe(self.attack), "layers": layers}

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
    found = {name: _Probe(bench, name, model, threat, settings, count).row() for name, model in models.items()}
    return {
        "attack": label_of(settings.attack),
        "threat": {"norm": threat.norm, "eps": float(threat.eps), "bounds": list(threat.bounds)},  # type: ignore[arg-type]
        "samples": count,
        "share": settings.share,
        "draws": settings.draws,
        "models": found,
    }


@dataclass
class _Probe:
    """One model under way: one cell for what moves, and one per layer for what is restored."""

    bench: Bench
    name: str
    model: nn.Module
    threat: Threat
    settings: Probing
    count: int
    pairs: list[Pair] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """What is said of the model."""
        bench, settings = self.bench, self.settings
        base = ["neurons", weights_key(self.model), settings.plain(), str(self.threat._key()), self.count]
        base += [bench.data.fingerprint, bench.seed, torch.device(bench.device).type, code_key()]
        moved = cell(bench.cells.folder, key(*base), self._moved)
        if "why" in moved:
            return _refused(str(moved["why"]))
        names = moved["layers"].tolist()
        held = []
        with progress.task(f"{self.name}: layers with neurons held", len(names)) as advance:
            for place, layer in enumerate(names):
                compute = functools.partial(self._restored, layer, moved[f"sigma_{place}"], moved["fooled"])
                try:
                    held.append(cell(bench.cells.folder, key(*base, layer), compute))
                except UsageError as error:  # as where the calls of a layer depend on the batch
                    return _refused(str(error))
                advance()
        layers = [_layer(layer, place, moved, held[place], settings.share) for place, layer in enumerate(names)]
        return {
            "refused": None,
            "fooled": int(moved["fooled"].sum()),
            "judged": int(moved["fooled"][1::2].sum()),
            "layers": layers,
        }

    def _made(self) -> list[Pair]:
        """The pairs, in parts whose activations may all be kept."""
        if self.pairs:
            return self.pairs
        bench, attack, part = self.bench, self.settings.attack, 0
        with progress.task(f"{self.name}: neurons under {label_of(attack)}, {self.threat}", self.count) as advance:
            for x, y, ids in bench.batches(0, self.count):
                seeds = bench.seeds({"neurons": describe(attack)}, ids)
                x_adv = attack.perturb(self.model, x, y, self.threat, generator=seeds)
                part = part or self._part(x[:1])
                self.pairs += zip(*(torch.split(rows, part) for rows in (x, x_adv, y)), strict=True)
                advance(len(x))
        return self.pairs

    def _part(self, x: Tensor) -> int:
        """How many samples may be looked at together: three copies of their activations are held."""
        size = 3 * sum(values.nbytes for values in self._outputs(x).values())
        return max(1, min(200, _BYTES // max(1, size)))

    def _outputs(self, x: Tensor) -> dict[str, Tensor]:
        with frozen(self.model), torch.no_grad(), neurons.recorded(self.model, self.settings.layers) as outputs:
            self.model(x)
        return dict(outputs)

    def _moved(self) -> Columns:
        """By layer: change and benign size of every sample (N,), sensitivities of the chosen half (neurons,)."""
        if base_of(self.model) is not self.model:
            return {"why": np.array("its activations are drawn anew in every call")}
        try:
            change, size = self._changes()
        except UsageError as error:
            return {"why": np.array(str(error))}
        right, after = (
            torch.cat([predict(self.model, pair[i])[0] == pair[2] for pair in self._made()]).cpu() for i in (0, 1)
        )
        columns = {"layers": np.array(list(change)), "fooled": (right & ~after).numpy()}
        for place, (layer, rows) in enumerate(change.items()):
            columns[f"sigma_{place}"] = rows[::2].double().mean(0).numpy()
            columns[f"change_{place}"] = rows.double().mean(1).numpy()
            columns[f"size_{place}"] = size[layer].numpy()
        return columns

    def _changes(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        change: dict[str, list[Tensor]] = {}
        size: dict[str, list[Tensor]] = {}
        for x, x_adv, _ in self._made():
            benign, adversarial = self._outputs(x), self._outputs(x_adv)
            if not benign:
                raise UsageError("no activation module ran before the logits")
            if benign.keys() != adversarial.keys() or (change and benign.keys() != change.keys()):
                raise UsageError("its layers are not called equally often for every input")
            for layer, values in benign.items():
                change.setdefault(layer, []).append(neurons.change(values, adversarial[layer]).cpu())
                size.setdefault(layer, []).append(values.abs().flatten(1).mean(1, dtype=torch.float64).cpu())
        joined = {layer: torch.cat(rows) for layer, rows in change.items()}
        sizes = {layer: torch.cat(rows) for layer, rows in size.items()}
        for layer in joined:
            if not (torch.isfinite(joined[layer]).all() and torch.isfinite(sizes[layer]).all()):
                raise UsageError(f"layer {layer!r} puts out values that are not finite")
        return joined, sizes

    def _restored(self, layer: str, sigma: NDArray[np.float64], fooled: NDArray[np.bool_]) -> Columns:
        """By choice, for each judged sample (n,): the share of the sets with which it is right again."""
        judged = torch.from_numpy(fooled & (np.arange(self.count) % 2 == 1))
        found: dict[str, list[Tensor]] = {choice: [] for choice in CHOICES}
        if not judged.any():
            return {choice: np.zeros(0) for choice in CHOICES}
        sets = _sets({layer: torch.from_numpy(sigma)}, self.settings)
        pairs = self._made()
        for (x, x_adv, y), here in zip(pairs, torch.split(judged, [len(y) for _, _, y in pairs]), strict=True):
            here = here.to(x.device)
            if not here.any():
                continue
            with frozen(self.model), torch.no_grad(), neurons.recorded(self.model, (layer,)) as benign:
                self.model(x[here])
            for choice, drawn in sets.items():
                hits = []
                for chosen in drawn:
                    with neurons.patched(self.model, benign, chosen):
                        hits.append((predict(self.model, x_adv[here])[0] == y[here]).cpu())
                found[choice].append(torch.stack(hits).double().mean(0))
        return {choice: torch.cat(rows).numpy() for choice, rows in found.items()}


def _sets(sigma: Mapping[str, Tensor], settings: Probing) -> dict[str, list[dict[str, Tensor]]]:
    """By choice, the neurons of all layers: one set, or as many as are drawn."""
    most, least = (neurons.select(sigma, settings.share, which=which) for which in ("most", "least"))
    drawn = [neurons.select(sigma, settings.share, which="random", seed=seed) for seed in range(settings.draws)]
    return {"most": [most], "random": drawn, "least": [least]}


def _refused(why: str) -> dict[str, Any]:
    return {"refused": why, "fooled": None, "judged": None, "layers": []}


def _layer(name: str, place: int, moved: Columns, held: Columns, share: float) -> dict[str, Any]:
    """What the columns of one layer say, with intervals."""
    sigma, change, size = (moved[f"{of}_{place}"] for of in ("sigma", "change", "size"))
    judged = len(held["most"]) > 0
    order = np.argsort(-sigma, kind="stable")[:_NAMED].tolist()
    return {
        "name": name,
        "neurons": len(sigma),
        "held": len(neurons.select({name: torch.from_numpy(sigma)}, share)[name]),
        "change": mean(change).plain(),
        "relative": _ratio(change, size),
        "most": [{"neuron": i, "sensitivity": float(sigma[i])} for i in order],
        "restored": {choice: _share(held[choice]) for choice in CHOICES} if judged else None,
        "gain": _gain(held["most"], held["random"]) if judged else None,
    }


def _gain(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, Any]:
    """The mean difference of paired shares (n,) with its interval, within what it can be."""
    found = mean_difference(first, second)
    return {"value": found.value, "low": max(-1.0, found.low), "high": min(1.0, found.high), "count": len(first)}


def _share(values: NDArray[np.float64]) -> dict[str, Any]:
    """The mean of shares (n,) with Wilson's interval, as wide as if each were one yes or no."""
    share = wilson(round(float(values.sum())), len(values))
    value = float(values.mean())
    return {**share.plain(), "value": value, "low": min(value, share.low), "high": max(value, share.high)}


def _ratio(change: NDArray[np.float64], size: NDArray[np.float64]) -> dict[str, Any] | None:
    """The mean change over the mean size, with the interval of its linearization; None for a layer that is silent."""
    if not size.mean() > 0:
        return None
    found = mean(ratio_values(change, size))
    return {**found.plain(), "low": max(0.0, found.low)}
