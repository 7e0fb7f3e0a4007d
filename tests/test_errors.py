"""Errors name the near things."""

from __future__ import annotations

import tokenize

import pytest

from steadygrad.errors import Failure, UsageError, one_of, reading, unknown_name


def test_a_wrong_name_lists_the_near_and_the_known_ones():
    text = str(unknown_name("attack", "fsgm", ["pgd", "fgsm", "bim"]))
    assert text == "there is no attack 'fsgm'; did you mean 'fgsm'? (known: bim, fgsm, pgd)"


def test_a_name_far_from_all_lists_the_known_ones():
    assert str(unknown_name("attack", "zzzz", ["pgd", "bim"])) == "there is no attack 'zzzz'; (known: bim, pgd)"


def test_wrong_use_is_a_value_error_and_failure_is_not():
    assert issubclass(UsageError, ValueError)
    assert not issubclass(Failure, ValueError)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (tokenize.TokenError("EOF", (2, 0)), "a is damaged: .*EOF"),
        (EOFError(), "a is damaged: EOFError; copy it"),
        (MemoryError(), "a is damaged: it asks for more memory than there is; copy it"),
        (RuntimeError("first\nsecond"), "a is damaged: first; copy it"),
    ],
)
def test_whatever_a_reader_raises_says_that_the_file_is_damaged(error, words):
    with pytest.raises(Failure, match=words), reading("a is damaged", "; copy it"):
        raise error


@pytest.mark.parametrize("error", [UsageError("said"), Failure("said"), KeyboardInterrupt("said")])
def test_what_is_said_already_is_not_said_again(error):
    with pytest.raises(type(error), match=r"^said$"), reading("a is damaged"):
        raise error


@pytest.mark.parametrize("name", [["pgd", "pgd"], {}, None, 3])
def test_what_is_no_name_is_unknown(name):
    with pytest.raises(UsageError, match="there is no attack "):
        one_of("attack", name, ["pgd"])
