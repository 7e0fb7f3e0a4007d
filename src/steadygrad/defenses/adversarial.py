"""Training on adversarial examples, with any attack, and TRADES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from steadygrad.attacks import PGD, Attack
from steadygrad.defenses.defense import DEFENSES, Defense, Step
from steadygrad.errors import UsageError
from steadygrad.threat import Norm
from steadygrad.values import BelowOne, Positive


@DEFENSES.register(
    "adversarial",
    summary="cross-entropy at the points of an attack (FGSM, PGD, DeepFool, ...), with a share of the clean loss",
    reference="Madry et al. 2018, arXiv 1706.06083; half and half: Goodfellow et al. 2015, arXiv 1412.6572",
    cost="the attack + 1 forward + 1 backward, one more of both for a clean share",
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Defense):
    """Cross-entropy at adversarial points, sought for every batch on the network in evaluation mode.

    Args:
        eps: radius of the attack, in units of the inputs. None takes the nearest wrong point of each
            sample, at whatever distance, and needs an attack that looks for it, such as DeepFool; with a
            radius that point is projected onto the ball.
        norm: its norm.
        attack: FGSM(loss="ce") for FGSM training, PGD for PGD training, DeepFool for DeepFool training.
        clean_weight: share of the clean loss: 0 is Madry's, 0.5 Goodfellow's and Ross's.
        label: which label the attack leads away from; "predicted" is the model's own, so that the
            example does not give the true label away (Kurakin et al. 2017).

    >>> AdversarialTraining(eps=0.3).clean_weight
    0.0
    >>> from steadygrad.attacks import DeepFool
    >>> AdversarialTraining(eps=None, norm="l2", attack=DeepFool(), clean_weight=0.5).attack.overshoot
    0.005
    """

    eps: Positive | None
    norm: Norm = "linf"
    attack: Attack = PGD(steps=7, loss="ce")
    clean_weight: BelowOne = 0.0
    label: Literal["true", "predicted"] = "true"
    fits = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps is None and not self.attack.minimum_norm:
            raise UsageError(
                f"{type(self.attack).__name__} needs a radius: give eps; only attacks that look for the nearest "
                "wrong point (deepfool, ddn, fmn) take eps=None"
            )

    def terms(self, step: Step) -> dict[str, Tensor]:
        away_from = step.y if self.label == "true" else step.logits_of(step.model).argmax(1)
        points = step.perturb(self.attack, self.norm, self.eps, away_from)
        wrong = F.cross_entropy(step.at(points), step.y, reduction="none")
        if self.clean_weight == 0:
            return {"adversarial": wrong}
        return {"clean": self.clean_weight * step.cross_entropy, "adversarial": (1 - self.clean_weight) * wrong}


@DEFENSES.register(
    "trades",
    summary="cross-entropy plus the divergence of the worst prediction nearby from the clean one",
    reference="Zhang et al. 2019, arXiv 1901.08573",
    cost="the attack + 2 forwards + 2 backwards",
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True, kw_only=True)
class TRADES(Defense):
    """Cross-entropy at x plus beta times KL(p(x) || p(x')), x' where the attack found it large.

    Args:
        eps: radius of the attack, in units of the inputs.
        norm: its norm.
        beta: weight of the divergence (1 / lambda in the paper).
        attack: ascends the divergence; it must start away from x, where the divergence is flat.

    >>> TRADES(eps=0.1).beta
    6.0
    """

    eps: Positive
    norm: Norm = "linf"
    beta: Positive = 6.0
    attack: Attack = PGD(steps=7, loss="kl")
    fits = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack.ascends == "kl" and not getattr(self.attack, "random_start", False):
            raise UsageError("an attack on the divergence must start away from the input: give PGD(random_start=True)")

    def terms(self, step: Step) -> dict[str, Tensor]:
        points = step.perturb(self.attack, self.norm, self.eps, step.y)
        clean, moved = step.logits.log_softmax(1), step.at(points).log_softmax(1)
        divergence = F.kl_div(moved, clean, reduction="none", log_target=True).sum(1)
        return {"cross_entropy": step.cross_entropy, "divergence": self.beta * divergence}
