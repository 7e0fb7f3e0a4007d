"""What torchattacks enters."""

from __future__ import annotations

import importlib
import math
from typing import Any

from torch import Tensor, nn

from benchmarks.attacks.tasks import Contender, Run, Task, label

__all__ = ["enter"]


def enter(known: dict[str, Task], shape: tuple[int, ...], classes: int) -> list[Contender]:
    """The attacks of torchattacks for the tasks; its C&W has no search, so its steps are those of five searches."""
    eps, budget = known["PGD"].threat.eps, known["JSMA"].threat.eps
    assert isinstance(eps, float)
    assert isinstance(budget, float)
    entries = math.prod(shape)
    # It takes as many pairs as there are in this share, rounded up.
    saliency: dict[str, Any] = {"theta": 1.0, "gamma": (budget - 0.5) / entries}
    # Its FAB keeps nothing outside a radius; 1 lets all pass.
    boundary: dict[str, Any] = {"norm": "Linf", "eps": 1.0, "steps": 100, "multi_targeted": False, "n_classes": classes}
    entered: list[tuple[Any, ...]] = [
        ("DeepFool l2", "DeepFool", {"steps": 50, "overshoot": 0.02}, 1500),
        ("JSMA", "JSMA", saliency, 3000),
        ("C&W l2", "CW", {"c": 1, "steps": 500, "lr": 0.01}, 1000),
        ("C&W l2", "CW", {"c": 5, "steps": 500, "lr": 0.05}, 1000, "tuned"),
        ("FAB linf", "FAB", boundary, 2700),
        ("PGD", "PGD", {"eps": eps, "alpha": eps / 10, "steps": 40}, 80),
        ("MI-FGSM", "MIFGSM", {"eps": eps, "alpha": eps / 10, "steps": 10}, 20),
        ("MI-FGSM", "MIFGSM", {"eps": eps, "alpha": eps / 4, "steps": 10}, 20, "tuned"),
        ("APGD", "APGD", {"norm": "Linf", "eps": eps, "steps": 100, "n_restarts": 1, "loss": "ce"}, 200),
        ("Square", "Square", {"norm": "Linf", "eps": eps, "n_queries": 1000, "n_restarts": 1}, 500),
    ]
    return [
        Contender(
            known[task], "torchattacks", label(name, settings), _run(known[task], name, settings), weight, *variant
        )
        for task, name, settings, weight, *variant in entered
    ]


def _run(task: Task, name: str, settings: dict[str, Any]) -> Run:
    def run(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, seed: int) -> Tensor:
        seeded = {"seed": seed} if name in ("APGD", "Square", "FAB") else {}
        attack = getattr(importlib.import_module("torchattacks"), name)(model, **settings, **seeded)
        if target is not None:
            attack.set_mode_targeted_bylabel(quiet=True)
        found: Tensor = attack(x, y if target is None else target)
        return found

    return run
