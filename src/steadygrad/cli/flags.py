"""The flags of a command from the fields of the plan that it fills: names, types and help stand there only."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from steadygrad.registry import Method, label_of

__all__ = ["plan_flags"]


def plan_flags(
    plan: type[BaseModel], *, without: tuple[str, ...] = (), names: Mapping[str, str] | None = None, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command a flag for each field of a plan.

    The command gets what was given in its argument `flags`, by field; the plan itself refuses and completes it.

    Args:
        without: fields that the command has no flag for.
        names: flags that are called otherwise than their field.
        defaults: of this command, where it is not that of the field.
    """
    wanted = {name: field for name, field in plan.model_fields.items() if name not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        mine = [p for p in own.values() if p.name != "flags"]
        options = [
            _option(name, field, (names or {}).get(name, name), defaults.get(name)) for name, field in wanted.items()
        ]

        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in wanted}
            filled = {**defaults, **{name: value for name, value in given.items() if value not in (None, [])}}
            command(**values, flags=filled)

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__signature__ = inspect.Signature([*mine, *options])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*mine, *options)}
        return run

    return decorate


def _option(name: str, field: FieldInfo, flag: str, default: Any) -> inspect.Parameter:
    kind, several = _kind(field.annotation)
    shown = _shown(field.default if default is None else default)
    word = f"--{flag.replace('_', '-')}"
    help_ = str(field.description)
    if kind is bool:
        flags = [word] if not field.default else [f"{word}/--no-{flag.replace('_', '-')}"]
        option = typer.Option(*flags, help=help_, metavar="", show_default="yes" if field.default else False)
    else:
        option = typer.Option(word, help=help_, show_default=shown, metavar="N" if kind is int else None)
    hint = list[str] if several else kind
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Union[hint, None], option],  # noqa: UP007
    )


def _kind(hint: Any) -> tuple[type, bool]:
    """The type that the command line reads, and whether a flag may be repeated."""
    if get_origin(hint) in (Union, types.UnionType):
        return _kind(next(part for part in get_args(hint) if part is not type(None)))
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return str, False
    if get_origin(hint) is tuple:
        return str, True
    return (hint, False) if hint in (bool, int, str) else (str, False)


def _shown(value: Any) -> Any:
    if value is None or value in ((), ""):
        return False
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, Method):
        return label_of(value)
    if isinstance(value, float):
        parts = value * 255
        return f"{round(parts)}/255" if value < 0.1 and abs(parts - round(parts)) < 1e-9 else f"{value:g}"
    return str(value)
