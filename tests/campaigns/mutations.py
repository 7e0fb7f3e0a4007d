"""Damage to files: to their bytes, and to the plain data that they hold."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

NUMBERS = (b"0", b"-1", b"2147483648", b"9223372036854775808", b"1e308", b"nan", b"1e999", b"0.5")
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), 0.5, "", "nan", "\x1b[31m\u202e"),
    *("x" * 1000, "../../etc", [], {}, [[]], [None], [0, "a"], {"": {}}, [10**9] * 3, {"name": "mlp"}, {"name": 3}),
)
"""Values that nobody expects."""


def flipped(data: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """One bit is another one."""
    place, bit, changed = drawn.randrange(len(data)), drawn.randrange(8), bytearray(data)
    changed[place] ^= 1 << bit
    return f"bit {bit} of byte {place}", bytes(changed)


def mutated(data: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """The bytes with one to three kinds of damage, and what was done."""
    done = []
    for _ in range(drawn.choice((1, 1, 1, 2, 3))):
        kind = drawn.choice(_KINDS)
        data = kind(data, drawn) if data else data
        done.append(kind.__name__.strip("_"))
    return " + ".join(done), data


def odd(value: Any, drawn: random.Random) -> tuple[str, Any]:
    """Plain data in which one value, at any depth, is an odd one, is missing, or stands twice."""
    whole = copy.deepcopy(value)
    inner, way = whole, []
    while isinstance(inner, dict | list) and inner:
        name = drawn.choice(sorted(inner) if isinstance(inner, dict) else range(len(inner)))
        way.append(str(name))
        if drawn.random() < 0.4 or not (isinstance(inner[name], dict | list) and inner[name]):
            kind = drawn.choice(("odd", "odd", "odd", "missing", "twice"))
            if kind == "missing":
                del inner[name]
            elif kind == "twice":
                inner[name] = [inner[name], inner[name]]
            else:
                inner[name] = copy.deepcopy(drawn.choice(ODD))
                kind = repr(inner[name])[:40]
            return f"{'.'.join(way)}: {kind}", whole
        inner = inner[name]
    return "nothing", whole


def _place(data: bytes, drawn: random.Random) -> tuple[int, int]:
    """The start of a block and its end, most often a short one; headers, which say what follows, are met more often."""
    start = drawn.randrange(min(len(data), drawn.choice((16, 64, 300, len(data)))))
    return start, min(len(data), start + drawn.choice((1, 2, 4, 8, 16, 64, 512)))


def _bits(data: bytes, drawn: random.Random) -> bytes:
    for _ in range(drawn.choice((1, 1, 2, 4, 8))):
        data = flipped(data, drawn)[1]
    return data


def _overwritten(data: bytes, drawn: random.Random) -> bytes:
    start, end = _place(data, drawn)
    filler = drawn.choice((drawn.randbytes(end - start), b"\xff" * (end - start), b"\x7f" * (end - start)))
    return data[:start] + filler + data[end:]


def _zeroed(data: bytes, drawn: random.Random) -> bytes:
    start, end = _place(data, drawn)
    return data[:start] + bytes(end - start) + data[end:]


def _cut(data: bytes, drawn: random.Random) -> bytes:
    return data[: drawn.randrange(len(data))]


def _inserted(data: bytes, drawn: random.Random) -> bytes:
    start, end = _place(data, drawn)
    return data[:start] + drawn.randbytes(end - start) + data[start:]


def _deleted(data: bytes, drawn: random.Random) -> bytes:
    start, end = _place(data, drawn)
    return data[:start] + data[end:]


def _twice(data: bytes, drawn: random.Random) -> bytes:
    start, end = _place(data, drawn)
    return data[:end] + data[start:]


def _swapped(data: bytes, drawn: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_place(data, drawn), _place(data, drawn)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _number(data: bytes, drawn: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?(e[+-]?\d+)?", data[:100_000]))
    if not found:
        return data
    chosen = drawn.choice(found)
    return data[: chosen.start()] + drawn.choice(NUMBERS) + data[chosen.end() :]


def _emptied(data: bytes, drawn: random.Random) -> bytes:
    return b""


_KINDS = (
    *(_bits, _bits, _bits, _overwritten, _overwritten, _zeroed, _cut, _cut, _inserted, _deleted, _twice, _swapped),
    *(_number, _number, _number, _emptied),
)
