"""Images that stand for yours: `python examples/make_images.py [FOLDER]` writes FOLDER/<split>/<class>/*.png."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("cross", "disc", "square")


def draw(name: str, random: np.random.Generator) -> Image.Image:
    """One shape of random place, size and color on a noisy ground, 16 × 16."""
    ground = random.integers(0, 90, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    pen, side = ImageDraw.Draw(image), int(random.integers(8, 12))
    left, top = (int(corner) for corner in random.integers(0, 16 - side, 2))
    right, bottom, color = left + side, top + side, tuple(int(value) for value in random.integers(140, 255, 3))
    if name == "disc":
        pen.ellipse((left, top, right, bottom), fill=color)
    elif name == "square":
        pen.rectangle((left, top, right, bottom), fill=color)
    else:
        pen.line((left, top, right, bottom), fill=color, width=3)
        pen.line((left, bottom, right, top), fill=color, width=3)
    return image


def main(folder: Path) -> None:
    """Write 200 images of each class to train on, and 100 to test."""
    random = np.random.default_rng(0)
    for split, count in (("train", 200), ("test", 100)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(name, random).save(folder / split / name / f"{number:03}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "images"))
