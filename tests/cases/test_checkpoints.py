"""Checkpoints as they come: tensors are taken wherever they are in a file, and nothing else in it is ever run."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import nets
import steadygrad as sg
from steadygrad.models import load

X = nets.inputs(4)


def _net(seed: int = 0) -> nn.Module:
    return nets.build("conv", seed=seed)


def _classifier(module: nn.Module | None = None) -> sg.Classifier:
    return sg.Classifier(module or _net(seed=5), classes=3, name="mine")


STATE = _net().state_dict()
OTHER = _net(seed=2).state_dict()


def _with(prefix: str, state: Any = STATE) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _optimizer() -> dict[str, Any]:
    net = _net()
    optimizer = torch.optim.AdamW(net.parameters())
    net(X).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


TAKEN: dict[str, Any] = {
    "plain": STATE,
    "a plain dict": dict(STATE),
    "state_dict": {"state_dict": STATE, "epoch": 3, "best": 0.5},
    "model": {"model": STATE, "optimizer": _optimizer()},
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": _optimizer(), "loss": torch.tensor(0.1)},
    "net": {"net": STATE, "acc": 93.1, "epoch": 199},
    "weights": {"weights": STATE},
    "another name": {"generation": 2, "classifier_of_mine": STATE},
    "nested twice": {"checkpoint": {"model": STATE}, "config": {"lr": 0.1, "names": ["a"]}},
    "only an average": {"ema": STATE},
    "an average, nested": {"model_ema": {"module": STATE}},
    "data parallel": _with("module."),
    "compiled": _with("_orig_mod."),
    "compiled and parallel": _with("module._orig_mod."),
    "parallel and compiled": _with("_orig_mod.module."),
    "lightning": {"state_dict": _with("model."), "pytorch-lightning_version": "2.0", "global_step": 3},
    "lightning, compiled": {"state_dict": _with("model._orig_mod.")},
    "a prefix of one's own": {"net": _with("module.backbone.")},
    "compiled in part": {k.replace("4.", "4._orig_mod."): v for k, v in STATE.items()},
    "half precision": {k: v.half() if v.is_floating_point() else v for k, v in STATE.items()},
    "without counts": {k: v for k, v in STATE.items() if not k.endswith("num_batches_tracked")},
    "weights beside others": {"model": STATE, "discriminator": nn.Linear(2, 2).state_dict()},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["new", "old"])
@pytest.mark.parametrize("form", TAKEN)
def test_the_weights_are_found(tmp_path: Path, form: str, zipped: bool) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(TAKEN[form], path, _use_new_zipfile_serialization=zipped)
    wanted = _net()
    if form == "half precision":
        wanted.load_state_dict(TAKEN[form])
    found = _classifier().load_weights(path)
    assert torch.equal(found.eval()(X), wanted(X))


@pytest.mark.parametrize("form", ["plain", "data parallel", "compiled", "lightning"])
def test_safetensors_may_have_prefixes_too(tmp_path: Path, form: str) -> None:
    state = TAKEN[form].get("state_dict", TAKEN[form])
    save_file({name: value.clone() for name, value in state.items()}, tmp_path / "model.safetensors")
    assert torch.equal(_classifier().load_weights(tmp_path / "model.safetensors").eval()(X), _net()(X))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".tar", ""])
def test_the_suffix_does_not_matter(tmp_path: Path, suffix: str) -> None:
    torch.save(STATE, tmp_path / f"weights{suffix}")
    assert torch.equal(_classifier().load_weights(tmp_path / f"weights{suffix}").eval()(X), _net()(X))


class Wrapped(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.model = net

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@pytest.mark.parametrize(
    "state", [STATE, _with("module."), _with("net.model.")], ids=["plain", "module.", "net.model."]
)
def test_the_module_may_have_the_prefix(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "m.pt")
    assert torch.equal(_classifier(Wrapped(_net(5))).load_weights(tmp_path / "m.pt").eval()(X), _net()(X))


SEVERAL = {
    "the model before its average": ({"ema": OTHER, "model": STATE}, "model", "ema"),
    "the state before the model": ({"model": OTHER, "state_dict": STATE}, "state_dict", "model"),
    "a nested average": ({"model_ema": {"module": OTHER}, "net": STATE}, "net", "model_ema.module"),
    "an average by name": ({"state_dict_ema": OTHER, "state_dict": STATE}, "state_dict", "state_dict_ema"),
}


@pytest.mark.parametrize("form", SEVERAL)
def test_of_several_that_fit_the_likeliest_is_taken_and_told(tmp_path: Path, form: str, caplog: Any) -> None:
    content, taken, other = SEVERAL[form]
    path = tmp_path / "m.pt"
    torch.save(content, path)
    with caplog.at_level(logging.WARNING, "steadygrad"):
        found = _classifier().load_weights(path)
    assert torch.equal(found.eval()(X), _net()(X))
    assert f"those of {taken!r} are taken; for others give {path}#{other}" in caplog.text
    caplog.clear()
    found = _classifier().load_weights(f"{path}#{other}")
    assert torch.equal(found.eval()(X), _net(seed=2)(X))
    assert not caplog.text
    with pytest.raises(sg.UsageError, match=r"has no part 'emma' that holds weights \(known: "):
        _classifier().load_weights(f"{path}#emma")


class Trap:
    def __reduce__(self) -> Any:
        return os.mkdir, ("run",)


def _script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_net()).save(str(path))


REFUSED: dict[str, tuple[Any, str]] = {
    "a whole module": (_net(), r"other objects \(.*nn\.modules.*\) .* could run any code: write its weights alone"),
    "a trap": ({"state_dict": STATE, "x": Trap()}, r"other objects \(.*mkdir\)"),
    "settings": ({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, r"\(argparse.Namespace\)"),
    "a NumPy number": ({"state_dict": STATE, "best": np.float64(1.0)}, r"multiarray.scalar"),
    "a list": ([STATE], "holds no weights: .* got list"),
    "one tensor": (torch.zeros(3), "holds no weights: .* got Tensor"),
    "no weights": ({"epoch": 3, "lr": 0.1}, "holds no weights: .* got epoch, lr"),
    "nothing": ({}, "holds no weights: .* got nothing"),
    "an optimizer alone": (_optimizer(), "holds no weights: .* got state, param_groups"),
    "another architecture": (nn.Linear(2, 3).state_dict(), r"than mine; \d+ keys differ: 0.bias: model \(4,\)"),
    "another width": (
        {**STATE, "7.weight": torch.zeros(3, 9), "7.bias": torch.zeros(3)},
        r"1 keys differ: 7.weight: model \(3, 6\), file \(3, 9\)",
    ),
    "a layer too many": ({**STATE, "8.weight": torch.zeros(1)}, "1 keys differ: 8.weight: model has none, file"),
    "a layer too few": (
        {"state_dict": {k: v for k, v in STATE.items() if k != "7.bias"}},
        r"\('state_dict'\) holds weights .* 7.bias: model \(3,\), file has none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_not_the_weights_is_refused_by_name(tmp_path: Path, monkeypatch: Any, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = REFUSED[form]
    torch.save(content, "m.pt")
    model = _classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(sg.UsageError, match=rf"^m\.pt.*{message}"):
        model.load_weights("m.pt")
    assert not Path("run").exists()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_torchscript_is_refused_as_code(tmp_path: Path) -> None:
    _script(tmp_path / "m.pt")
    with pytest.raises(sg.UsageError, match=r"is a TorchScript module, which is code: .* returns torch.jit.load"):
        _classifier().load_weights(tmp_path / "m.pt")


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.97])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_is_a_failure(tmp_path: Path, kept: float, zipped: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(sg.Failure, match=r"m\.pt is not a readable .*\(truncated\?\)"):
        _classifier().load_weights(path)


@pytest.mark.parametrize("content", [b"hello world, this is no checkpoint", pickle.dumps([1, 2])], ids=["text", "list"])
def test_another_file_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises((sg.Failure, sg.UsageError), match=r"m\.pt (is not a readable|holds)"):
        _classifier().load_weights(tmp_path / "m.pt")


@pytest.mark.parametrize("form", ["plain", "data parallel", "lightning"])
def test_a_named_model_takes_them(tmp_path: Path, monkeypatch: Any, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(nets.__file__).parent)
    Path("mine_of_checkpoints.py").write_text("import nets\n\ndef make():\n    return nets.build('conv', seed=5)\n")
    torch.save(TAKEN[form], "m.pt")
    model = load("mine_of_checkpoints:make", weights="m.pt", input_shape=(1, 4, 4), classes=3)
    assert torch.equal(model(X), _net()(X))
    with pytest.raises(sg.UsageError, match=r"m\.pt does not say its architecture"):
        load("m.pt")
