"""`steadygrad train` from flags and configuration files to a model file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.commands import AUDIT, TRAIN, done, same_weights
from steadygrad import models
from steadygrad.files import read_toml

SMALL = ("--limit", "120", "--epochs", "1", "--set", "batch_size=32")


def _found(*arguments: str | Path) -> dict[str, object]:
    """What the command prints as JSON, which must be all of its output."""
    result = done(*arguments, "--json")
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert isinstance(found, dict)
    return found


def test_a_run_leaves_a_model_a_history_and_its_configuration(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    usual = {
        "checkpoint.safetensors",
        "checkpoint-before.safetensors",
        "config.toml",
        "history.csv",
        "model.safetensors",
    }
    assert names == usual | {".steadygrad.lock", ".steadygrad.json"}
    assert len((trained / "history.csv").read_text().splitlines()) == 3
    classifier = models.load(trained)
    assert (classifier.name, classifier.input_shape) == ("digits_cnn", (1, 8, 8))
    assert classifier.classes == tuple("0123456789")
    assert float(classifier.std) != 1.0  # normalized by the moments of the training data


def test_the_output_names_the_accuracy_and_the_file() -> None:
    result = done(*TRAIN, "--out", "run")
    assert "test accuracy" in result.out
    assert "on 500 samples" in result.out
    assert "model: run/model.safetensors" in result.out
    assert "train digits_cnn" in result.err  # progress goes elsewhere


def test_json_holds_the_result_and_the_history() -> None:
    found = _found(*TRAIN, "--out", "run")
    assert (found["out"], found["model"], found["epochs"]) == ("run", "run/model.safetensors", 2)
    assert [row["epoch"] for row in found["history"]] == [1, 2]  # type: ignore[attr-defined]
    accuracy = found["test_accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["count"] == 500
    # Far above chance, or nothing was learned; judged again from the file.
    assert accuracy["value"] > 0.5
    from steadygrad.data import load

    x, y = load("digits", "test").tensors()
    with torch.no_grad():
        assert (models.load("run")(x).argmax(1) == y).float().mean().item() == pytest.approx(accuracy["value"])


def test_the_seed_decides_the_weights(trained: Path) -> None:
    done(*TRAIN, "--out", "again")
    done(*TRAIN, "--out", "other", "--seed", "1")
    file = "model.safetensors"
    assert (Path("again") / file).read_bytes() == (trained / file).read_bytes()
    assert not same_weights(Path("other") / file, trained / file)


def test_a_finished_run_is_not_done_again(trained: Path) -> None:
    def times() -> dict[str, int]:
        again = ("history.csv", ".steadygrad.json")
        return {p.name: p.stat().st_mtime_ns for p in trained.iterdir() if p.name not in again}

    before = times()
    done(*TRAIN, "--out", trained)
    assert times() == before


def test_flags_win_over_the_configuration_file() -> None:
    Path("recipe.toml").write_text(
        "model = 'mlp:hidden=[12]'\nlimit = 120\nseed = 3\nname = 'mine'\n"
        "[settings]\nepochs = 5\nbatch_size = 60\n[defense]\nname = 'input_gradient'\nweight = 0.5\n"
    )
    found = _found("train", "recipe.toml", "--epochs", "1", "--set", "lr=0.01", "--name", "yours", "--out", "run")
    assert found["epochs"] == 1
    config = read_toml("run/config.toml")
    assert config["classifier"]["architecture"] == {"name": "mlp", "hidden": [12]}
    assert config["classifier"]["name"] == "yours"
    assert (config["settings"]["epochs"], config["settings"]["batch_size"], config["settings"]["lr"]) == (1, 60, 0.01)
    assert config["defense"]["weight"] == 0.5
    assert config["seed"] == 3


def test_a_recipe_by_name_is_a_configuration_that_ships() -> None:
    _found("train", "penalty_and_adversarial", *SMALL, "--out", "run")
    config = read_toml("run/config.toml")
    parts = config["defense"]["parts"]
    assert [part["name"] for part in parts] == ["adversarial", "input_gradient"]
    assert parts[0]["attack"] == {"name": "fgsm", "loss": "ce"}
    assert (config["settings"]["epochs"], config["settings"]["schedule"]) == (1, "cosine")
    _found("train", "pgd", *SMALL, "--defense", "trades:eps=0.2", "--out", "other")
    assert read_toml("other/config.toml")["defense"]["name"] == "trades"


def test_norms_stay_as_they_are_where_training_goes_on(trained: Path) -> None:
    from safetensors.torch import load_file

    _found("train", *SMALL, "--model", trained, "--set", "freeze_norms=true", "--out", "more")
    before, after = (load_file(folder / "model.safetensors") for folder in (trained, Path("more")))
    layers = {name.rpartition(".")[0] for name in before if name.endswith("running_mean")}
    for name, value in before.items():
        assert torch.equal(value, after[name]) == (name.rpartition(".")[0] in layers), name


def test_flags_and_a_configuration_file_say_the_same_thing() -> None:
    Path("recipe.toml").write_text(
        "limit = 120\ndefense = 'input_gradient:weight=1'\n[settings]\nepochs = 1\nbatch_size = 32\n"
    )
    done("train", "recipe.toml", "--out", "file")
    done("train", *SMALL, "--defense", "input_gradient:weight=1", "--out", "flags")
    assert same_weights(Path("file/model.safetensors"), Path("flags/model.safetensors"))


def test_a_sum_of_defenses() -> None:
    written = "adversarial:eps=0.1,attack=fgsm+input_gradient:weight=1"
    found = _found("train", *SMALL, "--defense", written, "--out", "run")
    row = found["history"][0]  # type: ignore[index]
    assert {"adversarial", "input_gradient"} <= row.keys()
    parts = read_toml("run/config.toml")["defense"]["parts"]
    assert [part["name"] for part in parts] == ["adversarial", "input_gradient"]
    assert (parts[0]["eps"], parts[0]["attack"]["name"], parts[1]["weight"]) == (0.1, "fgsm", 1)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_training_goes_on_from_a_model(form: str, trained: Path) -> None:
    start = trained if form == "folder" else trained / "model.safetensors"
    first = _found("train", *SMALL, "--set", "lr=1e-6", "--model", start, "--out", "more")
    # With next to no learning rate the accuracy stays: these are the weights that were given.
    before = _found(*TRAIN, "--out", trained)
    assert first["test_accuracy"]["value"] == pytest.approx(before["test_accuracy"]["value"], abs=0.01)  # type: ignore[index]
    assert not same_weights(Path("more/model.safetensors"), trained / "model.safetensors")


def test_without_validation_or_normalization() -> None:
    found = _found("train", *SMALL, "--validation", "0", "--no-normalize", "--out", "run")
    assert "validation_accuracy" not in found["history"][0]  # type: ignore[index]
    assert models.load("run").settings["mean"] == 0.0


def test_an_image_folder_of_another_size(tmp_path: Path) -> None:
    from PIL import Image

    drawn = np.random.default_rng(0)
    for title, low in (("dark", 0), ("light", 155)):
        folder = tmp_path / "pictures" / title
        folder.mkdir(parents=True)
        for i in range(20):
            size = (10 + i % 3, 12)
            Image.fromarray(drawn.integers(low, low + 100, size, dtype=np.uint8)).save(folder / f"{i}.png")
    line = ("--data", "./pictures", "--size", "16", "--out")
    found = _found("train", "--model", "mlp:hidden=[8]", *line, "run", "--epochs", "10", "--set", "lr=0.02")
    assert found["test_accuracy"]["value"] == 1.0  # type: ignore[index]
    classifier = models.load("run")
    assert (classifier.input_shape, classifier.classes) == ((1, 16, 16), ("dark", "light"))
    assert "dark" in json.dumps(json.loads(done("audit", "run", *AUDIT, *line, "audit", "--json").out)["data"])


def test_a_callable_of_the_user_is_trained_and_audited() -> None:
    Path("my_own_nets.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    done("train", *SMALL, "--model", "my_own_nets:make", "--out", "run")
    result = done("audit", "my_own_nets:make", "--weights", "run/model.safetensors", *AUDIT, "--json")
    entry = json.loads(result.out)["models"][0]
    assert entry["architecture"] == {"name": "my_own_nets:make"}
