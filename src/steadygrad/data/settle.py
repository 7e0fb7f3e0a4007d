"""What image files look like before they are decoded, and the one form that mixed ones are brought to."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter

import torch

from steadygrad.data.form import Form
from steadygrad.data.image_files import Files
from steadygrad.data.images import is_clear, is_deep, is_gray, opened

LOOKED_AT = 2000
"""Of more files than these, as many are looked at, spread evenly over all."""
LARGEST = 224
"""Side of the square to which images of several sizes are brought at most, if nothing else is asked for."""
_ORIENTATION = 0x0112


@dataclasses.dataclass
class Look:
    """What the headers of some image files say."""

    count: int = 0
    gray: int = 0
    deep: int = 0
    clear: int = 0
    animated: int = 0
    sizes: Counter[tuple[int, int]] = dataclasses.field(default_factory=Counter)

    def add(self, files: Files, count: int) -> Look:
        """Look at files, by place, without decoding them; what cannot be read is left to be named when it is read."""
        step = max(1, count / LOOKED_AT)
        for _, source in files([int(i * step) for i in range(min(count, LOOKED_AT))]):
            try:
                with opened(source) as image:
                    size = image.size if image.format == "PNG" or not _on_its_side(image) else image.size[::-1]
                    facts = is_gray(image), is_deep(image), is_clear(image), getattr(image, "is_animated", False)
            except Exception:
                continue
            self.count += 1
            self.sizes[size] += 1
            self.gray, self.deep = self.gray + facts[0], self.deep + facts[1]
            self.clear, self.animated = self.clear + facts[2], self.animated + facts[3]
        return self

    def settle(self, form: Form) -> tuple[Form, torch.dtype, list[str]]:
        """The form that all of them are brought to, the type of the decoded pixels, and what people should know.

        Colors go by majority. Images of several sizes become squares, whose side is the median of their shorter sides
        or `LARGEST`.
        """
        if not self.count:
            return form, torch.uint8, []
        color = form.color or ("gray" if self.gray * 2 > self.count else "rgb")
        size, notes = form.size, []
        if size is None and len(self.sizes) > 1:
            sides = [min(side) for side, times in self.sizes.items() for _ in range(times)]
            side = min(LARGEST, statistics.median_low(sides))
            size = (side, side)
        settled = dataclasses.replace(form, color=color, size=size)
        if form.size is None and size is not None:
            words = settled.words(1 if color == "gray" else 3)
            notes.append(f"{self.count} images of {len(self.sizes)} sizes become {words} (or choose size and resize)")
        others = self.count - self.gray if color == "gray" else self.gray
        if others:
            what = "color ones are made gray" if color == "gray" else "gray ones are made rgb"
            notes.append(f"{others} of {self.count} images: {what} (or choose color)")
        if self.clear:
            notes.append(f"{self.clear} of {self.count} images: what is transparent becomes white")
        if self.animated:
            notes.append(f"{self.animated} of {self.count} images have several frames: the first one is taken")
        if 0 < self.deep < self.count:
            notes.append(f"{self.deep} of {self.count} images have 16 bits: scaled like those with 8")
        # Color is read with 8 bits, so that 16 bits are kept in gray only.
        return settled, torch.float32 if self.deep and color == "gray" else torch.uint8, notes


def _on_its_side(image: object) -> bool:
    return image.getexif().get(_ORIENTATION, 1) >= 5  # type: ignore[attr-defined, no-any-return]
