"""The AutoAttack standard suite as one attack: four that fail in different ways, one after the other."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from steadygrad.attacks.apgd import APGD
from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.attack_result import AttackResult
from steadygrad.attacks.fab import FAB
from steadygrad.attacks.losses import attack_loss
from steadygrad.attacks.run import Case, Run, attacked
from steadygrad.attacks.square import Square
from steadygrad.values import Count, Positive

_BAR_STEPS = 20


@ATTACKS.register(
    "standard",
    summary="AutoAttack: APGD on cross-entropy, APGD on targeted DLR, FAB-T and Square on the samples that stand",
    reference="Croce and Hein 2020, arXiv 2003.01690",
    cost="the sum of its members' on the samples that still stand",
)
@dataclass(frozen=True)
class Standard(Attack):
    """Runs its members in order, each on the samples that stood up to those before it; see also `losses.dlr`.

    Args:
        steps: gradient steps per start and class.
        queries: points that Square looks at per sample.
        targets: classes that the targeted members try, at most all wrong ones.
        optimism: FAB-T gives a sample up once its progress, continued this many times faster, would not
            break it; Square does so where it is also behind the margin that gradients reached, so that
            masked gradients always meet all queries. None runs both to the end, as the paper does.

    >>> [name for name, _ in Standard().members()]
    ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """

    steps: Count = 100
    queries: Count = 5000
    targets: Count = 9
    optimism: Positive | None = 2.0

    def members(self) -> tuple[tuple[str, Attack], ...]:
        return (
            ("apgd-ce", APGD(steps=self.steps, loss="ce")),
            ("apgd-t", APGD(steps=self.steps, loss="dlr-targets", targets=self.targets)),
            ("fab-t", FAB(steps=self.steps, targets=self.targets, optimism=self.optimism)),
            ("square", Square(queries=self.queries)),
        )

    def _run(self, case: Case) -> AttackResult:
        radius, total = case.threat.radius(case.x), AttackResult.of_nothing(case.x)
        rows = torch.arange(len(case.x), device=case.x.device)
        for number, (_, attack) in enumerate(self.members()):
            part = case.at(rows, radius[rows])
            if isinstance(attack, Square) and self.optimism is not None:
                found = attacked(functools.partial(_square, attack, optimism=self.optimism), part)
            else:
                found = attack._run(part)
            total.take(rows, found, number)
            rows = rows[~found.success]
            if len(rows) == 0:
                break
        return total

    def search(self, run: Run) -> Tensor | None:
        # What a run that nobody judges asks for: the points of the first member.
        return self.members()[0][1].search(run)


def _square(attack: Square, case: Case, optimism: float) -> Run:
    """Square, told the margins that a short gradient attack reaches."""
    raw = Run(case, goal="strongest")
    raw.begin()
    points = APGD(steps=_BAR_STEPS, loss="margin").search(raw)
    assert points is not None
    bar = attack_loss("margin", raw.look(points), raw.y, raw.target, None)
    run = Run(case)
    run.charge(raw)
    run.begin()
    attack.search(run, bar[run.index], optimism)
    return run
