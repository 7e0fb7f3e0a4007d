"""Checks that a masked gradient or a weak attack fails.

Each check says what was measured and what would be acceptable; one failed check turns the headline
into "number refuted, because ...". The list follows Carlini et al. 2019, "On evaluating adversarial
robustness", arXiv 1902.06705, and Athalye et al. 2018, arXiv 1802.00420.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from steadygrad.arguments import public
from steadygrad.attacks import FGSM, PGD, Attack, RandomNoise, Square
from steadygrad.attacks.expectation import DRAWS, draws_of
from steadygrad.audit.answers import unanswered
from steadygrad.audit.audited_models import fitting
from steadygrad.audit.checks.verdict import Check, Verdict, share_check, verdict
from steadygrad.audit.records import accuracy
from steadygrad.data.python_data import Samples
from steadygrad.errors import UsageError
from steadygrad.files import key
from steadygrad.kinds import Device
from steadygrad.measuring.measure import settings_of
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.behavior import DerivativesTaken, NoiseTurned, Repeated
from steadygrad.measuring.measures.planted import PlantedFound
from steadygrad.measuring.runner import Runner, Tables
from steadygrad.measuring.table import Table
from steadygrad.registry import label_of
from steadygrad.threat import Threat, check_radius
from steadygrad.values import Count, Seed

_QUERIES = 300
_PLANTED = 100
_MISSES = 0.05
_FIRST = 100
"""Samples, or a third of all if that is more, that a check with an attack looks at first."""


@dataclass(frozen=True)
class Subject:
    """A model whose number is checked.

    Attributes:
        model: its name in the tables.
        draws: over which its predictions are averaged; 1 for a deterministic model.
        attack: whose number is checked.
        threat: with one radius; its double, its half and the whole input range are tried too.
        base: the table of the attack, of the samples on which the checks run.
        rows: their places in the data.
        shape: of a sample.
        fallen: ids of samples that other attacks broke as well: a longer attack that breaks them too
            shows nothing about the worst case.
        gradients: whether the model gives any.
        known: tables of all samples that are there already, by the key of their measure.
        first: how many of the rows are measured apart, before the others.
    """

    tables: Tables
    model: str
    draws: int
    attack: Attack
    threat: Threat
    base: Table
    rows: tuple[int, ...]
    classes: int
    shape: tuple[int, ...]
    fallen: Collection[str] = ()
    gradients: bool = True
    known: Mapping[str, Table] = field(default_factory=dict)
    first: int | None = None

    @property
    def count(self) -> int:
        """How many samples are checked."""
        return len(self.base)

    @property
    def eps(self) -> float:
        """The radius."""
        assert isinstance(self.threat.eps, float | int)
        return float(self.threat.eps)

    def run(self, measure: Any, rows: tuple[int, ...] | None = None, title: str = "") -> Table:
        """A further measurement of the checked samples, or of some of them."""
        rows, title = self.rows if rows is None else rows, title or measure.title
        if (known := self.known.get(key(settings_of(measure)))) is not None:
            return known.select(list(rows))
        # What is measured on the first samples is not measured again on all.
        head = set(rows if self.first is None else self.rows[: self.first])
        first, more = tuple(row for row in rows if row in head), tuple(row for row in rows if row not in head)
        parts = {title: first, f"{title}, further samples": more}
        return Table.join(self.tables.run(measure, self.model, rows=r, title=t) for t, r in parts.items() if r)

    def judged(self, check: Callable[[Subject], Check]) -> Check:
        """What a check that attacks says: of the first samples if it finds nothing at all there, else of all."""
        few = max(_FIRST, math.ceil(self.count / 3))
        if few >= self.count:
            return check(self)
        some = dataclasses.replace(self, base=self.base.select(range(few)), rows=self.rows[:few], first=few)
        found = check(some)
        return check(dataclasses.replace(self, first=few)) if found.value else found

    def attacked(self, attack: Attack | None = None, factor: float = 1.0, **more: Any) -> Table:
        """Another attack, or the same with another radius."""
        return self.run(Attacked(attack or self.attack, self.threat.at(self.eps * factor), **more))

    def missed_by_base(self, other: Table) -> int:
        """How many samples another attack breaks that the checked one does not."""
        return int((other["success"] & ~self.base["success"]).sum())

    def also_broken(self, attack: Attack) -> int:
        """How many samples an attack breaks of those that neither the checked one nor another of the suite broke."""
        standing = ~self.base["success"] & ~np.isin(self.base["sample"], list(self.fallen))
        places = np.flatnonzero(standing)
        if not len(places):
            return 0
        rows = tuple(self.rows[i] for i in places) if self.rows else ()
        title = f"standing samples under {label_of(attack)}, {self.threat}"
        return int(self.run(Attacked(attack, self.threat), rows, title)["success"].sum())

    def percent(self, hits: int) -> str:
        """A share of the checked samples as text."""
        return f"{100 * hits / self.count:.1f} %"


@public
def validity(
    model: nn.Module,
    data: Samples,
    attack: Attack,
    threat: Threat,
    *,
    count: Count = 300,
    seed: Seed = 0,
    device: Device | None = None,
) -> Verdict:
    """Run all checks for the accuracy of a model under an attack, on `count` samples drawn alike from each class.

    A model that answers the same inputs differently is checked, and attacked, as its mean over 16 draws.

    Args:
        threat: with a finite radius; its double, its half and the whole input range are tried too.

    Raises:
        UsageError: the threat has no radius.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> len(validity(model, data, sg.attacks.PGD(steps=5), sg.linf(0.1)).checks)
    13
    """
    if not isinstance(threat.eps, float | int):
        raise UsageError("the checks need a threat with one radius for all samples, e.g. sg.linf(0.1)")
    check_radius(threat)
    fitted = fitting(model, data, threat, DRAWS, device).told()
    judged = fitted.model
    data = dataclasses.replace(data, classes=fitted.classes).draw(count, seed)
    runner = Runner({"model": judged}, data, seed=seed, device=device, may_fail=True)
    rows = unanswered(runner, "model").left(range(len(data)))
    base = runner.run(Attacked(attack, threat), "model", rows=rows)
    subject = Subject(
        runner, "model", draws_of(judged), attack, threat, base, rows, len(data.classes), data.shape,
        gradients=fitted.gradients,
    )  # fmt: skip
    return verdict(checks(subject), data.labels[list(rows)].tolist(), data.classes, gradients=fitted.gradients)


def checks(subject: Subject) -> list[Check]:
    """All checks of a model's number."""
    return [
        deterministic(subject),
        subject.judged(scale_of_logits),
        gradient_there(subject),
        subject.judged(iterations_help),
        subject.judged(monotone),
        subject.judged(unbounded_wins),
        subject.judged(steps_suffice),
        subject.judged(beats_noise),
        subject.judged(beats_blind_search),
        finds_planted(subject),
        subject.judged(batch_size_does_not_matter),
        steady(subject),
        no_derivative(subject),
    ]


def deterministic(s: Subject) -> Check:
    """Whether the same input gives the same logits; for a mean over draws, the same prediction."""
    name, found = "deterministic", s.run(Repeated())
    differing, flipped = int(found["differs"].sum()), int(found["flips"].sum())
    if s.draws > 1:
        text = (
            f"the model is random, and its mean over {s.draws} draws, which was attacked in its place, changes "
            f"the prediction of {s.percent(flipped)} of the samples when drawn again"
        )
        return share_check(name, flipped, s.count, text)
    logits = f"other logits for {s.percent(differing)} of the samples" if differing else "the same logits each time"
    return Check(name, differing == 0, differing / s.count, "no sample", f"the same input gives {logits}")


def scale_of_logits(s: Subject) -> Check:
    """Whether logits times a constant leave the accuracy where it is."""
    base = accuracy(s.base).value
    moved = max(abs(accuracy(s.attacked(scale=factor)).value - base) for factor in (0.01, 100.0))
    text = f"multiplying the logits by 0.01 and 100 moves the accuracy by {100 * moved:.1f} points"
    return share_check("scale of the logits", round(moved * s.count), s.count, text)


def gradient_there(s: Subject) -> Check:
    """Whether samples stood with a gradient: one that fell is settled."""
    if not s.gradients:
        return Check("gradient there", None, None, "", "the model gives no gradient: it was searched blind only")
    hits = int(s.base["zero_gradient"][~s.base["success"]].sum())
    text = f"{s.percent(hits)} of the samples count as robust while their gradient was exactly zero"
    return share_check("gradient there", hits, s.count, text)


def iterations_help(s: Subject) -> Check:
    """Whether a single step, or for an attack without steps an iterated one, finds what the attack does not."""
    name = "iterations help"
    if not s.gradients:
        return Check(name, None, None, "", "the model gives no gradient")
    if s.threat.norm not in PGD.norms:
        return Check(name, None, None, "", f"no gradient steps under {s.threat.norm}")
    loss: Any = getattr(s.attack, "loss", None)
    loss = loss if loss in ("margin", "dlr", "ce") else "soft"
    iterates = hasattr(s.attack, "steps")
    hits = s.missed_by_base(s.attacked(FGSM(loss=loss) if iterates else PGD(loss=loss)))
    text = f"{'a single step' if iterates else 'an iterated attack'} breaks {s.percent(hits)} of the samples, "
    return share_check(name, hits, s.count, f"{text}which the attack leaves standing")


def monotone(s: Subject) -> Check:
    """Whether more room never saves a sample."""
    half, double = (s.attacked(factor=factor) for factor in (0.5, 2.0))
    lost = max(s.missed_by_base(half), int((s.base["success"] & ~double["success"]).sum()))
    left = ", ".join(f"{100 * accuracy(table).value:.1f}" for table in (half, s.base, double))
    text = f"half, once and twice the radius leave {left} %, and more room saves {s.percent(lost)}"
    return share_check("monotone in eps", lost, s.count, text)


def unbounded_wins(s: Subject) -> Check:
    """Whether an attack that may change everything leaves no more than chance."""
    # Whatever the mask: the few entries that it leaves may not be enough.
    free = dataclasses.replace(s, threat=Threat(s.threat.norm, s.threat.eps, s.threat.bounds))
    largest = float(free.threat.largest(torch.empty(1, *s.shape))[0])
    left = accuracy(free.attacked(factor=largest / s.eps)).value
    chance = 1 / max(2, s.classes)
    text = f"an attack that may change everything leaves {100 * left:.1f} %"
    return Check("unbounded attack wins", left <= chance, left, f"at most chance ({100 * chance:.1f} %)", text)


def steps_suffice(s: Subject) -> Check:
    """Whether twice the steps, and restarts, or twice the queries of a blind search, find no more."""
    # A restart may have its own rival class, so that more steps do not stand in for more restarts.
    names = ("steps", "restarts") if hasattr(s.attack, "steps") else ("queries",)
    more: dict[str, Any] = {n: 2 * value for n in names if (value := getattr(s.attack, n, None)) is not None}
    if not more:
        return Check("steps suffice", None, None, "", "the attack has no steps")
    hits = s.also_broken(dataclasses.replace(s.attack, **more))
    return share_check("steps suffice", hits, s.count, f"twice the {' and '.join(more)} take {s.percent(hits)} more")


def beats_noise(s: Subject) -> Check:
    """Whether random noise finds nothing that the attack does not."""
    hits = s.missed_by_base(s.attacked(RandomNoise()))
    text = f"random noise breaks {s.percent(hits)} of the samples, which the attack leaves standing"
    return share_check("beats random noise", hits, s.count, text)


def beats_blind_search(s: Subject) -> Check:
    """Whether a search without gradients finds nothing that the attacks do not."""
    name = "beats a blind search"
    if s.threat.norm not in Square.norms:
        return Check(name, None, None, "", f"no blind search under {s.threat.norm}")
    hits = s.also_broken(Square(queries=_QUERIES))
    text = f"{_QUERIES} blind queries (Square) break {s.percent(hits)} of the samples, which the attacks miss"
    return share_check(name, hits, s.count, text)


def finds_planted(s: Subject) -> Check:
    """Whether the attack finds wrong points that surely exist, on at most 100 samples."""
    title, count = "finds a planted point", min(s.count, _PLANTED)
    if s.threat.norm not in Square.norms:
        return Check(title, None, None, "", f"nothing is planted under {s.threat.norm}")
    found = s.run(PlantedFound(s.attack, s.threat), s.rows[:count])
    planted, missed = int(found["sure"].sum()), int((found["sure"] & ~found["found"]).sum())
    if planted < count / 2:
        text = f"the logits move too little to plant a point for {count - planted} of {count} samples"
        return Check(title, None, None, "", text)
    text = f"the attack misses {100 * missed / planted:.1f} % of the wrong points planted within its reach"
    return share_check(title, missed, planted, text, _MISSES)


def batch_size_does_not_matter(s: Subject) -> Check:
    """Whether samples end the same when fewer are attacked at once."""
    again = s.attacked(chunk=min(_FIRST, s.count) // 3 + 1)
    hits = int((again["success"] != s.base["success"]).sum())
    text = f"in another batch size {s.percent(hits)} of the samples end differently"
    return share_check("batch size does not matter", hits, s.count, text)


def steady(s: Subject) -> Check:
    """Whether noise of a thousandth of the range turns predictions that the model is sure of.

    Sure are the half of the samples with the largest gap between the two largest logits, which no
    constant factor on the logits changes.
    """
    found = s.run(NoiseTurned(bounds=s.threat.bounds))
    order = np.argsort(-found["gap"], kind="stable")
    sure = found["turned"][order[: max(1, (len(order) + 1) // 2)]]
    text = f"noise of a thousandth of the range turns {100 * float(sure.mean()):.1f} % of the surest predictions"
    return share_check("steady under tiny noise", int(sure.sum()), len(sure), text)


def no_derivative(s: Subject) -> Check:
    """Whether a prediction takes no derivatives itself."""
    if not s.gradients:
        return Check("no derivative in the forward", None, None, "", "the model gives no gradient to look at")
    seen = int(s.run(DerivativesTaken(), s.rows[:2])["derivatives"][0])
    why = ": it may optimize against the attack" if seen else ""
    text = f"a prediction takes {seen or 'no'} derivatives of its own{why}"
    return Check("no derivative in the forward", seen == 0, float(seen), "none", text)
