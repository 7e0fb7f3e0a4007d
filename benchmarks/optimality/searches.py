"""The searches for the smallest change that are compared, each within a budget of passes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from steadygrad.attacks import DDN, FAB, FMN, Attack, SigmaZero, Smallest, SuperDeepFool
from steadygrad.threat import Norm, Threat

__all__ = ["OURS", "Search", "searches"]

OURS = "steadygrad"
_UNUSED = ("torchvision", "visdom", "tqdm")  # what adv-lib imports for other things than these attacks


@dataclass(frozen=True)
class Search:
    """A search of a library: `run(model, x, y, passes)` gives points (N, *) for so many passes of a sample, about."""

    norm: Norm
    library: str
    name: str
    run: Callable[[nn.Module, Tensor, Tensor, int], Tensor]


def searches(norm: Norm) -> list[Search]:
    """All that can be run here, our own ones first."""
    found = [Search(norm, OURS, name, _own(norm, make)) for name, make, norms in _OWN if norm in norms]
    if importlib.util.find_spec("adv_lib"):
        found += [Search(norm, "adv-lib", name, run) for name, run in _adv_lib(norm).items()]
    if importlib.util.find_spec("foolbox"):
        found += [Search(norm, "foolbox", name, _foolbox(kind)) for name, kind in _FOOLBOX[norm].items()]
    if importlib.util.find_spec("torchattacks") and norm != "l0":
        found.append(Search(norm, "torchattacks", "FAB", _torchattacks(norm)))
    return found


# For l0 the first is sparse swaps.
_OWN: list[tuple[str, Callable[[int], Attack], tuple[str, ...]]] = [
    ("Smallest", lambda passes: Smallest(steps=passes // 2), ("linf", "l2", "l1", "l0")),
    ("sigma-zero", lambda passes: SigmaZero(steps=passes // 2), ("l0",)),
    ("FMN", lambda passes: FMN(steps=passes // 2), ("linf", "l2", "l1", "l0")),
    ("FAB, three classes", lambda passes: FAB(steps=max(1, passes // 6), targets=3), ("linf", "l2", "l1")),
    ("DDN", lambda passes: DDN(steps=passes // 2), ("l2",)),
    ("SuperDeepFool", lambda passes: SuperDeepFool(steps=passes // 4), ("l2",)),
]


def _own(norm: Norm, make: Callable[[int], Attack]) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    return lambda model, x, y, passes: make(passes)(model, x, y, Threat(norm)).inputs


_ORDER = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}


def _adv_lib(norm: Norm) -> dict[str, Callable[[nn.Module, Tensor, Tensor, int], Tensor]]:
    missing = {name: mock.MagicMock() for name in _UNUSED if importlib.util.find_spec(name) is None}
    with mock.patch.dict(sys.modules, missing), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = importlib.import_module("adv_lib.attacks")
    order = _ORDER[norm]

    def of(name: str, steps: str = "num_steps", **settings: Any) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
        def run(model: nn.Module, x: Tensor, y: Tensor, passes: int) -> Tensor:
            found: Tensor = getattr(kinds, name)(model, x, y, **{steps: passes // 2}, **settings)
            return found

        return run

    made = {"FMN": of("fmn", "steps", norm=order)}
    made["PDPGD"] = of("pdpgd", norm=order, proximal_operator=23 if norm == "l0" else None)
    if norm == "l0":
        made["sigma-zero"] = of("sigma_zero")
    if norm in ("l1", "l2"):
        # Their settings of the paper: epsilon 0.1 for l2, 0.5 for l1.
        settings = {"l1": {"init_lr_distance": 0.5, "α": 0.5}, "l2": {"init_lr_distance": 0.1}}[norm]
        made["ALMA"] = of("alma", distance=norm, **settings)
    if norm == "l2":
        made["DDN"], made["PDGD"] = of("ddn", "steps"), of("pdgd")
        # It stops by itself, far within any of the budgets.
        made["SuperDeepFool"] = lambda model, x, y, passes: torch.as_tensor(kinds.sdf(model, x, y))
    return made


_FOOLBOX: dict[str, dict[str, str]] = {
    "linf": {"FMN": "LInfFMNAttack"},
    "l2": {"FMN": "L2FMNAttack", "DDN": "DDNAttack"},
    "l1": {"FMN": "L1FMNAttack"},
    "l0": {"FMN": "L0FMNAttack"},
}


def _foolbox(kind: str) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    def run(model: nn.Module, x: Tensor, y: Tensor, passes: int) -> Tensor:
        library = importlib.import_module("foolbox")
        wrapped = library.PyTorchModel(model, bounds=(0, 1), device=x.device)
        found: Tensor = getattr(library.attacks, kind)(steps=passes // 2)(wrapped, x, y, epsilons=None)[1]
        return found

    return run


def _torchattacks(norm: Norm) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    def run(model: nn.Module, x: Tensor, y: Tensor, passes: int) -> Tensor:
        # A step takes all of the Jacobian and another look; nothing beyond eps is kept.
        steps = max(1, passes // (model(x[:1]).shape[1] + 2))
        kind = importlib.import_module("torchattacks").FAB
        found: Tensor = kind(model, norm="Linf" if norm == "linf" else norm.upper(), eps=1e4, steps=steps)(x, y)
        return found

    return run
