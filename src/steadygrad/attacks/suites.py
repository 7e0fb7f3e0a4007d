"""Suites: several attacks that are run one after the other, by name, and which of them leads."""

from __future__ import annotations

from collections.abc import Sequence

from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.pgd import PGD
from steadygrad.attacks.sign import FGSM, RandomNoise
from steadygrad.attacks.square import Square
from steadygrad.attacks.standard import Standard
from steadygrad.errors import UsageError, one_of
from steadygrad.registry import label_of
from steadygrad.threat import Threat

LEAD = PGD(steps=30, restarts=5, loss="rivals")
"""The attack that leads a suite: it draws curves and pictures, and is what the checks test."""

SUITES: dict[str, tuple[Attack, ...]] = {
    "fast": (LEAD, PGD(restarts=3), PGD(loss="ce"), FGSM(), RandomNoise()),
    "standard": (LEAD, Standard(), FGSM(), RandomNoise()),
    "blind": (Square(), RandomNoise()),
}
"""Attacks by suite name, the leading one first; those of "blind" need no gradient."""


def suite_of(attacks: Attack | Sequence[Attack] | str, threat: Threat) -> tuple[Attack, ...]:
    """The attacks of a suite, all different and fit for the threat."""
    if isinstance(attacks, str):
        one_of("suite", attacks, SUITES)
        attacks = SUITES[attacks]
    suite = (attacks,) if isinstance(attacks, Attack) else tuple(attacks)
    labels = [label_of(a) for a in suite]
    if not labels or len(set(labels)) < len(labels):
        raise UsageError(f"attacks must be at least one and all different, got {labels}")
    for attack in suite:
        if threat.norm not in attack.norms:
            fitting = ", ".join(row.name for row in ATTACKS if threat.norm in row.norms)
            raise UsageError(f"{label_of(attack)} does not work for {threat.norm}; attacks that do: {fitting}")
    return suite


def blind(suite: Sequence[Attack], threat: Threat) -> tuple[Attack, ...]:
    """The attacks for a model without gradients: these if they need none, else the suite "blind".

    >>> from steadygrad.threat import linf
    >>> [attack.needs_gradient for attack in blind(SUITES["fast"], linf(0.1))]
    [False, False]
    """
    if any(attack.needs_gradient for attack in suite):
        return tuple(attack for attack in SUITES["blind"] if threat.norm in attack.norms)
    return tuple(suite)
