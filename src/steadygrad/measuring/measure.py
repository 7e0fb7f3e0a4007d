"""What a measure is: settings, and a call that says what is written down for each sample."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from steadygrad.errors import UsageError
from steadygrad.measuring.code_keys import code_of
from steadygrad.measuring.statistics import Estimate
from steadygrad.measuring.table import Array, Table
from steadygrad.precision import moved
from steadygrad.registry import Method, Registry, describe, label_of
from steadygrad.threat import Threat

MEASURES: Registry[Measure] = Registry("measure")
Columns: TypeAlias = Mapping[str, "Tensor | ArrayLike"]
"""Values by name, the first axis of each being the sample."""


@dataclass(frozen=True)
class Batch:
    """Some samples, on the device of the models.

    Attributes:
        x, y: inputs (n, *) and labels (n,).
        ids: names of the samples.
        seeds: (n,) int64 on the CPU; all that is random about a sample follows from its seed.
        given: further values per sample, (n, *) each, that the caller of the runner gave.
        shared: values that are the same for all samples, such as a mean image.
    """

    x: Tensor
    y: Tensor
    ids: Sequence[str]
    seeds: Tensor
    given: Mapping[str, Array]
    shared: Mapping[str, Array]

    def of(self, name: str) -> Tensor:
        """A given column as a tensor on the device of the inputs."""
        return moved(torch.from_numpy(self.given[name].copy()), self.x.device)


@dataclass(frozen=True)
class Measure(Method, abc.ABC):
    """A value that says what is written down for each sample.

    Subclasses are frozen dataclasses, registered in `MEASURES`. The runner cuts the samples into shards and
    batches, gives each its seed and keeps what is returned; a result may not depend on how it was cut.
    """

    shard: ClassVar[int] = 200
    """Samples per file: what a killed run loses at most."""
    kept: ClassVar[tuple[str, ...]] = ()
    """Columns of large values, which are kept for the samples that the caller names."""
    titled: ClassVar[str] = ""
    """The title, with settings in braces, such as "curve of {attack}"; the label of the measure if empty."""
    may_refuse: ClassVar[bool] = False
    """Whether an error of a model that cannot be measured so is written down in place of the columns."""
    counts_passes: ClassVar[bool] = False
    """Whether its columns `forwards` and `backwards` tell all passes: those of a bound are not calls of the model."""

    @classmethod
    def for_audit(cls, threat: Threat) -> Measure | None:
        """The measure that every audit under a threat makes of its checked samples, if it is one of those."""
        return None

    def summarize(self, table: Table) -> dict[str, Estimate]:
        """What its table says in a summary, for a measure of every audit: means with their intervals, by name."""
        return {}

    @abc.abstractmethod
    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        """Measure the first model, the others standing beside it, on a batch; one entry per sample and column."""

    @property
    def title(self) -> str:
        """The name of the table; unique for a model."""

        def text(found: re.Match[str]) -> str:
            setting = getattr(self, found[1])
            return label_of(setting) if isinstance(setting, Method) else str(setting)

        return re.sub(r"{(\w+)}", text, self.titled) or label_of(self)

    @property
    def draws_as(self) -> Any:
        """What the seeds of samples follow from besides the run's seed: measures of one attack draw as it does."""
        return settings_of(getattr(self, "attack", self))

    def note(self, columns: Mapping[str, Array]) -> str:
        """A word on what was found so far, for the progress bar."""
        return ""


def settings_of(value: Any) -> Any:
    """A method, or another dataclass, as plain data: its name and its settings.

    A method that is not registered has the name of its class.

    >>> from steadygrad.attacks import FGSM
    >>> settings_of(FGSM(loss="ce"))
    {'name': 'fgsm', 'loss': 'ce'}
    """
    if isinstance(value, Tensor):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        settings = {f.name: settings_of(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Threat):
            settings["mask"] = value.mask_code
        return {"name": _name(value), **settings}
    if isinstance(value, list | tuple):
        return [settings_of(v) for v in value]
    return value


def _name(value: Any) -> str:
    try:
        return str(describe(value)["name"])
    except UsageError:
        return type(value).__name__


def depends_on(measure: Measure) -> str:
    """A hash of the code that a measure and the methods in its settings run on."""
    found: list[Callable[..., Any] | type] = []

    def walk(value: Any) -> None:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found.append(type(value))
            for field in dataclasses.fields(value):
                walk(getattr(value, field.name))
        elif isinstance(value, list | tuple):
            for part in value:
                walk(part)

    walk(measure)
    return code_of(*found)
