"""On an accelerator a look at a value waits for all that was asked of it before: attacks look every few steps only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import nets
import steadygrad as sg
from steadygrad.attacks import ATTACKS, Attack, fab, run

LOOKS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")
"""Operations whose result, or its shape, the program has to wait for; indexing by a mask is another."""
STEPPED = [
    row.name for row in ATTACKS if {"steps", "queries"} & {f.name for f in dataclasses.fields(row.method)}
]  # fmt: skip


class Looks(TorchDispatchMode):
    """Counts the operations that wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, places = function.overloadpacket.__name__, args[1] if len(args) > 1 else ()
        masks = [p for p in places if isinstance(p, torch.Tensor) and p.dtype == torch.bool] if (
            name.startswith("index") and isinstance(places, list | tuple)
        ) else []  # fmt: skip
        self.count += name in LOOKS or bool(masks)
        return function(*args, **(kwargs or {}))


def _looks(attack: Attack) -> int:
    model, x = sg.Classifier(nets.build("conv")), nets.inputs(6)
    y = model(x).argmax(1)
    norm = "linf" if "linf" in attack.norms else attack.norms[0]
    # So near that no sample is left, or found, before the end.
    threat = sg.Threat(norm, None if attack.minimum_norm else 1e-4)
    with Looks() as looks:
        attack(model, x, y, threat)
    return looks.count


@pytest.mark.parametrize("name", STEPPED)
def test_steps_wait_only_when_the_engine_looks_whether_samples_are_done(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: Callable[[torch.Tensor], bool] = lambda values: False  # noqa: E731 (as on an accelerator)
    for room in (run, fab):
        monkeypatch.setattr(room, "waits_for_nothing", free)
    row = next(row for row in ATTACKS if row.name == name)
    attack = row.method()
    field = "steps" if hasattr(attack, "steps") else "queries"
    few, many = (_looks(dataclasses.replace(attack, **{field: count})) for count in (20, 60))
    # Made of four attacks; and steps of several passes each, from which a sample that is wrong has to leave.
    most = {"standard": 4 * 10, "deepfool": 40 + 2, "super_deepfool": 40 + 2}.get(name, 10)
    assert many - few <= most + 2, f"{(many - few) / 40} looks a step"


def test_looks_are_counted() -> None:
    x = torch.arange(3.0)
    with Looks() as looks:
        x + 1
    assert looks.count == 0
    with Looks() as looks:
        bool((x > 1).any())
        x[x > 1] = 0
        x[torch.tensor([0, 1])] = 1
    assert looks.count == 2
