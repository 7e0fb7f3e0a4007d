"""Small pictures as PNG data URIs: gray and color images, signed changes, maps on a color scale."""

from __future__ import annotations

import base64
import functools
import io
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Arrays: TypeAlias = dict[str, Array]

CHANGE = "RdBu_r"  # blue: darker, white: unchanged, red: brighter; told apart with any color vision
MAP = "magma_r"  # light: nothing, dark: much; monotone in lightness, so it survives a gray printer


@dataclass(frozen=True)
class Picture:
    """A picture: its PNG as a data URI, the text that says what it shows, and perhaps ✓ or ✗ below it, or a frame."""

    source: str
    alt: str
    good: bool | None = None
    framed: bool = False


def image(pixels: Array, low: float = 0.0, high: float = 1.0) -> str:
    """A PNG of an image (C, H, W) whose values lie in [low, high]; gray for any C other than 3."""
    scaled = np.clip((pixels - low) / max(high - low, 1e-12), 0.0, 1.0)
    return _png(_channels(scaled))


def change(delta: Array, scale: float) -> str:
    """A PNG of a signed change (C, H, W) on a scale symmetric about 0.

    One channel: `CHANGE` from -scale to scale. Three: each channel about middle gray.
    """
    scaled = np.clip(0.5 + delta / (2 * scale), 0.0, 1.0) if scale > 0 else np.full_like(delta, 0.5)
    picture = _channels(scaled)
    return _png(picture, _scale(CHANGE) if picture.ndim == 2 else None)


def map_(values: Array, top: float) -> str:
    """A PNG of a map (H, W) of values in [0, top] on the scale `MAP`."""
    return _png(np.clip(values / top, 0.0, 1.0) if top > 0 else np.zeros_like(values), _scale(MAP))


def indexed(marks: Array, colors: tuple[str, ...]) -> str:
    """A PNG of whole numbers (H, W), each in its color (#rrggbb)."""
    return _png(marks / 255, b"".join(bytes.fromhex(color[1:]) for color in colors))


def reduce(pixels: Array, factor: int) -> Array:
    """Average blocks of factor x factor pixels over the last two axes; a ragged rest is cut off."""
    if factor <= 1:
        return pixels
    height, width = (size // factor for size in pixels.shape[-2:])
    if not height or not width:
        return pixels
    cut = pixels[..., : height * factor, : width * factor]
    blocks = cut.reshape(*pixels.shape[:-2], height, factor, width, factor)
    return np.asarray(blocks.mean(axis=(-3, -1)))


def tiled(images: Array, gaps: Array, pad: int = 2) -> Array:
    """One image (C, H, W) of a grid of images (R, K, C, h, w); where `gaps` (R, K) the cell stays gray."""
    rows, columns, channels, height, width = images.shape
    out = np.ones((channels, rows * (height + pad) - pad, columns * (width + pad) - pad))
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + pad), c * (width + pad)
            out[:, top : top + height, left : left + width] = 0.8 if gaps[r, c] else images[r, c]
    return out


def _channels(pixels: Array) -> Array:
    # (C, H, W) -> (H, W, 3) for color, (H, W) for all else.
    return np.moveaxis(pixels, 0, -1) if pixels.shape[0] == 3 else np.asarray(pixels.mean(axis=0))


def _png(scaled: Array, palette: bytes | None = None) -> str:
    from PIL import Image

    picture = Image.fromarray(np.round(255 * scaled).astype(np.uint8))
    if palette is not None:
        picture.putpalette(palette)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@functools.cache
def _scale(name: str) -> bytes:
    import matplotlib

    colors = matplotlib.colormaps[name](np.linspace(0.0, 1.0, 256))[:, :3]
    return np.round(255 * colors).astype(np.uint8).tobytes()
