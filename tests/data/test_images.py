import io

import numpy as np
import pytest
import torch
from PIL import Image

from steadygrad.data.form import Form
from steadygrad.data.image_files import Files, stack
from steadygrad.data.images import decode, reshape
from steadygrad.errors import Failure, UsageError


class Listed(Files):
    def __init__(self, *files: tuple[str, bytes]) -> None:
        self.files = files

    def __call__(self, places: list[int]) -> list[tuple[str, bytes]]:
        return [self.files[i] for i in places]


def stacked(*files: tuple[str, bytes], form: Form = Form()) -> torch.Tensor:  # noqa: B008
    return stack(Listed(*files), len(files), form)[:]


def colors(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "color", "channels"),
    [
        ("L", None, 1),
        ("1", None, 1),
        ("LA", None, 1),
        ("RGB", None, 3),
        ("RGBA", None, 3),
        ("P", None, 3),
        ("L", "rgb", 3),
        ("RGB", "gray", 1),
        ("RGBA", "gray", 1),
        ("P", "gray", 1),
    ],
)
def test_every_mode_becomes_grey_or_color(mode, color, channels):
    image = Image.fromarray(colors(4, 5, 3)).convert(mode)
    pixels = decode(encoded(image), Form(None, color), "x.png")
    assert pixels.shape == (4, 5, channels)
    wanted = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(4, 5, channels)
    assert np.array_equal(pixels, wanted)


def test_16_bit_grey_keeps_its_depth():
    deep = np.array([[0, 1], [40000, 65535]], dtype=np.uint16)
    pixels = decode(encoded(Image.fromarray(deep)), Form(), "x.png")
    assert pixels.dtype == np.float32
    assert np.allclose(pixels[:, :, 0], deep / 65535, rtol=1e-6)
    assert decode(encoded(Image.fromarray(deep)), Form((3, 3), "rgb"), "x.png").shape == (3, 3, 3)


def test_floating_point_files_are_refused():
    image = Image.fromarray(np.zeros((2, 2), np.float32))
    with pytest.raises(Failure, match=r"x\.tif has F pixels of 32 bits"):
        decode(encoded(image, "TIFF"), Form(), "x.tif")


def test_photos_are_turned_as_the_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(Image.new("RGB", (5, 2)), "JPEG", exif=exif), Form(), "x.jpg").shape == (5, 2, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_images_are_named(kind):
    content = encoded(Image.fromarray(colors(40, 40, 3)), kind)
    with pytest.raises(Failure, match=r"cat/7\.png is not a readable image"):
        decode(content[: len(content) // 2], Form(), "cat/7.png")
    with pytest.raises(Failure, match=r"cat/7\.png is not a readable image"):
        decode(b"", Form(), "cat/7.png")


def test_arrays_turn_grey_exactly_as_files_do():
    rgb = colors(7, 9, 3)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    wanted = torch.from_numpy(np.asarray(Image.fromarray(rgb).convert("L")).copy())
    assert torch.equal(reshape(tensor, Form(None, "gray"))[0, 0], wanted)
    gray = reshape(tensor / 255, Form(None, "gray"))[0, 0]
    assert (gray - wanted / 255).abs().max() < 0.51 / 255


def test_white_stays_white():
    white = torch.ones(1, 3, 5, 5)
    assert reshape(white, Form((2, 2), "gray")).max() <= 1
    assert torch.allclose(reshape(white, Form((2, 2), "gray")), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("size", [(4, 3), (20, 31)])
def test_arrays_are_resized_as_files_are(size):
    rgb = colors(9, 12, 3)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    ours = reshape(tensor, Form(size))[0].permute(1, 2, 0).to(torch.int32)
    files = torch.from_numpy(decode(encoded(Image.fromarray(rgb)), Form(size), "x").astype(np.int32))
    assert ours.shape == (*size, 3)
    assert (ours - files).abs().max() <= 1


def test_grey_becomes_color_by_repetition():
    gray = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(reshape(gray, Form(None, "rgb")), gray.repeat(1, 3, 1, 1))


def test_unlike_images_are_named_with_the_way_out():
    def png(*shape: int, dtype: type = np.uint8) -> bytes:
        return encoded(Image.fromarray(np.zeros(shape, dtype)))

    first = ("a.png", png(4, 5))
    with pytest.raises(UsageError, match=r"c\.png is 5 x 4 pixels, a\.png is 4 x 5: choose one size"):
        stacked(first, ("b.png", png(4, 5)), ("c.png", png(5, 4)), ("d.png", png(9, 9)))
    with pytest.raises(UsageError, match=r"b\.png has 3 channels, a\.png has 1: choose color"):
        stacked(first, ("b.png", png(4, 5, 3)))
    assert stacked(first, ("c.png", png(5, 4, 3)), form=Form((3, 3), "rgb")).shape == (2, 3, 3, 3)


def test_form_checks_its_options():
    assert Form.of(7, "gray") == Form((7, 7), "gray")
    assert Form.of((2, 3), None) == Form((2, 3))
    for size in (0, -1, (3,), (2, 0), (2, 3.5), "big", True, "3x", "3x4x5", 2.0):
        with pytest.raises(UsageError, match="size must be a positive number"):
            Form.of(size, None)
    with pytest.raises(UsageError, match="there is no color 'grey'; did you mean 'gray'"):
        Form.of(None, "grey")
