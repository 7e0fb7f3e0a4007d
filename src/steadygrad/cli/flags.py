"""The flags of a command from the fields of the plan that it fills: names, types and help stand there only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Union

import typer

from steadygrad.cli import known

_TYPES = {"switch": bool, "whole": int, "text": str, "texts": list[str]}
_COMPLETED = {
    "attacks": "attacks",
    "neuron_attack": "attacks",
    "attributions": "attributions",
    "data": "data",
    "defense": "defenses",
    "model": "models",
}
"""What shells complete, by field."""


def plan_flags(
    plan: str,
    *,
    into: str = "flags",
    only: tuple[str, ...] | None = None,
    without: tuple[str, ...] = (),
    **defaults: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command a flag for each field of a plan, "audit" or "train".

    The command gets what was given in its argument `flags`, by field; the plan itself refuses and completes it.
    A field that holds several values has a flag that may be repeated, without the s at its end.

    Args:
        into: another name of that argument, for a command that fills several plans.
        only: fields that the command has a flag for; None for all.
        without: fields that the command has no flag for.
        defaults: shown where the command fills in another default than that of the field.
    """
    fields = known.flags(plan)
    wanted = [name for name in (fields if only is None else only) if name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        mine = [p for p in own.values() if p.name != into]
        options = [_option({**fields[name], "default": defaults.get(name, fields[name]["default"])}) for name in wanted]

        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in wanted}
            command(**values, **{into: {name: value for name, value in given.items() if value not in (None, [])}})

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__signature__ = inspect.Signature([*mine, *options])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*mine, *options)}
        return run

    return decorate


def _option(flag: known.Row) -> inspect.Parameter:
    name, kind, default, choices = flag["field"], flag["kind"], flag["default"], flag.get("choices", [])
    word = (name.removesuffix("s") if kind == "texts" else name).replace("_", "-")
    if kind == "switch":
        words = f"--{word}/--no-{word}" if default else f"--{word}"
        option = typer.Option(words, help=flag["help"], metavar="", show_default="yes" if default else False)
    else:
        option = typer.Option(
            f"--{word}",
            help=flag["help"],
            show_default=False if default is None else str(default),
            metavar="N" if kind == "whole" else "|".join(choices) or None,
            autocompletion=known.completing(_COMPLETED.get(name) or choices),
        )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Union[_TYPES[kind], None], option],  # noqa: UP007
    )
