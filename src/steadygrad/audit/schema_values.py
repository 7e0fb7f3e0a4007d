"""What summaries are made of: shares, means, quantiles with their intervals; how a document is read and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, cast

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from typing_extensions import Self

from steadygrad.errors import Failure, UsageError
from steadygrad.files import read_json, write_json

Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Ge(0)]
Some = Annotated[int, Strict(), Ge(1)]
Number = Annotated[float, Strict()]
Positive = Annotated[float, Strict(), Ge(0)]
Share = Annotated[float, Strict(), Ge(0), Le(1)]

_ROUNDING = 1e-6  # of float32, by which a mean may lie outside an interval that was cut off at its range


class Part(BaseModel):
    """One object of a document: exactly these keys, finite numbers, unchangeable."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, from_attributes=True
    )

    def plain(self) -> dict[str, Any]:
        """The object as plain data, with the keys of the file."""
        return self.model_dump(mode="json", by_alias=True)


def at_most(part: str, whole: str) -> Any:
    """A validator: the first count is at most the second one."""

    def check(found: Any) -> Any:
        most, value = getattr(found, whole), getattr(found, part)
        if value > most:
            raise ValueError(f"{part}: expected at most {whole}, {most}, found {value}")
        return found

    return model_validator(mode="after")(check)


def square(name: str, rows: Sequence[Sequence[Any]], size: int) -> None:
    """Refuse a matrix that has not as many rows and columns as there are names."""
    if [len(row) for row in rows] != [size] * size:
        raise ValueError(f"{name}: expected {size} rows of {size}")


def wrong_key(error: ValidationError) -> str:
    """The first key that is wrong, and what is wrong with it.

    >>> try:
    ...     Estimate.model_validate({"value": 41.0, "low": 0, "high": 1, "count": 3})
    ... except ValidationError as error:
    ...     print(wrong_key(error))
    value: input should be less than or equal to 1, found 41.0
    """
    first = error.errors(include_url=False)[0]
    # Names of union members stand in brackets: they are no keys.
    steps = [step for step in first["loc"] if not str(step).startswith("(")]
    if first["type"] in ("missing", "extra_forbidden"):
        where, last = _place(steps[:-1]) or "the document", steps[-1]
        if last == "schema":
            return "the document has no schema, this version reads 1"
        return f"{where}: {'missing' if first['type'] == 'missing' else 'unknown key'} {last}"
    where = _place(steps) or "the document"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    found = first["input"]
    if steps == ["schema"]:
        return f"the document has schema {found!r}, this version reads 1"
    shown = repr(found) if isinstance(found, (int, float, str, type(None))) else f"a {type(found).__name__}"
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}, found {shown}"


def _place(steps: list[int | str]) -> str:
    """Keys as a path: models[0].attacks[1], a name that is no identifier in quotes."""
    words = [f".{s}" if isinstance(s, str) and s.isidentifier() else f"[{s!r}]" for s in steps]
    return "".join(words).removeprefix(".")


Key = TypeVar("Key")
Value = TypeVar("Value")


class Ends(Part, Generic[Value]):
    """A value and the ends of its interval."""

    value: Value = Field(description="the value")
    low: Value = Field(description="lower end of its interval")
    high: Value = Field(description="upper end of its interval")


class Interval(Ends[Value]):
    """A value between the ends of its interval; null is beyond all."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        found = (self.low, self.value, self.high)
        low, value, high = (math.inf if end is None else float(cast(float, end)) for end in found)
        if not low - _ROUNDING <= value <= high + _ROUNDING:
            raise ValueError(f"expected low <= value <= high, found {', '.join(map(str, found))}")
        return self


class Estimate(Interval[Share]):
    """A share of samples, from 0 to 1, with its 95 % Wilson interval."""

    count: Some = Field(description="samples behind it")

    @model_validator(mode="after")
    def _wide(self) -> Self:
        if self.low == self.high:
            raise ValueError(f"expected an interval of some width, found [{self.low}, {self.high}]")
        return self


class Mean(Interval[Number]):
    """A mean over samples with its 95 % interval by Student's t, cut off where the values end."""

    count: Some = Field(description="samples behind it")


class Median(Interval[Number | None]):
    """A quantile, most often the median, with its 95 % interval by order statistics.

    A null is beyond what was looked for; for `high` also: the samples are too few for an upper end. It is never 0.
    """


def _rising(levels: dict[str, float | None]) -> dict[str, float | None]:
    found = [value for _, value in sorted(levels.items()) if value is not None]
    if found != sorted(found):
        raise ValueError(f"expected quantiles that rise, found {found}")
    return levels


Pair: TypeAlias = Annotated[dict[Key, Value], MinLen(2)]
"""A value for each of two keys."""
Triple: TypeAlias = Annotated[dict[Key, Value], MinLen(3)]
"""A value for each of three keys."""
_Level = Literal["0.05", "0.25", "0.5", "0.75", "0.95"]
Quantiles: TypeAlias = Annotated[dict[_Level, Number | None], MinLen(5), AfterValidator(_rising)]
"""Quantiles of one number per sample; null where the quantile lies among what was not found."""
QuantileIntervals: TypeAlias = Annotated[dict[_Level, Median], MinLen(5)]
"""Quantiles over samples, each with its interval."""


class Threat(Part):
    """Which changes are allowed."""

    norm: str = Field(description="`linf`, `l2`, `l1` or `l0`", pattern="^l(inf|2|1|0)$")
    eps: Positive = Field(description="radius, in units of the data")
    bounds: tuple[Number, Number] = Field(description="lowest and highest value of an input")
    mask: Share | None = Field(None, description="share of the entries of an input that may change; null for all")


class Machine(Part):
    """Where the numbers were computed."""

    host: str = Field("", description="name of the machine")
    platform: str = Field(description="operating system and processor")
    python: str = Field(description="version of Python")
    torch: str = Field(description="version of PyTorch")
    device: str = Field(description="name of the device")
    threads: Count = Field(description="threads of the processor")


class Passes(Part):
    """What attacks cost, as means per sample."""

    forwards: Positive = Field(description="mean forward passes per sample")
    backwards: Positive = Field(description="mean backward passes per sample")


class AttackVerdict(Part):
    """Whether the number of one attack may be believed by itself."""

    state: Literal["holds", "refuted", "too few", "unchecked"] = Field(
        description='"holds", "refuted", "too few" samples to judge, or "unchecked"'
    )
    text: str = Field(description="why, in one sentence")


class Data(Part):
    """The samples of the audit."""

    name: str = Field(description="name of the data set")
    split: str = Field(description="its part")
    samples: Count = Field(description="how many were drawn, in equal numbers from each class as far as there are")
    available: Count = Field(description="how many there are to draw from")
    seed: Count = Field(description="seed of the draw")
    classes: list[str] = Field(description="names of the classes")
    samples_of_classes: list[Count] = Field(description="how many were drawn of each class")
    available_of_classes: list[Count] = Field(description="how many there are of each class")
    shape: list[Count] = Field(description="[channels, height, width]")
    fingerprint: str = Field(description="hash of the samples")
    notes: list[str] = Field([], description="what was chosen when they were loaded, such as sizes, colors and splits")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("samples", "available"):
            counts = getattr(self, f"{name}_of_classes")
            if len(counts) != len(self.classes) or sum(counts) != getattr(self, name):
                raise ValueError(f"{name}_of_classes: expected {getattr(self, name)} samples of {len(self.classes)}")
        return self


class Difference(Ends[Number | None]):
    """After minus before, paired by sample, with its 95 % interval; null is beyond what was looked for."""

    count: Count = Field(description="pairs")
    gained: Count = Field(description="samples that moved up")
    lost: Count = Field(description="samples that moved down")
    p: Share = Field(description="exact two-sided probability of so uneven a split, were both as likely")


class Stored(Part):
    """A whole JSON file of a run folder."""

    FILE: ClassVar[str]
    AGAIN: ClassVar[str]
    """What replaces a damaged file."""

    schema_: Literal[1] = Field(alias="schema", description="1; a change that breaks readers raises it")
    version: str = Field(description="version of steadygrad")
    sha256: str | None = Field(
        None, description="of the other keys, by which a damaged file is found out; the last key"
    )

    def plain(self) -> dict[str, Any]:
        """The document as plain data; its checksum is for the file."""
        return {name: value for name, value in super().plain().items() if name != "sha256"}

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the file of a run folder.

        Raises:
            UsageError: the folder or the file does not exist.
            Failure: the file is damaged, incomplete or of another schema; names the first key that is wrong.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise UsageError(f"there is no run folder {folder}: give the --out folder of an audit")
        path = folder / cls.FILE
        if not path.is_file():
            raise UsageError(f"there is no {cls.FILE} in {folder}: run `steadygrad audit` with --out {folder} first")
        try:
            found, sound = read_json(path)
        except (ValueError, OSError) as error:
            raise Failure(f"cannot read {path}: {error}; {cls.AGAIN} to replace it") from error
        try:
            document = cls.model_validate(found)
        except ValidationError as error:
            raise Failure(f"{path}: {wrong_key(error)}; {cls.AGAIN}") from error
        if not sound:
            raise Failure(f"{path} is damaged or was edited: {cls.AGAIN} to replace it")
        return document

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.plain())


class Document(Stored):
    """A file about an audit or a hardening: where it comes from, and what was measured on."""

    created: str = Field(description="UTC time, ISO 8601", pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\+00:00|Z)$")
    machine: Machine = Field(description="where the numbers were computed")
    command: str = Field(description="the command line that makes this folder again; empty from Python")
    data: Data = Field(description="the samples")
    threat: Threat = Field(description="the allowed changes")
