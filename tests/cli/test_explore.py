"""`steadygrad explore`: what it cannot open is refused by name, before anything is served."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra study")

from cli.commands import AUDIT, call, done, refused
from steadygrad.explore import server
from steadygrad.explore.opened import Opened
from steadygrad.serving.port import bound


@pytest.fixture(scope="session")
def base(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    shutil.copytree(trained, folder / "model")
    done("audit", folder / "model", *AUDIT, "--gallery", "1", "--no-checks", "--no-curve", "--out", folder / "run")
    return folder


@pytest.fixture
def audited(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


@pytest.fixture
def opened_runs(monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """What would be served."""
    found: list[Opened] = []
    monkeypatch.setattr(server, "run", lambda opened, *how: found.append(opened()))
    return found


def test_a_run_finds_its_models_and_data(audited: Path, opened_runs: list[Opened]) -> None:
    assert call("explore", audited / "run").code == 0
    (run,) = opened_runs
    assert len(run.data) == 24
    assert run.found.folder == audited / "run"
    assert list(run.attacks()) == ["FGSM"]


def test_the_audit_of_a_demo_is_found_within(audited: Path, tmp_path: Path, opened_runs: list[Opened]) -> None:
    (tmp_path / "demo").mkdir()
    (audited / "run").rename(tmp_path / "demo" / "audit")
    done("explore", tmp_path / "demo")
    assert opened_runs[0].found.folder == tmp_path / "demo" / "audit"


def test_a_model_that_moved_is_named_and_can_be_given(base: Path, tmp_path: Path, opened_runs: list[Opened]) -> None:
    run, model = (Path(shutil.copytree(base / name, tmp_path / name)) for name in ("run", "model"))
    (base / "model").rename(base / "elsewhere")
    try:
        assert "is not at" in refused(2, "explore", run)
        assert "give the models, as in steadygrad explore" in refused(2, "explore", run)
        done("explore", run, model)
        assert "2 models were given" in refused(2, "explore", run, f"a={model}", f"b={model}")
    finally:
        (base / "elsewhere").rename(base / "model")


@pytest.mark.parametrize("file", ["evil:make", None])
def test_code_that_a_run_names_is_not_imported(audited: Path, file: str | None) -> None:
    from steadygrad.files import read_json, write_json

    path = audited / "run" / "tables" / "facts.json"
    facts, _ = read_json(path)
    for about in facts["models"].values():
        about["file"] = file
    write_json(path, facts)
    said = refused(2, "explore", audited / "run")
    assert ("imported only if you say so" if file else "audited from Python") in said


def test_what_is_no_run_is_refused(tmp_path: Path, audited: Path, trained: Path) -> None:
    for folder in (tmp_path / "gone", trained):
        assert "there is no run of an audit at" in refused(2, "explore", folder)
    assert "data are not those" in refused(2, "explore", audited / "run", "--split", "train", "--port", "0")
    (audited / "run" / "tables" / "facts.json").write_text("{")
    assert "cannot read" in refused(1, "explore", audited / "run")


def test_a_port_in_use_is_told_before_anything_is_loaded(audited: Path) -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} is in use" in refused(2, "explore", audited / "run", "nothing", "--port", str(port))


def test_without_the_extra_it_is_named(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else there(name))
    assert "pip install 'steadygrad[study]'" in refused(2, "explore", audited / "run")
