"""Data from the Hugging Face Hub, by name."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steadygrad.data.arrays import labels_of
from steadygrad.data.dataset import Dataset
from steadygrad.data.form import Form
from steadygrad.data.image_files import Files, stack
from steadygrad.data.labels import classes_of
from steadygrad.data.parquet import LOOKED_AT, image_and_label
from steadygrad.data.settle import Look
from steadygrad.data.splits import Asked, Part, numbered
from steadygrad.errors import Failure, UsageError
from steadygrad.named_data import Source, away, check_reachable
from steadygrad.offline import as_reachable


def load_hub(source: Source, asked: Asked) -> Dataset:
    """A split of data on the Hub, kept in the cache of the `datasets` library.

    Raises:
        UsageError: the repository has no such split, or no image or label column.
        Failure: it cannot be downloaded (with what to do without a network), or an image is broken.
    """
    check_reachable(source)
    import datasets  # noqa: F401

    with as_reachable():
        table, part = _loaded(source, asked)
    if len(table) == 0:
        raise UsageError(f"the split {part!r} of {source.hub} is empty: choose another one")
    data = from_table(table, f"{source.hub} ({part})", source.name, part, asked.form)
    note = Part(part).note(asked.split)
    return dataclasses.replace(data, notes=(*(() if note is None else (note,)), *data.notes))


def from_table(table: Any, where: str, name: str, split: str, form: Form) -> Dataset:
    """A table of `datasets` with a column of images and one of integer labels.

    Raises:
        UsageError: a column is missing.
        Failure: an image is broken.
    """
    from datasets import Image

    image, label = image_and_label(table.column_names, f"the data set {where}")
    values = list(table[label])
    wrong = [value for value in values if not isinstance(value, int)]
    if wrong:
        raise UsageError(f"the column {label!r} of {where} must hold integer labels, got {wrong[0]!r}")
    labels = labels_of(values, f"{where}, column {label!r}")
    # Undecoded, so that a broken image is named by its row and all sources decode alike.
    files = _Rows(table.select_columns([image]).cast_column(image, Image(decode=False)), where)
    form, dtype, notes = Look().add(files, min(len(labels), LOOKED_AT)).settle(form)
    images = stack(files, len(labels), form, dtype)
    known = getattr(table.features[label], "names", None)
    classes, more = classes_of(known, labels, where, "row {}".format, "names of classes in its features")
    ids = numbered(f"{name}/{split}/", range(len(labels)))
    return Dataset(images, labels, classes, ids, name, split, form=form, notes=(*notes, *more))


def _loaded(source: Source, ask: Asked) -> tuple[Any, str]:
    """The table of a split, and the name that it has there."""
    import datasets

    repository, config = source.hub, source.config
    asked = ("train" if ask.training else "test") if ask.split is None else ask.split
    try:
        return datasets.load_dataset(repository, config, split=asked), asked
    except ValueError as error:
        if "split" in str(error).lower():
            # Such as: Unknown split "test". Should be one of ['train', 'validation'].
            there = re.findall(r"'([^']+)'", str(error).partition("one of")[2])
            with contextlib.suppress(UsageError):
                found = ask.part(repository, there)
                if found.held is None and found.split not in (None, asked):
                    return datasets.load_dataset(repository, config, split=found.split), str(found.split)
            halves = f"; take {there[0]}[:80%] to train and {there[0]}[80%:] to test" if len(there) == 1 else ""
            raise UsageError(f"{repository} has no split {asked!r}: {error}{halves}") from error
        if "config" in str(error).lower():
            raise UsageError(f"{repository} needs a configuration, hub:{repository}:CONFIG: {error}") from error
        raise Failure(f"cannot read {repository} from the Hub: {error}") from error
    except (OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise away(source, error) from error


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows(Files):
    """The image files in a table, of which only the rows that are asked for are read."""

    table: Any
    where: str

    def __call__(self, places: Sequence[int]) -> Iterator[tuple[str, bytes | Path]]:
        (values,) = self.table[list(places)].values()
        for row, value in zip(places, values):
            here = f"the image in row {row} of {self.where}"
            if value is None or (value["bytes"] is None and value["path"] is None):
                raise Failure(f"{here} is empty")
            yield here, value["bytes"] if value["bytes"] is not None else Path(value["path"])
