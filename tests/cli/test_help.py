"""Help, version and the way commands are found."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import steadygrad
from benchmarks.attacks import __main__ as attacks
from cli.commands import call, done
from steadygrad.attacks.suites import SUITES
from steadygrad.cli import known, main, reproduce
from steadygrad.papers.paper import SCALES

COMMANDS = ("demo", "train", "audit", "harden", "report", "reproduce", "list")
# How it is called, and its help.
PAGES = {f"steadygrad {name}": ((name, "--help"), main) for name in COMMANDS}
PAGES["python -m benchmarks.attacks"] = (("--help",), attacks.main)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _help(command: str) -> str:
    arguments, by = PAGES[command]
    return _plain(done(*arguments, by=by).out)


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_a_command_there_is_help(arguments: tuple[str, ...]) -> None:
    text = _plain(done(*arguments).out)
    assert "Usage: steadygrad [OPTIONS] COMMAND" in text
    assert all(re.search(rf"│ {name} ", text) for name in COMMANDS)


def test_version() -> None:
    assert done("--version").out == f"{steadygrad.__version__}\n"


@pytest.mark.parametrize("command", PAGES)
def test_help_shows_each_example_on_its_own_line(command: str) -> None:
    lines = [line.strip() for line in _help(command).splitlines()]
    assert max(map(len, lines)) <= 80
    examples = [line for line in lines if line.startswith(command)]
    assert len(examples) >= 2
    start = lines.index("Examples:")
    # Only examples and blank lines between here and the boxes: no example was broken or joined.
    between = [line for line in lines[start + 1 : next(i for i, s in enumerate(lines) if s.startswith("╭"))] if line]
    assert between == examples


@pytest.mark.parametrize("command", PAGES)
def test_the_examples_name_options_that_exist(command: str) -> None:
    examples, options = _help(command).split("╭", 1)
    for line in examples.splitlines():
        if line.strip().startswith(command):
            flags = [word for word in shlex.split(line) if word.startswith("--")]
            assert all(re.search(rf"│ {flag}\b", options) for flag in flags), line


def test_defaults_are_shown() -> None:
    text = _plain(done("train", "--help").out)
    for default in ("digits_cnn", "digits", "plain", "0.1", "yes", "runs/train"):
        assert f"({default})" in text or default in text.partition("--out")[2]
    assert "bool" not in text.replace("--help", "").partition("--json")[2].partition("<bool>")[0]


LIGHT = [
    ("--help",),
    ("--version",),
    *((name, "--help") for name in COMMANDS),
    *(("list", kind) for kind in known.kinds()),
    ("list", "attacks", "--json"),
    ("list", "attaks"),
    ("adit",),
    ("audit",),
    ("audit", "a", "--sampels", "3"),
]


def test_what_only_prints_does_not_load_pytorch() -> None:
    code = (
        "import sys\nfrom steadygrad.cli import main\n"
        f"for line in {LIGHT!r}:\n    try:\n        main(list(line))\n    except SystemExit:\n        pass\n"
        "    print('loaded by', line, sorted({'torch', 'numpy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    told = [line for line in run.stderr.splitlines() if line.startswith("loaded by")]
    assert told == [f"loaded by {line!r} []" for line in LIGHT]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(steadygrad.__file__).parents[1])}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("audit --nor", ["--norm"]),
        ("audit a --norm l", ["linf", "l2", "l1", "l0"]),
        ("audit a --suite s", ["standard"]),
        ("audit a --attack pg", ["pgd"]),
        ("audit a --attribution integ", ["integrated_gradients"]),
        ("audit a --data mn", ["mnist"]),
        ("audit a --device c", ["cpu", "cuda"]),
        ("harden a --recipe trad", ["trades"]),
        ("harden a --defense pars", ["parseval"]),
        ("train pg", ["pgd"]),
        ("train --model lene", ["lenet"]),
        ("reproduce ross", ["ross2018"]),
        ("reproduce ross2018 --scale s", ["smoke", "short"]),
        ("list attribu", ["attributions", "attribution-attacks"]),
        ("li", ["list"]),
        ("audit a --norm x", []),
    ],
)
def test_a_shell_completes(typed: str, offered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_STEADYGRAD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"steadygrad {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    assert sorted(call().out.split()) == sorted(offered)


def test_choices_are_shown() -> None:
    text = _help("steadygrad audit")
    for choices in ("linf|l2|l1|l0", "fast|standard"):
        assert choices in text
    assert "auto|cpu|cuda|mps" in text
    assert known.flags("audit")["suite"]["choices"] == list(SUITES)
    assert reproduce.SCALES == SCALES


def test_the_command_as_a_module() -> None:
    line = [sys.executable, "-m", "steadygrad", "--version"]
    run = subprocess.run(line, capture_output=True, text=True, env=_environment(), check=True)
    assert run.stdout == f"{steadygrad.__version__}\n"


@pytest.mark.slow
def test_the_entry_point_in_a_process_of_its_own() -> None:
    code = "from steadygrad.cli import main; main()"
    paths = {"PYTHONPATH": str(Path(steadygrad.__file__).parents[1]), "PATH": ""}
    for arguments, expected in ((["--version"], 0), (["lsit"], 2)):
        run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=paths)
        assert run.returncode == expected
        assert "Traceback" not in run.stderr
