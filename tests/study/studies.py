"""A study folder without a run behind it: random pictures, of three models and ten classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from steadygrad.files import write_json
from steadygrad.study import settings
from steadygrad.study.design import Design, Stimulus
from steadygrad.study.folder import DESIGN, PICTURES

CLASSES = tuple("0123456789")
MODELS = ("plain", "distilled", "hardened")


def small(
    folder: Path, *, trials: int = 30, maps: int = 2, practice: int = 2, classes: tuple[str, ...] = CLASSES
) -> Design:
    """Write the folder; every block has the same number of trials, two controls among them."""
    stimuli: list[Stimulus] = []

    def added(kind: str, i: int, **about: object) -> str:
        name = f"{len(stimuli):016x}"
        images = tuple(f"{name[:-1]}{side}{len(stimuli):x}" for side in ("a", "b", "c")[: 3 if kind == "maps" else 1])
        options = () if kind == "maps" else classes
        stimuli.append(Stimulus(name, kind, f"{kind}/{i}", classes[i % len(classes)], images, options, **about))
        return name

    first = tuple(added("clean", 1000 + i) for i in range(practice))
    blocks = []
    for block, model in enumerate(MODELS):
        main = [
            added("labels", 100 * block + i, predicted=classes[(i + 1) % len(classes)], model=model, attack="PGD",
                  threat="linf ≤ 0.1")
            for i in range(trials - 2)
        ]  # fmt: skip
        main += [added("clean", 100 * block + 98), added("attention", 100 * block + 99, told=classes[0])]
        pairs = [added("maps", i, predicted=classes[i], model=model, of=("one", "other")) for i in range(maps)]
        blocks.append((tuple(main), tuple(pairs)))
    design = Design("key", 0, classes, {s.id: s for s in stimuli}, first, tuple(blocks))
    (folder / PICTURES).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for stimulus in stimuli:
        for name in stimulus.images:
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / PICTURES / f"{name}.png")
    write_json(folder / DESIGN, design.plain())
    settings.template(folder / settings.FILE)
    return design
