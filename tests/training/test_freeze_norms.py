"""Fine-tuning with batch normalization left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fits
from steadygrad.classifier import Classifier
from steadygrad.defenses import Defense, Plain
from steadygrad.errors import UsageError
from steadygrad.training import FitSettings, fit

PLAIN: dict[str, object] = {"epochs": 2, "batch_size": 16, "lr": 0.05, "weight_decay": 0.1}
NORM = "module.1."  # where the batch normalization of the network "norm" is


def _moved(before: Classifier, after: Classifier) -> dict[str, bool]:
    theirs = after.state_dict()
    return {name: not torch.equal(value, theirs[name]) for name, value in before.state_dict().items()}


@pytest.mark.parametrize("defense", [Plain(), fits.DEFENSES["pgd"]], ids=str)
@pytest.mark.parametrize("freeze", [True, False])
def test_statistics_and_parameters_stay_and_all_else_learns(freeze: bool, defense: Defense) -> None:
    model = fits.classifier("norm")
    # Statistics that no batch has: training would move them.
    model.module[1].running_mean.fill_(0.7)
    trained = fit(model, defense, fits.dataset(), settings=FitSettings(freeze_norms=freeze, **PLAIN)).classifier
    moved = _moved(model, trained)
    norms = {name for name in moved if name.startswith(NORM)}
    assert len(norms) == 5
    for name, value in moved.items():
        assert value == (not freeze or name not in norms), name
    assert [p.requires_grad for p in trained.parameters()] == [p.requires_grad for p in model.parameters()]


def test_the_loss_sees_the_kept_statistics_and_dropout_still_drops() -> None:
    seen: list[tuple[bool, bool]] = []

    class Watch(Defense):
        fits = True

        def terms(self, step):  # type: ignore[no-untyped-def]
            inner = step.model.module
            seen.append((inner[1].training, inner[5].training))
            return {"cross_entropy": step.cross_entropy}

    fit(fits.classifier("norm"), Watch(), fits.dataset(), settings=FitSettings(freeze_norms=True, epochs=2))
    assert seen == [(False, True)] * 2


def test_one_step_is_the_gradient_of_the_network_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 3))
    module[1].running_var.fill_(3.0)
    model, data = Classifier(module, classes=3).eval(), fits.dataset(12)
    settings = FitSettings(epochs=1, batch_size=12, optimizer="sgd", lr=0.5, momentum=0.0, freeze_norms=True)
    trained = fit(model, Plain(), data, settings=settings).classifier
    weights = [*module[0].parameters(), *module[3].parameters()]
    loss = nn.functional.cross_entropy(model(data.tensors()[0]), data.labels)
    slopes = torch.autograd.grad(loss, weights)
    after: list[Tensor] = [*trained.module[0].parameters(), *trained.module[3].parameters()]
    for weight, slope, now in zip(weights, slopes, after):
        torch.testing.assert_close(now, weight - 0.5 * slope)


def test_it_is_part_of_the_configuration_of_a_run(tmp_path: Path) -> None:
    fits.run(tmp_path, epochs=1, freeze_norms=True)
    with pytest.raises(UsageError, match="settings"):
        fits.run(tmp_path, epochs=1, freeze_norms=False)


def test_a_network_of_which_nothing_is_left_to_train_is_refused() -> None:
    model = Classifier(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 3)), classes=3)
    for parameter in model.module[2].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UsageError, match="freeze_norms leaves no weight to train"):
        fit(model, Plain(), fits.dataset(), settings=FitSettings(epochs=1, freeze_norms=True))
