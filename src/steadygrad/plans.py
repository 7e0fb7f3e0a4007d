"""Plans: everything that a run is made from, as one type for its arguments, its configuration file and its flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from typing_extensions import Self

from steadygrad.errors import UsageError, one_of, unknown_name
from steadygrad.registry import build, numbers, parse, parse_value

AsNumber = BeforeValidator(lambda value: parse_value(value) if isinstance(value, str) else value)
"""Takes a text such as 8/255 as the number that it says."""
Count = Annotated[int, Field(ge=1, strict=True)]
Radius = Annotated[float, AsNumber, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]


Numbers = Annotated[str | tuple[float, ...], BeforeValidator(numbers)]


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
            raise _refusal(error.errors()[0], where) from None


_WANTED = {
    "int": "a whole number",
    "float": "a number or a fraction such as 8/255",
    "bool": "true or false",
    "string": "a text",
    "dict": "a table of settings",
    "tuple": "a list",
    "finite": "a finite number",
}
"""What is expected, by the first word of pydantic's name for the error."""


def _refusal(error: Any, where: str) -> UsageError:
    """What pydantic refuses in words that name the field, what is expected and what came."""
    context, place = error.get("ctx", {}), f" of {where}" if where else ""
    if "error" in context:  # refused in words already
        return UsageError(f"{where}: {context['error']}" if where else str(context["error"]))
    name = f"{error['loc'][0]}{place}"
    limits = {sign: context[sign] for sign in ("ge", "gt", "le", "lt", "min_length") if sign in context}
    if error["type"] == "literal_error":
        return unknown_name(name, str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
    if limits:
        words = {
            "ge": "at least",
            "gt": "finite and above",
            "le": "at most",
            "lt": "below",
            "min_length": "of a length of at least",
        }
        wanted = " and ".join(f"{words[sign]} {limit}" for sign, limit in limits.items())
    else:
        wanted = _WANTED.get(error["type"].partition("_")[0], error["msg"])
    return UsageError(f"{name} must be {wanted}, got {error['input']!r}")
