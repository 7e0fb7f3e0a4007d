"""Whatever holds samples and labels in Python, as a `Dataset`."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from steadygrad.arguments import public
from steadygrad.data import lazy
from steadygrad.data.arrays import from_arrays, from_rows, labels_of, samples_of, tensor_of
from steadygrad.data.dataset import Dataset, check_values, clipped, two_classes
from steadygrad.data.form import Form
from steadygrad.data.labels import classes_of
from steadygrad.data.splits import numbered
from steadygrad.errors import UsageError
from steadygrad.kinds import ClassNames
from steadygrad.turns import drawing
from steadygrad.values import Reader

_TAKEN = (
    "a sg.data.Dataset, (x, y) of tensors, arrays or lists, a torch Dataset or a DataLoader that does not shuffle, "
    "or a split of Hugging Face datasets"
)
_INPUT = ("image", "img", "pixel_values", "x", "input", "inputs", "pixels")
_LABEL = ("label", "labels", "y", "target", "targets", "fine_label")
_NEEDED = f"an input ({', '.join(_INPUT[:4])} ...) and a label ({', '.join(_LABEL[:3])} ...) are needed"
_SEEN_TWICE = 8
_LOOKED_AT = 20
"""So many samples, spread over large data, must have the labels that the data say, or all are read for theirs."""


@public
def dataset_of(data: Any, classes: ClassNames | None = None, *, name: str = "data") -> Dataset:
    """A `Dataset` from what holds samples and labels in Python; every function that takes data takes all of these.

    Args:
        data: a `Dataset`; (x, y) as `from_arrays` takes them, also lists of images or pandas; a torch
            `Dataset` with a length, of samples (x, y) or of mappings with an image and a label; a `DataLoader` over one
            that does not shuffle; a split of Hugging Face `datasets`.
        classes: class names or their number; None takes those that the data say, else the largest label plus one.
        name: what errors and sample ids call it.

    Samples are read once, and where they take much memory when they are asked for: they must be the same each time.
    Labels that large data say in `targets`, as those of torchvision do, are not read sample by sample.

    Raises:
        UsageError: anything else, with what to do; samples that change from time to time.

    >>> dataset_of(([[0.1, 0.9], [0.8, 0.2]], [0, 1]))
    Dataset(data/all: 2 samples of shape (2,), 2 classes)
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        raise UsageError(f"{name} is {str(data)!r}: load it first, sg.data.load({str(data)!r}, 'test')")
    kind = type(data)
    if kind.__module__.split(".")[0] == "datasets":
        return _hugging_face(data, classes, name)
    if kind.__module__.split(".")[0] == "pandas":
        raise UsageError(
            f"{name} is a {kind.__name__}: give (x, y), such as (table.drop(columns='label'), table['label'])"
        )
    if isinstance(data, torch.utils.data.DataLoader):
        return _in_order(data, classes, name)
    pair = isinstance(data, tuple | list) and len(data) == 2 and not all(isinstance(part, tuple) for part in data)
    if pair:
        x, y = data
        return from_arrays(_whole(x, name), y, classes, name=name)
    if isinstance(data, torch.utils.data.IterableDataset):
        raise UsageError(f"{name} is a {kind.__name__}, which has no order and no length: give a map-style Dataset")
    if isinstance(data, Tensor | np.ndarray | Mapping) or not (
        hasattr(kind, "__getitem__") and hasattr(kind, "__len__")
    ):
        extra = ": the labels are missing" if isinstance(data, Tensor | np.ndarray) else ""
        raise UsageError(f"{name} must be {_TAKEN}; got {kind.__module__}.{kind.__qualname__}{extra}")
    return _samples(data, classes, name)


Samples = Annotated[Dataset, Reader(_TAKEN, lambda name, value: dataset_of(value, name=name))]
"""The type of a parameter that takes whatever holds samples and labels."""


@contextlib.contextmanager
def _same_random_state() -> Iterator[None]:
    """What the caller's code draws while it is read leaves the global generators as they were."""
    with drawing():
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _whole(x: Any, name: str) -> Any:
    """Inputs as one array or tensor."""
    if not isinstance(x, list | tuple) or not len(x):
        return x
    if isinstance(x[0], Tensor):
        shapes = {tuple(getattr(part, "shape", ())) for part in x}
        if len(shapes) > 1:
            raise UsageError(f"the samples of {name} have several shapes, {_some(shapes)}: bring them to one")
        return torch.stack([part.detach().cpu() for part in x])
    parts = [_array(part) for part in x]
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise UsageError(f"the samples of {name} have several shapes, {_some(shapes)}: bring them to one")
    if not isinstance(x[0], np.ndarray) and parts[0].dtype.kind in "iu" and parts[0].dtype != np.uint8:
        parts = [part.astype(np.float32) for part in parts]  # lists of whole numbers say nothing about their type
    return np.stack(parts)


def _some(shapes: set[tuple[int, ...]]) -> str:
    return " and ".join(map(str, sorted(shapes)[:2]))


def _array(part: Any) -> np.ndarray[Any, Any]:
    """One input as an array; an image of Pillow as it is seen."""
    if isinstance(part, Tensor):
        return part.detach().cpu().numpy()
    if type(part).__module__.split(".")[0] == "PIL":
        from steadygrad.data.images import pixels

        return pixels(part, Form())
    return np.asarray(part)


def _parts(sample: Any, name: str, place: int) -> tuple[Any, Any]:
    if isinstance(sample, Mapping):
        found = [next((key for key in keys if key in sample), None) for keys in (_INPUT, _LABEL)]
        if None not in found:
            return sample[found[0]], sample[found[1]]
        raise UsageError(f"sample {place} of {name} has the keys {', '.join(map(repr, sample))}: {_NEEDED}")
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        count = f" of {len(sample)}" if isinstance(sample, tuple | list) else ""
        raise UsageError(f"sample {place} of {name} must be (x, y), got {type(sample).__name__}{count}")
    return sample[0], sample[1]


def _label(value: Any, name: str, place: int) -> int:
    number = value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value
    if isinstance(number, bool) or not isinstance(number, int):
        shape = tuple(getattr(value, "shape", ()))
        what = f"{type(value).__name__} of shape {shape}" if shape else repr(number)
        raise UsageError(
            f"the label of sample {place} of {name} must be one whole number, got {what}: "
            "cast floats to int, and take argmax of one-hot labels"
        )
    return number


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Inputs of samples by place, as (n, *)."""

    data: Any
    name: str

    def __call__(self, rows: Sequence[int]) -> Tensor:
        with _same_random_state():
            xs = [_parts(self.data[i], self.name, i)[0] for i in rows]
        values = samples_of(tensor_of(_whole(xs, self.name), "x", self.name), self.name)
        check_values(values, [f"{self.name}/all/{i:05d}" for i in rows], f"{self.name}/all")
        return clipped(values, (0.0, 1.0))


def _samples(data: Any, classes: Sequence[str] | int | None, name: str) -> Dataset:
    """A data set of samples by place."""
    count = len(data)
    if not count:
        raise UsageError(f"{name} is empty: it must have at least one sample")
    labels: list[int] = []
    read, kept, held = _Reader(data, name), [], 0
    said = _targets(data)
    with _same_random_state():
        for i in range(count):
            if said is not None and held > lazy.MOST_BYTES and i >= _SEEN_TWICE:
                tried = (*range(i), *range(i, count, max(1, count // _LOOKED_AT)))
                if all(said[j] == (labels[j] if j < i else _label_of(data, name, j)) for j in tried):
                    labels = said
                    break
                said = None
            x, y = _parts(data[i], name, i)
            labels.append(_label(y, name, i))
            if held <= lazy.MOST_BYTES or i < _SEEN_TWICE:
                kept.append(x)
                held += _array(x).nbytes
        # What is random has gone on meanwhile.
        again = read([*range(min(_SEEN_TWICE, count))])
    first = clipped(samples_of(tensor_of(_whole(kept[: len(again)], name), "x", name), name), (0.0, 1.0))
    if not torch.equal(first, again):
        raise UsageError(
            f"{name} gives other samples each time that they are read: leave random transforms (flips, crops) out"
        )
    known = _classes_of(data) if classes is None else classes
    if held <= lazy.MOST_BYTES:
        return from_arrays(_whole(kept, name), np.array(labels), known, name=name)
    images = lazy.LazyImages(read, torch.arange(count), first[0])
    y = labels_of(np.array(labels), name)
    ids = numbered(f"{name}/all/", range(count))
    names, notes = classes_of(known, y, name, lambda i: repr(ids[i]), "classes=NAMES or their number")
    return two_classes(Dataset(images, y, names, ids, name, notes=notes))


def _label_of(data: Any, name: str, place: int) -> int:
    return _label(_parts(data[place], name, place)[1], name, place)


def _targets(data: Any) -> list[int] | None:
    """The labels that a data set in the manner of torchvision says of its samples without reading them."""
    if isinstance(data, torch.utils.data.Subset):
        whole = _targets(data.dataset)
        return None if whole is None else [whole[i] for i in data.indices]
    targets = getattr(data, "targets", None)
    read = getattr(type(data), "__getitem__", None)
    # A class of one's own may give other labels with its samples than the one that it comes from says.
    if not getattr(read, "__module__", "").startswith("torchvision.") or getattr(data, "target_transform", None):
        return None
    if not isinstance(targets, list | tuple | Tensor | np.ndarray) or len(targets) != len(data):
        return None
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        found = torch.as_tensor(targets)
        return None if found.ndim != 1 or found.is_floating_point() else [int(label) for label in found.tolist()]
    return None


def _classes_of(data: Any) -> Sequence[str] | None:
    """The names that a data set, or the one that it is a part of, says."""
    while isinstance(data, torch.utils.data.Subset):
        data = data.dataset
    names = getattr(data, "classes", None)
    return names if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names) and names else None


def _in_order(loader: Any, classes: Sequence[str] | int | None, name: str) -> Dataset:
    """The batches of a loader, one after the other."""
    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        raise UsageError(
            f"{name} is a DataLoader over an IterableDataset, which has no order: give a map-style Dataset"
        )
    plain = loader.batch_sampler is None or type(loader.batch_sampler) is torch.utils.data.BatchSampler
    if not plain or not isinstance(loader.sampler, torch.utils.data.SequentialSampler):
        sampler = type(loader.sampler if plain else loader.batch_sampler).__name__
        raise UsageError(
            f"{name} is a DataLoader that gives its samples in another order each time ({sampler}), and samples have "
            "names by their order: give loader.dataset, or a DataLoader with shuffle=False"
        )
    if loader.batch_size is None:
        return dataset_of(loader.dataset, classes, name=name)
    with _same_random_state():
        batches, held = [], 0
        whole = loader.collate_fn is torch.utils.data.default_collate and not loader.drop_last
        for i, batch in enumerate(loader):
            batches.append(_parts(batch, name, i))
            held += torch.as_tensor(batches[-1][0]).nbytes
            if held > lazy.MOST_BYTES and whole:  # which adds nothing to the samples
                return _samples(loader.dataset, classes, name)
        again = _parts(next(iter(loader)), name, 0)[0]
    if not batches:
        raise UsageError(f"{name} is empty: it must have at least one sample")
    xs, ys = ([torch.as_tensor(part) for part in parts] for parts in zip(*batches))
    if not torch.equal(torch.as_tensor(again), xs[0]):
        raise UsageError(f"{name} gives other samples each time that they are read: leave random transforms out")
    known = _classes_of(loader.dataset) if classes is None else classes
    return from_arrays(torch.cat(xs), torch.cat(ys), known, name=name)


def _hugging_face(data: Any, classes: Sequence[str] | int | None, name: str) -> Dataset:
    import datasets

    from steadygrad.data.hub import from_table

    if isinstance(data, datasets.DatasetDict):
        raise UsageError(
            f"{name} has the splits {', '.join(map(str, data))}: choose one, such as data[{next(iter(data))!r}]"
        )
    if not isinstance(data, datasets.Dataset):
        raise UsageError(
            f"{name} is a {type(data).__name__}, which has no order and no length: load it without streaming"
        )
    found = [next((key for key in keys if key in data.column_names), None) for keys in (_INPUT, _LABEL)]
    if None in found or not len(data):
        raise UsageError(f"{name} has {len(data)} rows of {', '.join(data.column_names)}: {_NEEDED}")
    names = getattr(data.features[found[1]], "names", None) if classes is None else classes
    if data.format["type"] == "custom":  # the transform that the caller set
        return _samples(data, names, name)
    if isinstance(data.features[found[0]], datasets.Image):
        columns = {found[0]: "image", found[1]: "label"}
        table = data.with_format(None).select_columns(list(columns)).rename_columns(columns)
        made = from_table(table, name, name, str(data.split or "all"), Form())
        if names is not None:
            made = dataclasses.replace(made, classes=classes_of(names, made.labels, name, str, "")[0])
        made = dataclasses.replace(made, images=lazy.loaded(made.images, name))
        return two_classes(made)
    column = _Column(data.with_format("numpy"), str(found[0]), name)
    y, x = np.asarray(data.with_format("numpy")[found[1]]), column[[0]]
    if x.nbytes * len(data) > lazy.MOST_BYTES:
        return from_rows(column, y, names, name=name)
    return from_arrays(column[range(len(data))], y, names, name=name)


@dataclasses.dataclass(frozen=True)
class _Column:
    """The inputs of a table of Hugging Face at some places, as one array."""

    table: Any
    column: str
    name: str

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: Sequence[int]) -> Any:
        inner = self.table.features[self.column]
        while hasattr(inner, "feature"):
            inner = inner.feature
        x = _whole(list(self.table[[*rows]][self.column]), self.name)
        return x.astype(np.uint8) if getattr(inner, "dtype", "") == "uint8" else x  # all integers were made longer
