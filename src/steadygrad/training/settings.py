"""The settings of `fit`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from steadygrad.arguments import named, public
from steadygrad.errors import UsageError
from steadygrad.training.batches import Augment
from steadygrad.values import BelowOne, Count, NotNegative, Positive, Whole, check_settings

_NO_EFFECT_ON_WEIGHTS = ("checkpoint_every", "checkpoint_steps", "tensorboard")


@named
@dataclass(frozen=True)
class FitSettings:
    """How to train; see `fit`.

    Args:
        epochs, batch_size: passes over the data; samples per step, over all processes together.
        accumulate: pieces of a batch that go through the network one after the other, with their gradients
            summed, where the memory does not hold it at once; batch normalization sees each by itself.
        optimizer: "adam" or "sgd".
        lr: the largest learning rate.
        momentum: of SGD.
        weight_decay: added to the gradient as an l2 penalty.
        adam_eps: the constant in Adam's denominator.
        schedule: "constant"; "cosine" or "linear" down to zero; "step": a tenth after half of the
            training, a hundredth after three quarters.
        warmup: share of the training in which the learning rate rises linearly.
        augment: "none", "flip" (left and right) or "crop_flip" (shifts as well).
        precision: "float32", or "bf16" or "fp16" where the defense allows it.
        select: which weights to return: the "last", or those of the epoch with the best "accuracy"
            or "robust" accuracy on the validation data.
        robust_eps, robust_norm, robust_steps: the PGD attack of the robust accuracy, which is
            measured where an eps is given.
        clip: largest l2 norm of the weight gradient; None for no limit.
        freeze_norms: keep batch normalization as it is, in evaluation mode with fixed parameters, as
            is usual where a trained network is fine-tuned.
        channels_last: keep the weights of convolutions with the channels last while training: faster for most
            networks on a CPU, slower for second derivatives through strided convolutions.
        checkpoint_every: epochs between checkpoints.
        checkpoint_steps: steps between checkpoints within an epoch; None for none.
        tensorboard: write TensorBoard files as well (needs the extra "tensorboard").

    Raises:
        UsageError: a setting is out of range.

    >>> FitSettings(epochs=2, schedule="linear").rate(step=5, total=10)
    0.0005
    """

    epochs: Count = 10
    batch_size: Count = 128
    accumulate: Count = 1
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive = 1e-3
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = 0.0
    adam_eps: Positive = 1e-8
    schedule: Literal["constant", "cosine", "step", "linear"] = "constant"
    warmup: BelowOne = 0.0
    augment: Augment = "none"
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    select: Literal["last", "accuracy", "robust"] = "last"
    robust_eps: Positive | None = None
    robust_norm: Literal["linf", "l2", "l1"] = "linf"
    robust_steps: Count = 10
    clip: Positive | None = None
    freeze_norms: bool = False
    channels_last: bool = False
    checkpoint_every: Count = 1
    checkpoint_steps: Count | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        if self.select == "robust" and self.robust_eps is None:
            raise UsageError("select='robust' needs robust_eps, the radius of the attack on the validation data")

    @public
    def rate(self, step: Whole, total: Count) -> float:
        """The learning rate of a step (from 0) of `total` steps."""
        if step >= total:
            raise UsageError(f"step must be within 0..{total - 1}, got {step}")
        rising = round(self.warmup * total)
        if step < rising:
            return self.lr * (step + 1) / rising
        done = (step - rising) / (total - rising)
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "linear":
            return self.lr * (1 - done)
        if self.schedule == "step":
            return self.lr * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        return self.lr

    @property
    def outcome(self) -> dict[str, Any]:
        """The settings on which the trained weights depend."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in _NO_EFFECT_ON_WEIGHTS}
