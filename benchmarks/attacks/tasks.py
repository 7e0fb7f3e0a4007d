"""What is compared: tasks that several libraries can do, and who enters them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from steadygrad.attacks import APGD, DDN, FAB, FMN, JSMA, MIFGSM, PGD, Attack, CarliniWagner, DeepFool, Square
from steadygrad.randomness import fresh
from steadygrad.registry import label_of
from steadygrad.threat import Threat, l0, l2, linf

__all__ = ["OURS", "Contender", "Run", "Task", "label", "ours", "tasks"]

OURS = "steadygrad"

Run = Callable[[nn.Module, Tensor, Tensor, "Tensor | None", int], Tensor]
"""`run(model, x, y, target, seed)` returns the points (N, *) that an attack found."""


@dataclass(frozen=True)
class Task:
    """One aim for all libraries, by which their points are judged.

    Args:
        name: as it is shown.
        threat: the changes that count.
        smallest: the nearest wrong point is looked for, rather than any within the radius.
        targeted: a given class is to be reached rather than any wrong one.
    """

    name: str
    threat: Threat
    smallest: bool = False
    targeted: bool = False


@dataclass(frozen=True)
class Contender:
    """An attack of a library that enters a task.

    Args:
        attack: its name with its settings, in the library's words.
        variant: what tells it from the library's first entry to the task.
        weight: a guess of its passes per input, for the time left.
    """

    task: Task
    library: str
    attack: str
    run: Run
    weight: int
    variant: str = ""


def tasks(eps: float, shape: tuple[int, ...]) -> dict[str, Task]:
    """The tasks for inputs of a shape, by name; `eps` is the radius of those with a fixed one (linf).

    >>> tasks(0.1, (1, 28, 28))["JSMA"].threat.eps
    112.0
    """
    entries = math.prod(shape)
    # The paper's 14.5 % of the entries, in whole pairs.
    pairs = max(1, int(0.145 * entries) // 2)
    found = [
        Task("DeepFool l2", l2(), smallest=True),
        Task("DeepFool linf", linf(), smallest=True),
        Task("JSMA", l0(2.0 * pairs), smallest=True, targeted=True),
        Task("C&W l2", l2(), smallest=True),
        Task("DDN", l2(), smallest=True),
        Task("FMN l2", l2(), smallest=True),
        Task("FMN linf", linf(), smallest=True),
        Task("FAB linf", linf(), smallest=True),
        Task("PGD", linf(eps)),
        Task("MI-FGSM", linf(eps)),
        Task("APGD", linf(eps)),
        Task("Square", linf(eps)),
    ]
    return {task.name: task for task in found}


def label(name: str, settings: dict[str, Any]) -> str:
    """An attack of another library with its settings, as shown.

    >>> label("PGD", {"eps": 0.1, "steps": 40})
    'PGD(eps=0.1, steps=40)'
    """
    shown = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())
    return f"{name}({', '.join(shown)})"


def ours(known: dict[str, Task], entries: int, classes: int) -> list[Contender]:
    """What this library enters, for inputs with so many entries and so many classes."""
    budget = known["JSMA"].threat.eps
    assert isinstance(budget, float)
    entered: list[tuple[str, Attack, int]] = [
        ("DeepFool l2", DeepFool(), 30),
        ("DeepFool linf", DeepFool(), 30),
        ("JSMA", JSMA(gamma=(budget + 0.5) / entries), 150),
        ("C&W l2", CarliniWagner(search_steps=5, steps=100), 700),
        ("DDN", DDN(steps=100), 200),
        ("FMN l2", FMN(steps=100), 200),
        ("FMN linf", FMN(steps=100), 200),
        ("FAB linf", FAB(steps=100, targets=classes - 1), 600),
        ("PGD", PGD(steps=40), 40),
        ("MI-FGSM", MIFGSM(steps=10), 20),
        ("APGD", APGD(steps=100), 100),
        ("Square", Square(queries=1000), 500),
    ]
    made = [Contender(known[name], OURS, label_of(attack), _run(known[name], attack), w) for name, attack, w in entered]
    others: list[tuple[str, Attack, int, str]] = [
        ("DeepFool l2", DeepFool(candidates=classes - 1), 70, "all classes"),
        ("JSMA", JSMA(gamma=(budget + 0.5) / entries, score="target", pairs=2), 40, "target's logit alone, two pairs"),
        ("FAB linf", FAB(steps=50, targets=classes - 1), 300, "half the steps"),
    ]
    return [*made, *(Contender(known[n], OURS, label_of(a), _run(known[n], a), w, note) for n, a, w, note in others)]


def _run(task: Task, attack: Attack) -> Run:
    def run(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, seed: int) -> Tensor:
        return attack(model, x, y, task.threat, target=target, generator=fresh(seed)).inputs

    return run
