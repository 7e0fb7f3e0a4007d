"""Is a robustness number worth believing? Checks that a masked gradient or a weak attack fails.

Each check says what was measured and what would be acceptable; one failed check turns the headline
into "not trustworthy, because ...". The list follows Carlini et al. 2019, "On evaluating adversarial
robustness", arXiv 1902.06705, and Athalye et al. 2018, arXiv 1802.00420.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from steadygrad.attacks import FGSM, PGD, Attack, RandomNoise, Square
from steadygrad.attacks.expectation import expected
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation.planted import finds_planted
from steadygrad.evaluation.records import Cells, Records
from steadygrad.evaluation.robustness import Bench
from steadygrad.evaluation.steadiness import deterministic, no_derivatives, steady
from steadygrad.evaluation.verdict import Check, Verdict, share_check, verdict
from steadygrad.registry import label_of
from steadygrad.threat import Threat

__all__ = ["Scaled", "checked", "validity"]

_QUERIES = 300


class Scaled(nn.Module):
    """A model with its logits multiplied by a constant: the same predictions, other probabilities."""

    same_inputs = True

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x) * self.factor
        return logits


def validity(
    model: nn.Module,
    data: Dataset,
    attack: Attack,
    threat: Threat,
    *,
    count: int = 300,
    name: str = "model",
    cells: Cells | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Verdict:
    """Run all checks for the accuracy of a model under an attack, on the first `count` samples.

    A model that answers the same inputs differently is checked, and attacked, as its mean over 16 draws.

    Args:
        threat: with a finite radius; its double, its half and the whole input range are tried too.

    Raises:
        UsageError: the threat has no radius.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> len(sg.evaluation.validity(model, data, sg.attacks.PGD(steps=5), sg.linf(0.1)).checks)
    13
    """
    bench = Bench(data, cells or Cells(), seed, device)
    x, _, _ = next(iter(bench.batches(0, 2)))
    return checked(bench, expected(model.to(device), x), name, attack, threat, count)


def checked(
    bench: Bench,
    model: nn.Module,
    name: str,
    attack: Attack,
    threat: Threat,
    count: int,
    fallen: Collection[str] = (),
) -> Verdict:
    """All checks on the first `count` samples of a bench; what it has run already is used.

    `fallen` are the ids of samples that other attacks broke as well: a longer attack that breaks
    them too shows nothing about the worst case.
    """
    if threat.eps is None or isinstance(threat.eps, Tensor):
        raise UsageError("the checks need a threat with one radius for all samples, e.g. sg.linf(0.1)")
    checks = _Checks(bench, model, name, attack, threat, float(threat.eps), min(count, len(bench.data)), fallen)
    return verdict(checks.all())


@dataclass
class _Checks:
    bench: Bench
    model: nn.Module
    name: str
    attack: Attack
    threat: Threat
    eps: float
    count: int
    fallen: Collection[str]

    def __post_init__(self) -> None:
        self.base = self._run()
        self.accuracy = self.base.accuracy().value

    def _run(
        self, *, attack: Attack | None = None, eps: float | None = None, model: nn.Module | None = None, why: str = ""
    ) -> Records:
        attack = attack or self.attack
        threat = self.threat.at(self.eps if eps is None else eps)
        label = f"{label_of(attack)}{f' ({why})' if why else ''}"
        return self.bench.run(model or self.model, self.name, attack, threat, label=label, count=self.count)

    def all(self) -> list[Check]:
        return [
            deterministic(self.bench, self.model, self.count),
            self.scale(),
            self.zero_gradient(),
            self.single_step(),
            self.monotone(),
            self.unbounded(),
            self.more_steps(),
            self.noise(),
            self.square(),
            finds_planted(self.bench, self.model, self.name, self.attack, self.threat, self.count),
            self.batch_size(),
            steady(self.bench, self.model, self.threat.bounds, self.count),
            no_derivatives(self.bench, self.model),
        ]

    def scale(self) -> Check:
        moved = max(
            (
                self._run(model=Scaled(self.model, factor), why=f"logits x {factor:g}").accuracy().value - self.accuracy
                for factor in (0.01, 100.0)
            ),
            key=abs,
        )
        text = f"multiplying the logits by 0.01 and 100 moves the accuracy by {_points(abs(moved))}"
        return share_check("scale of the logits", round(abs(moved) * self.count), self.count, text)

    def zero_gradient(self) -> Check:
        # A sample that fell is settled; one that stood must not have stood for want of a gradient.
        stood = self.base.frame[~self.base.frame["success"]]
        hits = int(stood["zero_gradient"].sum())
        text = f"{self._percent(hits)} of the samples count as robust while their gradient was exactly zero"
        return share_check("gradient there", hits, self.count, text)

    def single_step(self) -> Check:
        name = "iterations help"
        if self.threat.norm not in PGD.norms:
            return Check(name, None, None, "", f"no gradient steps under {self.threat.norm}")
        loss: Any = getattr(self.attack, "loss", None)
        loss = loss if loss in ("margin", "dlr", "ce") else "soft"
        # A single step, or mere noise, must not pass for the worst case either.
        iterates = hasattr(self.attack, "steps")
        rival = FGSM(loss=loss) if iterates else PGD(loss=loss)
        hits = self._missed_by_me(self._run(attack=rival))
        text = f"{'a single step' if iterates else 'an iterated attack'} breaks {self._percent(hits)} of the samples, "
        return share_check(name, hits, self.count, f"{text}which the attack leaves standing")

    def monotone(self) -> Check:
        half, double = (self._run(eps=self.eps * f, why=f"eps x {f:g}") for f in (0.5, 2.0))
        mine = self.base.frame["success"].to_numpy()
        lost = max(self._missed_by_me(half), int((mine & ~double.frame["success"].to_numpy()).sum()))
        left = ", ".join(f"{100 * a:.1f}" for a in (half.accuracy().value, self.accuracy, double.accuracy().value))
        text = f"half, once and twice the radius leave {left} %, and more room saves {self._percent(lost)}"
        return share_check("monotone in eps", lost, self.count, text)

    def unbounded(self) -> Check:
        x, _, _ = next(iter(self.bench.batches(0, 1)))
        largest = float(self.threat.largest(x)[0])
        left = self._run(eps=largest, why="whole range").accuracy().value
        chance = 1 / max(2, len(self.bench.data.classes))
        return Check(
            "unbounded attack wins",
            left <= chance,
            left,
            f"at most chance ({100 * chance:.1f} %)",
            f"an attack that may change everything leaves {100 * left:.1f} %",
        )

    def more_steps(self) -> Check:
        steps, restarts = (getattr(self.attack, setting, None) for setting in ("steps", "restarts"))
        if steps is None:
            return Check("steps suffice", None, None, "", "the attack has no steps")
        # A restart may have its own rival class, so that more steps do not stand in for more restarts.
        more = {"steps": 2 * steps} | ({} if restarts is None else {"restarts": 2 * restarts})
        why = "twice the steps" if restarts is None else "twice the steps and restarts"
        hits = self._also_broken(dataclasses.replace(self.attack, **more), why)
        return share_check("steps suffice", hits, self.count, f"{why} take {self._percent(hits)} more")

    def noise(self) -> Check:
        hits = self._missed_by_me(self._run(attack=RandomNoise()))
        text = f"random noise breaks {self._percent(hits)} of the samples, which the attack leaves standing"
        return share_check("beats random noise", hits, self.count, text)

    def square(self) -> Check:
        name = "beats a blind search"
        if self.threat.norm not in Square.norms:
            return Check(name, None, None, "", f"no blind search under {self.threat.norm}")
        hits = self._also_broken(Square(queries=_QUERIES), "check")
        text = f"{_QUERIES} blind queries (Square) break {self._percent(hits)} of the samples, which the attacks miss"
        return share_check(name, hits, self.count, text)

    def batch_size(self) -> Check:
        other = dataclasses.replace(self.bench, batch_size=max(1, min(self.bench.batch_size, self.count) // 3 + 1))
        label = f"{label_of(self.attack)} (another batch size)"
        again = other.run(self.model, self.name, self.attack, self.threat, label=label, count=self.count)
        hits = int((again.frame["success"].to_numpy() != self.base.frame["success"].to_numpy()).sum())
        text = f"in another batch size {self._percent(hits)} of the samples end differently"
        return share_check("batch size does not matter", hits, self.count, text)

    def _also_broken(self, attack: Attack, why: str) -> int:
        """How many samples an attack breaks of those that neither the checked one nor another of the suite broke."""
        mine = self.base.frame
        standing = ~mine["success"] & ~mine["sample"].isin(list(self.fallen))
        rows = standing.to_numpy().nonzero()[0].tolist()
        if not rows:
            return 0
        some = dataclasses.replace(self.bench, data=self.bench.data.select(rows))
        found = some.run(self.model, self.name, attack, self.threat, label=f"{label_of(attack)} ({why})")
        return int(found.frame["success"].sum())

    def _missed_by_me(self, other: Records) -> int:
        return int((other.frame["success"].to_numpy() & ~self.base.frame["success"].to_numpy()).sum())

    def _percent(self, hits: int) -> str:
        return f"{100 * hits / self.count:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
