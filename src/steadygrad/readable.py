"""Names from outside, such as of files, classes and samples, as they can be shown anywhere: each sign is seen."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

# Controls, which move a terminal's cursor and which XML forbids; what has no width or turns the direction of writing;
# halves of characters, which stand for bytes that are no UTF-8 and which no file takes; and no characters at all.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_ALL, _WITHIN_LINES = re.compile(f"[{_UNSEEN}]"), re.compile(f"(?![\n\t])[{_UNSEEN}]")
LONGEST = 500
"""Signs of a name that is shown; of a longer one its beginning, and a hash of the whole."""


def readable(text: str, *, lines: bool = False) -> str:
    r"""The text with escapes such as \x1b for what is not seen.

    Args:
        lines: keep line breaks and tabs.

    >>> print(readable("\x1b[2Jcat\u202egod"), readable(b"caf\xe9".decode("utf-8", "surrogateescape")))
    \x1b[2Jcat\u202egod caf\xe9
    """
    return text if text.isprintable() else (_WITHIN_LINES if lines else _ALL).sub(_escape, text)


def name(text: str) -> str:
    """The same of a name, which is no longer than it can be shown; different names stay different."""
    text = readable(text)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 10]}…{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def names(texts: Iterable[str]) -> tuple[str, ...]:
    """The same of several."""
    return tuple(map(name, texts))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # how Python keeps a byte that is no UTF-8
    return f"\\x{byte:02x}" if byte < 256 else f"\\u{byte:04x}" if byte < 0x10000 else f"\\U{byte:08x}"
