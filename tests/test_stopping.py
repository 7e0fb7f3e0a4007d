"""Signals that ask to end: commands end in order, the library alone leaves them as they are."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from cli.commands import call, refused
from steadygrad.errors import Failure
from steadygrad.stopping import between_steps, ends_in_order

USUAL = {
    getattr(signal, name): signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
}
ASKING = list(USUAL)


@pytest.fixture(autouse=True)
def _handlers_are_restored() -> Iterator[None]:
    # The tests may run where some are ignored, as below nohup.
    before = {number: signal.signal(number, handler) for number, handler in USUAL.items()}
    yield
    found = {number: signal.getsignal(number) for number in ASKING}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert found == USUAL


@pytest.mark.parametrize("number", ASKING)
def test_a_command_ends_with_the_exit_code_of_the_signal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steadygrad.cli.listing._rows", lambda kind: signal.raise_signal(number))
    message = refused(128 + number, "list", "attacks", "--json")
    assert message.splitlines()[-2:] == [
        "steadygrad: interrupted; what is finished is kept. Continue with:",
        "  steadygrad list attacks --json",
    ]


@pytest.mark.parametrize(
    ("made_of_it", "code", "words"),
    [
        (ImportError("numpy is half there"), 143, "Continue with"),  # as libraries in the middle of an import
        (Failure("cannot write x: No space left"), 1, "cannot write x"),  # what was to be kept is not
    ],
)
def test_an_error_that_a_signal_was_made_into_hides_no_failure(
    made_of_it: Exception, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(kind: str) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise made_of_it from None

    monkeypatch.setattr("steadygrad.cli.listing._rows", rows)
    message = refused(code, "list", "attacks", "--json")
    assert words in message
    assert "not foreseen" not in message


def test_the_one_after_is_a_command_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("steadygrad.cli.listing._rows", lambda kind: signal.raise_signal(signal.SIGTERM))
        assert call("list", "attacks", "--json").code == 143
    assert call("list", "attacks", "--json").code == 0


def test_what_is_ignored_or_handled_stays_so() -> None:
    seen: list[int] = []
    before = [signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda n, _: seen.append(n))]
    try:
        with ends_in_order() as stop, between_steps() as pause:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert (seen, stop.number, pause.number) == ([signal.SIGTERM], 0, 0)


def test_the_library_alone_notes_ctrl_c_only() -> None:
    with pytest.raises(KeyboardInterrupt), between_steps() as stop:  # noqa: PT012
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT


@pytest.mark.parametrize("number", ASKING)
def test_a_second_signal_does_not_wait_for_the_step(number: signal.Signals) -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), ends_in_order() as command, between_steps() as stop:  # noqa: PT012
        signal.raise_signal(number)
        steps.append(stop.number)
        signal.raise_signal(number)
        steps.append("went on")
    assert (steps, command.number) == ([number], number)


def test_another_thread_changes_no_handler() -> None:
    seen: list[object] = []

    def work() -> None:
        with ends_in_order(), between_steps():
            seen.extend(signal.getsignal(number) for number in ASKING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(number) for number in ASKING]


def test_a_signal_in_the_middle_of_the_import_of_the_commands_has_its_code() -> None:
    code = (
        "import signal, sys\n"
        "class Stops:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': signal.raise_signal(signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Stops())\n"
        "from steadygrad.cli import main; main(['list', 'attacks'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")
