"""The one type of data: images, signals or features with their range, labels, class names and stable sample ids."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import operator
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from steadygrad import readable
from steadygrad.arguments import arithmetic, fitted, quick
from steadygrad.data.form import Form
from steadygrad.data.labels import unlabeled
from steadygrad.data.lazy import LazyImages, contents
from steadygrad.errors import UsageError
from steadygrad.progress import task
from steadygrad.randomness import fresh

_CHUNK = 1024
_STATE = "state the range that they can have: bounds=(low, high), --bounds low,high"


@fitted
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples with labels, class names and ids that stay the same from load to load.

    Args:
        images: (N, *) float32 within the bounds, such as images (N, C, H, W), signals (N, C, L) or features (N, D);
            or images of uint8, whose 0 and 255 stand for the bounds; may be lazy.
        labels: (N,) int64, each an index into `classes`.
        classes: class names.
        ids: one name per sample, all different, such as "mnist/test/00017".
        name, split: where the samples come from.
        form: what images were brought to, where they come from files.
        bounds: smallest and largest value that an input can have.
        notes: what was done to them, and what people should know about them, one sentence each.

    Raises:
        UsageError: no samples, another shape or type, NaN, values outside the bounds, labels outside
            the classes, or repeated ids.

    >>> data = Dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]), ("a", "b"), ("p", "q", "r"))
    >>> data.take(2)
    Dataset(arrays/all: 2 samples of shape (1, 2, 2), 2 classes)
    """

    images: Tensor | LazyImages
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    name: str = "arrays"
    split: str = "all"
    form: Form | None = None
    notes: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.0)
    _keys: dict[int, str] = dataclasses.field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", _range(self.bounds))
        for field in ("name", "split"):
            object.__setattr__(self, field, readable.name(getattr(self, field)))
        object.__setattr__(self, "classes", readable.names(self.classes))
        if not "".join(self.ids).isprintable():  # of a million at once
            object.__setattr__(self, "ids", tuple(map(readable.readable, self.ids)))
        object.__setattr__(self, "notes", tuple(map(readable.readable, self.notes)))
        _check_shapes(self)
        _check_labels(self)
        if isinstance(self.images, Tensor):
            check_values(self.images, self.ids, self.source, self.bounds)
            object.__setattr__(self, "images", clipped(_ordinary(self.images), self.bounds))
        object.__setattr__(self, "labels", _ordinary(self.labels))

    def __getitem__(self, index: Any) -> Any:
        """One sample, (x, y): an input (*) float32 within the bounds, and its label; of a slice, a `Dataset`."""
        if isinstance(index, slice):
            return self.select(index)
        place = _place(index)
        if place is None or not -len(self) <= place < len(self):
            raise _NoSample(f"{self} has no sample {index!r}: give a place from 0 to {len(self) - 1}, or a slice")
        x, y = self.batch([place % len(self)])
        return x[0], int(y[0])

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Dataset({self.source}: {len(self)} samples of shape {self.shape}, {len(self.classes)} classes)"

    @property
    def source(self) -> str:
        """Name and split, as in messages: "mnist/test"."""
        return f"{self.name}/{self.split}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W) of an image, (C, L) of a signal, (D,) of features."""
        return tuple(self.images.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of all images, labels and ids: equal data in equal order have equal ones on any machine.

        Images in memory are told by their pixels, files that are decoded when they are asked for by their bytes and by
        the form that they are brought to.
        """
        digest = hashlib.sha256(f"{self.images.dtype} {tuple(self.images.shape)}{self._scale}".encode())
        with task(f"hash {self.source}", len(self)) as advance:
            for start in range(0, len(self), _CHUNK):
                for content in contents(self.images, slice(start, start + _CHUNK)):
                    digest.update(content)
                advance(min(_CHUNK, len(self) - start))
        digest.update(self.labels.contiguous().numpy().data)
        digest.update("\0".join(self.ids).encode())
        return digest.hexdigest()[:20]

    @arithmetic
    def content_keys(self, places: Sequence[int] | None = None) -> tuple[str, ...]:
        """A short hash per sample (of all, or those at `places`): of its type and shape, its image, its label and id.

        The key of a sample does not depend on the other samples, on their order or on the machine. Of files that are
        decoded when they are asked for, the bytes are read, unless their hashes are kept (`data.hashes`).
        """
        kind, known = f"{self.images.dtype} {self.shape}{self._scale}\0".encode(), self._keys
        asked = range(len(self)) if places is None else places
        new = [i for i in dict.fromkeys(asked) if i not in known]
        # In pieces, so that images which are lazy, or do not lie in order in memory, are not all there at once.
        for part in (new[start : start + _CHUNK] for start in range(0, len(new), _CHUNK)):
            for i, content, label in zip(part, contents(self.images, part), self.labels[part].tolist()):
                digest = hashlib.sha256(kind + f"{label}\0{self.ids[i]}\0".encode())
                digest.update(content)
                known[i] = digest.hexdigest()[:20]
        return tuple(known[i] for i in asked)

    @property
    def _scale(self) -> str:
        return "" if self.bounds == (0, 1) else f" {self.bounds}"

    @quick
    def batch(self, index: Tensor | slice | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs (n, *) float32 within the bounds and labels (n,) of the samples at `index`, as copies."""
        images, labels = self.images[index], self.labels[index]
        if isinstance(index, slice):  # a view of the data otherwise
            labels = labels.clone()
        if images.is_floating_point():
            return images.clone() if isinstance(index, slice) else images, labels
        low, high = self.bounds
        inputs = images.to(torch.float32) / (255 / (high - low))
        return inputs + low if low else inputs, labels

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All inputs (N, *) float32 within the bounds and labels (N,)."""
        return self.batch(slice(None))

    @quick
    def select(self, indices: Tensor | slice | Sequence[int]) -> Dataset:
        """The samples at `indices` (or where a (N,) bool mask is True), in that order.

        Raises:
            UsageError: an index outside the data, a repeated one, or none at all.
        """
        everything = torch.arange(len(self))
        try:
            index = everything[indices if isinstance(indices, slice) else torch.as_tensor(indices)]
        except IndexError as error:
            raise UsageError(f"{self} cannot be indexed so: {error}") from None
        images = self.images
        part = images[index] if isinstance(images, Tensor) else dataclasses.replace(images, rows=images.rows[index])
        ids = tuple(self.ids[i] for i in index.tolist())
        return dataclasses.replace(self, images=part, labels=self.labels[index], ids=ids)

    @arithmetic
    def within(self, bounds: tuple[float, float]) -> Dataset:
        """The same samples in other units: what was at the old bounds is at the new ones.

        >>> data = Dataset(torch.tensor([[0.0], [0.5]]), torch.tensor([0, 1]), ("a", "b"), ("p", "q"))
        >>> data.within((-1, 1)).tensors()[0].flatten().tolist()
        [-1.0, 0.0]
        """
        bounds, images = _range(bounds), self.images
        if bounds == self.bounds or images.dtype == torch.uint8:
            return dataclasses.replace(self, bounds=bounds)
        move = functools.partial(_moved, old=self.bounds, new=bounds)
        return dataclasses.replace(
            self, images=move(images) if isinstance(images, Tensor) else images.then(move), bounds=bounds
        )

    @arithmetic
    def relabeled(self, positions: Sequence[int], classes: Sequence[str]) -> Dataset:
        """The same samples among other classes; the class at place i of these is at `positions[i]` of the others."""
        labels = torch.tensor(positions, dtype=torch.int64)[self.labels]
        return dataclasses.replace(self, labels=labels, classes=tuple(classes))

    @arithmetic
    def take(self, n: int, seed: int | None = None) -> Dataset:
        """At most n samples: the first ones, or with a seed a random draw, in the order of the data.

        The draw of n samples is part of the draw of n + 1 with the same seed.
        """
        if n < 1:
            raise UsageError(f"take needs at least one sample, got n={n}")
        if seed is None:
            return self.select(slice(0, n))
        return self.select(self._permutation(seed)[:n].sort().values)

    @arithmetic
    def draw(self, count: int | None = None, seed: int = 0) -> Dataset:
        """At most `count` samples drawn by `seed`, balanced over the classes that occur, in the order of the draw.

        The classes get as equal shares as their sizes allow, and the first n samples of a draw are the draw of n with
        the same seed: whoever looks at the first samples of a draw looks at all classes. None draws all samples.
        The global random state is neither used nor changed.

        Raises:
            UsageError: count is not positive.

        >>> from steadygrad.data import load
        >>> load("digits", "test").draw(40).labels.bincount().tolist()
        [4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
        """
        if count is not None and count < 1:
            raise UsageError(f"draw needs at least one sample, got count={count}")
        return self.select(balanced_order(self.labels, seed)[:count])

    @arithmetic
    def divide(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Two parts, (training, validation): `fraction` of the samples, drawn by `seed`, are validation.

        Raises:
            UsageError: the fraction is not within (0, 1) or leaves a part without samples.
        """
        count = round(len(self) * fraction) if 0 < fraction < 1 else 0
        if not 0 < count < len(self):
            raise UsageError(
                f"fraction={fraction:g} of {len(self)} samples leaves one part empty: "
                "give the share of validation samples, such as 0.1"
            )
        order = self._permutation(seed)
        return self.select(order[count:].sort().values), self.select(order[:count].sort().values)

    def _permutation(self, seed: int) -> Tensor:
        return torch.randperm(len(self), generator=fresh(seed))


def balanced_order(labels: Tensor, seed: int) -> Tensor:
    """Places (N,) of samples with these labels (N,) in a random order of which each first part is balanced.

    Every class gives its first sample before any class gives its second one.
    """
    order = torch.randperm(len(labels), generator=fresh(seed))
    by_class = labels[order].argsort(stable=True)
    counts = torch.unique(labels, return_counts=True)[1]
    turn = torch.empty_like(order)
    turn[by_class] = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[turn.argsort(stable=True)]


def two_classes(data: Dataset) -> Dataset:
    """The data, if at least two classes occur in it; with one class there is nothing to tell apart."""
    if int(data.labels.bincount().count_nonzero()) < 2:
        raise UsageError(
            f"all {len(data)} samples of {data.source} are of class {data.classes[int(data.labels[0])]!r}: "
            "a classifier needs samples of at least two classes"
        )
    return data


def _range(bounds: Any) -> tuple[float, float]:
    try:
        low, high = (math.nan, math.nan) if isinstance(bounds, str) else (float(end) for end in bounds)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        raise UsageError(f"bounds must be (low, high) with low < high, got {bounds}")
    return low, high


def _moved(values: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    low, high = new
    return (low + (values - old[0]) * ((high - low) / (old[1] - old[0]))).clamp_(low, high)


def _check_shapes(data: Dataset) -> None:
    where = data.source
    if len(data.images) == 0:
        raise UsageError(f"the data set {where} is empty: it must have at least one sample")
    if len(data.images.shape) < 2 or data.images.dtype not in (torch.uint8, torch.float32):
        raise UsageError(
            f"the samples of {where} must be (N, *) float32 within the bounds, such as images (N, C, H, W), signals "
            f"(N, C, L) or features (N, D), or uint8 images, "
            f"got {data.images.dtype} of shape {tuple(data.images.shape)}"
        )
    if 0 in data.shape:
        raise UsageError(f"the samples of {where} have the shape {data.shape}: there is nothing in them")
    if len(data.shape) == 1 and data.images.dtype == torch.uint8:
        raise UsageError(f"the features of {where} must be float32 in [0, 1], got uint8: divide them by 255")
    different = len(set(data.ids))
    if not different == len(data.ids) == len(data.images):
        raise UsageError(
            f"the ids of {where} must be different, one per sample: got {different} different ids "
            f"for {len(data.images)} samples"
        )


def _check_labels(data: Dataset) -> None:
    where, labels, count = data.source, data.labels, len(data.classes)
    if labels.shape != (len(data),) or labels.dtype != torch.int64:
        raise UsageError(
            f"the labels of {where} must be int64 of shape ({len(data.images)},), "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    wrong = ((labels < 0) | (labels >= count)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise UsageError(
            f"the labels of {where} must be within 0..{count - 1} ({count} classes), but {len(wrong)} of {len(labels)} "
            f"are not; the first is {int(labels[first])} at {data.ids[first]!r}{unlabeled(int(labels[first]))}"
        )


def _place(index: Any) -> int | None:
    try:
        return operator.index(index)
    except (TypeError, ValueError):
        return None


class _NoSample(UsageError, IndexError):
    """As loops over places expect it."""


def _ordinary(values: Tensor) -> Tensor:
    """A tensor that gradients may flow from, made of one that was made in inference mode or has gradients."""
    if values.is_inference():
        with torch.inference_mode(False):
            return values.clone()
    return values.detach()


def clipped(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Values that `check_values` takes, none of them outside the bounds."""
    if not values.is_floating_point():
        return values
    smallest, largest = (float(v) for v in values.aminmax())
    return values if bounds[0] <= smallest and largest <= bounds[1] else values.clamp(*bounds)


def check_values(images: Tensor, ids: Sequence[str], where: str, bounds: tuple[float, float] = (0.0, 1.0)) -> None:
    """Refuse values (n, *) that are NaN or outside the bounds; `ids` and `where` name them."""
    if images.dtype == torch.uint8:
        return
    smallest, largest = (float(v) for v in images.aminmax())
    low, high = bounds
    # Bounds such as 0.1 are rounded to float32 in the values, and so is what was normalized and back.
    slack = 1e-6 * (high - low)
    if smallest >= low - slack and largest <= high + slack:
        return
    wrong = (~((images >= low) & (images <= high))).flatten(1).any(1).nonzero().flatten()
    first = f"{len(wrong)} of {len(images)} samples, the first is {ids[int(wrong[0])]!r}"
    if smallest != smallest:
        raise UsageError(f"{where} holds NaN ({first}): remove or fill these values")
    found = f"the values of {where} must lie within [{low:g}, {high:g}], got [{smallest:.4g}, {largest:.4g}] ({first})"
    if (low, high) == (0.0, 1.0) and 0 <= smallest <= largest <= 255:
        raise UsageError(
            f"{found}: are they pixels of 0 to 255? Give them as uint8, or divide them by 255; or {_STATE}"
        )
    if images.ndim != 4:
        raise UsageError(f"{found}: {_STATE}")
    raise UsageError(
        f"{found}: did you normalize them? Give raw pixels as uint8 or scaled to [{low:g}, {high:g}]; mean and std "
        f"belong to sg.Classifier; or {_STATE}"
    )
