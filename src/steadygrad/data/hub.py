"""Data from the Hugging Face Hub, by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from steadygrad.data.arrays import class_names
from steadygrad.data.dataset import Dataset
from steadygrad.data.images import Form, stack
from steadygrad.data.parquet import image_and_label
from steadygrad.data.splits import numbered
from steadygrad.errors import Failure, UsageError


def load_hub(repository: str, config: str | None, name: str, split: str, form: Form) -> Dataset:
    """A split of `owner/name` on the Hub, kept in the cache of the `datasets` library.

    Raises:
        UsageError: the repository has no such split, or no image or label column.
        Failure: it cannot be downloaded (with what to do without a network), or an image is broken.
    """
    from datasets import Image

    table = _download(repository, config, name, split)
    image, label = image_and_label(table.column_names, f"the data set {repository}")
    if len(table) == 0:
        raise UsageError(f"the split {split!r} of {repository} is empty: choose another one")
    values = list(table[label])
    wrong = [value for value in values if not isinstance(value, int)]
    if wrong:
        raise UsageError(f"the column {label!r} of {repository} must hold integer labels, got {wrong[0]!r}")
    labels = torch.tensor(values, dtype=torch.int64)
    # Undecoded, so that a broken image is named by its row and all sources decode alike.
    files = table.select_columns([image]).cast_column(image, Image(decode=False))
    read = functools.partial(_contents, files, f"{repository} ({split})")
    images = stack(read, len(labels), form, f"{name}/{split}")
    classes = class_names(getattr(table.features[label], "names", None), labels)
    return Dataset(images, labels, classes, numbered(f"{name}/{split}/", range(len(labels))), name, split)


def _download(repository: str, config: str | None, name: str, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(repository, config, split=split)
    except ValueError as error:
        if "split" in str(error).lower():
            raise UsageError(f"{repository} has no split {split!r}: {error}") from error
        if "config" in str(error).lower():
            raise UsageError(f"{repository} needs a configuration, hub:{repository}:CONFIG: {error}") from error
        raise Failure(f"cannot read {repository} from the Hub: {error}") from error
    except (OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        folder = name.rpartition("/")[2]
        raise Failure(
            f"cannot get {repository} from the Hub: {error}. Without a network, put its Parquet files into "
            f"$STEADYGRAD_DATA/{folder}/data/ and load {folder!r}"
        ) from error


def _contents(files: Any, where: str, rows: Sequence[int]) -> Iterator[tuple[str, bytes | Path]]:
    (values,) = files[list(rows)].values()
    for row, value in zip(rows, values):
        here = f"the image in row {row} of {where}"
        if value is None or (value["bytes"] is None and value["path"] is None):
            raise Failure(f"{here} is empty")
        yield here, value["bytes"] if value["bytes"] is not None else Path(value["path"])
