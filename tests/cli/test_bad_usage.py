"""What wrong names, values, folders and configurations get: exit code 2 and the way out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cli.commands import AUDIT, TRAIN, call, refused


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("adit", ["No such command 'adit'. Did you mean 'audit'?", "steadygrad --help"]),
        ("audit lnet", ["no model 'lnet'; did you mean 'lenet'", "module:callable", "run folder"]),
        ("train --model lnet", ["no model 'lnet'; did you mean 'lenet'"]),
        ("audit runs/none", ["no file or folder runs/none"]),
        ("audit none.safetensors", ["no weights file none.safetensors"]),
        ("audit nowhere:make", ["no module 'nowhere'"]),
        ("audit {model} --data digts", ["no data set, file or folder 'digts'; did you mean 'digits'?"]),
        ("train --data digts", ["no data set, file or folder 'digts'; did you mean 'digits'?"]),
        ("train --data ./none.npz", ["no file or folder none.npz"]),
        ("audit {model} --split tset", ["has no split 'tset'; available: all, test, train"]),
        ("audit {model} --attack pdg", ["no attack 'pdg'; did you mean 'pgd'"]),
        ("audit {model} --attack pgd:stps=3", ["no setting of pgd 'stps'; did you mean 'steps'"]),
        ("audit {model} --attack pgd:steps", ["'steps' is not key=value", "pgd:steps=10"]),
        ("audit {model} --attack pgd:steps=many", ["pgd: steps must be a whole number", "'many'"]),
        ("audit {model} --norm l7", ["no norm 'l7'; did you mean 'l2'"]),
        ("audit {model} --suite fats", ["no suite 'fats'; did you mean 'fast'?"]),
        ("train --defense advers", ["no defense 'advers'; did you mean 'adversarial'"]),
        ("train --defense adversarial:esp=1", ["no setting of adversarial 'esp'; did you mean 'eps'?"]),
        ("train --defense adversarial:eps=1,attack=fgms", ["'fgms'; did you mean 'fgsm'"]),
        ("train --defense adversarial", ["adversarial needs eps"]),
        ("train --set epoch=1", ["no setting of the training 'epoch'; did you mean 'epochs'?"]),
        ("train --set optimizer=adm", ["the training: there is no optimizer 'adm'; did you mean 'adam'?"]),
        ("train --set epochs", ["--set takes key=value", "'epochs'"]),
        ("list attaks", ["no list 'attaks'; did you mean 'attacks'"]),
    ],
)
def test_a_name_that_does_not_exist_is_told_with_near_ones(line: str, words: list[str], trained: Path) -> None:
    message = refused(2, *line.format(model=trained).split())
    assert all(word in message for word in words), message
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("audit", ["Missing argument", "steadygrad audit --help"]),
        ("list", ["Missing argument"]),
        ("audit {model} --sedd 1", ["No such option: --sedd", "--seed"]),
        ("audit {model} --eps abc", ["eps must be a number or a fraction such as 8/255, got 'abc'"]),
        ("audit {model} --eps 1/0", ["eps must be a number or a fraction", "'1/0'"]),
        ("audit {model} --eps nan", ["eps must be finite and above 0, got 'nan'"]),
        ("audit {model} --eps 0", ["eps must be finite and above 0, got '0'"]),
        ("audit {model} --eps=-8/255", ["eps must be finite and above 0, got '-8/255'"]),
        ("audit {model} --samples=-5", ["samples must be at least 1, got -5"]),
        ("audit {model} --samples 0", ["samples must be at least 1, got 0"]),
        ("audit {model} --samples ten", ["--samples"]),
        ("audit {model} --checked 0", ["checked must be at least 1, got 0"]),
        ("audit {model} --batch-size 0", ["batch_size must be at least 1, got 0"]),
        ("audit {model} --memory 2TB", ["memory must be a number of bytes such as 2GB or 500MB, got '2TB'"]),
        (
            "audit {model} --seed 99999999999999999999",
            ["seed must be at most 9223372036854775807, got 99999999999999999999"],
        ),
        ("train --seed=-1", ["seed must be at least 0, got -1"]),
        (
            "audit {model} --norm l1 --explanations",
            ["explanations are attacked and bounded within linf or l2, not within l1"],
        ),
        ("audit {model} --explanation-samples 5", ["(--explanation-samples) changes nothing unless", "--explanations"]),
        (
            "audit {model} --explanation-eps 0.1",
            ["(--explanation-eps) changes nothing unless", "add explanations=True"],
        ),
        ("audit {model} --neuron-draws 3", ["(--neuron-draws) changes nothing unless", "add neurons=True (--neurons)"]),
        ("audit {model} --explanations --explanation-eps x", ["explanation_eps must be a number", "got 'x'"]),
        ("audit {model} --explanations --explanation-samples 0", ["explanation_samples must be at least 1, got 0"]),
        ("audit {model} --norm l0 --attack fgsm", ["FGSM does not work for l0; attacks that do: ", "random_noise"]),
        ("audit {model} --attack fgsm --attack fgsm", ["attacks must be at least one and all different"]),
        ("audit {model} --weights {model}/model.safetensors", ["holds its own weights"]),
        (
            "audit {model} {model} --weights w.safetensors",
            ["once for each model", "got 1 for 2"],
        ),
        ("audit a={model} a={model}", ["two models are called 'a'", "first="]),
        ("audit a=", ["'a=' is not a model", "NAME=MODEL"]),
        ("train --epochs 0", ["--epochs"]),
        ("train --limit 0", ["limit must be at least 1, got 0"]),
        ("train --validation 1.5", ["validation must be at most 1.0, got '1.5'"]),
        ("train --limit 20 --epochs 1 --set lr=-1", ["lr must be positive and finite, got -1"]),
        ("demo --samples 0", ["--samples"]),
        ("demo --device gpu", ["device must be cpu, cuda, cuda:N or mps, got 'gpu'"]),
    ],
)
def test_a_wrong_value_is_named(line: str, words: list[str], trained: Path) -> None:
    message = refused(2, *line.format(model=trained).split())
    assert all(word in message for word in words), message
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("command", ["train", "audit", "demo"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none(command: str, device: str) -> None:
    message = refused(2, command, *(("none",) if command == "audit" else ()), "--device", device)
    assert f"device {device} was asked for, but 0 cuda device(s)" in message


@pytest.mark.parametrize("command", ["train", "audit"])
def test_an_output_folder_that_cannot_be_one(command: str, trained: Path) -> None:
    line = TRAIN if command == "train" else ("audit", trained, *AUDIT)
    Path("file").write_text("mine")
    assert "the output folder file is a file: choose another --out" in refused(2, *line, "--out", "file")
    assert Path("file").read_text() == "mine"
    assert "is not writable (Not a directory): choose another --out" in refused(2, *line, "--out", "file/below")
    other = ("--seed", "7")
    before = (trained / "config.toml").read_bytes()
    message = refused(2, *line, *other, "--out", trained)
    assert "is from another configuration (differs in: " in message
    assert "choose another --out, or delete it" in message
    assert (trained / "config.toml").read_bytes() == before


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_without_permission() -> None:
    Path("locked").mkdir(mode=0o555)
    assert "is not writable (Permission denied)" in refused(2, *TRAIN, "--out", "locked/run")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 'lenet'", ["no key of recipe.toml 'modle'; did you mean 'model'?"]),
        ("model = 3", ["model of recipe.toml must be a text, got 3"]),
        ("seed = true", ["seed of recipe.toml must be a whole number, got True"]),
        ("seed = -1", ["seed of recipe.toml must be at least 0, got -1"]),
        ("limit = 0", ["limit of recipe.toml must be at least 1, got 0"]),
        ("validation = 'some'", ["validation of recipe.toml must be", "a number"]),
        ("settings = 3", ["settings of recipe.toml must be a table"]),
        ("[settings]\nepoch = 3", ["no setting of the training 'epoch'; did you mean 'epochs'?"]),
        ("[defense]\nname = 'adversary'", ["no defense 'adversary'; did you mean 'adversarial'"]),
        ("[defense]\neps = 1", ["needs a name"]),
        ("[settings", ["recipe.toml is not a TOML file"]),
        ("\xff", ["recipe.toml is not a TOML file"]),
    ],
)
def test_a_configuration_that_is_not_right(text: str, words: list[str]) -> None:
    Path("recipe.toml").write_bytes(text.encode("latin1"))
    message = refused(2, "train", "recipe.toml")
    assert all(word in message for word in words), message
    assert not Path("runs").exists()


def test_a_configuration_that_is_not_there() -> None:
    assert "there is no configuration file none.toml" in refused(2, "train", "none.toml")
    assert "cannot read the configuration file .: Is a directory" in refused(2, "train", ".")


def test_data_without_a_test_split_are_told_before_the_training() -> None:
    import numpy as np

    x, y = np.zeros((20, 8, 8), np.float32), np.arange(20) % 2
    np.savez("half.npz", x_train=x, y_train=y, x_more=x, y_more=y)
    message = " ".join(refused(2, "train", "--data", "half.npz").split())
    assert "half.npz has the splits more, train: say which one to judge on (--split NAME)" in message
    assert not Path("runs").exists()


@pytest.mark.parametrize("line", ["audit {model} --attack pdg", "audit none.safetensors", "train --set lr"])
def test_debug_shows_the_traceback_above_the_message(line: str, trained: Path) -> None:
    given = line.format(model=trained).split()
    plain, full = call(*given), call(*given, "--debug")
    assert (plain.code, full.code) == (2, 2)
    assert "Traceback (most recent call last)" in full.err
    assert full.err.endswith(plain.err)


def test_a_defect_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str) -> None:
        raise KeyError("cost")

    monkeypatch.setattr("steadygrad.cli.listing._rows", broken)
    message = refused(1, "list", "attacks")
    assert "KeyError: 'cost' (not foreseen: please run again with --debug and report what it prints)" in message
    assert "Traceback" in call("list", "attacks", "--debug").err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_told_with_the_way_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(kind: str) -> None:
        raise error

    monkeypatch.setattr("steadygrad.cli.listing._rows", full)
    assert "out of memory: take less at once (audit --memory 500MB" in refused(1, "list", "attacks")
