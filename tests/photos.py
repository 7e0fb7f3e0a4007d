"""Maker of folders as people have them: photos of mixed size, color, format and orientation, and clutter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("pine cones", "sky", "äpfel")
ORIENTATION = 0x0112
_TURNED_BACK = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""How a photo is stored so that the note of the camera turns it upright."""


def photo(label: int, generator: np.random.Generator, most: int = 60) -> Image.Image:
    """A noisy photo of random size; its upper half is darker or lighter than the lower one, as its class says."""
    height, width = (int(v) for v in generator.integers(24, most, 2))
    pixels = generator.normal(90, 25, (height, width, 3))
    pixels[: height // 2] += (-60, 20, 110)[label]
    pixels[..., label] += 40  # and a gray copy of it tells the class too
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(image: Image.Image, stem: Path, kind: int) -> Path:
    """Write a photo in one of the ways that people have them; where it lies."""
    if kind == 0:
        image.save(stem.with_suffix(".JPG"), "JPEG", quality=95)
        return stem.with_suffix(".JPG")
    if kind in (1, 2):
        exif, code = Image.Exif(), (6, 8)[kind - 1]
        exif[ORIENTATION] = code
        image.transpose(_TURNED_BACK[code]).save(stem.with_suffix(".jpeg"), exif=exif, quality=95)
        return stem.with_suffix(".jpeg")
    changed, ending = {
        3: (image, ".png"),
        4: (image.convert("L"), ".png"),
        5: (image.convert("RGBA"), ".png"),
        6: (image.convert("P", palette=Image.Palette.ADAPTIVE), ".gif"),
        7: (image.convert("CMYK"), ".tiff"),
        8: (image.convert("L"), ".bmp"),
        9: (Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), ".png"),
        10: (image, ".webp"),
        11: (image.convert("LA"), ".png"),
    }[kind]
    changed.save(stem.with_suffix(ending))
    return stem.with_suffix(ending)


KINDS = 12


def mixed_folder(
    root: Path, per_class: int = 12, splits: Sequence[str] = ("Train", "val"), *, seed: int = 0, most: int = 60
) -> Path:
    """Class folders with photos of every kind below each split (three of four files in the first one), and clutter."""
    generator = np.random.default_rng(seed)
    for label, title in enumerate(CLASSES):
        for i in range(per_class):
            split = splits[int(i % 4 == 3)] if len(splits) > 1 else splits[0]
            folder = root / split / title / ("more photos" if i % 5 == 0 else "")
            folder.mkdir(parents=True, exist_ok=True)
            write(photo(label, generator, most), folder / f"IMG {i:04d}", int(generator.integers(KINDS)))
        (root / splits[0] / title / "Thumbs.db").write_bytes(b"\0")
        (root / splits[0] / title / ".hidden.png").write_bytes(b"\0")
    (root / ".cache").mkdir()
    (root / "notes.txt").write_text("taken in autumn")
    return root
