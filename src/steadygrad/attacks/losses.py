"""What an attack ascends: one number per sample, larger where the prediction is more wrong.

Cross-entropy saturates where the model is certain and stands here for the papers that use it. The others do
not: multiplying the logits by a constant leaves the sign and the direction of their gradients as they are.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.errors import UsageError, one_of

LossName = Literal["soft", "margin", "rivals", "dlr", "ce", "kl"]


def attack_loss(
    name: str, logits: Tensor, y: Tensor, target: Tensor | None, clean: Tensor | None, rival: Tensor | None = None
) -> Tensor:
    """The loss (N,) to be raised; half-precision logits are taken to float32 first.

    `clean` (N, K) are the logits of the clean inputs, which only "kl" needs; `rival` (N,) the wrong
    classes at which "rivals" and "dlr-targets" aim.
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    if name == "kl":
        if target is not None:
            raise UsageError("the loss kl leads away from the clean prediction, not to a target: use margin, dlr or ce")
        assert clean is not None
        reference = clean.to(logits.dtype).log_softmax(1)
        return F.kl_div(logits.log_softmax(1), reference, reduction="none", log_target=True).sum(1)
    if name == "rivals" and target is None:
        assert rival is not None
        return (logits.gather(1, rival[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    if name == "dlr-targets":
        return dlr(logits, y, rival if target is None else target)
    losses = {"soft": soft, "margin": margin, "rivals": margin, "dlr": dlr, "ce": cross_entropy}
    one_of("attack loss", name, [*losses, "kl"])
    return losses[name](logits, y, target)


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Cross-entropy of the label, or minus that of the target (N,)."""
    loss = F.cross_entropy(logits, y if target is None else target, reduction="none")
    return loss if target is None else -loss


def soft(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Cross-entropy at a temperature that follows the logits, in their units (N,).

    The logits are divided by their own largest excess over the mean, which is taken as a constant,
    and multiplied by 8: the softmax then weighs a few rivals, whatever the scale. Unlike the margin it does
    not commit to the rival that is nearest at the moment, and so finds nearer and more wrong points.
    """
    scale = (logits.amax(1) - logits.mean(1)).detach().clamp_min(torch.finfo(logits.dtype).tiny) / 8
    # Shifted first: tied logits, whose scale is next to zero, would overflow and lose their gradient.
    shifted = logits - logits.amax(1, keepdim=True).detach()
    return cross_entropy(shifted / scale[:, None], y, target) * scale


def margin(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Best other logit minus the label's; with a target, the target's minus the best other (N,).

    Positive exactly where the attack has succeeded (Carlini and Wagner 2017).
    """
    label = target if target is not None else y
    own = logits.gather(1, label[:, None]).squeeze(1)
    other = logits.scatter(1, label[:, None], -torch.inf).amax(1)
    return own - other if target is not None else other - own


def dlr(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eq. 6 and 7), for any number of classes.

    The paper's denominators need three classes, or four with a target; with a target among three the two
    smaller logits are used, and with two classes, where the ratio would be constant, the margin alone.
    """
    if logits.shape[1] == 2:
        return margin(logits, y, target)
    ordered = logits.sort(dim=1, descending=True).values
    tiny = torch.finfo(logits.dtype).tiny
    if target is None:
        return margin(logits, y) / (ordered[:, 0] - ordered[:, 2]).clamp_min(tiny)
    # The third and fourth logit; of three, the second and third: the third twice would make the
    # ratio to the smallest logit constant, and its gradient zero.
    scale = ordered[:, 0] - ordered[:, :4][:, -2:].mean(1)
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1) / scale.clamp_min(tiny)


def is_adversarial(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Which predictions (N,) are wrong, or reach the target; a tie with the label is not wrong.

    Nor is a lead of a few units in the last place, which another batch may undo by its rounding. NaN and infinite
    logits are no answer, which is wrong, and reaches no target.
    """
    return wrong_by(logits, margin(logits, y, target), target)


def wrong_by(logits: Tensor, lead: Tensor, target: Tensor | None) -> Tensor:
    """As `is_adversarial`, for logits (N, K) with these margins (N,)."""
    leads = exceeds_rounding(logits, lead)
    return leads if target is not None else leads | ~torch.isfinite(logits).all(1)


def exceeds_rounding(logits: Tensor, lead: Tensor, ulps: float = 4.0) -> Tensor:
    """Which leads (N,) of one finite logit (N, K) over another are more than rounding."""
    # Narrower types are computed in float32 and rounded once: there any lead at all is more.
    unit = torch.finfo(logits.dtype if logits.dtype.itemsize >= 4 else torch.float32).eps
    largest = logits.abs().amax(1)
    return torch.isfinite(largest) & (lead > ulps * unit * largest)
