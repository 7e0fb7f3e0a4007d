"""`steadygrad harden` on models and images it has never seen, by recipe and by flag, killed and refused."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cli.commands import Nursery, done, refused, same_weights
from steadygrad import models
from steadygrad.cli.harden import plan_of
from steadygrad.files import read_json
from steadygrad.threat import l2

SMALL = ("--epochs", "1", "--limit", "150", "--attack", "fgsm", "--samples", "20", "--checked", "5", "--eps", "0.1")
ROOT = Path(__file__).parents[2]


def _summary(out: str | Path) -> dict[str, Any]:
    found, sound = read_json(Path(out) / "harden.json")
    assert sound
    return found


@pytest.mark.slow
def test_a_run_is_hardened_by_a_recipe_aimed_at_the_audited_threat(trained: Path) -> None:
    result = done("harden", trained, "--recipe", "pgd", *SMALL, "--norm", "l2", "--out", "hard")
    found = _summary("hard")
    defense = found["training"]["defense"]
    assert (defense["name"], defense["eps"], defense["norm"]) == ("adversarial", 0.1, "l2")
    assert (found["training"]["settings"]["select"], found["training"]["settings"]["robust_norm"]) == ("robust", "l2")
    assert (found["threat"]["norm"], found["threat"]["eps"], found["data"]["samples"]) == ("l2", 0.1, 20)
    # Whatever came out, the sentence is the one that the file holds, and the exit code is 0.
    assert found["text"] in result.out
    assert all(word in result.out for word in ("before", "after", "difference", "clean accuracy", "robust accuracy"))
    assert max(map(len, result.out.partition(found["text"])[0].splitlines())) <= 80
    assert found["command"].startswith("steadygrad harden ")
    assert models.load("hard").name == "digits_cnn"
    assert not same_weights(Path("hard/model.safetensors"), trained / "model.safetensors")
    assert (Path("hard") / "report" / "index.html").is_file()
    assert str(trained) in (Path("hard") / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_flags_win_over_a_recipe_and_json_is_one_object(trained: Path) -> None:
    line = ("harden", trained, "--recipe", "fgsm", "--defense", "trades:eps=0.02", "--set", "lr=1e-5", *SMALL)
    result = done(*line, "--out", "hard", "--json")
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    report = found.pop("report")
    assert Path(report).is_file()
    assert found == _summary("hard")
    assert (found["training"]["defense"]["name"], found["training"]["defense"]["eps"]) == ("trades", 0.02)
    assert (found["training"]["settings"]["lr"], found["training"]["settings"]["schedule"]) == (1e-5, "cosine")
    # With next to no learning rate nothing is shown, and the command does not pretend otherwise.
    assert found["outcome"] in ("not shown", "refuted", "too few")


def test_the_radius_of_a_recipe_is_the_audited_one_and_that_of_a_file_is_its_own() -> None:
    flags: dict[str, Any] = {"defense": None, "settings": {}}
    shipped = plan_of("trades", flags, l2(0.3))
    assert isinstance(shipped.defense, dict)
    assert (shipped.defense["eps"], shipped.defense["norm"]) == (0.3, "l2")
    Path("mine.toml").write_text("[defense]\nname = 'adversarial'\neps = 0.03\n[settings]\nlr = 1e-5\n")
    assert plan_of("mine.toml", flags, l2(0.3)).defense == {"name": "adversarial", "eps": 0.03}
    assert plan_of("trades", {**flags, "defense": "plain"}, l2(0.3)).defense == "plain"


def _pictures(root: Path, seed: int = 0) -> None:
    from PIL import Image

    drawn = np.random.default_rng(seed)
    for split, count in (("train", 40), ("test", 20)):
        for title, low in (("dark", 0), ("light", 60)):
            folder = root / split / title
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(drawn.integers(low, low + 190, (12, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")


NETS = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(150, 2)
    )
"""


@pytest.mark.slow
def test_a_module_and_images_never_seen_before_are_hardened() -> None:
    """A user's own module, weights that know nothing of this library, and a folder of PNGs."""
    from safetensors.torch import save_file

    given = "--weights my.safetensors --data ./images --recipe pgd --eps 8/255 --out runs/harder"
    line = ["steadygrad", "harden", "nets:make", *given.split()]
    _pictures(Path("images"))
    Path("nets.py").write_text(NETS)
    sys.modules.pop("nets", None)
    net = _learned()
    save_file(net.state_dict(), "my.safetensors")
    shrunk = ("--epochs", "2", "--checked", "5", "--attack", "pgd:steps=5")
    result = done(*line[1:], *shrunk)
    out = Path(line[line.index("--out") + 1])
    found = _summary(out)
    assert found["data"]["classes"] == ["dark", "light"]
    assert (found["data"]["samples"], found["training"]["samples"] + found["training"]["validation_samples"]) == (
        40,
        80,
    )
    assert found["before"]["clean"]["value"] > 0.9
    assert found["text"] in result.out
    # The hardened weights go back into the user's module, with or without this library.
    from safetensors.torch import load_file

    net.load_state_dict(load_file(out / "model.safetensors"))
    line = ["audit", "nets:make", "--weights", str(out / "model.safetensors"), "--data", "./images", "--eps", "8/255"]
    audit = done(*line, *shrunk[2:], "--out", "again", "--json")
    entry = json.loads(audit.out)["models"][0]
    assert (entry["clean"], entry["robust"]) == (found["after"]["clean"], found["after"]["robust"])
    sys.modules.pop("nets", None)


def _learned() -> nn.Module:
    """The network of `NETS`, trained on the pictures by hand."""
    from steadygrad.data import load

    x, y = load("./images", "train").tensors()
    scope: dict[str, Any] = {}
    exec(NETS, scope)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = scope["make"]()
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.eval()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say how to harden: --defense input_gradient:weight=3, or --recipe pgd"),
        (("--recipe", "pdg"), "did you mean 'pgd'"),
        (("--recipe", "other.toml"), "other.toml sets model, which belongs to the model that is there already"),
        (("--recipe", "none.toml"), "there is no configuration file none.toml"),
        (("--recipe", "bare.toml"), "bare.toml names no defense"),
        (("--defense", "trades"), "eps"),
        (("--defense", "plain", "--eps", "0"), "eps must be finite and above 0, got '0'"),
        (("--defense", "plain", "--norm", "l3"), "l3"),
        (("--defense", "plain", "--suite", "fats"), "there is no suite 'fats'; did you mean 'fast'"),
        (("--defense", "plain", "--set", "epoch=3"), "did you mean 'epochs'"),
        (("--defense", "plain", "--data", "nosuch"), "nosuch"),
        (("--defense", "plain", "--validation", "0"), "leaves one part empty"),
        (("--defense", "plain", "--attack", "jsma"), "JSMA does not work for linf"),
    ],
)
def test_wrong_calls_are_refused_before_there_is_a_folder(
    arguments: tuple[str, ...], words: str, trained: Path
) -> None:
    Path("other.toml").write_text("model = 'lenet'\ndefense = 'plain'\n")
    Path("bare.toml").write_text("[settings]\nepochs = 1\n")
    assert words in " ".join(refused(2, "harden", trained, *arguments, "--out", "run").split())
    assert not Path("run").exists()


def test_a_model_that_is_not_there_or_not_trained_is_refused() -> None:
    assert "train it first" in refused(2, "harden", "digits_cnn", "--recipe", "pgd", "--out", "run")
    assert "there is no" in refused(2, "harden", "./nothing", "--recipe", "pgd", "--out", "run")
    assert not Path("run").exists()


KILLED = (
    *("--defense", "adversarial:eps=0.1,attack=fgsm", "--epochs", "4", "--set", "checkpoint_steps=2", "--limit", "200"),
    *("--set", "batch_size=16", "--attack", "fgsm", "--samples", "12", "--checked", "4", "--eps", "0.1"),
)


@pytest.fixture(scope="module")
def undisturbed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "hard"
    done("harden", trained, *KILLED, "--out", out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("training/checkpoint.safetensors", 1),
        ("training/checkpoint.safetensors", 9),
        (".parquet", 3),
        ("/summary.json", 1),
        ("model.safetensors", 1),
    ],
)
def test_killed_it_continues_and_says_the_same(
    file: str, count: int, nursery: Nursery, trained: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "hard"
    line = ("harden", trained, *KILLED, "--out", out)
    ended = nursery.run(*line, dies_after=(file, count))
    assert ended.code == -signal.SIGKILL
    assert not (out / "harden.json").exists()
    done(*line)
    assert same_weights(out / "model.safetensors", undisturbed / "model.safetensors")
    mine, theirs = _summary(out), _summary(undisturbed)
    for summary in (mine, theirs):
        summary["model"].pop("hardened")
        for name in ("created", "command"):
            summary.pop(name)
    assert mine == theirs


@pytest.mark.slow
def test_maps_and_neurons_are_compared_on_demand() -> None:
    done("train", "--model", "mlp:hidden=[12]", "--limit", "150", "--epochs", "1", "--out", "small")
    further = (
        "--explanations",
        "--explanation-samples",
        "4",
        "--explanation-certified",
        "0",
        "--explanation-steps",
        "3",
    )
    line = (
        "harden",
        "small",
        "--recipe",
        "plain",
        *SMALL,
        *further,
        "--neurons",
        "--neuron-samples",
        "8",
        "--out",
        "run",
    )
    result = done(*line)
    rows = _summary("run")["further"]
    assert [row["name"] for row in rows] == ["map moved: Saliency", "map moved: IntegratedGradients", "neurons moved"]
    assert [row["difference"]["count"] for row in rows] == [4, 4, 8]
    for name in ("clean accuracy", "robust accuracy", "median smallest change", "map moved: Saliency", "neurons moved"):
        assert name in " ".join(result.out.split())
    page = Path("run/report/index.html").read_text(encoding="utf-8")
    assert all(row["name"] in page for row in rows)
    assert all(f'id="{section}"' in page for section in ("hardened", "explained", "neurons"))
