"""Every registered method called once on a model, with settings that make it quick, for models of all kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import steadygrad as sg
from attacks.cheap import CHEAP, cheap
from steadygrad.attacks import ATTACKS, FGSM, PGD, RandomNoise
from steadygrad.attacks.expectation import is_deterministic
from steadygrad.attacks.maps.attribution_attacks import ATTRIBUTION_ATTACKS
from steadygrad.attributions import ATTRIBUTIONS, IntegratedGradients, Saliency, faithfulness
from steadygrad.bounds import BOUNDS, LinearizedDeviation
from steadygrad.defenses import DEFENSES, Plain, State
from steadygrad.measuring.measure import MEASURES
from steadygrad.measuring.measures.noise import boundary_distance, noise_insensitivity
from steadygrad.measuring.runner import Runner
from steadygrad.threat import Threat

EPS = {"linf": 0.1, "l2": 0.3, "l1": 0.6, "l0": 2.0}
CLASSES = 3
LAYER = "net.1"  # of the network inside `Inside`
Call = Callable[[nn.Module, Tensor, Tensor], Any]
SETTINGS: dict[str, Any] = {
    **CHEAP,
    "attack": FGSM(),
    "attribution": Saliency(),
    "bound": LinearizedDeviation(),
    "threat": sg.linf(0.1),
    "eps": 0.1,
    "weight": 0.5,
    "noise_draws": 2,
    "grid": (0.5, 1.0),
    "attacks": (ATTRIBUTION_ATTACKS["attribution_noise"].method(draws=2),),
    "attributions": (Saliency(),),
    "classes": CLASSES,
    "radii": (0.0, 0.1),
    "parts": (Plain(),),
    "layer": LAYER,
    "layers": (LAYER,),
    "neuron": 0,
    "saliency": Saliency(),
    "sigma": 0.1,
    "smoothing": sg.RandomizedSmoothing(0.1, n0=5, n=20),
    "units": 16,
}


class Inside(nn.Module):
    """A module that keeps a network in `.net` and returns what it returns."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


def made(method: type, **other: Any) -> Any:
    """The method with those of the settings that it has and that are not as they should be by default."""
    settings, fields = {**SETTINGS, **other}, dataclasses.fields(method)
    keep = {"attack", "layers", "classes", "parts"}
    chosen = {
        field.name: settings[field.name]
        for field in fields
        if field.init
        and field.name in settings
        and (
            field.default is dataclasses.MISSING
            or (field.name in CHEAP or field.name in keep or field.name in ("noise_draws", "units", "saliency"))
        )
    }
    if method.__name__ == "Rho2":
        del chosen["attack"]
    return method(**chosen)


READ_LAYERS = (
    *("bound certified", "bound margin", "defense certified_training"),
    *("measure certified_margins", "measure certified_radius"),
)
"""Calls that read the layers of a model, for which not all layers will do."""


def of_attacks() -> Iterator[tuple[str, Call]]:
    for row in ATTACKS:
        for norm in row.norms:
            attack, threat = cheap(row.name), Threat(norm, EPS[norm])
            yield f"attack {row.name} {norm}", lambda m, x, y, a=attack, t=threat: a(m, x, y, t)
            yield f"perturb {row.name} {norm}", lambda m, x, y, a=attack, t=threat: a.perturb(m, x, y, t)
    universal = ATTACKS["universal"].method(steps=2)
    yield "universal fit", lambda m, x, y: universal.fit(m, x, y, sg.linf(0.1))
    yield "universal fit to a class", lambda m, x, y: universal.fit(m, x, y, sg.linf(0.1), target=torch.zeros_like(y))


def of_attributions() -> Iterator[tuple[str, Call]]:
    for row in ATTRIBUTIONS:
        method = made(row.method)
        yield f"attribution {row.name}", lambda m, x, y, a=method: a(m, x, y)
        if row.order:
            yield f"attribution with a graph {row.name}", lambda m, x, y, a=method: a(m, x, y, create_graph=True)
    integrated = IntegratedGradients(steps=3)
    yield "completeness", lambda m, x, y: integrated.delta(m, x, y, torch.zeros_like(x))
    yield "deletion", lambda m, x, y: faithfulness.deletion(m, x, x, steps=3)
    yield "faithfulness", lambda m, x, y: faithfulness.faithfulness(m, x, steps=3)
    for row in ATTRIBUTION_ATTACKS:
        attack = made(row.method)
        yield f"attack on maps {row.name}", lambda m, x, y, a=attack: a(m, x, y, sg.linf(0.1))
    for row in BOUNDS:
        bound = made(row.method)
        yield f"bound {row.name}", lambda m, x, y, b=bound: b(m, x, y, sg.linf(0.02))


def of_defenses() -> Iterator[tuple[str, Call]]:
    for row in DEFENSES:
        defense = made(row.method, attack=PGD(steps=2, loss="kl" if row.name == "trades" else "ce"))

        def loss(model: nn.Module, x: Tensor, y: Tensor, d: Any = defense) -> Tensor:
            state = State(samples=torch.arange(len(x)), teacher=model)
            state = dataclasses.replace(state, memory=d.remember(0, model, sg.data.from_arrays(x, y, CLASSES), state))
            return d.loss(model, x, y, state).total[None]

        yield f"defense {row.name}", loss


def of_measures() -> Iterator[tuple[str, Call]]:
    for row in MEASURES:
        if row.name in ("map_points", "certified_curve"):
            continue  # takes columns of another table
        measure = made(row.method)

        def table(model: nn.Module, x: Tensor, y: Tensor, measure: Any = measure) -> dict[str, Tensor]:
            data = sg.data.from_arrays(x, y, CLASSES)
            given = {"input": (x * 0.9).numpy()}
            shared = {"sigma": np.arange(12.0), "center": x[0].numpy()}
            runner = Runner({"m": model, "other": model}, data, batch_size=3)
            found = runner.run(measure, "m", beside=("other",), given=given, shared=shared)
            assert found.refused is None, found.refused
            columns = {name: found[name] for name in found.columns if name not in {"sample", *measure.kept}}
            return {name: torch.as_tensor(v) for name, v in columns.items() if v.dtype.kind in "bif"}

        yield f"measure {row.name}", table


def of_the_rest() -> Iterator[tuple[str, Call]]:
    yield "is deterministic", lambda m, x, y: torch.tensor([is_deterministic(m, x)])
    yield "noise insensitivity", lambda m, x, y: noise_insensitivity(m, x, y, 0.1, draws=2)
    yield "distance to the boundary", lambda m, x, y: boundary_distance(m, x, count=2, steps=5)
    yield "neurons", lambda m, x, y: sg.neurons.sensitivity(m, x, x * 0.9, layers=(LAYER,))
    yield "movers", lambda m, x, y: sg.neurons.movers(m, x, x * 0.9, LAYER, 0, count=2).change
    yield "smoothed", lambda m, x, y: Saliency(of="loss")(sg.smooth(m, 10.0), x, y)
    smoothing = sg.RandomizedSmoothing(0.1, draws=3)
    yield "soft vote", lambda m, x, y: Saliency(of="loss")(smoothing(m), x, y)
    yield "noise", lambda m, x, y: RandomNoise(draws=2)(m, x, y, sg.linf(0.3)).distance


CALLS: dict[str, Call] = dict(
    pair for part in (of_attacks, of_attributions, of_defenses, of_measures, of_the_rest) for pair in part()
)
