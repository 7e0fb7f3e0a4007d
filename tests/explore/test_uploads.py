"""Pictures that people bring: any usual file in the shape of the data, and nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch

import steadygrad as sg
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.explore.uploads import Uploads


def _data(shape: tuple[int, ...], bounds: tuple[float, float] = (0.0, 1.0)) -> Dataset:
    return Dataset(torch.full((2, *shape), bounds[0]), torch.tensor([0, 1]), ("a", "b"), ("x", "y"), bounds=bounds)


def file(size: tuple[int, int] = (40, 20), color: object = (255, 0, 0), kind: str = "PNG", mode: str = "RGB") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and holds none of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_pictures_get_the_shape_and_bounds_of_the_data(kind: str) -> None:
    color = Uploads(_data((3, 8, 8), (-1.0, 1.0))).read(file(kind=kind))
    assert color.shape == (3, 8, 8)
    np.testing.assert_allclose(color[:, 4, 4].numpy(), [1, -1, -1], atol=0.02)
    gray = Uploads(_data((1, 6, 9))).read(file(kind=kind))
    np.testing.assert_allclose(gray.numpy(), np.full((1, 6, 9), 0.299), atol=0.02)
    sg.linf(0.1).allows(gray[None], gray[None])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is no picture"),
        (b"<svg onload=alert(1)>", "the file is no picture"),
        (file()[:60], "not a readable image"),
        (file(kind="EPS"), "a EPS file is not taken"),
        (file(kind="TIFF"), "a TIFF file is not taken"),
        (bomb(60_000, 60_000), "no picture|60,000 x 60,000 pixels"),
        (bomb(10_000, 5_000), "10,000 x 5,000 pixels: give one of 40,000,000 at most"),
        (file((3000, 2)), "less long and thin"),
        (bomb(1000, 1000), "not a readable image"),
    ],
)
def test_what_is_no_picture_of_usual_size_is_refused(content: bytes, says: str) -> None:
    uploads = Uploads(_data((3, 8, 8)))
    with pytest.raises((UsageError, Failure), match=says):
        uploads.add(content)
    assert not uploads._kept


def test_data_of_other_channels_take_no_pictures() -> None:
    with pytest.raises(UsageError, match="4 channels"):
        Uploads(_data((4, 8, 8))).add(file())


def test_the_latest_pictures_are_kept() -> None:
    uploads = Uploads(_data((1, 8, 8)))
    names = [uploads.add(file(color=(i, i, i))) for i in range(20)]
    assert uploads.add(file(color=(19, 19, 19))) == names[-1]
    assert list(uploads._kept) == names[-16:]
