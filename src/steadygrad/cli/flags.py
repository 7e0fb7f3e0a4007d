"""The flags of a command from the fields of the plan that it fills: names, types and help stand there only."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from steadygrad.registry import Method, label_of


def plan_flags(
    plan: type[BaseModel],
    *,
    into: str = "flags",
    only: tuple[str, ...] | None = None,
    without: tuple[str, ...] = (),
    **defaults: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command a flag for each field of a plan.

    The command gets what was given in its argument `flags`, by field; the plan itself refuses and completes it.
    A field that holds several values has a flag that may be repeated, without the s at its end.

    Args:
        into: another name of that argument, for a command that fills several plans.
        only: fields that the command has a flag for; None for all.
        without: fields that the command has no flag for.
        defaults: shown where the command fills in another default than that of the field.
    """
    chosen = [name for name in (plan.model_fields if only is None else only) if name not in without]
    wanted = {name: plan.model_fields[name] for name in chosen}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        mine = [p for p in own.values() if p.name != into]
        options = [_option(name, field, defaults.get(name)) for name, field in wanted.items()]

        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in wanted}
            command(**values, **{into: {name: value for name, value in given.items() if value not in (None, [])}})

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__signature__ = inspect.Signature([*mine, *options])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*mine, *options)}
        return run

    return decorate


def _option(name: str, field: FieldInfo, default: Any) -> inspect.Parameter:
    kind, several = _kind(field.annotation)
    shown = _shown(field.default if default is None else default)
    flag = (name.removesuffix("s") if several else name).replace("_", "-")
    word = f"--{flag}"
    help_ = str(field.description)
    if kind is bool:
        flags = [word] if not field.default else [f"{word}/--no-{flag}"]
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
