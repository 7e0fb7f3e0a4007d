"""Which columns of a table hold the images and the labels."""

from __future__ import annotations

from collections.abc import Sequence

from steadygrad.errors import UsageError

__all__ = ["find_columns"]

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label")


def find_columns(names: Sequence[str], where: str) -> tuple[str, str]:
    """The image and the label column.

    >>> find_columns(["img", "fine_label", "coarse_label"], "cifar100")
    ('img', 'fine_label')
    """
    image = next((name for name in _IMAGES if name in names), None)
    label = next((name for name in _LABELS if name in names), None)
    if image is None or label is None:
        lacking = " and ".join(
            f"{what} column ({' or '.join(choices)})"
            for what, choices, found in (("image", _IMAGES, image), ("label", _LABELS, label))
            if found is None
        )
        raise UsageError(f"{where} has no {lacking}; found: {', '.join(names) or 'none'}")
    return image, label
