"""Small pictures as PNG data URIs: grey and color images, signed changes, maps on a color scale."""

from __future__ import annotations

import base64
import functools
import io

import numpy as np

from steadygrad.report.reading import Array

__all__ = ["CHANGE", "MAP", "change", "image", "map_", "reduce", "uri"]

CHANGE = "RdBu_r"  # blue: darker, white: unchanged, red: brighter; told apart with any color vision
MAP = "magma_r"  # light: nothing, dark: much; monotone in lightness, so it survives a grey printer


def image(pixels: Array, low: float, high: float) -> bytes:
    """A PNG of an image (C, H, W) whose values lie in [low, high]; grey for any C other than 3."""
    scaled = np.clip((pixels - low) / max(high - low, 1e-12), 0.0, 1.0)
    return _png(_channels(scaled))


def change(delta: Array, scale: float) -> bytes:
    """A PNG of a signed change (C, H, W) on a scale symmetric about 0.

    One channel: `CHANGE` from -scale to scale. Three: each channel about middle grey.
    """
    scaled = np.clip(0.5 + delta / (2 * scale), 0.0, 1.0) if scale > 0 else np.full_like(delta, 0.5)
    picture = _channels(scaled)
    return _png(picture, CHANGE if picture.ndim == 2 else None)


def map_(values: Array, top: float) -> bytes:
    """A PNG of a map (H, W) of values in [0, top] on the scale `MAP`."""
    return _png(np.clip(values / top, 0.0, 1.0) if top > 0 else np.zeros_like(values), MAP)


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


def uri(png: bytes) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _channels(pixels: Array) -> Array:
    # (C, H, W) -> (H, W, 3) for color, (H, W) for all else.
    return np.moveaxis(pixels, 0, -1) if pixels.shape[0] == 3 else np.asarray(pixels.mean(axis=0))


def _png(scaled: Array, colors: str | None = None) -> bytes:
    from PIL import Image

    picture = Image.fromarray(np.round(255 * scaled).astype(np.uint8))
    if colors is not None:
        picture.putpalette(_palette(colors))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@functools.cache
def _palette(name: str) -> bytes:
    import matplotlib

    colors = matplotlib.colormaps[name](np.linspace(0.0, 1.0, 256))[:, :3]
    return np.round(255 * colors).astype(np.uint8).tobytes()
