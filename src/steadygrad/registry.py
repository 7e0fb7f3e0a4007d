"""Methods are values: frozen dataclasses with one registry row each.

The row feeds the command line, the docs table, the tests and the report; the dataclass fields are
the settings. `build` turns a name with settings (from TOML or a flag) into a method, `describe`
turns it back.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from steadygrad.errors import UsageError, unknown_name

__all__ = ["Method", "Registry", "Row", "build", "configure", "describe", "label_of", "parse"]


class Method:
    """Base of attacks, attributions and defenses: settings in, no hidden state."""

    norms: ClassVar[tuple[str, ...]] = ()  # under which it works
    # Read by pydantic when a configuration is validated; a plain mapping keeps it optional.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "arbitrary_types_allowed": True,
        "strict": False,
    }


M = TypeVar("M", bound=Method)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Row(Generic[M]):
    """What is known about a method without running it."""

    name: str
    method: type[M]
    summary: str
    reference: str
    cost: str
    soundness: str
    order: int

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms under which it works."""
        return self.method.norms

    @property
    def settings(self) -> dict[str, Any]:
        """The default settings, by name."""
        return {
            f.name: _default(f)
            for f in dataclasses.fields(self.method)  # type: ignore[arg-type]
        }


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else "required"


_REGISTRIES: dict[str, Registry[Any]] = {}


class Registry(Generic[M]):
    """The methods of one kind, by name, in order of registration."""

    def __init__(self, kind: str, soundness: str = "estimate") -> None:
        self.kind, self.soundness = kind, soundness
        self._rows: dict[str, Row[M]] = {}
        _REGISTRIES[kind] = self

    def register(
        self,
        name: str,
        *,
        summary: str,
        reference: str,
        cost: str,
        soundness: str | None = None,
        order: int = 1,
        norms: tuple[str, ...] | None = None,
    ) -> Callable[[type[M]], type[M]]:
        """Class decorator: put the method into the registry.

        `order` is the order of the derivatives it takes through the model (0, 1 or 2), `cost` its
        passes per sample, `soundness` one of the words of the soundness page (None: that of its kind);
        `norms` become those of the class (None: it has the ones of its base class).
        """

        def add(method: type[M]) -> type[M]:
            assert name not in self._rows, f"{self.kind} {name} is registered twice"
            if norms is not None:
                method.norms = norms
            self._rows[name] = Row(name, method, summary, reference, cost, soundness or self.soundness, order)
            return method

        return add

    def __iter__(self) -> Iterator[Row[M]]:
        return iter(self._rows.values())

    def __getitem__(self, name: str) -> Row[M]:
        if name not in self._rows:
            raise unknown_name(self.kind, name, self._rows)
        return self._rows[name]

    def name_of(self, method: Method) -> str:
        """The registered name of a method (its class)."""
        return next(row.name for row in self if row.method is type(method))


def build(kind: str, name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """Make a method from its registered name and settings, refusing unknown or ill-typed ones.

    A setting that is itself a method is a mapping with a `name` key, or a name alone.

    >>> import steadygrad
    >>> build("attack", "pgd", {"steps": 10}).steps
    10
    """
    method = _REGISTRIES[kind][name].method
    hints = get_type_hints(method)
    values = {k: _nested(v, hints.get(k)) for k, v in (settings or {}).items()}
    return configure(method, name, values)


def configure(settings: type[T], name: str, values: Mapping[str, Any]) -> T:
    """Make a dataclass of settings from plain values, refusing unknown or ill-typed ones by name."""
    fields = {f.name for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise unknown_name(f"setting of {name}", key, fields)
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(settings).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # refused by the settings themselves
            raise UsageError(f"{name}: {first.get('ctx', {}).get('error', first['msg'])}") from None
        raise UsageError(f"setting {where!r} of {name}: {first['msg']} (got {first['input']!r})") from None


def _nested(value: Any, hint: Any = None) -> Any:
    if isinstance(value, str) and isinstance(hint, type) and issubclass(hint, Method):
        value = {"name": value}
    if isinstance(value, Mapping) and "name" in value:
        rest = {k: v for k, v in value.items() if k != "name"}
        for kind, registry in _REGISTRIES.items():
            if any(row.name == value["name"] for row in registry):
                return build(kind, value["name"], rest)
        known = [row.name for registry in _REGISTRIES.values() for row in registry]
        raise unknown_name("method", str(value["name"]), known)
    if isinstance(value, list | tuple):
        return tuple(_nested(v) for v in value)
    return value


def describe(method: Method) -> dict[str, Any]:
    """A method as plain data: its name and all its settings; `build` takes it back."""
    for registry in _REGISTRIES.values():
        for row in registry:
            if row.method is type(method):
                values = {
                    f.name: _plain(getattr(method, f.name))
                    for f in dataclasses.fields(method)  # type: ignore[arg-type]
                }
                return {"name": row.name, **values}
    raise UsageError(f"{type(method).__name__} is not registered")


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return describe(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def label_of(method: Method) -> str:
    """A short name that tells methods of one kind apart: the settings that differ from the defaults.

    >>> from steadygrad.attacks import PGD
    >>> label_of(PGD(steps=30, random_start=False, loss="ce"))
    'PGD ce, 30 steps, random_start=False'
    """
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    changed = {f.name: getattr(method, f.name) for f in fields if getattr(method, f.name) != f.default}
    name = " ".join([type(method).__name__, *([str(changed.pop("loss"))] if "loss" in changed else [])])
    return ", ".join([name, *(_setting(key, value) for key, value in changed.items())])


def _setting(key: str, value: Any) -> str:
    # "30 steps" reads as it is said; "loss of" and "False random_start" do not.
    counts = isinstance(value, int) and not isinstance(value, bool) and key.endswith("s")
    return f"{value} {key}" if counts else f"{key}={value}"


def parse(kind: str, text: str) -> Any:
    """Make a method from a flag such as `pgd`, `pgd:steps=10,loss=ce` or `adversarial:eps=0.1,attack=pgd(steps=10)`.

    >>> import steadygrad
    >>> parse("attack", "fgsm:loss=ce").loss
    'ce'
    """
    name, _, rest = text.partition(":")
    return build(kind, name.strip(), _settings(rest, text))


def _settings(rest: str, text: str) -> dict[str, Any]:
    """Settings from `key=value,...`; a value is JSON, a method with settings in parentheses, or a word."""
    import json

    settings: dict[str, Any] = {}
    for item in filter(None, map(str.strip, _apart(rest, text))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"{text!r}: {item!r} is not key=value (example: pgd:steps=10,loss=ce)")
        method = re.fullmatch(r"([a-z_0-9]+)\((.*)\)", value)
        try:
            settings[key] = {"name": method[1], **_settings(method[2], text)} if method else json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings


def _apart(rest: str, text: str) -> list[str]:
    """The text between the commas that stand outside of all brackets."""
    parts, depth = [""], 0
    for letter in rest:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            break
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise UsageError(f"{text!r}: a bracket is not closed, or not opened (example: attack=pgd(steps=10,loss=ce))")
    return parts
