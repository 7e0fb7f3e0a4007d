"""Running attacks over data and writing down what they did to each sample."""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steadygrad import progress
from steadygrad.attacks import Attack, AttackResult, Standard
from steadygrad.classifier import Classifier, check_inputs, predict
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation.records import Cells, Records
from steadygrad.files import key
from steadygrad.registry import Method, describe
from steadygrad.threat import Threat

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Bench", "evaluate", "label_of", "predict", "weights_key"]

CHUNK = 200
"""Samples per cell: what a killed run loses at most."""


def label_of(method: Method) -> str:
    """A short name that tells methods of one kind apart: the settings that differ from the defaults.

    >>> from steadygrad.attacks import PGD
    >>> label_of(PGD(steps=30, random_start=False, loss="ce"))
    'PGD ce, 30 steps, random_start=False'
    """
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    changed = {f.name: getattr(method, f.name) for f in fields if getattr(method, f.name) != f.default}
    name = " ".join([type(method).__name__, *([str(changed.pop("loss"))] if "loss" in changed else [])])
    return ", ".join([name, *(_setting(key, value) for key, value in changed.items())])


def _setting(key: str, value: Any) -> str:
    # "30 steps" reads as it is said; "loss of" and "False random_start" do not.
    counts = isinstance(value, int) and not isinstance(value, bool) and key.endswith("s")
    return f"{value} {key}" if counts else f"{key}={value}"


def weights_key(model: nn.Module) -> str:
    """A short hash of all tensors of a model, of its layers with their settings, and of how a classifier normalizes."""
    digest = hashlib.sha256()
    tensors = {**model.state_dict(), **dict(model.named_buffers())}  # buffers that are not saved count too
    for name, value in tensors.items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    layers = [(name, type(module).__qualname__, _plain_settings(module)) for name, module in model.named_modules()]
    digest.update(key(layers).encode())
    return digest.hexdigest()[:20]


def _plain_settings(module: nn.Module) -> dict[str, Any]:
    # A model may differ in a slope or a number of levels that no tensor holds.
    incidental = ("training", "name", "architecture")
    return {k: v for k, v in vars(module).items() if not k.startswith("_") and k not in incidental and _is_plain(v)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str)


@functools.cache
def code_key() -> str:
    """A hash of the sources on which a record depends: a change there makes the cells anew."""
    root = Path(__file__).parents[1]
    rooms = ("attacks", "attributions", "bounds", "evaluation", "neurons")
    sources = sorted([*root.glob("*.py"), *(file for room in rooms for file in root.glob(f"{room}/**/*.py"))])
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:20]


@dataclass
class Bench:
    """Where attacks are run: data, seed, device, batch size, and the cells that are done.

    Args:
        data: the samples under attack, in their order.
        cells: finished work; in memory by default.
        batch_size: samples per attack call; results do not depend on it.
    """

    data: Dataset
    cells: Cells = dataclasses.field(default_factory=Cells)
    seed: int = 0
    device: str = "cpu"
    batch_size: int = CHUNK

    def __post_init__(self) -> None:
        if len(self.data) == 0:
            raise UsageError(f"the data set {self.data.name} has no samples to attack")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")

    def run(
        self, model: nn.Module, name: str, attack: Attack, threat: Threat, *, count: int | None = None, label: str = ""
    ) -> Records:
        """Attack the first `count` samples white-box; one record per sample."""
        return self._finish(_WhiteBox(attack, threat, label or label_of(attack), name, model), count)

    def run_transfer(
        self, models: Mapping[str, nn.Module], source: str, attack: Attack, threat: Threat, *, count: int | None = None
    ) -> Records:
        """Judge on all other models the raw points that the attack makes on `models[source]`.

        The points are made once and include those that the source resists; one record per sample
        and judging model.
        """
        return self._finish(_Transfer(attack, threat, label_of(attack), source, models[source], models), count)

    def _finish(self, job: _Job, count: int | None) -> Records:
        count = len(self.data) if count is None else min(count, len(self.data))
        eps = job.threat.eps
        if isinstance(eps, Tensor) and eps.ndim == 1 and len(eps) != len(self.data):
            raise UsageError(f"eps has {len(eps)} entries for {len(self.data)} samples: give one number, or one each")
        parts: list[Records] = []
        base = [job.key(), self.data.fingerprint, self.seed, torch.device(self.device).type, code_key()]
        with progress.task(str(job), count) as advance:
            for start in range(0, count, CHUNK):
                stop = min(start + CHUNK, count)
                compute = functools.partial(self._compute, job, start, stop)
                parts.append(self.cells.get(key(base, start, stop), compute))
                advance(stop - start, note=f"{100 * Records.join(parts).accuracy().value:.1f} % left")
        return Records.join(parts)

    def _compute(self, job: _Job, start: int, stop: int) -> Records:
        import pandas as pd

        described = describe(job.attack)
        rows, place = [], start
        for x, y, ids in self.batches(start, stop):
            part = job.at(place, place + len(x))
            place += len(x)
            rows += [
                pd.DataFrame({"sample": ids, "label": y.tolist(), **columns, "eps": part.radii()})
                for columns in part.columns(x, y, self.seeds(described, ids))
            ]
        frame = pd.concat(rows, ignore_index=True)
        return Records(frame.assign(source=job.source, attack=job.label, norm=job.threat.norm, seed=self.seed))

    def seeds(self, attack: Mapping[str, Any], ids: Sequence[str]) -> Tensor:
        # By the sample's own id: its result is the same in any batch, chunk, order or part of the data.
        return torch.tensor([int(key(self.seed, attack, name), 16) % 2**62 for name in ids])

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[Tensor, Tensor, Sequence[str]]]:
        """Inputs, labels and ids of the samples start..stop, on the device."""
        stop = len(self.data) if stop is None else min(stop, len(self.data))
        for begin in range(start, stop, self.batch_size):
            piece = slice(begin, min(begin + self.batch_size, stop))
            x, y = self.data.batch(piece)
            yield x.to(self.device), y.to(self.device), self.data.ids[piece]


@dataclass(frozen=True)
class _Job(abc.ABC):
    """One attack made on one model."""

    attack: Attack
    threat: Threat
    label: str
    source: str
    model: nn.Module

    def __str__(self) -> str:
        return f"{self.source}: {self.label}, {self.threat}"

    def key(self) -> str:
        """What the result depends on besides the data: weights, names, settings, threat."""
        settings = [describe(self.attack), self.label, str(self.threat._key())]
        return key(self.source, weights_key(self.model), *settings)

    def at(self, start: int, stop: int) -> Self:
        """The same job with the radii of the samples start..stop, if each has its own."""
        eps = self.threat.eps
        if not isinstance(eps, Tensor) or eps.ndim == 0:
            return self
        return dataclasses.replace(self, threat=self.threat.at(eps[start:stop]))

    def radii(self) -> float | list[float]:
        """The radius, or the radii, for the records; NaN for a search for the smallest change."""
        eps = self.threat.eps
        return float("nan") if eps is None else eps.tolist() if isinstance(eps, Tensor) else float(eps)

    @abc.abstractmethod
    def columns(self, x: Tensor, y: Tensor, seeds: Tensor) -> Iterator[dict[str, Any]]:
        """Columns of the records of a batch, for each model that judges it."""


class _WhiteBox(_Job):
    def columns(self, x: Tensor, y: Tensor, seeds: Tensor) -> Iterator[dict[str, Any]]:
        found, broken_by = self._attack(x, y, seeds)
        yield {
            "model": self.source,
            **_predictions(self.model, x, found.inputs, y, self.threat, seeds),
            "success": found.success.tolist(),
            "broken_by": broken_by,
            "distance": found.distance.tolist(),
            "forwards": found.forwards.tolist(),
            "backwards": found.backwards.tolist(),
            "zero_gradient": found.zero_gradient.tolist(),
        }

    def _attack(self, x: Tensor, y: Tensor, seeds: Tensor) -> tuple[AttackResult, list[str]]:
        """What was found, and for each sample who found it."""
        if isinstance(self.attack, Standard) and self.threat.eps is not None:
            found, members = self.attack.by_member(self.model, x, y, self.threat, generator=seeds)
            names = [*(name for name, _ in self.attack.members()), ""]
            return found, [names[number] for number in members.tolist()]
        found = self.attack(self.model, x, y, self.threat, generator=seeds)
        fell = (found.success & (found.distance > 0)).tolist()
        return found, [label_of(self.attack) if f else "" for f in fell]


@dataclass(frozen=True)
class _Transfer(_Job):
    models: Mapping[str, nn.Module]

    def __str__(self) -> str:
        return f"{self.source} → others: {self.label}, {self.threat}"

    def key(self) -> str:
        return key(super().key(), {name: weights_key(model) for name, model in self.models.items()})

    def columns(self, x: Tensor, y: Tensor, seeds: Tensor) -> Iterator[dict[str, Any]]:
        points = self.attack.perturb(self.model, x, y, self.threat, generator=seeds)
        allowed = self.threat.allows(x, points)
        for name, model in self.models.items():
            if name == self.source:
                continue
            columns = _predictions(model, x, points, y, self.threat, seeds)
            wrong = torch.tensor(columns["prediction"], device=y.device) != y
            mistake = torch.tensor(columns["clean_prediction"], device=y.device) != y
            success = (wrong & allowed) | mistake
            distance = torch.where(mistake, 0.0, self.threat.distance(points - x))
            yield {
                "model": name,
                **columns,
                "success": success.tolist(),
                "broken_by": [label_of(self.attack) if f else "" for f in (success & ~mistake).tolist()],
                "distance": torch.where(success, distance, torch.inf).tolist(),
                # The passes were spent on another model.
                "forwards": 0,
                "backwards": 0,
                "zero_gradient": False,
            }


def _predictions(
    model: nn.Module, x: Tensor, points: Tensor, y: Tensor, threat: Threat, seeds: Tensor
) -> dict[str, list[Any]]:
    clean, found, rounded = (predict(model, inputs, seeds) for inputs in (x, points, _rounded(points, threat)))
    return {
        "clean_prediction": clean[0].tolist(),
        "clean_confidence": clean[1].tolist(),
        "prediction": found[0].tolist(),
        "confidence": found[1].tolist(),
        "rounded_success": (rounded[0] != y).tolist(),
    }


def _rounded(x: Tensor, threat: Threat) -> Tensor:
    low, high = threat.bounds
    return low + (high - low) * ((x - low) / (high - low) * 255).round() / 255


def evaluate(
    model: nn.Module,
    data: Dataset,
    attacks: Attack | Sequence[Attack],
    threat: Threat,
    *,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = CHUNK,
) -> Records:
    """Attack a data set and return one record per sample and attack.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> sg.evaluation.robust_accuracy(sg.evaluate(model, data, sg.attacks.FGSM(), sg.linf(0.1))).count
    20
    """
    attacks = [attacks] if isinstance(attacks, Attack) else list(attacks)
    if not attacks:
        raise UsageError("attacks is empty: give at least one, e.g. sg.attacks.PGD()")
    bench = Bench(data, seed=seed, device=device, batch_size=batch_size)
    x, y = data.batch(slice(0, 1))
    check_inputs(x, y, threat.bounds)
    model.to(device)
    name = model.name if isinstance(model, Classifier) else type(model).__name__
    return Records.join(bench.run(model, name, attack, threat) for attack in attacks)
