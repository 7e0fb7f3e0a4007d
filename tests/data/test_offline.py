"""Without a network the answer comes at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.commands import refused
from steadygrad import data
from steadygrad.data import offline
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
