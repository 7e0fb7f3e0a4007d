"""What foolbox enters."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from benchmarks.attacks.tasks import Contender, Run, Task, label

__all__ = ["enter"]

_STEPS = 100


def enter(known: dict[str, Task], shape: tuple[int, ...], classes: int) -> list[Contender]:
    """The attacks of foolbox for the tasks; for C&W with its own first constant and step, and with better ones."""
    # eps is a name of the task in all of these: the radius of the fixed ones.
    eps = known["PGD"].threat.eps
    assert isinstance(eps, float)
    searched: dict[str, Any] = {"binary_search_steps": 5, "steps": _STEPS}
    momentum: dict[str, Any] = {"abs_stepsize": eps / 10, "steps": 10}
    entered: list[tuple[Any, ...]] = [
        ("DeepFool l2", "L2DeepFoolAttack", {"candidates": classes}, 300),
        ("DeepFool linf", "LinfDeepFoolAttack", {"candidates": classes}, 300),
        ("C&W l2", "L2CarliniWagnerAttack", searched, 1000),
        ("C&W l2", "L2CarliniWagnerAttack", {**searched, "initial_const": 1.0, "stepsize": 0.05}, 1000, "tuned"),
        ("DDN", "DDNAttack", {"steps": _STEPS}, 200),
        ("FMN l2", "L2FMNAttack", {"steps": _STEPS}, 200),
        ("FMN linf", "LInfFMNAttack", {"steps": _STEPS}, 200),
        ("PGD", "LinfPGD", {"abs_stepsize": eps / 10, "steps": 40}, 80),
        ("MI-FGSM", "LinfMomentumIterativeFastGradientMethod", momentum, 20),
    ]
    return [
        Contender(known[task], "foolbox", label(name, settings), _run(known[task], name, settings), weight, *variant)
        for task, name, settings, weight, *variant in entered
    ]


def _run(task: Task, name: str, settings: dict[str, Any]) -> Run:
    def run(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, seed: int) -> Tensor:
        library = importlib.import_module("foolbox")
        attack = getattr(library.attacks, name)(**settings)
        wrapped = library.PyTorchModel(model, bounds=task.threat.bounds, device=x.device)
        found: Tensor = attack(wrapped, x, y, epsilons=task.threat.eps)[1]
        return found

    return run
