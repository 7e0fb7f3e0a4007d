"""Pictures that people bring: small enough, really pictures, and in the shape of the data before anything sees them."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import warnings
from collections import OrderedDict

import torch
from torch import Tensor

from steadygrad.data import Dataset
from steadygrad.data.form import Form
from steadygrad.data.images import decode, opened
from steadygrad.errors import Failure, UsageError, reading

BODY = 8 * 1024 * 1024
"""Bytes of a file at most."""
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
_PIXELS, _PROPORTION = 40_000_000, 20
_KEPT = 16
_THE_FILE = "the file"


class Uploads:
    """The latest pictures that were brought, by a name made of their content; they are kept in memory alone."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._turn = threading.Lock()

    def add(self, content: bytes) -> str:
        """Keep a picture; returns its name.

        Raises:
            UsageError, Failure: it is none, is too large or too long, or the data are no pictures that a file could be.
        """
        image, name = self.read(content), f"own-{hashlib.sha256(content).hexdigest()[:16]}"
        with self._turn:
            self._kept[name] = image
            self._kept.move_to_end(name)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return name

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def read(self, content: bytes) -> Tensor:
        """A file as an input (C, H, W) of the shape and within the bounds of the data."""
        channels, *size = self._data.shape
        if channels not in (1, 3):
            raise UsageError(f"the models take images of {channels} channels, which no picture has")
        with warnings.catch_warnings(), reading("the file is no picture", ": give a PNG, JPEG, GIF, WEBP or BMP file"):
            warnings.simplefilter("ignore")  # of a bomb, which is looked for here
            with opened(content) as image:
                kind, (width, height) = image.format, image.size
        if kind not in _FORMATS:
            raise UsageError(f"a {kind} file is not taken: give a PNG, JPEG, GIF, WEBP or BMP file")
        if width * height > _PIXELS:
            raise UsageError(f"the picture has {width:,} x {height:,} pixels: give one of {_PIXELS:,} at most")
        if max(width, height) > _PROPORTION * min(width, height):
            raise UsageError(f"the picture has {width:,} x {height:,} pixels: give one less long and thin")
        form = self._data.form or Form()
        wanted = dataclasses.replace(form, size=(size[0], size[1]), color="gray" if channels == 1 else "rgb")
        pixels = torch.from_numpy(decode(content, wanted, _THE_FILE).copy()).permute(2, 0, 1)
        values = pixels if pixels.is_floating_point() else pixels.float() / 255
        if tuple(values.shape) != self._data.shape:
            raise Failure(f"the picture became one of shape {tuple(values.shape)}, not {self._data.shape}")
        low, high = self._data.bounds
        return low + (high - low) * values
