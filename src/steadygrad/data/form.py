"""The form of images: which size and color they are brought to, and how."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from steadygrad.errors import UsageError, one_of

COLORS = ("gray", "rgb")
WAYS = ("crop", "squash", "pad")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")


@dataclasses.dataclass(frozen=True)
class Form:
    """The wanted form of images; a size or color of None keeps what comes.

    Args:
        size: height and width.
        color: "gray" or "rgb".
        resize: "crop" resizes until the image covers the size and cuts out its center, "pad" until it fits and adds
            black margins, "squash" changes its proportions.
        kept: for crop and squash, the share of each side that the cut keeps: images are resized to size / kept before.
        interpolation: how pixels are resized; all but nearest with antialiasing.
    """

    size: tuple[int, int] | None = None
    color: str | None = None
    resize: str = "crop"
    kept: float = 1.0
    interpolation: str = "bilinear"

    @staticmethod
    def of(size: Any = None, color: str | None = None, resize: str | None = None, **more: Any) -> Form:
        """Check the options as a caller gives them; None stands for the default.

        Raises:
            UsageError: not a size, color or way of resizing.

        >>> Form.of("64x48", resize="pad")
        Form(size=(64, 48), color=None, resize='pad', kept=1.0, interpolation='bilinear')
        """
        if color is not None:
            one_of("color", color, COLORS)
        if resize is not None:
            one_of("way to resize", resize, WAYS)
        return Form(pair(size), color, resize or "crop", **more)

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        if not 0 < self.kept <= 1:
            raise UsageError(f"kept must be a share within (0, 1], got {self.kept!r}")

    def plain(self) -> dict[str, Any]:
        """As plain data, without what is as usual."""
        usual = Form()
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {name: value for name, value in given.items() if value != getattr(usual, name)}
        return {**plain, **({"size": list(self.size)} if self.size is not None else {})}

    def way(self) -> dict[str, Any] | None:
        """How images are resized, as plain data; None for the usual way."""
        return {name: value for name, value in self.plain().items() if name not in ("size", "color")} or None

    def covering(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to which an image is resized, before it is cut or padded to the size."""
        if self.size is None:
            return height, width
        # Libraries round down too, of the exact quotient.
        high, wide = (int(side / self.kept + 1e-6) for side in self.size) if self.resize != "pad" else self.size
        if self.resize == "squash":
            return high, wide
        # The other side is rounded down, as torchvision does it.
        by_height = (high * width >= wide * height) == (self.resize == "crop")
        return (high, max(1, high * width // height)) if by_height else (max(1, wide * height // width), wide)

    def words(self, channels: int) -> str:
        """What it does, for people: "3 x 224 x 224: resized until they cover it, and their center cut out"."""
        assert self.size is not None
        ways = {
            "crop": "resized until they cover it, and the center cut out",
            "squash": "resized without regard to their proportions",
            "pad": "resized until they fit, with black margins",
        }
        return f"{channels} x {self.size[0]} x {self.size[1]}: {ways[self.resize]}"


def pair(size: Any) -> tuple[int, int] | None:
    """Height and width from a number (a square), two of them, or a text such as 64 or 64x48.

    Raises:
        UsageError: anything else.
    """
    if size is None:
        return None
    values: Any = size
    if isinstance(size, str):
        found = re.fullmatch(r"(\d+)(?:\s*[xX*,]\s*(\d+))?", size.strip())
        values = [int(v) for v in found.groups() if v is not None] if found else []
    elif not isinstance(size, list | tuple):
        values = [size]
    elif len(size) != 2:
        values = []
    whole = [int(v) for v in values if not isinstance(v, bool | float) and hasattr(v, "__index__")]
    if not whole or len(whole) != len(values) or min(whole) < 1:
        raise UsageError(f"size must be a positive number, HEIGHTxWIDTH or (height, width), got {size!r}")
    return whole[0], whole[-1]
