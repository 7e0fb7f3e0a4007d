"""Progress is silent in the library and shown on request."""

from __future__ import annotations

import contextlib

import pytest

from steadygrad import progress


def test_the_library_is_silent(capfd):
    with progress.task("attack", 2) as advance:
        advance()
        advance(1, note="done")
    assert capfd.readouterr() == ("", "")


def test_commands_show_tasks_on_stderr_only(capfd):
    with progress.shown(), progress.task("attack", 2) as advance:
        advance(2, note="1 left")
    out, err = capfd.readouterr()
    assert out == ""
    assert "attack" in err
    assert "1 left" in err


def test_switched_off_shows_nothing(capfd):
    with progress.shown(False), progress.task("attack", 1) as advance:
        advance()
    assert capfd.readouterr() == ("", "")


def test_silence_returns_after_an_exception(capfd):
    with pytest.raises(KeyError), progress.shown(), progress.task("first", 1):
        raise KeyError
    capfd.readouterr()
    with progress.task("second", 1) as advance:
        advance()
    assert capfd.readouterr() == ("", "")


def test_tasks_may_be_nested(capfd):
    with progress.shown(), progress.task("outer", 1) as outer, progress.task("inner", 1) as inner:
        inner()
        outer()
    err = capfd.readouterr().err
    assert "outer" in err
    assert "inner" in err


def test_parts_of_a_whole_move_its_bar_by_their_shares():
    moved = {}

    @contextlib.contextmanager
    def opener(description, total):
        def advance(steps=1, note=""):
            moved[description] = moved.get(description, 0) + steps

        moved[f"{description}, of"] = total
        yield advance

    token = progress._opener.set(opener)
    try:
        with progress.whole("all", {"long": 30.0, "short": 0.5}):
            with progress.task("long", 10) as advance:
                advance(4)
                assert moved["all"] == pytest.approx(12)
                advance(6, note="done")
            with progress.task("short", 2) as advance:
                advance(2)
            with progress.task("unknown", 5) as advance:
                advance(5)
        with progress.task("long", 10) as advance:
            advance(10)
    finally:
        progress._opener.reset(token)
    assert moved["all"] == pytest.approx(30.5)
    assert moved["all, of"] == 31
    assert moved["long"] == 20
