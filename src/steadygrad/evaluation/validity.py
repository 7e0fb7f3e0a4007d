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

from steadygrad.attacks import FGSM, PGD, Attack, RandomNoise
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation.records import Cells, Records
from steadygrad.evaluation.robustness import Bench, label_of
from steadygrad.threat import Threat

__all__ = ["Check", "Verdict", "attack_verdict", "validity", "verdict"]

POINT = 0.01
"""One point of accuracy: what a number may move before it counts as moved."""


@dataclass(frozen=True)
class Check:
    """One check: `passed` is None where it does not apply; `value` is what was measured."""

    name: str
    passed: bool | None
    value: float | None
    limit: str
    text: str

    def plain(self) -> dict[str, Any]:
        """The check as plain data for `summary.json`."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Whether a number may be believed, in one sentence, with the checks behind it.

    >>> verdict([Check("noise", False, 0.2, "< 1 %", "noise breaks what the attack does not")]).text
    'not trustworthy, because noise breaks what the attack does not'
    """

    trustworthy: bool
    text: str
    checks: tuple[Check, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The verdict as plain data for `summary.json`."""
        return {"trustworthy": self.trustworthy, "text": self.text, "checks": [c.plain() for c in self.checks]}


def verdict(checks: list[Check]) -> Verdict:
    """The verdict that follows from the checks: all applicable ones must pass."""
    failed = [c.text for c in checks if c.passed is False]
    text = f"not trustworthy, because {'; '.join(failed)}" if failed else "trustworthy"
    return Verdict(not failed, text, tuple(checks))


class Scaled(nn.Module):
    """A model with its logits multiplied by a constant: the same predictions, other probabilities."""

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

    Args:
        threat: with a finite radius; its double, its half and the whole input range are tried too.

    Raises:
        UsageError: the threat has no radius.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> len(sg.evaluation.validity(model, data, sg.attacks.PGD(steps=5), sg.linf(0.1)).checks)
    8
    """
    bench = Bench(data, cells or Cells(), seed, device)
    return checked(bench, model, name, attack, threat, count)


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
            self.scale(),
            self.zero_gradient(),
            self.single_step(),
            self.monotone(),
            self.unbounded(),
            self.more_steps(),
            self.noise(),
            self.batch_size(),
        ]

    def scale(self) -> Check:
        moved = 0.0
        for factor in (0.01, 100.0):
            scaled = self._run(model=Scaled(self.model, factor), why=f"logits x {factor:g}").accuracy().value
            moved = max(moved, abs(scaled - self.accuracy))
        return Check(
            "scale of the logits",
            moved < POINT,
            moved,
            "moves by less than 1 point",
            f"multiplying the logits by 0.01 and 100 moves the accuracy by {_points(moved)}",
        )

    def zero_gradient(self) -> Check:
        # A sample that fell is settled; one that stood must not have stood for want of a gradient.
        stood = self.base.frame[~self.base.frame["success"]]
        share = float(stood["zero_gradient"].sum()) / len(self.base)
        return Check(
            "gradient there",
            share < POINT,
            share,
            "less than 1 % of the samples stand with a zero gradient",
            f"{100 * share:.1f} % of the samples count as robust while their gradient was exactly zero",
        )

    def single_step(self) -> Check:
        if self.threat.norm not in PGD.norms:
            return Check("iterations help", None, None, "", f"no gradient steps under {self.threat.norm}")
        loss: Any = getattr(self.attack, "loss", None)
        loss = loss if loss in ("margin", "dlr", "ce") else "soft"
        if not hasattr(self.attack, "steps"):
            # A single step, or mere noise, must not pass for the worst case either.
            iterated = self._run(attack=PGD(loss=loss)).accuracy().value
            excess = self.accuracy - iterated
            text = f"an iterated attack leaves {100 * iterated:.1f} % and this one {100 * self.accuracy:.1f} %"
            return Check("iterations help", excess < POINT, excess, "an iterated attack is not stronger", text)
        single = self._run(attack=FGSM(loss=loss)).accuracy().value
        excess = self.accuracy - single
        text = f"a single step leaves {100 * single:.1f} % and the iterated attack {100 * self.accuracy:.1f} %"
        return Check("iterations help", excess < POINT, excess, "a single step is not stronger", text)

    def monotone(self) -> Check:
        half, double = (self._run(eps=self.eps * f, why=f"eps x {f:g}").accuracy().value for f in (0.5, 2.0))
        excess = max(self.accuracy - half, double - self.accuracy)
        left = ", ".join(f"{100 * a:.1f}" for a in (half, self.accuracy, double))
        return Check(
            "monotone in eps",
            excess < POINT,
            excess,
            "a larger radius never leaves more",
            f"half, once and twice the radius leave {left} %",
        )

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
        steps = getattr(self.attack, "steps", None)
        if steps is None:
            return Check("steps suffice", None, None, "", "the attack has no steps")
        longer = dataclasses.replace(self.attack, steps=2 * steps)  # type: ignore[call-arg]
        again = self._run(attack=longer, why="twice the steps").frame
        stood = ~self.base.frame["success"] & ~self.base.frame["sample"].isin(self.fallen)
        gain = float((again["success"].to_numpy() & stood.to_numpy()).mean())
        return Check(
            "steps suffice",
            gain < POINT,
            gain,
            "twice the steps take less than 1 point more",
            f"twice the steps take {_points(gain)} more",
        )

    def noise(self) -> Check:
        noisy = self._run(attack=RandomNoise()).frame.set_index("sample")["success"]
        mine = self.base.frame.set_index("sample")["success"]
        share = float((noisy & ~mine).mean())
        return Check(
            "beats random noise",
            share < POINT,
            share,
            "noise breaks less than 1 % of what the attack leaves",
            f"random noise breaks {100 * share:.1f} % of the samples, which the attack leaves standing",
        )

    def batch_size(self) -> Check:
        other = dataclasses.replace(self.bench, batch_size=max(1, min(self.bench.batch_size, self.count) // 3 + 1))
        label = f"{label_of(self.attack)} (another batch size)"
        again = other.run(self.model, self.name, self.attack, self.threat, label=label, count=self.count)
        differing = float((again.frame["success"].to_numpy() != self.base.frame["success"].to_numpy()).mean())
        return Check(
            "batch size does not matter",
            differing < POINT,
            differing,
            "less than 1 % of the samples differ",
            f"in another batch size {100 * differing:.1f} % of the samples end differently",
        )


def attack_verdict(records: Records, worst: float, iterative: bool) -> Verdict:
    """Whether the number of one attack of a suite may be believed by itself.

    It may not if samples stood for want of a gradient, or if an iterated attack leaves over five
    points more than the worst case: its gradients are masked.
    """
    frame = records.frame
    accuracy = records.accuracy().value
    stood = float((frame["zero_gradient"] & ~frame["success"]).mean())
    if stood >= POINT:
        return Verdict(False, f"not trustworthy, because {100 * stood:.1f} % stand with a zero gradient")
    if iterative and accuracy - worst > 5 * POINT:
        return Verdict(False, f"not trustworthy, because other attacks leave {_points(accuracy - worst)} less")
    return Verdict(True, "upper bound" if accuracy > worst else "equals the worst case")


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
