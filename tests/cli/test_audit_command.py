"""`steadygrad audit` from model files to a folder with records, a summary and a page."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.commands import AUDIT, TRAIN, call, done, lasting, refused, times
from steadygrad.attacks import Attack
from steadygrad.audit.audit import read
from steadygrad.cli import main
from steadygrad.files import read_json
from steadygrad.measuring.measures.map_attacks import MapAttacks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an audit of two named models, and what it printed; read-only."""
    root = tmp_path_factory.mktemp("pair")
    done(*TRAIN, "--defense", "input_gradient:weight=1", "--out", root / "hard")
    result = done("audit", f"plain={trained}", f"hard={root / 'hard'}", *AUDIT, "--out", root / "audit")
    assert "plain: FGSM" in result.err
    return root / "audit", result.out


def test_two_named_models_are_compared(pair: tuple[Path, str]) -> None:
    folder, text = pair
    summary = read_json(folder / "summary.json")[0]
    assert [model["name"] for model in summary["models"]] == ["plain", "hard"]
    assert summary["threat"] == {"norm": "linf", "eps": 0.1, "bounds": [0.0, 1.0], "mask": None}
    assert summary["data"]["samples"] == 24
    assert summary["transfer"]["names"] == ["plain", "hard"]
    assert set(read(folder).records["model"]) == {"plain", "hard"}
    page = (folder / "report" / "index.html").read_text()
    assert "plain" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    # The table, and where everything lies; nothing wider than a terminal.
    lines = text.splitlines()
    assert any(line.split()[:1] == ["plain"] and "%" in line for line in lines)
    assert any(line.split()[:1] == ["hard"] and "%" in line for line in lines)
    assert f"report: {folder / 'report' / 'index.html'}" in lines
    assert f"summary: {folder / 'summary.json'}" in lines
    assert max(len(line) for line in lines if "%" in line) <= 80


def test_the_cost_is_told_and_nothing_is_written(trained: Path, tmp_path: Path) -> None:
    asked = ("audit", trained, *AUDIT, "--gallery", "0", "--out", tmp_path / "run", "--plan")
    told = done(*asked).out
    assert "FGSM, linf, eps 0.1" in told
    assert "in one process of this machine, told from a trial on 16 of 24 samples" in " ".join(told.split())
    assert max(map(len, told.splitlines()[:-1])) <= 80
    plain = json.loads(
        done("audit", trained, *AUDIT, "--gallery", "0", "--out", tmp_path / "run", "--plan", "--json").out
    )
    assert plain["seconds"] == pytest.approx(sum(table["seconds"] for table in plain["tables"]))
    assert not (tmp_path / "run").exists()
    assert "--fail-under" in refused(2, *asked, "--fail-under", "robust=0.5")


def test_a_model_is_audited_under_noise_by_its_own_name(trained: Path, tmp_path: Path) -> None:
    asked = ("audit", f"plain={trained}", *AUDIT, "--norm", "l2", "--gallery", "0", "--out", tmp_path / "run")
    told = done(*asked, "--smoothed", "sigma=0.1,n=50,n0=10,draws=2").out
    assert max(len(line) for line in told.splitlines() if "%" in line) <= 80
    (model,) = read_json(tmp_path / "run" / "summary.json")[0]["models"]
    assert (model["name"], model["file"]) == ("plain (smoothed)", str(trained))
    assert (model["smoothed"]["sigma"], model["smoothed"]["n"]) == (0.1, 50)
    assert "sigma must be positive and finite, got 0" in refused(2, *asked, "--smoothed", "0")
    assert "there is no setting of smoothed 'm'" in refused(2, *asked, "--smoothed", "sigma=0.1,m=3")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_the_whole_audit_is(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("steadygrad.cli.audit"), "_TOLD", 24)
    monkeypatch.setattr(importlib.import_module("steadygrad.audit.cost"), "_QUICK", 0.0)
    err = Terminal()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        main(["audit", str(trained), *AUDIT, "--gallery", "0", "--out", str(tmp_path / "run")])
    assert "what the audit costs" in err.getvalue()
    assert "the audit, in seconds of work" in err.getvalue()


def test_the_summary_keeps_the_command_that_makes_it_again(pair: tuple[Path, str]) -> None:
    summary = read_json(pair[0] / "summary.json")[0]
    assert summary["command"].startswith("steadygrad audit plain=")
    assert f"--out {pair[0]}" in summary["command"]
    assert summary["models"][0]["file"].endswith("trained0/small")


def test_a_second_run_attacks_nothing(pair: tuple[Path, str], trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, text = pair

    def attacked(*_: object, **__: object) -> None:
        raise AssertionError("an attack was run")

    monkeypatch.setattr(Attack, "__call__", attacked)
    monkeypatch.setattr(Attack, "perturb", attacked)
    before = times(folder), (folder / "summary.json").read_bytes()
    line = ("audit", f"plain={trained}", f"hard={folder.parent / 'hard'}", *AUDIT, "--out", folder)
    assert done(*line).out == text
    assert (times(folder), (folder / "summary.json").read_bytes()) == before


def test_json_is_the_summary_and_the_page(trained: Path) -> None:
    result = done("audit", trained, *AUDIT, "--out", "run", "--json")
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert found.pop("report") == "run/report/index.html"
    assert found == read_json(Path("run/summary.json"))[0]
    assert [model["name"] for model in found["models"]] == ["digits_cnn"]
    assert "FGSM" in result.err


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(trained: Path) -> None:
    line = ("audit", trained, *AUDIT[2:], "--attack", "random_noise:draws=2", "--eps", "0.3")
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        done(*line, "--out", out, "--seed", seed)
    assert lasting(Path("a")) == lasting(Path("b"))
    confidences = [sorted(read(out).records["confidence"]) for out in "abc"]
    assert confidences[0] == confidences[1] != confidences[2]


def test_the_batch_size_changes_nothing(trained: Path) -> None:
    for out, size in (("a", "200"), ("b", "7")):
        done("audit", trained, *AUDIT, "--out", out, "--batch-size", size)
    assert lasting(Path("a"))["models"][0]["robust"] == lasting(Path("b"))["models"][0]["robust"]  # type: ignore[index]


def test_a_radius_is_a_number_or_a_fraction(trained: Path) -> None:
    for text, eps in (("8/255", 8 / 255), ("0.25", 0.25), ("1e-1", 0.1)):
        found = json.loads(done("audit", trained, *AUDIT, "--eps", text, "--out", f"run-{eps}", "--json").out)
        assert found["threat"]["eps"] == eps


def test_attacks_are_taken_in_their_order_and_norm(trained: Path) -> None:
    attacks = ("--attack", "pgd:steps=3,loss=ce", "--attack", "random_noise", "--norm", "l2", "--eps", "0.5")
    found = json.loads(done("audit", trained, *AUDIT[2:], *attacks, "--out", "run", "--json").out)
    assert [a["name"] for a in found["models"][0]["attacks"]] == ["pgd", "random_noise"]
    assert found["models"][0]["attacks"][0]["settings"]["steps"] == 3
    assert found["threat"]["norm"] == "l2"


def test_the_standard_suite_says_which_member_broke_what(trained: Path) -> None:
    line = ("audit", trained, "--suite", "standard", "--eps", "0.2", "--samples", "16", "--checked", "8", "--json")
    model = json.loads(done(*line).out)["models"][0]
    members = {row["member"]: row["samples"] for row in model["broken_by"] if row["attack"] == "Standard"}
    assert list(members) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert sum(members.values()) > 0
    assert "Standard: apgd-ce" in Path("runs/audit/report/index.html").read_text()


def test_rho2_is_centered_where_that_is_asked_for(trained: Path) -> None:
    line = ("audit", trained, *AUDIT, "--json")
    for more, out in ((["--centered"], "a"), (["--config", "a/config.toml"], "b"), ([], "c")):
        score = json.loads(done(*line, *more, "--out", out).out)["models"][0]["rho2"]
        assert (score["centered"] is None) == (out == "c")
        assert score["pixels"]["value"] > 0
        assert ("ρ₂, centered" in Path(out, "report/index.html").read_text()) == (out != "c")
        assert out == "c" or score["centered"]["value"] > score["pixels"]["value"]


def test_unnamed_models_are_called_after_their_folders(trained: Path, pair: tuple[Path, str]) -> None:
    found = json.loads(done("audit", trained, pair[0].parent / "hard", *AUDIT, "--out", "run", "--json").out)
    assert [model["name"] for model in found["models"]] == ["small", "hard"]


def test_an_architecture_with_its_weights(trained: Path) -> None:
    line = ("audit", "mine=digits_cnn", "--weights", trained / "model.safetensors", *AUDIT, "--json")
    found = json.loads(done(*line).out)
    assert found["models"][0]["name"] == "mine"
    assert found["models"][0]["clean"]["value"] > 0.5


def test_another_audit_may_not_share_the_folder(trained: Path, pair: tuple[Path, str]) -> None:
    before = (pair[0] / "summary.json").read_bytes()
    result = call("audit", trained, *AUDIT, "--out", pair[0])
    assert result.code == 2
    assert "differs in: models" in result.err
    assert (pair[0] / "summary.json").read_bytes() == before


def test_explanations_are_attacked_on_demand_and_continue_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    done(*TRAIN, "--model", "mlp", "--out", "small")
    line = (
        "audit",
        "small",
        *AUDIT,
        "--explanations",
        "--explanation-samples",
        "2",
        "--explanation-eps",
        "1/255",
        "--json",
    )
    whole = done(*line, "--out", "whole")
    found = json.loads(whole.out)["explained"]
    assert found["threat"] == {"norm": "linf", "eps": 1 / 255, "bounds": [0.0, 1.0], "mask": None}
    (model,) = found["models"].values()
    assert [row["name"] for row in model["attributions"]] == ["Saliency", "IntegratedGradients"]
    assert model["attributions"][0]["moved"]["attack"]["count"] == 2
    assert "attacks on the maps of IntegratedGradients" in whole.err
    assert 'id="explained"' in Path("whole/report/index.html").read_text()

    calls: list[object] = []
    measured = MapAttacks.__call__

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(MapAttacks, "__call__", interrupted)
    assert "interrupted; what is finished is kept" in refused(130, *line, "--out", "run")
    assert done(*line, "--out", "run").code == 0
    assert len(calls) == 3
    assert lasting(Path("run")) == lasting(Path("whole"))


def test_neurons_are_looked_at_on_demand() -> None:
    done(*TRAIN, "--model", "mlp", "--out", "small")
    whole = done("audit", "small", *AUDIT, "--neurons", "--json", "--out", "whole")
    found = json.loads(whole.out)["neurons"]
    assert (found["attack"], found["samples"]) == ("PGD, 20 steps", 24)
    (model,) = found["models"].values()
    assert model["layers"]
    assert "neurons under PGD" in whole.err
    assert 'id="neurons"' in Path("whole/report/index.html").read_text()


def test_a_configuration_file_makes_the_same_audit_and_flags_win(trained: Path, tmp_path: Path) -> None:
    settings = ("--attack", "fgsm", "--eps", "16/255", "--samples", "24", "--checked", "5", "--gallery", "0")
    done("audit", trained, *settings, "--out", tmp_path / "a")
    done("audit", trained, "--config", tmp_path / "a" / "config.toml", "--out", tmp_path / "b")
    flagged = ("--samples", "20", "--out", tmp_path / "c")
    done("audit", trained, "--config", tmp_path / "a" / "config.toml", *flagged)
    first, second, third = (read_json(tmp_path / n / "summary.json")[0] for n in "abc")
    assert second["config"] == first["config"]
    assert second["models"] == first["models"]
    assert (third["data"]["samples"], third["threat"]) == (20, first["threat"])


def test_a_mask_is_a_file_and_stays_in_the_folder(trained: Path, tmp_path: Path) -> None:
    mask, folder = tmp_path / "mask.png", tmp_path / "a"
    Image.fromarray(np.repeat([[255, 0]], 4, axis=1).repeat(8, axis=0).astype(np.uint8)).save(mask)
    done("audit", trained, *AUDIT, "--mask", mask, "--out", folder)
    assert json.loads((folder / "summary.json").read_text("utf-8"))["threat"]["mask"] == 0.5
    assert "only 50.0 % of the entries may change" in (folder / "report" / "index.html").read_text("utf-8")
    assert 'mask = "8x8:' in (folder / "config.toml").read_text("utf-8")
    mask.unlink()
    done("audit", trained, "--config", folder / "config.toml", "--out", folder)
    assert "there is no mask" in refused(2, "audit", trained, *AUDIT, "--mask", mask)
