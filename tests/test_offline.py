"""Without a network the answer comes at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.commands import refused
from steadygrad import data, models, offline
from steadygrad.errors import Failure, UsageError

unreachable = offline.unreachable


@pytest.fixture(autouse=True)
def _client_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's own client tries for most of a minute."""
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the client of the Hub was asked"))


@pytest.fixture(autouse=True)
def _nothing_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "unreachable", unreachable)
    for name in (
        "STEADYGRAD_DATA",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "HF_HUB_ETAG_TIMEOUT",
        "https_proxy",
        "HTTPS_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))


def no_name(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(-2, "Name or service not known")


STOP = threading.Event()
ENDED: list[bool] = []


def no_answer(*_: Any, **__: Any) -> Any:
    STOP.wait(600)
    ENDED.append(True)
    raise socket.gaierror(-3, "Temporary failure in name resolution")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("name", ["mnist", "hub:me/pets", "hub:me/pets:small"])
@pytest.mark.parametrize(("looked_up", "words"), [(no_name, "is not reached"), (no_answer, "does not answer within")])
def test_a_missing_network_is_told_at_once(
    name: str, looked_up: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    folder = "mnist" if name == "mnist" else "pets"
    with pytest.raises(Failure, match=rf"huggingface\.co {words}.*Parquet files into \$STEADYGRAD_DATA/{folder}"):
        data.load(name)
    assert not ENDED  # a look-up that hangs is not waited for


def test_a_folder_without_the_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path))
    with pytest.raises(Failure, match=r"STEADYGRAD_DATA is .*, without mnist"):
        data.load("mnist", "test")
    monkeypatch.setenv("STEADYGRAD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"nowhere', which is not a folder: correct or unset it"):
        data.load("mnist", "test")


@pytest.mark.parametrize("command", ["train", "audit"])
def test_the_commands_answer_at_once(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    Path("nets.py").write_text("import torch\ndef make(): return torch.nn.Linear(4, 2)\n")
    model = ["--model", "mlp"] if command == "train" else ["nets:make"]
    message = refused(1, command, *model, "--data", "mnist", "--out", "m")
    assert "Without a network" in " ".join(message.split())


@pytest.mark.parametrize(
    "line",
    [
        ["train", "--data", "mnist"],
        ["train", "plan.toml"],
        ["audit", "nets:make", "--data", "hub:me/pets"],
        ["audit", "nets:make", "--config", "plan.toml"],
        ["harden", "nets:make", "--recipe", "plan.toml"],
        ["reproduce", "ross2018"],
    ],
    ids=" ".join,
)
def test_the_commands_answer_before_pytorch_is_loaded(line: list[str], tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('data = "mnist"')
    code = (
        "import sys; from steadygrad.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as left: print(left.code, 'torch' in sys.modules)"
    )
    nobody = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    ended = subprocess.run(
        [sys.executable, "-c", code, *line], cwd=tmp_path, env=nobody, capture_output=True, text=True, timeout=60
    )
    assert "from the Hub: 127.0.0.1 is not reached" in ended.stderr
    assert ended.stdout.split() == ["1", "False"]


@pytest.mark.parametrize("name", ["hub:", "hub::c", "hub:/", "hub:a/", "hub:/a", "hub:a/b/c", "hub:a b/c", "hub:é/b"])
def test_half_a_name_is_refused_before_the_hub_is_asked(name: str) -> None:
    with pytest.raises(UsageError, match=r"data on the Hub are hub:owner/name or hub:owner/name:config, got 'hub:"):
        data.load(name)


def test_a_model_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    tries: list[object] = []
    # How often, and how long after each other, its client tries.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", tries.append)
    with pytest.raises(Failure, match=r"huggingface\.co is not reached .*, and it is not on this machine"):
        models.load("hub:me/mine")
    assert not tries


def test_a_server_that_answers_is_there(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server)
    assert unreachable() is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert unreachable() == "HF_HUB_OFFLINE is set"


def test_the_way_goes_through_a_proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", server)
    assert unreachable() is None
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert "127.0.0.1 is not reached" in str(unreachable())


def test_what_is_on_this_machine_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[bool] = []

    def load_dataset(*_: Any, **__: Any) -> Any:
        asked.append(datasets.config.HF_HUB_OFFLINE)
        raise ConnectionError("not in the cache")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    before = datasets.config.HF_HUB_OFFLINE
    (tmp_path / "HF_DATASETS_CACHE" / "me___pets").mkdir(parents=True)
    with pytest.raises(Failure, match="not in the cache"):
        data.load("hub:me/pets")
    assert asked == [True]
    assert before == datasets.config.HF_HUB_OFFLINE
