"""Sensitive neuron stabilizing: the neurons that change most under attack are trained to change less."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad import neurons, randomness
from steadygrad.attacks import PGD, Attack
from steadygrad.data import Dataset
from steadygrad.defenses.defense import DEFENSES, Defense, State, Step
from steadygrad.errors import UsageError
from steadygrad.files import key
from steadygrad.registry import describe
from steadygrad.threat import Norm
from steadygrad.values import Count, NotNegative, Positive, Share

_CHUNK = 256


@DEFENSES.register(
    "stable_neurons",
    summary="penalty on the change of each layer's most sensitive neurons from the clean input to an attacked one",
    reference="Zhang et al. 2021, arXiv 1909.06978",
    cost="the attack + 2 forwards + 2 backwards; every `refresh` epochs the attack and 2 forwards of `samples`",
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True, kw_only=True)
class StableNeurons(Defense):
    """weight x the sum over layers of the mean change of their sensitive neurons, + alpha x cross-entropy at x'.

    A penalty. The change of a neuron is the mean absolute difference of its entries at x and at x', which an attack
    on the network in evaluation mode gives. The sensitive neurons are those of the largest mean change over some
    training samples, measured again every `refresh` epochs and kept in `State.memory`.

    Args:
        eps: radius of the attack, in units of the inputs.
        norm: its norm.
        weight: of the change, lambda in the paper.
        alpha: of the cross-entropy at x'; 0 leaves it out.
        attack: where x' comes from.
        layers: glob patterns of layer names; None for all activation modules but the output.
        share: of the neurons of a layer that count as sensitive, at least one.
        refresh: epochs between two measurements of the sensitivities.
        samples: random training samples of a measurement.

    Raises:
        UsageError: settings out of range; in a loss, a memory without this defense; layers as in
            `neurons.recorded`.

    >>> StableNeurons(eps=0.1).share
    0.1
    """

    eps: Positive
    norm: Norm = "linf"
    weight: NotNegative = 1.0
    alpha: NotNegative = 1.0
    attack: Attack = PGD(steps=7, loss="ce")
    layers: tuple[str, ...] | None = None
    share: Share = 0.1
    refresh: Count = 1
    samples: Count = 512

    def __post_init__(self) -> None:
        super().__post_init__()

    @property
    def watched(self) -> tuple[neurons.Layers, ...]:
        return (self.layers,)

    def remember(self, epoch: int, model: nn.Module, train: Dataset, state: State) -> dict[str, Tensor]:
        """The indices (k,) of the sensitive neurons of each layer."""
        if epoch % self.refresh:
            return {}
        device = next(model.parameters()).device
        order = torch.randperm(len(train), generator=randomness.fresh(state.seed))[: self.samples]

        def pair(start: int) -> tuple[Tensor, Tensor]:
            part = order[start : start + _CHUNK].to(train.labels.device)
            x, y = (t.to(device) for t in train.batch(part))
            step = Step(model, x, y, State(state.teacher, state.seed, start), input_gradients=False)
            return x, step.perturb(self.attack, self.norm, self.eps, y)

        pairs = (pair(start) for start in range(0, len(order), _CHUNK))
        sigma = neurons.stream(model, pairs, layers=self.layers)
        return {self._place(name): index for name, index in neurons.select(sigma, self.share).items()}

    def terms(self, step: Step) -> dict[str, Tensor]:
        points = step.perturb(self.attack, self.norm, self.eps, step.y)
        clean = step.outputs(self.layers)
        with neurons.recorded(step.model, self.layers) as moved:
            logits = step.at(points, same_dropout=True)
        means = []
        for name, value in clean.items():
            if self._place(name) not in step.state.memory:
                raise UsageError(
                    f"stable_neurons needs to know the sensitive neurons of layer {name!r}: "
                    "give State(memory=defense.remember(0, model, train, State()))"
                )
            index, axis = step.state.memory[self._place(name)], neurons.neuron_axis(value)
            pair = (v.index_select(axis, index) for v in (value, moved[name]))
            means.append(neurons.change(*pair).mean(1))
        terms = {"neuron_change": self.weight * torch.stack(means).sum(0)}
        if self.alpha:
            terms["adversarial"] = self.alpha * F.cross_entropy(logits, step.y, reduction="none")
        return terms

    def _place(self, layer: str) -> str:
        return f"{key(describe(self))}/{layer}"
