"""Where the channels of images in an array are."""

from __future__ import annotations

from torch import Tensor

from steadygrad.errors import UsageError, one_of

LAYOUTS = ("first", "last")


def channels_first(x: Tensor, where: str, channels: str | None = None) -> Tensor:
    """Images (N, C, H, W) or (N, H, W, C) as (N, C, H, W).

    Args:
        where: what errors call the data.
        channels: "first" or "last". None finds it out: an axis of 1 or 3 is that of the channels, the first one before
            the last one; else the one beside two equal sides, or the only one that is shorter than both others.

    Raises:
        UsageError: it cannot be told.

    >>> import torch
    >>> channels_first(torch.zeros(6, 8, 8, 13), "x").shape
    torch.Size([6, 13, 8, 8])
    """
    if channels is not None:
        one_of("layout of channels", channels, LAYOUTS)
        found = {channels}
    else:
        first, middle, last = x.shape[1:]
        if first in (1, 3) or last in (1, 3):
            found = {"first" if first in (1, 3) else "last"}
        else:
            may_be_first = middle == last or first < min(middle, last)
            may_be_last = first == middle or last < min(first, middle)
            found = {name for name, may_be in zip(LAYOUTS, (may_be_first, may_be_last)) if may_be}
    if len(found) != 1:
        first, middle, last = x.shape[1:]
        raise UsageError(
            f"x of {where} has shape {tuple(x.shape)}, which may be {first} channels of {middle} x {last} or {last} of "
            f"{first} x {middle}: say channels='first' or channels='last' (in an .npz file as an array called channels)"
        )
    return x.contiguous() if found == {"first"} else x.permute(0, 3, 1, 2).contiguous()
