"""Baselines: what stands for an absent pixel, a value, one for each channel, an image, or the blurred input."""

from __future__ import annotations

import base64
import functools
import math
import re
import zlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.attributions.blur import blurred
from steadygrad.errors import UsageError
from steadygrad.files import open_array
from steadygrad.values import Reader, fraction, shown

BLUR = 5.0
"""Standard deviation of the blur, in pixels."""

_WORDS = 'a finite number, one for each channel, an image of the shape of an input (or its .npy file), or "blur"'


def _read(name: str, value: Any) -> float | tuple[float, ...] | str:
    """A number, a tuple for channels or features, "blur", or an image as text: such values compare, hash and print."""
    if isinstance(value, str):
        if value == "blur" or _parts(value) is not None:
            return value
        if Path(value).suffix == ".npy":
            value = open_array(value, name)
        else:
            number = fraction(value)
            value = value if number is None else number
    try:
        if isinstance(value, bool | type(None)):
            raise TypeError
        if isinstance(value, str):
            raise TypeError
        found = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else np.asarray(value, np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{name} must be {_WORDS}, got {shown(value)}") from None
    if not found.size or not np.isfinite(found).all():
        raise UsageError(f"{name} must be {_WORDS}, got {shown(value)}")
    channels = found.ndim >= 2 and found.shape[-1] == 1 and max(found.shape) == found.size
    if found.size == 1 or found.ndim == 1 or channels:
        numbers = tuple(map(float, found.ravel()))
        return numbers[0] if len(numbers) == 1 else numbers
    packed = base64.b64encode(zlib.compress(found.tobytes(), 9)).decode()
    return f"{'x'.join(map(str, found.shape))}:{packed}"


Baseline = Annotated[float | tuple[float, ...] | str, Reader(_WORDS, _read)]
"""The setting of a method: taken as a number, a list, an array, a tensor, a file or "blur", in units of the inputs."""


def _parts(text: str) -> re.Match[str] | None:
    return re.fullmatch(r"(\d+(?:x\d+)+):([A-Za-z0-9+/]+=*)", text)


@functools.lru_cache(8)
def _image(text: str) -> Tensor:
    found = _parts(text)
    try:
        assert found is not None
        shape = tuple(int(side) for side in found[1].split("x"))
        values = np.frombuffer(zlib.decompress(base64.b64decode(found[2])), np.float64).reshape(shape)
    except (AssertionError, ValueError, zlib.error) as error:
        raise UsageError(f"the image of a baseline is damaged: {error}; give it again") from error
    return torch.from_numpy(values.copy())


def of_inputs(baseline: Any, x: Tensor, sigma: float = BLUR, name: str = "baseline") -> Tensor:
    """A `Baseline` for inputs x (N, *), as a tensor that broadcasts with them; a blur has sigma pixels.

    Raises:
        UsageError: it does not fit the inputs.
    """
    if isinstance(baseline, int | float):
        return x.new_tensor(float(baseline))
    if baseline == "blur":
        if x.ndim != 4:
            raise UsageError(f"{name}='blur' is for images (N, C, H, W), got {tuple(x.shape)}: give a value instead")
        if not 0 < sigma < math.inf:
            raise UsageError(f"sigma must be positive and finite, got {sigma}")
        return blurred(x, sigma)
    found = _image(baseline) if isinstance(baseline, str) else torch.tensor(baseline, dtype=torch.float64)
    shape = tuple(found.shape)
    if found.ndim == 1 and x.ndim > 2:
        found = found.view(-1, *[1] * (x.ndim - 2))
    fits = found.ndim <= x.ndim and (found.ndim < x.ndim or len(found) == 1)
    wanted = (1, *x.shape[1:])[x.ndim - found.ndim :] if fits else ()
    if not fits or any(side not in (1, whole) for side, whole in zip(found.shape, wanted)):
        raise UsageError(
            f"{name} has shape {shape}, which does not fit inputs of shape {tuple(x.shape)}: give one number, one for "
            f"each of the {x.shape[1]} channels, or an image of shape {tuple(x.shape[1:])}"
        )
    return found.to(x)
