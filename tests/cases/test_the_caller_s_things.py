"""Model, inputs and global state are as found after every public call, after one in which the model fails too."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import public
from steadygrad.errors import Failure, UsageError

TRAINS = ("defenses.", "fit", "harden")
"""Losses leave a graph and the mode of the caller; trainings work on copies and are tested in their rooms."""


def _models(called: public.Call) -> list[nn.Module]:
    return [value for value in called.arguments.values() if isinstance(value, nn.Module)]


def _tensors(called: public.Call) -> list[Tensor]:
    return list({id(t): t for t in gates.tensors_of(called.arguments).values()}.values())


def _surroundings() -> dict[str, Any]:
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "threads": torch.get_num_threads(),
        "type": torch.get_default_dtype(),
    }


WALKED = [
    name
    for name in public.names()
    if any(p.name in ("model", "models", "classifier", "module") for p in public.parameters(name))
    and not name.startswith(TRAINS)
    and name not in ("Classifier", "RandomizedSmoothing.__call__", "attacks.Expectation", "smooth")
]


def test_the_walk_finds_the_verbs() -> None:
    assert {"audit", "evaluate", "validity", "attacks.PGD.__call__", "attributions.Saliency.__call__"} <= {*WALKED}
    assert len(WALKED) > 60


class _Moved(nn.Module):
    """Counts how often it is moved."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.moves = inner, 0

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.moves += 1
        return super()._apply(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.fixture(params=WALKED)
def called(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> public.Call:
    monkeypatch.chdir(tmp_path)
    return public.call(request.param, tmp_path)


def test_a_call_leaves_everything_as_found(called: public.Call) -> None:
    public.run(called)  # what is imported or looked up for the first time is no trace of the call
    (model,) = _models(called)
    gates.unsettle(model)
    inputs = _tensors(called)
    before, around = gates.state_of(model, inputs), _surroundings()
    public.run(called)
    after = gates.state_of(model, inputs)
    for part, value in before.items():
        assert gates.same(value, after[part]), f"{called.name} changed {part}"
    assert _surroundings() == around
    for forwards in (0, 2):  # at the first look, and amid the work
        with gates.failing(model, forwards):
            try:
                public.run(called)
            except (gates.Interrupted, UsageError, Failure) as error:  # measurements name the samples in their own
                if "Interrupted" not in f"{type(error).__name__}: {error}":
                    raise
        after = gates.state_of(model, inputs)
        for part, value in before.items():
            assert gates.same(value, after[part]), f"{called.name} changed {part} where the model failed"
        assert _surroundings() == around


def test_a_call_moves_no_model(called: public.Call) -> None:
    name = next(name for name, value in called.arguments.items() if isinstance(value, nn.Module))
    if "neurons" in called.name or isinstance(called.arguments[name], public.sg.Classifier):
        return  # layers are found by name, and a classifier is asked for by type
    moved = _Moved(called.arguments[name])
    public.run(called, **{name: moved})
    assert moved.moves == 0
