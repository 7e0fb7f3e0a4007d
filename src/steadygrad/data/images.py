"""Pixels: decoding image files, gray and color, sizes, and putting them into one tensor."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.data.form import Form
from steadygrad.errors import Failure, UsageError, reading

if TYPE_CHECKING:
    from PIL.Image import Image

# ITU-R 601 luma in 16-bit fixed point, the integers Pillow uses: arrays and files convert alike.
_LUMA = (19595, 38470, 7471)
_CHUNK = 1024
_GRAY = ("1", "L", "LA", "La", "I", "F")
_DEEP = ("PNG", "PPM")
"""Formats of which Pillow opens 16-bit gray with the mode I, which elsewhere stands for 32 bits."""


def opened(source: bytes | Path) -> Image:
    """An image whose pixels are not read yet."""
    from PIL import Image

    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def is_gray(image: Image) -> bool:
    """Whether an image file holds gray values; one with a palette counts as color."""
    return image.mode.startswith("I;") or image.mode in _GRAY


def is_clear(image: Image) -> bool:
    """Whether parts of an image may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def is_deep(image: Image) -> bool:
    """Whether an image has 16 bits per pixel."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in _DEEP)


def decode(source: bytes | Path, form: Form, where: str) -> np.ndarray[Any, Any]:
    """One image file as (H, W, C) uint8, or float32 in [0, 1] for 16-bit gray; what is transparent becomes white.

    Of several frames it is the first one, turned as the camera noted.

    Raises:
        Failure: the file `where` is truncated, is not an image, or has pixels of another type.
    """
    from PIL import ImageOps

    with reading(f"{where} is not a readable image (truncated?)", "; replace or remove it"), opened(source) as image:
        image.load()
        # Cameras store the rotation of a photo as EXIF data; PNG files rarely have any, and looking is slow.
        turned = image.format != "PNG" or not {"exif", "Raw profile type exif"}.isdisjoint(image.info)
        # What it gives forgets the format, but not the mode.
        deep, upright = is_deep(image), ImageOps.exif_transpose(image) if turned else image
        if deep:
            return _sixteen_bit(np.asarray(upright), form)
        if image.mode.startswith(("I", "F")):
            raise Failure(f"{where} has {image.mode} pixels of 32 bits: save it with 8 or 16 bits per channel")
        return _array(_sized(_colored(upright, form), form))


def pixels(image: Image, form: Form) -> np.ndarray[Any, Any]:
    """An image of Pillow as (H, W, C) uint8, or float32 in [0, 1] for 16-bit gray, as `decode` gives it."""
    return _sixteen_bit(np.asarray(image), form) if is_deep(image) else _array(_sized(_colored(image, form), form))


def _colored(image: Image, form: Form) -> Image:
    from PIL import Image

    gray = form.color == "gray" if form.color is not None else is_gray(image)
    if is_clear(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    mode = "L" if gray else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _sized(image: Image, form: Form) -> Image:
    from PIL import Image

    if form.size is None or (form.kept == 1 and image.size == form.size[::-1]):
        return image
    high, wide = form.covering(image.height, image.width)
    image = image.resize((wide, high), Image.Resampling[form.interpolation.upper()])
    top, left = _corner((high, wide), form.size)
    # Outside of the image a crop is black.
    return image.crop((left, top, left + form.size[1], top + form.size[0]))


def _corner(have: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    return round((have[0] - wanted[0]) / 2), round((have[1] - wanted[1]) / 2)


def _array(image: Image) -> np.ndarray[Any, Any]:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _sixteen_bit(pixels: np.ndarray[Any, Any], form: Form) -> np.ndarray[Any, Any]:
    images = torch.from_numpy(pixels.astype(np.float32) / 65535)[None, None]
    return reshape(images, form)[0].permute(1, 2, 0).numpy()


def reshape(images: Tensor, form: Form) -> Tensor:
    """Images (N, C, H, W) in the wanted form: gray by luma, then resized.

    Raises:
        UsageError: a size or color is asked of features (N, D), or a color of other than 1 or 3 channels.
    """
    if images.ndim != 4:
        if form.size is not None or form.color is not None:
            raise UsageError(f"size and color are for images (N, C, H, W), got samples of shape {tuple(images.shape)}")
        return images
    channels = images.shape[1]
    if form.color is not None and channels not in (1, 3):
        raise UsageError(f"color={form.color!r} is for images with 1 or 3 channels, got {channels}: leave it out")
    if form.color == "rgb" and channels == 1:
        images = images.expand(-1, 3, -1, -1).contiguous()
    if form.color == "gray" and channels == 3:
        images = _luma(images)
    if form.size is None or (form.kept == 1 and form.size == tuple(images.shape[2:])):
        return images
    return torch.cat([_resize(images[i : i + _CHUNK], form, form.size) for i in range(0, len(images), _CHUNK)])


def _luma(images: Tensor) -> Tensor:
    red, green, blue = _LUMA
    if images.is_floating_point():
        return torch.einsum("nchw,c->nhw", images, torch.tensor(_LUMA) / 65536).unsqueeze(1).clamp_(0, 1)
    r, g, b = images.to(torch.int32).unbind(1)
    return ((r * red + g * green + b * blue + 32768) >> 16).to(torch.uint8).unsqueeze(1)


def _resize(images: Tensor, form: Form, size: tuple[int, int]) -> Tensor:
    high, wide = form.covering(*images.shape[2:])
    nearest = form.interpolation == "nearest"
    # PyTorch has no Lanczos weights; the bicubic ones are the nearest to them.
    mode = {"bilinear": "bilinear", "nearest": "nearest-exact"}.get(form.interpolation, "bicubic")
    out = torch.nn.functional.interpolate(images.to(torch.float32), (high, wide), mode=mode, antialias=not nearest)
    top, left = _corner((high, wide), size)
    # Negative margins cut, the others are black.
    out = torch.nn.functional.pad(out, (-left, size[1] + left - wide, -top, size[0] + top - high))
    return out.clamp_(0, 1) if images.is_floating_point() else out.round_().clamp_(0, 255).to(torch.uint8)
