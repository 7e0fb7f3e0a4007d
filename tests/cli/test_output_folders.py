"""Where a command writes that was not told where: the same run continues, another one takes the next folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.commands import AUDIT, TRAIN, done, refused
from steadygrad.cli.common import in_folder
from steadygrad.run_folders import OtherRun, run_folder


def _made(folder: Path, config: dict[str, int]) -> None:
    with run_folder(folder, config):
        pass


def _opened(config: dict[str, int]) -> str:
    return in_folder(None, "runs/work", lambda folder: _made(folder, config))[1].as_posix()


def test_another_run_takes_the_next_folder_and_the_same_goes_back_to_its_own() -> None:
    configurations = [{"a": number} for number in (1, 2, 3)]
    assert [_opened(c) for c in configurations] == ["runs/work", "runs/work-2", "runs/work-3"]
    assert [_opened(c) for c in reversed(configurations)] == ["runs/work-3", "runs/work-2", "runs/work"]


def test_a_folder_that_was_asked_for_is_not_exchanged() -> None:
    _made(Path("mine"), {"a": 1})
    with pytest.raises(OtherRun, match="from another configuration"):
        in_folder(Path("mine"), "runs/work", lambda folder: _made(folder, {"a": 2}))
    assert not Path("mine-2").exists()


def test_several_processes_do_not_look_for_a_folder_each(monkeypatch: pytest.MonkeyPatch) -> None:
    _opened({"a": 1})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OtherRun):
        _opened({"a": 2})


def test_what_else_goes_wrong_is_not_tried_again() -> None:
    Path("runs").mkdir()
    Path("runs/work").write_text("a file")
    with pytest.raises(ValueError, match="is a file"):
        _opened({"a": 1})


@pytest.mark.slow
def test_commands_in_a_row_without_a_folder() -> None:
    assert "model: runs/train/model.safetensors" in done(*TRAIN).out
    assert "model: runs/train-2/model.safetensors" in done(*TRAIN, "--seed", "1").out
    assert "model: runs/train/model.safetensors" in done(*TRAIN).out
    assert "report: runs/audit/report/index.html" in done("audit", "runs/train", *AUDIT).out
    assert "report: runs/audit-2/report/index.html" in done("audit", "runs/train-2", *AUDIT).out
    assert "report: runs/audit-2/report/index.html" in done("audit", "runs/train-2", *AUDIT).out
    assert "from another configuration" in refused(2, "audit", "runs/train-2", *AUDIT, "--out", "runs/audit")
