"""Names from outside as they are shown."""

from __future__ import annotations

import unicodedata
from xml.etree import ElementTree

import pytest

from steadygrad import readable


def test_no_sign_is_left_that_is_not_seen_or_that_a_file_refuses():
    for code in range(0x110000):
        shown = readable.readable(chr(code))
        if shown != chr(code):
            continue
        kind = unicodedata.category(chr(code))
        assert kind not in ("Cc", "Cs", "Zl", "Zp"), hex(code)
        # Some of this kind are seen: signs of numbers.
        assert kind != "Cf" or code in range(0x600, 0x900) or code > 0x10FFF, hex(code)
    chars = "".join(chr(code) for code in range(0x110000) if readable.readable(chr(code)) == chr(code))
    ElementTree.fromstring(f"<a>{chars.replace('&', '').replace('<', '')}</a>".encode())


@pytest.mark.parametrize("text", ["cat", "", "Katze, groß", "猫\u3000犬", "10\u00a0%", "😀", "✓ ℓ∞", "a\\x1b", "नमस्ते"])
def test_what_is_seen_stays_as_it_is(text):
    assert readable.readable(text) == readable.name(text) == text


def test_lines_are_kept_where_they_are_wanted():
    assert readable.readable("a\n\tb\r\x00") == r"a\x0a\x09b\x0d\x00"
    assert readable.readable("a\n\tb\r\x00", lines=True) == "a\n\tb\\x0d\\x00"


def test_long_names_are_cut_and_stay_different():
    first, second = ("x" * 10_000 + end for end in "ab")
    assert len(readable.name(first)) < readable.LONGEST
    assert readable.name(first) != readable.name(second)
    assert readable.name(readable.name(first)) == readable.name(first)
