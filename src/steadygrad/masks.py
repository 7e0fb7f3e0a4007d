"""Masks: which entries of an input may change, from arrays, files and texts."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.errors import UsageError, reading
from steadygrad.files import open_array


def boolean(given: Any) -> Tensor:
    """A mask of true and false, or of 1 and 0, as a bool tensor of its own.

    Args:
        given: a tensor, an array or nested lists.

    Raises:
        UsageError: other values, or none that is true.
    """
    try:
        mask = given.detach() if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    except (TypeError, ValueError, RuntimeError):
        kind = type(given).__name__
        raise UsageError(f"mask must be a tensor, an array or nested lists of 0 and 1, got {kind}") from None
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise UsageError(
            f"mask must hold true and false, or 1 and 0, got {mask.dtype} from {float(mask.min()):.4g} to "
            f"{float(mask.max()):.4g}: compare it with a number, such as mask > 0.5"
        )
    if mask.ndim == 0 or not bool(mask.any()):
        raise UsageError(f"mask lets no entry change: it needs at least one true entry, got shape {tuple(mask.shape)}")
    return mask.bool().clone()


def read(path: str | Path) -> Tensor:
    """The mask of a file: an array (.npy), or a picture that is white where the input may change and black elsewhere.

    Raises:
        UsageError: there is no such file, it cannot be read, or it holds other values.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no mask {path}: give an array (.npy) or a black and white picture (.png)")
    way_out = "; give an array (.npy) or a picture (.png)"
    with reading(f"cannot read the mask {path}", way_out, kind=UsageError):
        if path.suffix.lower() == ".npy":
            return boolean(open_array(path, "the mask"))
        from PIL import Image

        with Image.open(path) as image:
            values = np.asarray(image.convert("L"))
    if set(np.unique(values)) - {0, 255}:
        raise UsageError(
            f"the mask {path} holds grays: it must be white (255) where the input may change and black (0) elsewhere"
        )
    return boolean(values > 0)


def text(mask: Tensor) -> str:
    """A mask as one line of text, for a configuration file; `parsed` reads it.

    >>> text(torch.tensor([[True, False]]))
    '1x2:eNprAAAAgQCB'
    """
    packed = np.packbits(mask.cpu().numpy().ravel()).tobytes()
    return f"{'x'.join(map(str, mask.shape))}:{base64.b64encode(zlib.compress(packed, 9)).decode()}"


def parsed(given: str) -> Tensor:
    """The mask of a text that `text` wrote, or of the file that it names."""
    found = re.fullmatch(r"(\d+(?:x\d+)*):([A-Za-z0-9+/]+=*)", given)
    if found is None:
        return read(given)
    shape = tuple(int(side) for side in found[1].split("x"))
    try:
        bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(found[2])), np.uint8))
        return boolean(bits[: int(np.prod(shape))].reshape(shape).astype(bool))
    except (ValueError, zlib.error) as error:
        raise UsageError(f"mask is damaged: {error}; give the file again") from error
