"""fit(): what it returns and writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fits
import gates
from steadygrad import files, models
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.defenses import Distillation, InputGradientPenalty, Plain, parse
from steadygrad.errors import Failure, UsageError
from steadygrad.training import FitSettings, fit
from steadygrad.training.batches import augmented, steps_of
from steadygrad.training.processes import resolve_device


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("defense", ["plain", "fgsm", "pgd", "trades:eps=0.1", "input_gradient:weight=0.1"])
def test_the_model_learns(defense: str) -> None:
    result = fits.run(defense=defense, kind="linear", epochs=25, lr=0.01, augment="none", robust_eps=0.05)
    assert result.epochs_done == result.best_epoch == len(result.history) == 25
    first, last = result.history[0], result.history[-1]
    assert last["loss"] < (0.9 if defense in ("pgd", "trades:eps=0.1") else 0.5) * first["loss"]
    assert last["validation_accuracy"] >= 0.9
    assert 0 < last["validation_robust"] <= last["validation_accuracy"]
    assert not result.classifier.training
    assert all(p.grad is None for p in result.classifier.parameters())


def test_distillation_trains_its_teacher_first(tmp_path: Path) -> None:
    data = fits.dataset(60)
    settings = FitSettings(epochs=40, batch_size=20, lr=0.02)
    result = fit(fits.classifier("linear"), Distillation(20.0), data, settings=settings, out=tmp_path)
    x, y = data.tensors()
    teacher = fits.classifier("linear").load_weights(tmp_path / "teacher" / "model.safetensors")
    accuracies = [float((m(x).argmax(1) == y).float().mean()) for m in (teacher, result.classifier)]
    assert min(accuracies) > 0.9
    # The teacher's soft labels, not the hard ones, were fitted: its logits are those of temperature 20.
    assert float(result.classifier(x).detach().abs().max()) > 20
    direct = fit(fits.classifier("linear"), Plain(20.0), data, settings=settings).classifier
    assert _same(direct, teacher)


def test_the_given_model_and_all_global_state_stay(tmp_path: Path) -> None:
    model = fits.classifier("norm")
    gates.unsettle(model)
    before = gates.state_of(model)
    defense = fits.DEFENSES["pgd"] + InputGradientPenalty(0.1)
    fit(model, defense, fits.dataset(), settings=FitSettings(epochs=1, augment="crop_flip"), out=tmp_path)
    after = gates.state_of(model)
    for part, value in before.items():
        assert gates.same(value, after[part]), f"fit changed {part}"


def test_frozen_weights_stay_and_the_random_state_of_the_caller_does_not_matter() -> None:
    model = fits.classifier("norm")
    model.module[0].weight.requires_grad_(False)
    settings = FitSettings(epochs=1, weight_decay=0.1, lr=0.1)
    one = fit(model, Plain(), fits.dataset(), settings=settings).classifier
    torch.rand(7)
    two = fit(model, Plain(), fits.dataset(), settings=settings).classifier
    assert torch.equal(one.module[0].weight, model.module[0].weight)
    assert not torch.equal(one.module[-1].weight, model.module[-1].weight)
    assert _same(one, two)


def test_the_seed_decides() -> None:
    runs = [
        fit(fits.classifier("norm"), Plain(), fits.dataset(), settings=FitSettings(epochs=1), seed=s).classifier
        for s in (0, 0, 1)
    ]
    assert _same(runs[0], runs[1])
    assert not _same(runs[0], runs[2])


def test_one_step_of_sgd_is_the_gradient_of_the_whole_batch() -> None:
    data, model = fits.dataset(10), fits.classifier("linear")
    settings = FitSettings(epochs=1, batch_size=10, optimizer="sgd", lr=0.5, momentum=0.0)
    trained = fit(model, Plain(), data, settings=settings).classifier
    loss = nn.functional.cross_entropy(model(data.tensors()[0]), data.labels)
    for before, after, slope in zip(
        model.parameters(), trained.parameters(), torch.autograd.grad(loss, [*model.parameters()])
    ):
        torch.testing.assert_close(after, before - 0.5 * slope)


def test_clipping_bounds_the_step() -> None:
    model = fits.classifier("linear")
    settings = FitSettings(epochs=1, batch_size=60, optimizer="sgd", lr=1.0, momentum=0.0, clip=0.01)
    trained = fit(model, Plain(), fits.dataset(), settings=settings).classifier
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), trained.parameters())])
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_best_epoch_is_returned() -> None:
    common: dict[str, Any] = {"kind": "linear", "epochs": 6, "optimizer": "sgd", "lr": 1.5, "augment": "none"}
    best = fits.run(select="accuracy", **common)
    scores = [row["validation_accuracy"] for row in best.history]
    assert best.best_epoch == 1 + scores.index(max(scores)) < 6, "the case needs a best epoch before the last"
    x, y = fits.dataset(20, seed=1).tensors()
    assert float((best.classifier(x).argmax(1) == y).double().mean()) == pytest.approx(max(scores))
    robust = fits.run(select="robust", robust_eps=0.1, **common)
    scores = [row["validation_robust"] for row in robust.history]
    assert robust.best_epoch == 1 + scores.index(max(scores))


def test_the_folder_tells_the_run(tmp_path: Path) -> None:
    result = fits.run(tmp_path, tensorboard=True)
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[2]["loss"]) == result.history[2]["loss"]
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert files.read_toml(tmp_path / "config.toml")["defense"] == {"name": "plain", "temperature": 1.0}
    assert _same(fits.classifier("norm").load_weights(tmp_path / "model.safetensors"), result.classifier)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("defense", ["plain", "pgd", "distillation"])
def test_half_precision_learns_as_float32_does(precision: str, defense: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"defense": defense, "kind": "linear", "epochs": 5, "lr": 0.01, "augment": "none"}
    full = fits.run(**common)
    half = fits.run(tmp_path, precision=precision, clip=10.0, **common)
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.05)
    assert not _same(half.classifier, full.classifier)
    assert all(p.dtype == torch.float32 for p in half.classifier.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_second_order_defenses_refuse_half_precision_with_the_reason(precision: str) -> None:
    with pytest.raises(UsageError, match=rf"precision='{precision}' .*second|precision='{precision}' .*input gradient"):
        fits.run(defense="plain+input_gradient:weight=1", precision=precision)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"kind": "linear", "optimizer": "sgd", "lr": 1e30, "augment": "none"}
    with pytest.raises(Failure, match=r"no longer finite in epoch \d, step \d+: lower lr=1e\+30"):
        fits.run(**settings)
    with pytest.raises(Failure, match=str(tmp_path)):
        fits.run(tmp_path, warmup=0.4, **settings)


def test_a_constant_network_has_no_gradient_and_is_left_alone() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    module.register_parameter("unused", nn.Parameter(torch.ones(2)))
    result = fit(Classifier(module, classes=3), Plain(), fits.dataset(), settings=FitSettings(epochs=1))
    assert torch.equal(result.classifier.module.unused, torch.ones(2))


def test_schedules() -> None:
    def rates(**settings: Any) -> list[float]:
        return [FitSettings(lr=1.0, **settings).rate(step, 10) for step in range(10)]

    assert rates() == [1.0] * 10
    assert rates(schedule="linear") == pytest.approx([1 - i / 10 for i in range(10)])
    assert rates(schedule="cosine") == pytest.approx([(1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)])
    assert rates(schedule="step") == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 2)
    assert rates(warmup=0.2, schedule="linear") == pytest.approx([0.5, 1, 1, *(1 - i / 8 for i in range(1, 8))])


def test_the_rate_of_the_schedule_is_the_one_used(tmp_path: Path) -> None:
    assert [row["lr"] for row in fits.run(schedule="linear", lr=0.3).history] == pytest.approx([0.225, 0.125, 0.025])


def test_every_epoch_holds_every_sample_once_in_another_order() -> None:
    one, two = (torch.cat(steps_of(61, 16, seed=0, epoch=e)) for e in (0, 1))
    assert one.sort().values.tolist() == two.sort().values.tolist() == list(range(61))
    assert one.tolist() != two.tolist()
    assert sorted({len(b) for b in steps_of(61, 16, 0, 0)}) == [15, 16]


def test_augmentation_moves_each_image_by_itself() -> None:
    x = torch.rand(8, 2, 16, 16)
    moved = augmented(x, "crop_flip", seed=3, count=8, part=slice(0, 8))
    assert torch.equal(moved[2:5], augmented(x[2:5], "crop_flip", seed=3, count=8, part=slice(2, 5)))
    padded = nn.functional.pad(x, (2, 2, 2, 2))
    for before, after in zip(padded, moved):
        shifts = [before[:, i : i + 16, j : j + 16] for i in range(5) for j in range(5)]
        assert any(torch.equal(after, s) or torch.equal(after, s.flip(2)) for s in shifts)
    flipped = augmented(x, "flip", seed=3, count=8, part=slice(0, 8))
    turned = [torch.equal(f, b.flip(2)) for f, b in zip(flipped, x)]
    assert {True, False} == set(turned)
    assert all(t or torch.equal(f, b) for t, f, b in zip(turned, flipped, x))


def _data(**changes: Any) -> Dataset:
    return dataclasses.replace(fits.dataset(), **changes)


GOOD = fits.dataset()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classifier": nn.Linear(2, 2)}, "classifier must be a Classifier .wrap a module"),
        ({"defense": "plain"}, "defense must be a Defense"),
        ({"train": _data(labels=torch.zeros(60, dtype=torch.int64))}, "all 60 samples .* are of class 'a'"),
        ({"train": fits.dataset(shape=(1, 5, 6))}, r"shape \(1, 5, 6\), and tests/linear takes \(1, 6, 6\)"),
        ({"train": fits.dataset(classes=4)}, "tests/linear has no class 'd' of rows"),
        ({"train": _data(classes=("b", "a", "other"))}, "tests/linear has no class 'other' of rows"),
        ({"validation": fits.dataset(classes=4)}, "tests/linear has no class 'd' of rows"),
        ({"validation": None, "settings": FitSettings(select="accuracy")}, "need validation data"),
        ({"settings": FitSettings(tensorboard=True)}, "needs a folder"),
        ({"defense": parse("adversarial:eps=8")}, r"eps=8 is more than the range \[0, 1\] .*did you mean 8/255"),
        ({"defense": parse("plain + stable_neurons:eps=4")}, "did you mean 4/255"),
        ({"defense": parse("distillation"), "settings": FitSettings(robust_eps=2)}, "did you mean 2/255"),
        ({"device": "cuda:99"}, "cuda device"),
        ({"device": "gpu"}, "device must be cpu, cuda"),
        ({"device": "meta"}, "device must be cpu, cuda"),
        ({"classifier": Classifier(nn.Flatten(), classes=3)}, "no weights that require a gradient"),
        ({"classifier": Classifier(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)))}, "cannot take samples of shape"),
        ({"classifier": Classifier(nn.Sequential(nn.Flatten(), nn.Linear(36, 5)))}, "gives 5 logits for 3 classes"),
        (
            {"classifier": Classifier(nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Softmax(1)))},
            "returns probabilities",
        ),
        ({"classifier": Classifier(nn.Linear(36, 3), bounds=(-2, 2), classes=3)}, r"within \(-2.0, 2.0\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    call = {"classifier": fits.classifier("linear"), "defense": Plain(), "train": GOOD, "validation": GOOD, **changes}
    with pytest.raises(UsageError, match=words):
        fit(**call)


@pytest.mark.parametrize("names", ["cab", "abc"])
def test_classes_in_another_order_are_trained_by_name(names: str) -> None:
    order = torch.tensor(["abc".index(name) for name in names])
    other = _data(classes=tuple(names), labels=order.argsort()[GOOD.labels])  # each sample keeps its name
    settings = FitSettings(epochs=1, select="accuracy")
    found, right = (
        fit(fits.classifier("linear"), Plain(), data, data, settings=settings, seed=1) for data in (other, GOOD)
    )
    same = zip(found.classifier.parameters(), right.classifier.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert found.history == right.history
    assert found.classifier.classes == ("a", "b", "c")


def test_a_part_of_the_classes_is_trained_among_all() -> None:
    part = GOOD.select(GOOD.labels != 1)
    named = dataclasses.replace(part, classes=("c", "a"), labels=(part.labels == 0).long())
    settings = FitSettings(epochs=1)
    found, right = (fit(fits.classifier("linear"), Plain(), data, settings=settings) for data in (named, part))
    same = zip(found.classifier.parameters(), right.classifier.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_augmentation_of_features_is_refused() -> None:
    data = Dataset(torch.rand(6, 4), torch.arange(6) % 2, ("a", "b"), tuple("uvwxyz"))
    model = models.build("mlp", (4,), 2, hidden=[3])
    assert fit(model, Plain(), data, settings=FitSettings(epochs=1)).epochs_done == 1
    with pytest.raises(UsageError, match="augment='flip' is for images"):
        fit(model, Plain(), data, settings=FitSettings(epochs=1, augment="flip"))


def test_cuda_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="device cuda was asked for, but 0 cuda device"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"clip": -1.0}, "clip must be positive"),
        ({"momentum": 1.0}, "momentum must be within"),
        ({"warmup": -0.1}, "warmup must be within"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"augment": "crop"}, "there is no augment 'crop'"),
        ({"precision": "float16"}, "there is no precision 'float16'"),
        ({"select": "best"}, "there is no select 'best'"),
        ({"select": "robust"}, "needs robust_eps"),
        ({"robust_norm": "l0", "robust_eps": 1.0}, "there is no robust_norm 'l0'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        FitSettings(**settings)
