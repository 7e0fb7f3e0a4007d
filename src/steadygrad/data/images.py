"""Pixels: decoding image files, grey and color, sizes, and stacking them into one tensor."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.errors import Failure, UsageError, unknown_name
from steadygrad.progress import task

__all__ = ["Form", "decode", "reshape", "stack"]

# ITU-R 601 luma in 16-bit fixed point, the integers Pillow uses: arrays and files convert alike.
_LUMA = (19595, 38470, 7471)
_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Form:
    """The wanted form of images: height and width, and "grey" or "rgb"; None keeps what comes."""

    size: tuple[int, int] | None = None
    color: str | None = None

    @staticmethod
    def of(size: int | tuple[int, int] | None, color: str | None) -> Form:
        """Check the two options as a caller gives them; one number means a square."""
        if color not in (None, "grey", "rgb"):
            raise unknown_name("color", str(color), ["grey", "rgb"])
        if size is None:
            return Form(None, color)
        pair = (size, size) if isinstance(size, int) else tuple(size)
        if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
            raise UsageError(f"size must be a positive number or (height, width), got {size!r}")
        return Form((pair[0], pair[1]), color)


def decode(source: bytes | Path, form: Form, where: str) -> np.ndarray[Any, Any]:
    """One image file as (H, W, C) uint8, or float32 in [0, 1] for 16-bit grey; alpha is dropped.

    Raises:
        Failure: the file `where` is truncated or is not an image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            opened.load()
            # Cameras store the rotation of a photo as EXIF data; PNG files rarely have any, and looking is slow.
            image = opened if opened.format == "PNG" else ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                return _sixteen_bit(np.asarray(image), form, where)
            mode = _mode(image.mode, form.color)
            image = image if image.mode == mode else image.convert(mode)
            if form.size is not None and image.size != form.size[::-1]:
                image = image.resize(form.size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise Failure(f"{where} is not a readable image (truncated?): {error}; replace or remove it") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _mode(mode: str, color: str | None) -> str:
    if color is not None:
        return "L" if color == "grey" else "RGB"
    return "L" if mode in ("1", "L", "LA", "La") else "RGB"


def _sixteen_bit(pixels: np.ndarray[Any, Any], form: Form, where: str) -> np.ndarray[Any, Any]:
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
        raise Failure(f"{where} has {pixels.dtype} pixels: save it with 8 or 16 bits per channel")
    images = torch.from_numpy(pixels.astype(np.float32) / 65535)[None, None]
    return reshape(images, form)[0].permute(1, 2, 0).numpy()


def stack(sources: Iterable[tuple[str, bytes | Path]], count: int, form: Form, what: str) -> Tensor:
    """Decode `count` image files, given as (where, content or path), into one (N, C, H, W) tensor.

    Raises:
        Failure: a file is not a readable image.
        UsageError: a file differs from the first one in size, channels or depth.
    """
    out: Tensor | None = None
    first = ""
    with task(f"read {what}", count) as advance:
        for i, (where, source) in enumerate(sources):
            # A copy, since PIL's memory is read-only.
            image = torch.from_numpy(decode(source, form, where).copy()).permute(2, 0, 1)  # (C, H, W)
            if out is None:
                first, out = where, torch.empty(count, *image.shape, dtype=image.dtype)
            _check_alike(image, out[0], where, first)
            out[i] = image
            if i % _CHUNK == _CHUNK - 1 or i == count - 1:
                advance(i % _CHUNK + 1)
    return out if out is not None else torch.empty(0, 1, 1, 1, dtype=torch.uint8)


def _check_alike(image: Tensor, other: Tensor, where: str, first: str) -> None:
    (channels, height, width), (wanted, *size) = image.shape, other.shape
    if image.dtype != other.dtype:
        raise UsageError(f"{where} has another bit depth than {first}: save all images with 8 bits, or all with 16")
    if channels != wanted:
        raise UsageError(f"{where} has {channels} channels, {first} has {wanted}: choose color='grey' or color='rgb'")
    if [height, width] != size:
        raise UsageError(
            f"{where} is {height} x {width} pixels, {first} is {size[0]} x {size[1]}: choose one size, such as "
            f"size=({size[0]}, {size[1]})"
        )


def reshape(images: Tensor, form: Form) -> Tensor:
    """Images (N, C, H, W) in the wanted form: grey by luma, then resized bilinearly with antialiasing.

    Raises:
        UsageError: a size or color is asked of features (N, D).
    """
    if images.ndim != 4:
        if form != Form():
            raise UsageError(f"size and color are for images (N, C, H, W), got features of shape {tuple(images.shape)}")
        return images
    if form.color == "rgb" and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1).contiguous()
    if form.color == "grey" and images.shape[1] == 3:
        images = _luma(images)
    if form.size is None or form.size == tuple(images.shape[2:]):
        return images
    return torch.cat([_resize(images[i : i + _CHUNK], form.size) for i in range(0, len(images), _CHUNK)])


def _luma(images: Tensor) -> Tensor:
    red, green, blue = _LUMA
    if images.is_floating_point():
        return torch.einsum("nchw,c->nhw", images, torch.tensor(_LUMA) / 65536).unsqueeze(1).clamp_(0, 1)
    r, g, b = images.to(torch.int32).unbind(1)
    return ((r * red + g * green + b * blue + 32768) >> 16).to(torch.uint8).unsqueeze(1)


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    out = torch.nn.functional.interpolate(images.to(torch.float32), size=size, mode="bilinear", antialias=True)
    return out.clamp_(0, 1) if images.is_floating_point() else out.round_().clamp_(0, 255).to(torch.uint8)
