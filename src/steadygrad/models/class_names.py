"""Which output of a model stands for which class of the data: by name, never by count alone."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from steadygrad.errors import UsageError

_SHOWN = 4
_DIGITS = 1000
"""Python makes no numbers of more than some thousands."""


@dataclass(frozen=True)
class ClassMatch:
    """What the outputs of a model mean for the classes of the data.

    Attributes:
        positions: for each class of the data its place among the model's outputs.
        outputs: how many outputs the model has.
        how: equal names, names in another order or a part of them, or by position where one side has no names.
        text: what a user has to be told; empty where nothing was done.
    """

    positions: tuple[int, ...]
    outputs: int
    how: Literal["same", "by name", "by position"]
    text: str = ""

    def rest(self) -> tuple[int, ...]:
        """The outputs that are no class of the data, in their order."""
        return tuple(sorted(set(range(self.outputs)) - set(self.positions)))


def match_classes(
    model: Sequence[str] | None,
    outputs: int,
    data: Sequence[str],
    *,
    who: str = "the model",
    where: str = "the data",
) -> ClassMatch:
    """Match the classes of the data with the outputs of a model.

    Names that differ in case, spaces and punctuation only are the same, and a name with commas is a list of synonyms,
    where that leaves one choice. Classes called 0, 1, 2, ... have no names: where one side has none, and both have as
    many classes, they are matched by position.

    Args:
        model: names of the outputs in their order, or None where they are not known.
        outputs: how many outputs there are.
        data: names of the classes of the data.
        who, where: names of model and data, for errors.

    Raises:
        UsageError: a class that the model does not have, or has twice; unnamed classes of another number.

    >>> match_classes(["bird", "cat", "Golden Retriever"], 3, ["golden_retriever", "bird"]).positions
    (2, 0)
    """
    if model is not None and tuple(model) == tuple(data):
        return ClassMatch(tuple(range(outputs)), outputs, "same")
    unnamed_model, unnamed_data = model is None or _unnamed(model), _unnamed(data)
    if model is not None and not (unnamed_model and unnamed_data):
        found = _by_name(model, data)
        if all(len(places) == 1 for places in found):
            return _named(model, data, [place for places in found for place in places], who, where)
    if (unnamed_model or unnamed_data) and outputs == len(data):
        return ClassMatch(tuple(range(outputs)), outputs, "by position", _numbers_in_text_order(data, who))
    if model is not None and not unnamed_model and not unnamed_data:
        raise _missing(model, data, found, who, where)
    raise _counts(outputs, data, unnamed_model, unnamed_data, who, where)


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Names of the outputs of a model in their order, from a file.

    Text with one name per line; or JSON: a list, or an object with the positions as keys, as `id2label` of a
    Hugging Face configuration (an object that has one is read too). A list in place of a name holds its synonyms.

    Raises:
        UsageError: no such file, no names, or positions that do not count from 0.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the class names {path}: {error}; give a text file with one name per line, or JSON"
        ) from None
    found: Any = [line.strip() for line in text.splitlines() if line.strip()]
    if path.suffix.lower() == ".json":
        try:
            found = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"the class names {path} are not JSON: {error}") from None
    if isinstance(found, dict):
        found = found.get("id2label", found)
        if not isinstance(found, dict) or sorted(found) != sorted(map(str, range(len(found)))):
            raise UsageError(f"the class names {path} must have the positions 0, 1, 2, ... as keys")
        found = [found[str(place)] for place in range(len(found))]
    if not isinstance(found, list) or len(found) < 2:
        raise UsageError(f"the class names {path} must be at least two, in the order of the model's outputs")
    names = [name if isinstance(name, list) else [name] for name in found]
    if not all(name and isinstance(word, str | int) for name in names for word in name or [None]):
        raise UsageError(f"the class names {path} must be texts, or lists of synonyms")
    return tuple(", ".join(map(str, name)) for name in names)


def _unnamed(names: Sequence[str]) -> bool:
    return all(name == str(place) for place, name in enumerate(names))


def _plain(name: str) -> str:
    """A name without case, spaces and punctuation; a number without leading zeros."""
    name = unicodedata.normalize("NFKC", name).casefold().strip()
    if name.isdecimal() and len(name) <= _DIGITS:
        return str(int(name))
    return re.sub(r"[\W_]+", "" if re.search(r"[^\W\d_]", name) else " ", name)


def _synonyms(name: str) -> list[str]:
    return [_plain(part) for part in name.split(",")]


_RULES: tuple[Callable[[str], list[str]], ...] = (lambda n: [n], lambda n: [_plain(n)], _synonyms)


def _by_name(model: Sequence[str], data: Sequence[str]) -> list[list[int]]:
    """For each class of the data the outputs that have its name, by the strictest rule that finds one."""
    tables: list[dict[str, list[int]]] = []
    for rule in _RULES:
        tables.append(defaultdict(list))
        for place, name in enumerate(model):
            for word in rule(name):
                tables[-1][word].append(place)
    keys = [(name, _plain(name), _plain(name)) for name in data]
    found = [next((t[w] for t, w in zip(tables, words) if w in t), []) for words in keys]
    # An output that two classes of the data ask for is neither's.
    asked = Counter(place for places in found for place in places)
    return [places if all(asked[p] == 1 for p in places) else [*places, *places] for places in found]


def _named(model: Sequence[str], data: Sequence[str], positions: list[int], who: str, where: str) -> ClassMatch:
    spelled = [(name, model[place]) for name, place in zip(data, positions, strict=True) if name != model[place]]
    if len(positions) == len(model):
        text = (
            f"{who} has the classes of {where} in another order ({_some(model)}): they are matched by name"
            if positions != sorted(positions)
            else f"the classes of {who} and {where} are matched by name"
        )
    else:
        text = f"{len(positions):,} of the {len(model):,} classes of {who} are those of {where}, by name"
    if spelled:
        pairs = "; ".join(f"{a!r} is {b!r}" for a, b in spelled[:_SHOWN])
        text += f" ({len(spelled)} are spelled differently: {pairs}{'; ...' if len(spelled) > _SHOWN else ''})"
    return ClassMatch(tuple(positions), len(model), "by name", text)


def _numbers_in_text_order(data: Sequence[str], who: str) -> str:
    """A word where classes are numbers that do not rise: 0, 1, 10, 2 may be another order than that of the model."""
    if not all(name.strip().isdecimal() and len(name) <= _DIGITS for name in data) or sorted(data, key=int) == list(
        data
    ):
        return ""
    return (
        f"the outputs of {who} have no names and are taken to be in the order of the class folders, {_some(data)}: "
        "if they are in the order of the numbers, say so by their names (classes)"
    )


def _missing(model: Sequence[str], data: Sequence[str], found: list[list[int]], who: str, where: str) -> UsageError:
    wrong = [place for place, places in enumerate(found) if len(places) != 1]
    several = next((place for place in wrong if found[place]), None)
    if several is not None:
        places = sorted(set(found[several]))
        doubt = f"{data[several]!r} of {where} may be any of its outputs {', '.join(map(str, places))}"
        others = [name for name, theirs in zip(data, found, strict=True) if set(theirs) & set(places)]
        if len(others) > 1:
            doubt = f"{others[0]!r} and {others[1]!r} of {where} are both {model[places[0]]!r}"
        return UsageError(f"the classes of {who} cannot be matched by name: {doubt}; rename the classes of one side")
    words = []
    for place in wrong[:_SHOWN]:
        near = get_close_matches(data[place], model, n=2, cutoff=0.6)
        words.append(f"{data[place]!r}" + (f" (near: {', '.join(map(repr, near))})" if near else ""))
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return UsageError(
        f"{who} has no class {', '.join(words)}{more} of {where}; its {len(model)} classes are {_some(model)}: give "
        "data with its classes, or the names of its outputs in their order (classes=[...], --classes FILE)"
    )


def _counts(
    outputs: int, data: Sequence[str], unnamed_model: bool, unnamed_data: bool, who: str, where: str
) -> UsageError:
    text = f"{who} has {outputs} classes, {where} has {len(data)}"
    if outputs < len(data):
        return UsageError(f"{text}: audit it on the data it was trained for")
    if unnamed_model:
        way_out = (
            "give their names in the order of its outputs: sg.Classifier(module, classes=[...]), or --classes FILE"
        )
        labels = f"; if the labels are places of its outputs, give the data classes={outputs}" if unnamed_data else ""
        return UsageError(f"{text}, and which of its outputs are meant is not known: {way_out}{labels}")
    return UsageError(
        f"{text} that have no names, so that which of its outputs are meant is not known: name the classes of the data"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
