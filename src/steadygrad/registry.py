"""Methods are values: frozen dataclasses with one registry row each.

The row feeds the command line, the documentation, the tests and the report; the fields are the settings.
`build` makes a method from a name with settings, `parse` from the text of a flag; `describe` turns it back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from steadygrad.arguments import named
from steadygrad.errors import UsageError, one_of
from steadygrad.files import parse_toml
from steadygrad.values import check_settings, fraction


class Method:
    """Base of attacks, attributions, bounds and defenses: settings in, no hidden state."""

    norms: ClassVar[tuple[str, ...]] = ()  # under which it works
    # Read by pydantic, without an import of it.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "arbitrary_types_allowed": True}

    def __post_init__(self) -> None:
        check_settings(self)


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
        return {field.name: _default(field) for field in _fields(self.method)}


def _fields(settings: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(settings)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return "required" if field.default is dataclasses.MISSING else field.default


_REGISTRIES: dict[str, Registry[Any]] = {}


def registries() -> dict[str, Registry[Any]]:
    """All registries, by the plural of their kind: "attacks", "attribution-attacks", ..."""
    return {f"{kind.replace(' ', '-')}s": rows for kind, rows in _all().items()}


def _all() -> dict[str, Registry[Any]]:
    """All registries by kind, after the rooms whose methods they hold are imported."""
    importlib.import_module("steadygrad.face")  # by name, as it lies above
    return _REGISTRIES


class Registry(Generic[M]):
    """The methods of one kind, by name, in order of registration; `soundness` is that of most of them."""

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
            named(method)
            self._rows[name] = Row(name, method, summary, reference, cost, soundness or self.soundness, order)
            return method

        return add

    def __iter__(self) -> Iterator[Row[M]]:
        return iter(self._rows.values())

    def __getitem__(self, name: str) -> Row[M]:
        one_of(self.kind, name, self._rows)
        return self._rows[name]

    def discover(self, package: str, folders: Iterable[str]) -> dict[str, type[M]]:
        """Import all files of a package, which register their methods; the methods there by class name."""
        for found in pkgutil.iter_modules(folders):
            importlib.import_module(f"{package}.{found.name}")
        methods = (row.method for row in self)
        return {method.__name__: method for method in methods if method.__module__.startswith(f"{package}.")}


def build(kind: str, name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """Make a method from its registered name and settings, refusing unknown or ill-typed ones.

    A setting that is itself a method is a mapping with a `name` key, or a name alone.

    >>> import steadygrad.attacks
    >>> build("attack", "pgd", {"steps": 10}).steps
    10
    """
    registries = _all()
    one_of("kind", kind, registries)
    return configure(registries[kind][name].method, name, settings or {})


def configure(settings: type[T], name: str, values: Mapping[str, Any]) -> T:
    """Make a dataclass of settings from plain values, refusing unknown, missing or ill-typed ones by name."""
    fields = {field.name: field for field in _fields(settings)}
    for key in values:
        one_of(f"setting of {name}", key, fields)
    for key, field in fields.items():
        if key not in values and field.init and _default(field) == "required":
            raise UsageError(f"{name} needs {key}: give it, as in {name}:{key}=...")
    hints = get_type_hints(settings)
    plain = {key: _built(value, hints.get(key)) for key, value in values.items()}
    try:
        return settings(**plain)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def _built(value: Any, hint: Any = None) -> Any:
    """A plain value with methods in the place of their names."""
    if isinstance(value, str):
        if not (isinstance(hint, type) and issubclass(hint, Method)):
            return value
        value = {"name": value}
    if isinstance(value, Mapping) and "name" in value:
        rest = {k: v for k, v in value.items() if k != "name"}
        kinds = {row.name: registry.kind for registry in reversed(_all().values()) for row in registry}
        one_of("method", value["name"], kinds)
        return build(kinds[value["name"]], value["name"], rest)
    return tuple(map(_built, value)) if isinstance(value, list | tuple) else value


def describe(method: Method) -> dict[str, Any]:
    """A method as plain data: its name and all its settings; `build` takes it back."""
    names = {row.method: row.name for registry in _REGISTRIES.values() for row in registry}
    if type(method) not in names:
        raise UsageError(f"{type(method).__name__} is not registered")
    return {"name": names[type(method)], **{f.name: _plain(getattr(method, f.name)) for f in _fields(method)}}


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return describe(value)
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def label_of(method: Method) -> str:
    """A short name that tells methods of one kind apart: the settings that differ from the defaults.

    >>> from steadygrad.attacks import PGD
    >>> label_of(PGD(steps=30, random_start=False, loss="ce"))
    'PGD ce, 30 steps, random_start=False'
    """
    changed = {f.name: getattr(method, f.name) for f in _fields(method) if getattr(method, f.name) != f.default}
    words = [f"{type(method).__name__} {changed.pop('loss', '')}".strip()]
    for key, value in changed.items():
        # "30 steps" reads as it is said; "False random_start" does not.
        counted = type(value) is int and key.endswith("s")
        words.append(f"{value} {key}" if counted else f"{key}={_short(str(value))}")
    return ", ".join(words)


def _short(text: str) -> str:
    """A text that fits into a label; one of another content has another."""
    return text if len(text) <= 60 else f"{text[:16]}… {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def parse(kind: str, text: str) -> Any:
    """Make a method from a flag such as `pgd`, `pgd:steps=10,loss=ce` or `adversarial:eps=8/255,attack=pgd(steps=10)`.

    >>> import steadygrad.attacks
    >>> parse("attack", "fgsm:loss=ce").loss
    'ce'
    """
    name, _, rest = text.partition(":")
    return build(kind, name.strip(), parse_settings(rest, repr(text), "pgd:steps=10,loss=ce"))


def parse_settings(text: str, where: str, example: str) -> dict[str, Any]:
    """Settings as they are written in flags: `key=value,...`, see `parse_value`.

    Args:
        where, example: what an error begins with, and what it shows.

    >>> parse_settings("hidden=[20, 10], bias=true", "'mlp'", "mlp:hidden=[500,150]")
    {'hidden': [20, 10], 'bias': True}
    """
    settings: dict[str, Any] = {}
    for item in filter(None, map(str.strip, _between_commas(text, where))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"{where}: {item!r} is not key=value (example: {example})")
        method = re.fullmatch(r"([a-z_0-9]+)\((.*)\)", value)
        settings[key] = (
            {"name": method[1], **parse_settings(method[2], where, example)} if method else parse_value(value)
        )
    return settings


def parse_value(text: str) -> Any:
    """A value as it is written in flags: JSON or TOML, a fraction, or else a text.

    >>> parse_value("8/255") * 255, parse_value("[1, 2]"), parse_value("'ce'"), parse_value("ce")
    (8.0, [1, 2], 'ce', 'ce')
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        number = fraction(text)
        return text if number is None else number
    return value if isinstance(value, bool | int | float | str | list | dict) else text  # a date stays a text


def numbers(value: Any) -> Any:
    """Takes a text such as 0.5,1/4 as the numbers that it says, and one number as a list of one; words as they are.

    >>> numbers("0,255"), numbers(0.5), numbers("imagenet")
    ((0, 255), (0.5,), 'imagenet')
    """
    if isinstance(value, str):
        found = tuple(parse_value(part.strip()) for part in value.split(","))
        return found if all(isinstance(part, int | float) and not isinstance(part, bool) for part in found) else value
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _between_commas(text: str, where: str) -> list[str]:
    """The text between the commas that stand outside of all brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            break
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise UsageError(f"{where}: a bracket is not closed, or not opened (example: attack=pgd(steps=10,loss=ce))")
    return parts
