"""What an attack makes of one input at a radius, for each model: from the tables of the run, or computed now."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.attacks import Attack, Universal
from steadygrad.attacks.expectation import draws_of
from steadygrad.attributions.pixels import map_planes
from steadygrad.classifier import predict
from steadygrad.errors import UsageError, one_of
from steadygrad.explore.latest import Latest, ended
from steadygrad.explore.opened import Opened, Radii
from steadygrad.explore.uploads import Uploads
from steadygrad.files import key
from steadygrad.measuring.measure import settings_of
from steadygrad.measuring.runner import borrowed
from steadygrad.registry import label_of
from steadygrad.report.png import Array

STEPS = 40
"""Of the slider, from no change to twice the radius of the audit; a multiple of those of the tables."""
_REMEMBERED = 1_000
_TOGETHER, _QUICK = 4, 0.3
"""Steps that are computed together, of a model of which one takes at most so many seconds."""


@dataclass(frozen=True)
class Image:
    """An input (C, H, W), its label if it has one, and the name that its seeds follow from."""

    x: Tensor
    name: str
    label: int | None = None


@dataclass(frozen=True)
class Reached:
    """Where an attack ended: an input (C, H, W), the prediction with its confidence, and maps (H, W) by attribution.

    `before` is the same without a change, or None where this is it; `tables` says that the tables of the run hold it.
    """

    inputs: Array
    prediction: int
    confidence: float
    maps: dict[str, Array]
    before: Reached | None = None
    tables: bool = False


class Live:
    """Answers for one run, one at a time and the latest first; what was computed is remembered for a while."""

    def __init__(self, run: Opened, device: str | None = None) -> None:
        self.run, self.device = run, device
        self.uploads, self.latest = Uploads(run.data), Latest()
        self.attacks, self._gallery = run.attacks(), run.gallery()
        self.places = {name: place for place, name in enumerate(run.data.ids)}
        self.attributions = run.plan.attributions if run.plan.maps else ()
        self._known: OrderedDict[tuple[str, str, str, int], Reached] = OrderedDict()
        self._quick: dict[tuple[str, str], bool] = {}
        self._turn = threading.Lock()

    def radius(self, step: int) -> float:
        """That of a step of the slider."""
        return 2 * self.run.plan.eps * step / STEPS

    def image(self, name: str) -> Image:
        """A sample of the run by its id, or a picture that was brought.

        Raises:
            KeyError: there is none of that name.
        """
        if (place := self.places.get(name)) is None:
            return Image(self.uploads[name], name)
        x, y = self.run.data.batch([place])
        return Image(x[0], name, int(y[0]))

    def radii(self, model: str, image: str) -> Radii:
        """What the audit knows of a sample."""
        return self.run.radii.get(model, {}).get(image, Radii())

    def reached(self, name: str, attack: str, step: int, superseded: Callable[[], bool]) -> dict[str, Reached]:
        """Where an attack ends at a step of the slider, by model.

        Raises:
            KeyError: there is no image of that name.
            UsageError: no such attack or step, or the attack cannot be made.
            Superseded: a later request came.
        """
        one_of("attack", attack, self.attacks)
        if not 0 <= step <= STEPS:
            raise UsageError(f"step must be from 0 to {STEPS}, got {step}")
        image, found = self.image(name), {}
        for model in self.run.models:
            known = self._remembered(model, image, attack, step)
            if known is None:
                with self.latest.working(superseded):
                    known = self._computed(model, image, attack, step, superseded)
            found[model] = known
        return found

    def _remembered(self, model: str, image: Image, attack: str, step: int) -> Reached | None:
        where = (model, image.name, attack if step else "", step)
        with self._turn:
            if where in self._known:
                self._known.move_to_end(where)
                return self._known[where]
        found = self._in_tables(model, image, attack, step)
        return None if found is None else self._kept(where, found)

    def _kept(self, where: tuple[str, str, str, int], found: Reached) -> Reached:
        with self._turn:
            self._known[where] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _in_tables(self, model: str, image: Image, attack: str, step: int) -> Reached | None:
        """What the gallery of the run holds of it."""
        place, row = self._gallery.get(model, {}).get(image.name, (0, None))
        if row is None or (step and attack != self.run.lead(model)):
            return None
        index, arrays = list(self.run.models).index(model), self.run.arrays
        labels = self.run.found.summary["gallery"]["attributions"]
        maps = {n: f"{index}_{i}" for i, n in enumerate(labels) if f"map_clean_{index}_{i}" in arrays}
        classes = self.run.data.classes
        before = Reached(
            arrays[f"clean_{index}"][place], classes.index(row["clean_prediction"]), row["clean_confidence"],
            {name: arrays[f"map_clean_{kind}"][place] for name, kind in maps.items()}, tables=True,
        )  # fmt: skip
        if not step:
            return before
        for r, known in enumerate(row["steps"]):
            if math.isclose(known["eps"], self.radius(step)) and known["prediction"] in classes:
                return Reached(
                    arrays[f"along_{index}"][place, r], classes.index(known["prediction"]), known["confidence"],
                    {name: arrays[f"along_map_{kind}"][place, r] for name, kind in maps.items()}, before, True,
                )  # fmt: skip
        return None

    def _computed(self, model: str, image: Image, attack: str, step: int, superseded: Callable[[], bool]) -> Reached:
        found = self._remembered(model, image, attack, step)  # it may have come in the meantime
        if found is not None:
            return found
        module, method = self.run.models[model], self.attacks[attack]
        with borrowed([module], self.device) as where, ended(module, superseded):
            x = image.x[None].to(where)
            before = self._remembered(model, image, attack, 0)
            if before is None:
                (before,) = self._judged(model, x, x, self._seeds(next(iter(self.attacks.values())), image))
                self._kept((model, image.name, "", 0), before)
            if not step:
                return before
            steps, began = self._with_neighbors(model, image, attack, step), time.perf_counter()
            y = torch.tensor([before.prediction if image.label is None else image.label], device=where)
            threat, seeds, size = self.run.plan.threat, self._seeds(method, image), len(steps)
            radii = torch.tensor([self.radius(s) for s in steps], dtype=torch.float64, device=where)
            given = x.expand(size, *x.shape[1:]), y.expand(size), threat.at(radii if size > 1 else self.radius(step))
            points = method.perturb(module, *given, generator=seeds.expand(size))
            reached = self._judged(model, x, points, seeds.expand(size), before)
        self._quick[model, attack] = time.perf_counter() - began < _QUICK * size
        for at, found in zip(steps, reached, strict=True):
            self._kept((model, image.name, attack, at), found)
        return reached[steps.index(step)]

    def _with_neighbors(self, model: str, image: Image, attack: str, step: int) -> list[int]:
        """A step, and the nearest ones that nothing is known of: of a quick model a few cost little more than one."""
        method = self.attacks[attack]
        if (
            not self._quick.get((model, attack))
            or draws_of(self.run.models[model]) > 1
            or isinstance(method, Universal)
        ):
            return [step]
        others = sorted(set(range(1, STEPS + 1)) - {step}, key=lambda other: abs(other - step))
        new = (other for other in others if self._remembered(model, image, attack, other) is None)
        return [step, *itertools.islice(new, _TOGETHER - 1)]

    def _seeds(self, attack: Attack, image: Image) -> Tensor:
        """Those of the tables: what is computed here for a sample of the run is what they would hold."""
        return torch.tensor([int(key(self.run.plan.seed, settings_of(attack), image.name), 16) % 2**62])

    def _judged(
        self, model: str, x: Tensor, points: Tensor, seeds: Tensor, before: Reached | None = None
    ) -> list[Reached]:
        """Each of the points (S, *) that were made of one input (1, *)."""
        module = self.run.models[model]
        prediction, confidence = predict(module, points, seeds)
        target = prediction if before is None else torch.full_like(prediction, before.prediction)
        maps: dict[str, Array] = {}
        for attribution in self.attributions if self.run.gradients[model] else ():
            maps[label_of(attribution)] = map_planes(attribution(module, points, target), x).cpu().double().numpy()
        inputs = points.detach().cpu().double().numpy()
        return [
            Reached(inputs[s], int(prediction[s]), float(confidence[s]), {n: m[s] for n, m in maps.items()}, before)
            for s in range(len(points))
        ]
