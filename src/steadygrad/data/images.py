"""Pixels: decoding image files, gray and color, sizes, and putting them into one tensor."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.data.lazy import LazyImages, loaded
from steadygrad.errors import Failure, UsageError, one_of

# ITU-R 601 luma in 16-bit fixed point, the integers Pillow uses: arrays and files convert alike.
_LUMA = (19595, 38470, 7471)
_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Form:
    """The wanted form of images: height and width, and "gray" or "rgb"; None keeps what comes."""

    size: tuple[int, int] | None = None
    color: str | None = None

    @staticmethod
    def of(size: int | tuple[int, int] | None, color: str | None) -> Form:
        """Check the two options as a caller gives them; one number means a square."""
        if color is not None:
            one_of("color", color, ("gray", "rgb"))
        if size is None:
            return Form(None, color)
        pair = (size, size) if isinstance(size, int) else tuple(size)
        if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
            raise UsageError(f"size must be a positive number or (height, width), got {size!r}")
        return Form((pair[0], pair[1]), color)


def decode(source: bytes | Path, form: Form, where: str) -> np.ndarray[Any, Any]:
    """One image file as (H, W, C) uint8, or float32 in [0, 1] for 16-bit gray; alpha is dropped.

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
            gray = form.color == "gray" if form.color is not None else image.mode in ("1", "L", "LA", "La")
            mode = "L" if gray else "RGB"
            image = image if image.mode == mode else image.convert(mode)
            if form.size is not None and image.size != form.size[::-1]:
                image = image.resize(form.size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise Failure(f"{where} is not a readable image (truncated?): {error}; replace or remove it") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _sixteen_bit(pixels: np.ndarray[Any, Any], form: Form, where: str) -> np.ndarray[Any, Any]:
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
        raise Failure(f"{where} has {pixels.dtype} pixels: save it with 8 or 16 bits per channel")
    images = torch.from_numpy(pixels.astype(np.float32) / 65535)[None, None]
    return reshape(images, form)[0].permute(1, 2, 0).numpy()


def stack(
    files: Callable[[Sequence[int]], Iterable[tuple[str, bytes | Path]]], count: int, form: Form, what: str
) -> Tensor | LazyImages:
    """Decode `count` image files, given by place as (where, content or path), into one (N, C, H, W) tensor.

    A large tensor is lazy: what is raised is then raised when a file is met.

    Raises:
        Failure: a file is not a readable image.
        UsageError: a file differs from the first one in size, channels or depth.
    """
    if not count:
        return torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    ((first, source),) = files([0])
    like = _decoded(source, form, first)

    def read(rows: Sequence[int]) -> Tensor:
        out = torch.empty(len(rows), *like.shape, dtype=like.dtype)
        # In the order of the source, which may have to open a part of a file for several of them.
        order = sorted(range(len(rows)), key=rows.__getitem__)
        for place, (where, source) in zip(order, files([rows[i] for i in order])):
            image = _decoded(source, form, where)
            _check_alike(image, like, where, first)
            out[place] = image
        return out

    return loaded(LazyImages(read, torch.arange(count), like), what)


def _decoded(source: bytes | Path, form: Form, where: str) -> Tensor:
    # A copy, since PIL's memory is read-only.
    return torch.from_numpy(decode(source, form, where).copy()).permute(2, 0, 1)  # (C, H, W)


def _check_alike(image: Tensor, other: Tensor, where: str, first: str) -> None:
    (channels, height, width), (wanted, *size) = image.shape, other.shape
    if image.dtype != other.dtype:
        raise UsageError(f"{where} has another bit depth than {first}: save all images with 8 bits, or all with 16")
    if channels != wanted:
        raise UsageError(f"{where} has {channels} channels, {first} has {wanted}: choose color='gray' or color='rgb'")
    if [height, width] != size:
        raise UsageError(
            f"{where} is {height} x {width} pixels, {first} is {size[0]} x {size[1]}: choose one size, such as "
            f"size=({size[0]}, {size[1]})"
        )


def reshape(images: Tensor, form: Form) -> Tensor:
    """Images (N, C, H, W) in the wanted form: gray by luma, then resized bilinearly with antialiasing.

    Raises:
        UsageError: a size or color is asked of features (N, D).
    """
    if images.ndim != 4:
        if form != Form():
            raise UsageError(f"size and color are for images (N, C, H, W), got features of shape {tuple(images.shape)}")
        return images
    if form.color == "rgb" and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1).contiguous()
    if form.color == "gray" and images.shape[1] == 3:
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
