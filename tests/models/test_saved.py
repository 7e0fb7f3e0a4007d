"""What a weights file says beside its weights: taken by its types, or refused by name, in little memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from steadygrad import models
from steadygrad.errors import Failure, UsageError
from steadygrad.models.saved import saved

INF, NAN = float("inf"), float("nan")

REFUSED: dict[str, list[Any]] = {
    "bounds": [[], [0], [0, 1, 2], [0, INF], [NAN, 1], [1, 0], ["a", "b"], "0,1", 5, [0, True], {"a": 1}],
    "mean": [[], INF, NAN, "x", [[0.5]], {"a": 1}, "imagenet", True],
    "std": [[], 0, -1, INF, "x", [0.0], [INF]],
    "classes": [10**9, 0, [], "abc", [None, None], {"0": "a"}, 5.5, True],
    "input_shape": [[], [0], [-1, 8, 8], ["a"], 5, "abc", [1.5, 8, 8], [1] * 6],
    "name": [5, [], True],
    "preparation": [5, "x", [], {"resize": "bad"}, {"kept": 0}, {"kept": "x"}, {"foo": 1}],
    "binary": [1, "yes"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    models.build("mlp", (1, 8, 8), 10).save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def say(path: Path, **changed: Any) -> Path:
    save_file(load_file(path), path, {"steadygrad": json.dumps({**saved(path), **changed})})
    return path


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_a_setting_that_no_classifier_has_is_refused(path: Path, key: str, value: Any) -> None:
    say(path, **{key: value})
    for spec, more in ((str(path), {}), ("mlp", {"weights": path})):
        with pytest.raises(UsageError, match=r"m\.safetensors: .* is not what Classifier\.save wrote: save it again"):
            models.load(spec, **more)


@pytest.mark.parametrize("values", [{"hidden": [10**9]}, {"hidden": [500, 10**9, 10**9]}])
def test_sizes_of_another_file_are_refused_before_there_is_memory_for_them(path: Path, values: dict[str, Any]) -> None:
    say(path, architecture={"name": "mlp", **values})
    tracemalloc.start()
    before = torch.random.get_rng_state()
    with pytest.raises(UsageError, match=r"^\S*m\.safetensors holds weights of another architecture than mlp"):
        models.load(path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_settings_beyond_all_depth_are_damaged(path: Path) -> None:
    save_file(load_file(path), path, {"steadygrad": "[" * 100_000})
    with pytest.raises(Failure, match=r"m\.safetensors has damaged metadata"):
        models.load(path)


@pytest.mark.parametrize("name", [name for name in models.ARCHITECTURES if name not in ("vgg16", "alexnet")])
def test_every_architecture_is_compared_and_taken(name: str, tmp_path: Path) -> None:
    row = models.ARCHITECTURES[name]
    model = models.build(name, row.input_shape, 10, seed=3)
    model.save(tmp_path / "m.safetensors")
    found = models.load(tmp_path / "m.safetensors")
    assert found.settings == model.settings
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in model.state_dict().items())
