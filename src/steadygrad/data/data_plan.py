"""The plan of the data of a command: which splits of what, and the form that their images are brought to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from steadygrad.data.by_name import opened, read
from steadygrad.data.dataset import Dataset
from steadygrad.data.form import Form, pair
from steadygrad.data.splits import Asked
from steadygrad.errors import UsageError
from steadygrad.plans import Plan
from steadygrad.registry import numbers

if TYPE_CHECKING:
    from steadygrad.classifier import Classifier


def _two(value: Any) -> Any:
    found = numbers(value)
    if found is not None and (isinstance(found, str) or len(found) != 2):
        raise UsageError(f"bounds must be the smallest and largest value of an input, such as -1,1, got {value!r}")
    return found


class DataPlan(Plan):
    """Everything that says which samples a command works on.

    >>> DataPlan(split="train").load()
    Dataset(digits/train: 1297 samples of shape (1, 8, 8), 10 classes)
    """

    what: ClassVar[str] = "the data"

    data: str = Field("digits", description="Data by name, hub:owner/name or path.")
    split: str | None = Field(
        None, description="Split to judge on; by default test, else validation, else a fifth held out of train."
    )
    train_split: str | None = Field(None, description="Split to train on; by default train.")
    size: Annotated[str | tuple[int, int] | None, BeforeValidator(pair)] = Field(
        None, description="Size of images, 224 or 224x300; by default their own, or that of the model."
    )
    color: Literal["gray", "rgb"] | None = Field(
        None, description="Color of images; by default what most are, or that of the model."
    )
    resize: Literal["crop", "pad", "squash"] | None = Field(
        None, description="Images get their size by a center crop, margins or other proportions; by default crop."
    )
    bounds: Annotated[tuple[float, float] | None, BeforeValidator(_two)] = Field(
        None, description="Smallest and largest value of an input, e.g. -1,1; by default 0,1, or what a file says."
    )
    verify: bool = Field(
        False, description="Read all files of a large data set to tell them, rather than trust size and time of each."
    )

    def opened(self, training: bool = False, like: Classifier | None = None) -> Dataset:
        """The samples to judge on, or to train on, whose images are not read yet.

        Args:
            like: images are brought to the shape that this classifier takes, where no flag says otherwise.
        """
        split = self.train_split if training else self.split
        return opened(self.data, Asked(split, training, self._form(like), self.bounds, self.verify))

    def load(self, training: bool = False, like: Classifier | None = None) -> Dataset:
        """The samples as `fitted` gives them, read; what was chosen is said."""
        return read(self.fitted(training, like))

    def fitted(self, training: bool = False, like: Classifier | None = None) -> Dataset:
        """The samples whose images are not read yet, in the shape that this classifier takes."""
        seen = self.opened(training)
        shape = None if like is None else like.input_shape
        if like is None or shape is None or not len(shape) == len(seen.shape) == 3:
            return seen
        if shape == seen.shape and not like.preparation:
            return seen
        data, words = self.opened(training, like), self._form(like).words(shape[0])
        given = "" if shape == seen.shape else f" of shape {seen.shape}"
        return dataclasses.replace(data, notes=(*data.notes, f"images{given} become {words}, for {like.name}"))

    def check_apart(self) -> None:
        """Refuse that samples are trained on and judged on."""
        training, judged = self.opened(training=True), self.opened()
        if both := len({*training.ids}.intersection(judged.ids)):
            raise UsageError(
                f"{both} of {len(judged)} samples to judge on ({judged.source}) are among those to train on "
                f"({training.source}): give two splits with --train-split and --split, or leave both out"
            )

    def _form(self, like: Classifier | None) -> Form:
        shape = None if like is None else like.input_shape
        if like is None or shape is None or len(shape) != 3:
            return Form.of(self.size, self.color, self.resize)
        way = {**(like.preparation or {}), **({} if self.resize is None else {"resize": self.resize})}
        color = self.color or {1: "gray", 3: "rgb"}.get(shape[0])
        return Form.of(self.size or shape[1:], color, **way)
