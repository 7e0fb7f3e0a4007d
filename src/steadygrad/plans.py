"""Plans: everything that a run is made from, as one type for its arguments, its configuration file and its flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from typing_extensions import Self

from steadygrad.errors import UsageError, one_of
from steadygrad.registry import build, parse, parse_value

Fraction = BeforeValidator(lambda value: parse_value(value) if isinstance(value, str) else value)
"""Takes a text such as 8/255 as the number that it says."""
Count = Annotated[int, Field(ge=1)]
Radius = Annotated[float, Fraction, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def method(kind: str) -> BeforeValidator:
    """Takes a method of this kind as it is, as plain data with a name, or as written in a flag."""
    return BeforeValidator(lambda value: read_method(kind, value))


def methods(kind: str) -> BeforeValidator:
    """Takes one or several methods, as `method` does."""
    return BeforeValidator(
        lambda value: tuple(read_method(kind, v) for v in (value if isinstance(value, list | tuple) else (value,)))
    )


def read_method(kind: str, value: Any) -> Any:
    """A method from plain data with a name, or as written in a flag; any other value as it is."""
    if isinstance(value, str):
        return parse(kind, value)
    if not isinstance(value, Mapping):
        return value
    settings = dict(value)
    if "name" not in settings:
        raise UsageError(f"the {kind} {settings} needs a name, e.g. name = 'NAME' (steadygrad list {kind}s)")
    return build(kind, str(settings.pop("name")), settings)


class Plan(BaseModel):
    """Base of plans: frozen, with no other fields than its own; what is wrong is refused by the name of its field."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    what: ClassVar[str] = "a run"

    @classmethod
    def read(cls, settings: Mapping[str, Any], where: str = "") -> Self:
        """The plan of plain settings, such as those of flags or of a file.

        Args:
            where: the file that they are from, if any, for errors.

        Raises:
            UsageError: a setting that does not exist or does not fit, named with what came and what is expected.
        """
        for name in settings:
            one_of(f"key of {where}" if where else f"setting of {cls.what}", name, cls.model_fields)
        try:
            return cls.model_validate({k: v for k, v in settings.items() if v is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"][:1])) + (f" of {where}" if where else "")
            reason = str(first.get("ctx", {}).get("error", first["msg"]))
            raise UsageError(f"{name}: {reason} (got {first['input']!r})" if first["loc"] else reason) from None
