"""What the Adversarial Robustness Toolbox enters."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attacks.tasks import Contender, Run, Task, label

__all__ = ["enter", "estimator"]


def enter(known: dict[str, Task], shape: tuple[int, ...], classes: int) -> list[Contender]:
    """The attacks of the toolbox for the tasks, each with the whole batch at once."""
    eps, budget = known["PGD"].threat.eps, known["JSMA"].threat.eps
    assert isinstance(eps, float)
    assert isinstance(budget, float)
    entries = math.prod(shape)
    # It takes one more pair whenever the share is not exceeded yet.
    saliency: dict[str, Any] = {"theta": 1.0, "gamma": (budget - 0.5) / entries}
    # From its own first constant, 0.01, five searches do not reach far enough.
    searched: dict[str, Any] = {"binary_search_steps": 5, "max_iter": 100, "initial_const": 1.0}
    restarted: dict[str, Any] = {"eps": eps, "max_iter": 100, "nb_random_init": 1, "loss_type": "cross_entropy"}
    entered: list[tuple[str, str, dict[str, Any], int]] = [
        ("DeepFool l2", "DeepFool", {"max_iter": 50, "epsilon": 0.02, "nb_grads": classes}, 300),
        ("JSMA", "SaliencyMapMethod", saliency, 600),
        ("C&W l2", "CarliniL2Method", searched, 10000),
        (
            "PGD",
            "ProjectedGradientDescent",
            {"eps": eps, "eps_step": eps / 10, "max_iter": 40, "num_random_init": 1},
            80,
        ),
        ("MI-FGSM", "MomentumIterativeMethod", {"eps": eps, "eps_step": eps / 10, "max_iter": 10}, 20),
        ("APGD", "AutoProjectedGradientDescent", {**restarted, "eps_step": 2 * eps}, 400),
        ("Square", "SquareAttack", {"eps": eps, "max_iter": 1000, "nb_restarts": 1}, 1000),
    ]
    return [
        Contender(known[task], "art", label(name, settings), _run(known[task], name, settings, shape, classes), weight)
        for task, name, settings, weight in entered
    ]


def estimator(model: nn.Module, shape: tuple[int, ...], classes: int, bounds: tuple[float, float], x: Tensor) -> Any:
    """The toolbox's wrapper around a model."""
    make = importlib.import_module("art.estimators.classification").PyTorchClassifier
    return make(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=classes,
        clip_values=bounds,
        device_type="gpu" if x.device.type == "cuda" else "cpu",
    )


def _run(task: Task, name: str, settings: dict[str, Any], shape: tuple[int, ...], classes: int) -> Run:
    def run(model: nn.Module, x: Tensor, y: Tensor, target: Tensor | None, seed: int) -> Tensor:
        wrapped = estimator(model, shape, classes, task.threat.bounds, x)
        made = getattr(importlib.import_module("art.attacks.evasion"), name)
        attack = made(wrapped, **settings, batch_size=len(x), verbose=False)
        labels = y if target is None else target
        found = attack.generate(x=x.cpu().numpy(), y=labels.cpu().numpy())
        return torch.from_numpy(found).to(x.device, x.dtype)

    return run
