"""Photos as cameras, scanners and programs write them: the pixels are those that a person sees."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from steadygrad import data
from steadygrad.data.form import Form
from steadygrad.data.images import decode
from steadygrad.errors import Failure

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY = RGB[..., 0]
ALPHA = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
WHITE = 255 * np.ones(3)
DEEP = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
TWELVE = DEEP[..., 0] >> 4
FEW = np.array([[10, 20, 30], [200, 100, 0], [1, 2, 3]], dtype=np.uint8)  # a palette
PLACES = RNG.integers(0, 3, (6, 9), dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette_image() -> Image.Image:
    image = Image.fromarray(PLACES, "L")
    image.putpalette(FEW.tobytes())
    return image


def raw_png(pixels: np.ndarray) -> bytes:
    """A PNG with 16 bits per channel, which Pillow cannot write for color."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def on_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return share * color + (1 - share) * 255


def rgba() -> Image.Image:
    return Image.fromarray(np.dstack([RGB, ALPHA]), "RGBA")


def frames() -> dict[str, object]:
    return {"save_all": True, "append_images": [Image.fromarray(255 - RGB)]}


CMYK = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
INK = 255 * (1 - CMYK[..., :3] / 255) * (1 - CMYK[..., 3:] / 255)
KEYED = tuple(int(v) for v in RGB[2, 3])

PHOTOS: dict[str, tuple[bytes, np.ndarray, float]] = {
    "gray": (saved(Image.fromarray(GRAY)), GRAY, 0),
    "color": (saved(Image.fromarray(RGB)), RGB, 0),
    "1 bit": (saved(Image.fromarray(GRAY > 127)), np.where(GRAY > 127, 255, 0), 0),
    "palette": (saved(palette_image()), FEW[PLACES], 0),
    "palette GIF": (saved(palette_image(), "GIF"), FEW[PLACES], 0),
    "palette with a transparent color": (
        saved(palette_image(), transparency=1),
        np.where((PLACES == 1)[..., None], WHITE, FEW[PLACES]),
        0,
    ),
    "alpha": (saved(rgba()), on_white(RGB, ALPHA), 1),
    "alpha WebP": (saved(rgba(), "WEBP", lossless=True, exact=True), on_white(RGB, ALPHA), 1),
    "gray with alpha": (
        saved(Image.fromarray(np.dstack([GRAY, ALPHA]), "LA")),
        on_white(GRAY[..., None], ALPHA)[..., 0],
        1,
    ),
    "wholly opaque": (saved(Image.fromarray(np.dstack([RGB, ALPHA * 0 + 255]), "RGBA")), RGB, 0),
    "wholly transparent": (saved(Image.fromarray(np.dstack([RGB, ALPHA * 0]), "RGBA")), RGB * 0 + 255, 0),
    "a color that is transparent": (
        saved(Image.fromarray(RGB), transparency=KEYED),
        np.where((KEYED == RGB).all(-1)[..., None], WHITE, RGB),
        0,
    ),
    "CMYK": (saved(Image.fromarray(CMYK, "CMYK"), "TIFF"), INK, 1.01),
    "CMYK JPEG": (
        saved(Image.fromarray(CMYK[:1, :1].repeat(16, 0).repeat(16, 1), "CMYK"), "JPEG", quality=100),
        INK[:1, :1].repeat(16, 0).repeat(16, 1),
        4,
    ),
    "16 bits": (saved(Image.fromarray(DEEP[..., 0])), DEEP[..., 0] / 257, 0.01),
    "16 bits TIFF": (saved(Image.fromarray(DEEP[..., 0]), "TIFF"), DEEP[..., 0] / 257, 0.01),
    "16 bits PGM": (b"P5 9 6 65535 " + DEEP[..., 0].astype(">u2").tobytes(), DEEP[..., 0] / 257, 0.01),
    "12 bits PGM": (b"P5 9 6 4095 " + TWELVE.astype(">u2").tobytes(), TWELVE / 4095 * 255, 0.1),
    "16 bits gray by hand": (raw_png(DEEP[..., :1]), DEEP[..., 0] / 257, 0.01),
    "16 bits color": (raw_png(DEEP), DEEP / 257, 1),
    "animated GIF": (saved(palette_image(), "GIF", **frames()), FEW[PLACES], 0),
    "animated PNG": (saved(Image.fromarray(RGB), **frames()), RGB, 0),
    "animated WebP": (saved(Image.fromarray(RGB), "WEBP", lossless=True, **frames()), RGB, 0),
    "several pages": (saved(Image.fromarray(RGB), "TIFF", **frames()), RGB, 0),
    "BMP": (saved(Image.fromarray(RGB), "BMP"), RGB, 0),
    "TGA": (saved(Image.fromarray(RGB), "TGA"), RGB, 0),
    "PPM": (saved(Image.fromarray(RGB), "PPM"), RGB, 0),
    "PBM": (saved(Image.fromarray(GRAY > 127), "PPM"), np.where(GRAY > 127, 255, 0), 0),
    "JPEG 2000": (saved(Image.fromarray(RGB), "JPEG2000", irreversible=False), RGB, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", PHOTOS)
def test_pixels_are_those_that_a_person_sees(kind: str) -> None:
    content, wanted, tolerance = PHOTOS[kind]
    pixels = decode(content, Form(), "x")
    values = pixels.astype(float) * (255 if pixels.dtype == np.float32 else 1)
    assert pixels.shape == (*wanted.shape[:2], 3 if wanted.ndim == 3 else 1)
    assert np.abs(values - wanted.reshape(values.shape)).max() <= tolerance


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What the notes of a camera mean, in the words of the EXIF standard: 6 is shown after a turn to the right."""


@pytest.mark.parametrize("code", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photos_are_turned_as_the_camera_noted(kind: str, code: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = code
    pixels = np.kron(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3), np.ones((16, 16), np.uint8))
    content = saved(Image.fromarray(pixels).convert("RGB"), kind, exif=exif)
    shown = decode(content, Form(), "x")[..., 0].astype(int)
    wanted = TURNED[code](pixels.astype(int))
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).max() <= 12  # of the compression


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x is not a readable image"),
        (b"<svg/>", "x is not a readable image"),
        (PHOTOS["color"][0][:60], "x is not a readable image .truncated"),
        (saved(Image.fromarray(RGB), "JPEG")[:-200], "x is not a readable image .truncated"),
        (saved(Image.fromarray(GRAY.astype(np.float32)), "TIFF"), "x has F pixels of 32 bits: save it with 8 or 16"),
        (saved(Image.fromarray(GRAY.astype(np.int32)), "TIFF"), "x has I pixels of 32 bits: save it with 8 or 16"),
    ],
)
def test_what_cannot_be_shown_is_named(content: bytes, words: str) -> None:
    with pytest.raises(Failure, match=words):
        decode(content, Form(), "x")


def round_thing(width: int, height: int) -> Image.Image:
    """A circle of a third of the shorter side in the middle."""
    image, radius = Image.new("L", (width, height)), min(width, height) / 3
    box = (width / 2 - radius, height / 2 - radius, width / 2 + radius, height / 2 + radius)
    ImageDraw.Draw(image).ellipse(box, fill=255)
    return image


@pytest.mark.parametrize("side", [(80, 40), (40, 80), (120, 40), (60, 60)])
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_circles_stay_circles_unless_squashed(side: tuple[int, int], resize: str) -> None:
    shape = decode(saved(round_thing(*side)), Form((40, 40), None, resize), "x")[..., 0] > 127
    wide, high = side
    scale = {"crop": 40 / min(side), "pad": 40 / max(side)}.get(resize)
    across = 2 * min(side) / 3 * np.array([scale or 40 / high, scale or 40 / wide])
    assert np.abs(np.array([shape.any(1).sum(), shape.any(0).sum()]) - across).max() <= 1.6


@pytest.mark.parametrize("size", [(20, 20), (10, 30), (31, 17), (50, 50)])
@pytest.mark.parametrize(("height", "width"), [(41, 90), (90, 41), (33, 33)])
def test_crops_are_those_of_resizing_the_shorter_side(size: tuple[int, int], height: int, width: int) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    scale = max(size[0] / height, size[1] / width)
    large = image.resize((max(size[1], int(width * scale + 1e-9)), max(size[0], int(height * scale + 1e-9))), 2)
    top, left = round((large.height - size[0]) / 2), round((large.width - size[1]) / 2)
    wanted = np.asarray(large)[top : top + size[0], left : left + size[1]]
    assert np.array_equal(decode(saved(image), Form(size), "x"), wanted)


def test_margins_are_black_and_the_image_is_in_the_middle() -> None:
    shown = decode(saved(Image.new("RGB", (40, 20), "red")), Form((8, 8), None, "pad"), "x")
    assert shown[2:6, :, 0].min() == 255
    assert not shown[:2].any()
    assert not shown[6:].any()


def test_the_evaluation_transform_of_a_library_keeps_a_share() -> None:
    image = Image.fromarray(RNG.integers(0, 256, (300, 400, 3), dtype=np.uint8))
    shown = decode(saved(image), Form((224, 224), None, "crop", 0.875, "bicubic"), "x")
    # Resize(256, bicubic) and CenterCrop(224), as torchvision writes them.
    wanted = np.asarray(image.resize((341, 256), Image.Resampling.BICUBIC))[16:240, 58:282]
    assert np.array_equal(shown, wanted)


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(12, 12), (7, 30), (40, 10)])
def test_arrays_are_brought_to_a_size_as_files_are(tmp_path: Path, resize: str, size: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (4, 20, 33, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(4) % 2)
    for i, image in enumerate(pixels):
        (tmp_path / "a" / "train" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "a" / "train" / str(i % 2) / f"{i}.png")
    arrays = data.load(tmp_path / "a.npz", size=size, resize=resize)
    files = data.load(tmp_path / "a", size=size, resize=resize)
    order = torch.argsort(arrays.labels, stable=True)
    assert files.shape == (3, *size)
    assert (arrays.images[order].int() - files.images.int()).abs().max() <= 1
