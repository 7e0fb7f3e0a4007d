"""Data by name or path: the bundled digits, a local folder or file, or the Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from steadygrad.arguments import public
from steadygrad.data.arrays import load_npz
from steadygrad.data.dataset import Dataset, two_classes
from steadygrad.data.folders import load_folder
from steadygrad.data.form import Form
from steadygrad.data.hub import load_hub
from steadygrad.data.images import reshape
from steadygrad.data.lazy import loaded
from steadygrad.data.parquet import load_parquet, parquet_files
from steadygrad.data.splits import Asked, holdout, numbered
from steadygrad.data.tables import csv_files, load_csv
from steadygrad.errors import Failure, UsageError, unknown_name
from steadygrad.named_data import DATASETS, is_path, local_folder, on_the_hub
from steadygrad.progress import say
from steadygrad.readable import readable

_DIGITS_TEST_PER_CLASS = 50


@public
def load(
    name: str | Path,
    split: str | None = "train",
    *,
    training: bool = False,
    size: int | str | tuple[int, int] | None = None,
    color: str | None = None,
    resize: str | None = None,
    bounds: tuple[float, float] | None = None,
    verify: bool = False,
) -> Dataset:
    """Load a split of a data set.

    Args:
        name: a name of `DATASETS` or of a folder in $STEADYGRAD_DATA (which comes first, but for the
            bundled digits); `hub:owner/name` or `hub:owner/name:config`; or a path to an image
            folder, a Parquet file or folder, or an `.npz` or `.csv` file.
        split: "train", "test", or another split that the source has, in any case, or by a name of the same
            meaning (val for validation); "all" of a source that has no splits; None for the one to judge on:
            test, else validation, else a part that is held out of the only one.
        training: None is the split to train on instead: train, without what is held out of it.
        size: resize images to (height, width), or to a square; None keeps the size, or takes the median of the shorter
            sides, 224 at most, where they have several.
        color: "gray" or "rgb" converts images; None keeps them as they are, or as most of them are.
        resize: "crop" (the default) to cover the size and cut out the center, "pad" to fit into it with black
            margins, "squash" to change the proportions.
        bounds: smallest and largest value of an input: pixels are scaled to them, and the floats of a file must lie
            within them. By default 0 and 1, or what an `.npz` file says, or the range of a `.csv` file.
        verify: whether the files of a large data set are told by what is in them now, rather than by hashes that are
            kept with their sizes and times (`data.hashes`).

    What was chosen is in the `notes` of the data, and said.

    Raises:
        UsageError: unknown name or split, missing path, columns or keys,
            values outside the bounds, labels outside the classes, no samples, or one class only.
        Failure: a file is truncated, or the Hub cannot be reached.

    >>> load("digits", "test")
    Dataset(digits/test: 500 samples of shape (1, 8, 8), 10 classes)
    """
    return read(opened(name, Asked(split, training, Form.of(size, color, resize), bounds, verify)))


def opened(name: str | Path, asked: Asked) -> Dataset:
    """What is asked of the data, as `load` does it, with images that are not read yet."""
    try:
        data = two_classes(_load(name, asked))
    except OSError as error:  # of a folder that may not be read, or a name that no file can have
        raise Failure(f"cannot read {readable(str(error.filename or name))}: {error.strerror or error}") from error
    return data if asked.bounds is None else data.within(asked.bounds)


def read(data: Dataset) -> Dataset:
    """Data with their images in memory, unless they are large; says what was chosen."""
    data = dataclasses.replace(data, images=loaded(data.images, data.source))
    for note in data.notes:
        say(f"{data.name}: {note}")
    return data


def _load(name: str | Path, asked: Asked) -> Dataset:
    hub = on_the_hub(name) if isinstance(name, str) else None
    if hub is not None:
        return load_hub(hub, asked)
    if isinstance(name, Path) or is_path(name):
        path = Path(name).expanduser()
        return _load_path(path, path.resolve().name if path.is_dir() else path.stem, asked)
    if name == "digits":
        return _load_digits(asked)
    local = local_folder()
    if local is not None and name and (local / name).is_dir():
        return _load_path(local / name, name, asked)
    if name and Path(name).exists():
        return _load_path(Path(name), Path(name).stem, asked)
    found = [p.name for p in local.iterdir() if p.is_dir()] if local is not None else []
    raise unknown_name("data set, file or folder", name, {*(row.name for row in DATASETS), *found})


def _load_path(path: Path, name: str, asked: Asked) -> Dataset:
    if not path.exists():
        raise UsageError(
            f"there is no file or folder {path}: give a path that exists, hub:owner/name, or a name "
            f"({', '.join(row.name for row in DATASETS)})"
        )
    if path.is_dir():
        tables = load_csv if csv_files(path) else load_folder
        return (load_parquet if parquet_files(path) else tables)(path, name, asked)
    readers = {".npz": load_npz, ".parquet": load_parquet, ".csv": load_csv}
    if path.suffix in readers and path.is_file():
        return readers[path.suffix](path, name, asked)
    raise UsageError(
        f"cannot read {path}: data is an image folder, a Parquet file or folder, an .npz file, or a .csv file or folder"
    )


def _load_digits(asked: Asked) -> Dataset:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    # 17 gray levels, 0 to 16: sixteenths are exact in float32.
    images = torch.from_numpy(bundle.images).to(torch.float32).unsqueeze(1) / 16  # (N, 1, 8, 8)
    labels = torch.from_numpy(bundle.target).to(torch.int64)
    part = asked.part("digits")
    keep = holdout(labels.tolist(), part.held, per_class=_DIGITS_TEST_PER_CLASS)
    classes = tuple(str(name) for name in bundle.target_names)
    ids, images = numbered("digits/", keep), reshape(images[keep], asked.form)
    return Dataset(images, labels[keep], classes, ids, "digits", part.name, form=asked.form)
