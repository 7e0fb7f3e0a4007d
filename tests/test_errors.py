"""Errors name the near things."""

from __future__ import annotations

from steadygrad.errors import Failure, UsageError, unknown_name


def test_a_wrong_name_lists_the_near_and_the_known_ones():
    text = str(unknown_name("attack", "fsgm", ["pgd", "fgsm", "bim"]))
    assert text == "there is no attack 'fsgm'; did you mean 'fgsm'? (known: bim, fgsm, pgd)"


def test_a_name_far_from_all_lists_the_known_ones():
    assert str(unknown_name("attack", "zzzz", ["pgd", "bim"])) == "there is no attack 'zzzz'; (known: bim, pgd)"


def test_wrong_use_is_a_value_error_and_failure_is_not():
    assert issubclass(UsageError, ValueError)
    assert not issubclass(Failure, ValueError)
