"""The promises of SECURITY.md: each names tests that are there, and those about connections are kept here."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
PROMISES = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")][1:]

# Whatever opens a connection, or looks a name up, ends the process that says so.
WATCHED = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        os.write(2, f"{event} {args[1:]}".encode())
        os._exit(9)
sys.addaudithook(watch)
from steadygrad.cli import main
def run(*line):
    try:
        main([*line, "--quiet"] if line[0] in ("train", "audit") else [*line])
    except SystemExit as left:
        assert not left.code, left.code
run("list", "attacks")
run("train", "--model", "mlp:hidden=[8]", "--limit", "60", "--epochs", "1", "--out", "trained")
run("audit", "trained", "--attack", "fgsm", "--eps", "0.1", "--samples", "12", "--checked", "4", "--out", "audited")
run("report", "audited")
"""


@pytest.mark.parametrize("promise", PROMISES, ids=lambda row: row[0].strip()[:40])
def test_every_promise_names_tests_that_are_there(promise: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise[1])
    assert named
    assert promise[1].count("::") == len(named)
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), f"{file}::{test}"


@pytest.mark.slow
def test_commands_on_local_files_open_no_connection(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    how: dict[str, Any] = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment}
    ended = subprocess.run([sys.executable, "-c", WATCHED], **how, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "audited" / "report" / "index.html").is_file()
    watched = WATCHED.replace("from steadygrad.cli import main", 'import socket; socket.getaddrinfo("localhost", 80)')
    found = subprocess.run([sys.executable, "-c", watched], **how, check=False)
    assert (found.returncode, "socket.getaddrinfo" in found.stderr) == (9, True)


def test_no_test_reaches_the_network() -> None:
    with socket.socket() as opened, pytest.raises(ConnectionRefusedError, match="no test leaves this machine"):
        opened.connect(("192.0.2.1", 80))
