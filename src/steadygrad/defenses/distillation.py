"""Defensive distillation: a negative control, since its robustness is gradient masking."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from steadygrad.defenses.defense import DEFENSES, Defense, Plain, Step
from steadygrad.errors import UsageError
from steadygrad.values import Positive


@DEFENSES.register(
    "distillation",
    summary="fit the softened predictions of a teacher; looks robust because its gradients underflow",
    reference="Papernot et al. 2016, arXiv 1511.04508",
    cost="training twice; 2 forwards + 1 backward",
    order=0,
)
@dataclass(frozen=True)
class Distillation(Defense):
    """Cross-entropy of softmax(logits / T) with softmax(teacher's logits / T); used at T = 1.

    `fit` first trains the teacher, a network of the same architecture, at the same temperature.

    >>> Distillation().teacher
    Plain(temperature=50.0)
    """

    temperature: Positive = 50.0
    fits = True

    @property
    def teacher(self) -> Defense | None:
        return Plain(self.temperature)

    def terms(self, step: Step) -> dict[str, Tensor]:
        teacher = step.state.teacher
        if teacher is None:
            raise UsageError("distillation needs a teacher: train with sg.fit, or give State(teacher=...)")
        soft = (step.logits_of(teacher) / self.temperature).softmax(1)
        values = -(soft * (step.logits / self.temperature).log_softmax(1)).sum(1)
        return {"distillation": values}
