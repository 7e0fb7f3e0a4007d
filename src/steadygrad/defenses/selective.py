"""Selective input gradient regularization: small gradients where the image does not matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.attributions import Attribution, BlurSaliency
from steadygrad.attributions.salient import salient
from steadygrad.data import Dataset
from steadygrad.data.ahead import in_order
from steadygrad.defenses.defense import DEFENSES, SECOND_ORDER, Defense, Plain, State, Step
from steadygrad.errors import UsageError
from steadygrad.files import key
from steadygrad.progress import task
from steadygrad.values import Count, Fraction, Limit, NotNegative

_GROUP = 256
_Epochs = Annotated[int, Limit("at least 0", lambda value: value >= 0)]


@DEFENSES.register(
    "selective_gradient",
    summary="penalty on the input gradient of the log probability outside of the salient pixels",
    reference="Liu et al. 2022, arXiv 2207.13036; Xing et al. 2022, arXiv 2205.08685",
    cost="1 forward + 1 backward with a graph + 1 backward through both; a saliency map of all data when it is due",
    order=2,
)
@dataclass(frozen=True)
class SelectiveGradientPenalty(Defense):
    """weight x ||(1 - M) * gradient of log p_c||², M the salient pixels of the sample by another saliency.

    M is computed for the images of the data in evaluation mode, is augmented like them, and is kept in checkpoints;
    outside of training it is computed at every call. With `JacobianPenalty` this is J-SIGR; the authors publish no
    code, the form of the loss is ours.

    Args:
        weight: of the penalty, per squared unit of the inputs.
        share: of the pixels that are salient; pixels without any saliency never are.
        label: c is the class that is "predicted", or the "true" one; the saliency explains it too.
        saliency: what says which pixels matter.
        reference: whose saliency: of the network in training ("self"), or of one that `fit` first trains
            plainly ("teacher"), whose masks stay.
        refresh: epochs after which the masks of "self" are computed anew.
        warmup: epochs of "self" before the first masks, in which there is no penalty.

    >>> SelectiveGradientPenalty(1.0).saliency.grid
    8
    """

    weight: NotNegative
    share: Fraction = 0.2
    label: Literal["predicted", "true"] = "predicted"
    saliency: Attribution = BlurSaliency(grid=8)
    reference: Literal["self", "teacher"] = "self"
    refresh: Count = 5
    warmup: _Epochs = 1
    input_gradients = True
    mixed_precision = SECOND_ORDER

    @property
    def teacher(self) -> Defense | None:
        return Plain() if self.reference == "teacher" else None

    def remember(self, epoch: int, model: nn.Module, train: Dataset, state: State) -> dict[str, Tensor]:
        """The masks of all training samples, one bit per pixel, where they are due."""
        first = 0 if self.reference == "teacher" else self.warmup
        again = self.reference == "self" and epoch > first and (epoch - first) % self.refresh == 0
        if epoch != first and not again:
            return {}
        device = next(model.parameters()).device
        parts = []
        with task("salient pixels of the training data", len(train)) as advance:
            for batch in in_order(train, _GROUP):
                x, y = (t.to(device) for t in batch)
                parts.append(_packed(self._masks(model, x, y, state)))
                advance(len(x))
        return {self._name: torch.cat(parts)}

    def terms(self, step: Step) -> dict[str, Tensor]:
        mask = self._masks_of(step)
        if mask is None:
            return {"selective_gradient": torch.zeros_like(step.cross_entropy)}
        label = step.y if self.label == "true" else step.logits.detach().argmax(1)
        slope = step.input_gradient(-F.cross_entropy(step.logits, label, reduction="none"))
        outside = slope * (1 - mask.to(slope)[:, None])
        return {"selective_gradient": self.weight * outside.flatten(1).square().sum(1)}

    @property
    def _name(self) -> str:
        return f"salient {key(repr(self))}"

    def _masks_of(self, step: Step) -> Tensor | None:
        """Masks (N, H, W) of the samples of the step, augmented like their images; None before the first ones."""
        if step.state.samples is None:
            return self._masks(step.model, step.x.detach(), step.y, step.state)
        kept = step.state.memory.get(self._name)
        if kept is None:
            return None
        mask = _unpacked(kept[step.state.samples.to(kept.device)], step.x.shape[2:]).to(step.x)
        return step.state.follow(mask[:, None])[:, 0] if step.state.follow is not None else mask

    def _masks(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Tensor:
        """Masks (N, H, W) bool of inputs (N, C, H, W) by the saliency of the model or its teacher."""
        if x.ndim != 4:
            raise UsageError(f"selective_gradient is for images (N, C, H, W), got inputs of shape {tuple(x.shape)}")
        asked = model if self.reference == "self" else state.teacher
        if asked is None:
            raise UsageError("reference='teacher' needs a teacher: train with sg.fit, or give State(teacher=...)")
        return salient(asked, x, y if self.label == "true" else None, self.saliency, self.share)


def _packed(mask: Tensor) -> Tensor:
    """Masks (N, H, W) bool as bytes (N, ceil(H W / 8)), the first pixel in the lowest bit."""
    bits = mask.flatten(1).to(torch.uint8)
    bits = F.pad(bits, (0, -bits.shape[1] % 8)).view(len(bits), -1, 8)
    powers: Tensor = 2 ** torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (bits * powers).sum(2).to(torch.uint8)


def _unpacked(packed: Tensor, size: torch.Size) -> Tensor:
    """Masks (N, H, W) bool from the bytes that `_packed` makes."""
    bits = (packed[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1
    return bits.flatten(1)[:, : size.numel()].view(len(packed), *size).bool()
