"""Data from folders of image files, one folder per class."""

from __future__ import annotations

from pathlib import Path

import torch

from steadygrad.data.dataset import Dataset
from steadygrad.data.images import Form, stack
from steadygrad.data.splits import holdout, missing_split
from steadygrad.errors import UsageError

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_SPLITS = frozenset({"train", "test", "validation", "valid", "val"})


def load_folder(root: Path, name: str, split: str, form: Form) -> Dataset:
    """A split of root/<split>/<class>/*.png, or of root/<class>/*.png divided by `holdout`.

    Classes are the class folders of all splits by name; sample ids are paths below the root. Files
    with other endings and hidden ones are left out.

    Raises:
        UsageError: no class folders, a class without images, the split is missing, or sizes differ.
        Failure: a file is not a readable image; in a large folder when it is met.
    """
    splits = [folder.name for folder in _folders(root) if folder.name in _SPLITS]
    divided = "train" in splits or "test" in splits
    if divided and split not in splits:
        raise missing_split(f"the image folder {root}", split, splits)
    classes = _classes([root / s for s in splits] if divided else [root], root)
    base = root / split if divided else root
    files = [(path, label) for label, title in enumerate(classes) for path in _images(base / title)]
    if not divided:
        keys = [path.relative_to(root).as_posix() for path, _ in files]
        files = [files[i] for i in holdout([label for _, label in files], split, keys)]
    images = stack(lambda rows: ((str(files[i][0]), files[i][0]) for i in rows), len(files), form, f"{name}/{split}")
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    ids = tuple(path.relative_to(root).as_posix() for path, _ in files)
    return Dataset(images, labels, tuple(classes), ids, name, split)


def _classes(bases: list[Path], root: Path) -> list[str]:
    classes = sorted({folder.name for base in bases for folder in _folders(base)})
    if not classes:
        raise UsageError(
            f"{root} holds no class folders: put the images into {root}/train/<class>/ and {root}/test/<class>/, "
            f"or into {root}/<class>/"
        )
    for title in classes:
        if not any(_images(base / title) for base in bases):
            endings = ", ".join(sorted(_ENDINGS))
            raise UsageError(f"the class folder {title!r} in {root} holds no images ({endings}): add some or remove it")
    return classes


def _folders(base: Path) -> list[Path]:
    return sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in _ENDINGS and not p.name.startswith("."))
    return sorted((p for p in found if p.is_file()), key=lambda p: p.as_posix())
