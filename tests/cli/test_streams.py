"""Output to a terminal that lacks signs, to a file, a closed stream or a pipe that nobody reads: the work counts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LINES = {
    "a list": ("list", "papers"),
    "json": ("list", "attacks", "--json"),
    "help": ("audit", "--help"),
}


def shell(line: tuple[str, ...], redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steadygrad", *line]
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", *command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_signs_that_an_encoding_lacks_are_replaced(encoding: str) -> None:
    code = (
        "import steadygrad.cli.listing as l; from steadygrad.cli import main\n"
        "l._rows = lambda kind: [{'name': '✓ \\udce9', 'summary': 'ℓ∞'}]; main(['list', 'attacks'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.split() == [b"?", b"?", b"??"]


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-"])
def test_a_closed_stream_takes_all(line: tuple[str, ...], redirection: str) -> None:
    ended = shell(line, redirection)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: object) -> None:
    code = (
        "import os, steadygrad.cli.listing as l; from steadygrad.cli import main\n"
        "def rows(kind):\n"
        "    with open('kept', 'w') as file: os.write(1, b'said'); file.write('kept')\n"
        "    return []\n"
        "l._rows = rows; main(['list', 'attacks'])"
    )
    ended = subprocess.run(
        ["bash", "-c", '"$@" >&-', "bash", sys.executable, "-c", code], cwd=str(tmp_path), timeout=60, check=True
    )
    assert ended.returncode == 0
    with open(f"{tmp_path}/kept") as file:
        assert file.read() == "kept"


@pytest.mark.parametrize(("line", "code"), [(LINES["json"], 0), (LINES["help"], 1)], ids=["at the end", "before it"])
def test_a_reader_that_has_left_is_no_error_of_ours(line: tuple[str, ...], code: int) -> None:
    ended = shell(line, "| true", PYTHONUNBUFFERED="")
    assert (ended.returncode, ended.stderr) == (code, "")
