"""Inputs that are not within [0, 1], or are no images: taken in their own range, or refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from steadygrad.attacks import FGSM, PGD
from steadygrad.audit.audited_models import agreeing
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError

QUICK: dict[str, Any] = {"attacks": [FGSM()], "checked": 4, "mapped": 4}


def linear(entries: int, classes: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(entries, classes)).eval()


def samples(shape: tuple[int, ...], bounds: tuple[float, float], count: int = 24, **more: Any) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    x = bounds[0] + (bounds[1] - bounds[0]) * torch.rand(count, *shape, generator=generator)
    labels = torch.arange(count) % 3
    return Dataset(x.clamp(*bounds), labels, ("a", "b", "c"), tuple(map(str, range(count))), bounds=bounds, **more)


def labeled_by(model: nn.Module, data: Dataset) -> Dataset:
    """The data with the model's own predictions as labels, but for every fourth sample."""
    with torch.no_grad():
        labels = model(data.tensors()[0]).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    return dataclasses.replace(data, labels=labels)


def attacked_by_hand(model: nn.Module, data: Dataset, eps: float) -> list[bool]:
    """Which samples of a linear model fall to the best change of linf norm eps within the bounds: exact, by a loop."""
    weight, (low, high) = model[1].weight.detach().double(), data.bounds
    fallen = []
    for i in range(len(data)):
        x, y = data.batch([i])
        flat, label = x.flatten().double(), int(y)
        logits = weight @ flat + model[1].bias.detach().double()
        wins = []
        for other in range(3):
            way = weight[other] - weight[label]
            best = torch.where(way > 0, (flat + eps).clamp_max(high), (flat - eps).clamp_min(low)) - flat
            wins.append(other != label and float(logits[other] - logits[label] + way @ best) > 0)
        fallen.append(any(wins) or int(logits.argmax()) != label)
    return fallen


# Any range and any rank: the attack that is exact for linear models finds what a loop finds

RANGES: dict[str, tuple[tuple[int, ...], tuple[float, float], float]] = {
    "gray images": ((1, 4, 4), (0, 1), 0.05),
    "images in [-1, 1]": ((3, 4, 4), (-1, 1), 0.05),
    "images to 255": ((1, 4, 4), (0, 255), 8.0),
    "a standardized table": ((6,), (-3.5, 4.25), 0.2),
    "a table above zero": ((6,), (10, 250), 6.0),
    "a signal": ((2, 16), (-1, 1), 0.05),
    "a signal of one channel": ((1, 32), (-1, 1), 0.05),
    "a volume": ((1, 3, 4, 4), (0, 1), 0.02),
    "a volume of numbers": ((2, 3, 4, 4), (-1000, 3000), 40.0),
    "five axes": ((2, 2, 2, 2, 2), (-1, 1), 0.05),
}


@pytest.mark.parametrize("kind", RANGES)
def test_any_range_and_rank_is_attacked(kind: str) -> None:
    shape, bounds, eps = RANGES[kind]
    model = linear(int(np.prod(shape)))
    with torch.no_grad():
        model[1].weight.div_(bounds[1] - bounds[0])
    data = labeled_by(model, samples(shape, bounds))
    table = sg.evaluate(model, data, PGD(steps=10, loss="margin"), sg.linf(eps, bounds=bounds), seed=1)
    assert table["success"].tolist() == attacked_by_hand(model, data, eps)
    assert 0 < table["success"].mean() < 1


# A classifier and data of other ranges


@pytest.mark.parametrize("theirs", [(0, 255), (-1, 1), (-0.5, 0.5), (0, 1)])
@pytest.mark.parametrize("mine", [(0, 1), (0, 255), (-1, 1)])
def test_pixels_are_scaled_between_the_usual_ranges(mine: tuple[float, float], theirs: tuple[float, float]) -> None:
    plain = linear(16)
    low, high = theirs
    model = Classifier(plain, mean=low + 0.4 * (high - low), std=0.2 * (high - low), bounds=theirs)
    unit = labeled_by(model.rescaled((0, 1)), samples((1, 4, 4), (0, 1)))
    data = unit.within(mine)
    eps = 0.05 * (mine[1] - mine[0])
    table = sg.evaluate(model, data, PGD(steps=5), sg.linf(eps, bounds=mine))
    for i in range(len(data)):
        x = (unit.batch([i])[0] - 0.4) / 0.2
        assert int(plain(x).argmax()) == table["clean_prediction"][i]
    right = sg.evaluate(model.rescaled((0, 1)), unit, PGD(steps=5), sg.linf(0.05))
    assert table["success"].tolist() == right["success"].tolist()
    told = agreeing(model, data, sg.linf(eps, bounds=mine)).notes
    assert [note.about for note in told] == ([] if tuple(map(float, mine)) == tuple(map(float, theirs)) else ["bounds"])


def test_the_scaling_is_told_in_the_summary() -> None:
    model = Classifier(linear(16), mean=127.5, std=50.0, bounds=(0, 255), name="old")
    data = labeled_by(model.rescaled((0, 1)), samples((1, 4, 4), (0, 1)))
    [entry] = sg.audit(model, data, sg.linf(0.05), **QUICK).summary["models"]
    assert entry["clean"]["value"] == pytest.approx(0.75)
    [found] = entry["findings"]
    assert "within [0, 255]" in found["text"]
    assert "within [0, 1]" in found["text"]


REFUSED: dict[str, tuple[tuple[int, ...], tuple[float, float], tuple[float, float]]] = {
    "images of no usual range": ((1, 4, 4), (0, 1), (-2, 2)),
    "images of depth": ((1, 4, 4), (0, 4095), (0, 1)),
    "tables": ((16,), (-3, 3), (0, 1)),
    "signals": ((2, 8), (-1, 1), (0, 1)),
    "volumes": ((1, 2, 2, 4), (0, 1), (0, 255)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_ranges_are_refused(kind: str) -> None:
    shape, mine, theirs = REFUSED[kind]
    model, data = Classifier(linear(16), bounds=theirs, name="net"), samples(shape, mine)
    words = r"net takes inputs within .*, and arrays lies within .*--bounds low,high"
    with pytest.raises(UsageError, match=words):
        sg.evaluate(model, data, FGSM(), sg.linf(0.01, bounds=mine))
    with pytest.raises(UsageError, match=words):
        sg.fit(model, sg.defenses.Plain(), data)


def test_a_threat_of_another_range_is_refused() -> None:
    model, data, plain = linear(16), samples((16,), (-1, 1)), sg.defenses.Plain()
    train, test = data.select(slice(0, 12)), data.select(slice(12, 24))
    for call in (
        lambda threat: sg.evaluate(model, data, FGSM(), threat),
        lambda threat: sg.audit(model, data, threat, **QUICK),
        lambda threat: sg.validity(model, data, FGSM(), threat),
        lambda threat: sg.harden(model, train, plain, threat, test=test),
    ):
        with pytest.raises(UsageError, match=r"threat has the bounds \(0.0, 1.0\).*linf\(eps, bounds=\(-1.0, 1.0\)\)"):
            call(sg.linf(0.05))


def test_training_scales_too_and_gives_a_model_in_the_units_of_the_data() -> None:
    settings = sg.FitSettings(epochs=2, batch_size=8)
    data = samples((1, 4, 4), (0, 1))
    found = sg.fit(
        Classifier(linear(16), mean=100.0, std=60.0, bounds=(0, 255)), sg.defenses.Plain(), data, settings=settings
    )
    right = sg.fit(Classifier(linear(16), mean=100 / 255, std=60 / 255), sg.defenses.Plain(), data, settings=settings)
    assert found.classifier.bounds == (0, 1)
    for a, b in zip(found.classifier.parameters(), right.classifier.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_class_of_its_own_is_scaled_around() -> None:
    class Doubled(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = Doubled(linear(16), mean=127.5, std=50.0, bounds=(0, 255))
    x = torch.rand(5, 1, 4, 4)
    assert torch.allclose(model.rescaled((0, 1))(x), model(255 * x), atol=1e-5)


# Where the data come from


def test_floats_outside_of_the_range_are_told_how_to_state_it() -> None:
    rows = np.linspace(-2, 2, 24).reshape(6, 4).astype("float32")
    with pytest.raises(UsageError, match=r"within \[0, 1\], got \[-2, 2\].*bounds=\(low, high\)") as found:
        sg.data.from_arrays(rows, np.arange(6) % 2)
    assert "pixels" not in str(found.value)
    with pytest.raises(UsageError, match=r"within \[-1, 1\], got \[-2, 2\]"):
        sg.data.from_arrays(rows, np.arange(6) % 2, bounds=(-1, 1))
    assert sg.data.from_arrays(rows, np.arange(6) % 2, bounds=(-2, 2)).bounds == (-2, 2)
    images = rows.reshape(6, 1, 2, 2)
    with pytest.raises(UsageError, match="did you normalize them"):
        sg.data.from_arrays(images, np.arange(6) % 2)


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), (0, float("inf")), (0, 1, 2), 3, "01", (None, 1)])
def test_bounds_that_are_none(bounds: Any) -> None:
    with pytest.raises(UsageError, match=r"bounds(\[0\])? must be"):
        sg.data.from_arrays(np.zeros((4, 3), "float32"), np.arange(4) % 2, bounds=bounds)


@pytest.mark.parametrize("bounds", [(0, 1), (0, 255), (-1, 1)])
def test_bytes_stand_for_the_bounds(bounds: tuple[float, float]) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    data = sg.data.from_arrays(pixels, np.arange(4) % 2, bounds=bounds)
    x = data.tensors()[0].flatten()
    expected = bounds[0] + torch.arange(256, dtype=torch.float64) / 255 * (bounds[1] - bounds[0])
    assert torch.allclose(x.double(), expected, atol=1e-4 if bounds[1] == 255 else 1e-7)
    assert (x.min(), x.max()) == bounds


SHAPES = {
    "two channels of 64": ((6, 2, 64), "float32", (2, 64)),
    "twelve leads": ((6, 12, 100), "float32", (12, 100)),
    "a photo": ((6, 28, 28), "float32", (1, 28, 28)),
    "a wide photo": ((6, 8, 32), "float32", (1, 8, 32)),
    "a narrow photo of bytes": ((6, 2, 64), "uint8", (1, 2, 64)),
    "a volume": ((6, 1, 4, 5, 6), "float32", (1, 4, 5, 6)),
    "features": ((6, 7), "float32", (7,)),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_are_taken_as_what_they_are(kind: str) -> None:
    given, dtype, shape = SHAPES[kind]
    assert sg.data.from_arrays(np.zeros(given, dtype), np.arange(6) % 2).shape == shape


def test_an_npz_file_says_its_range(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (20, 2, 16)).astype("float32")
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2, bounds=np.array([-1.0, 1.0]))
    np.savez(tmp_path / "b.npz", x=x, y=np.arange(20) % 2)
    assert sg.data.load(tmp_path / "a.npz", "all").bounds == (-1, 1)
    assert sg.data.load(tmp_path / "b.npz", "all", bounds=(-2, 2)).bounds == (-2, 2)
    with pytest.raises(UsageError, match="--bounds low,high"):
        sg.data.load(tmp_path / "b.npz", "all")


def test_named_data_and_folders_are_scaled() -> None:
    data, unit = sg.data.load("digits", "test", bounds=(-1, 1)), sg.data.load("digits", "test")
    assert torch.equal(data.tensors()[0], 2 * unit.tensors()[0] - 1)
    assert data.fingerprint != unit.fingerprint
    pixels = sg.data.from_arrays(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), np.arange(4) % 2)
    assert pixels.within((0, 255)).content_keys() != pixels.content_keys()


def test_kept_inputs_say_their_range(tmp_path: Path) -> None:
    data = samples((6,), (-2, 2))
    sg.audit(linear(6), data, sg.linf(0.2, bounds=(-2, 2)), out=tmp_path / "run", keep_inputs=True, **QUICK)
    [file] = (tmp_path / "run" / "inputs").glob("*.npz")
    assert sg.data.load(file, "test").bounds == (-2, 2)


# Tables

TABLE = "age,income,label\n1,0.5,yes\n2,-3,no\n3,4,yes\n2.5,0,no\n1,1,yes\n"


def _csv(folder: Path, text: str = TABLE, name: str = "a.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_table_is_read(tmp_path: Path) -> None:
    data = sg.data.load(_csv(tmp_path), "all")
    assert data.classes == ("no", "yes")
    assert data.labels.tolist() == [1, 0, 1, 0, 1]
    assert data.tensors()[0].tolist() == [[1, 0.5], [2, -3], [3, 4], [2.5, 0], [1, 1]]
    assert data.bounds == (-3, 4)
    assert any("-3 and 4" in note for note in data.notes)
    stated = sg.data.load(tmp_path / "a.csv", "all", bounds=(-10, 10))
    assert stated.bounds == (-10, 10)
    assert not any("bounds" in note for note in stated.notes)


@pytest.mark.parametrize("column", ["Class", "TARGET", "y", "species"])
def test_the_column_of_labels_is_found(tmp_path: Path, column: str) -> None:
    head = f"{column},a,b" if column != "species" else f"a,b,{column}"
    rows = ["2,0.5,1", "10,0,0.5", "2,1,1"] if column != "species" else ["0.5,1,2", "0,0.5,10", "1,1,2"]
    data = sg.data.load(_csv(tmp_path, "\n".join([head, *rows])), "all")
    assert data.classes == ("2", "10")
    assert data.tensors()[0].tolist() == [[0.5, 1], [0, 0.5], [1, 1]]


def test_a_folder_of_tables_has_one_range_and_one_list_of_classes(tmp_path: Path) -> None:
    _csv(tmp_path, "a,b,label\n0,1,x\n1,5,y\n", "train.csv")
    _csv(tmp_path, "a,b,label\n-2,1,z\n1,3,y\n", "test.csv")
    train, test = (sg.data.load(tmp_path, split) for split in ("train", "test"))
    assert train.bounds == test.bounds == (-2, 5)
    assert train.classes == test.classes == ("x", "y", "z")
    assert test.labels.tolist() == [2, 1]


BROKEN = {
    "no header": ("1,2,0\n3,4,1\n", "must name the columns"),
    "a word": ("a,b,label\n1,red,x\n2,3,y\n", "column 'b' .* not of numbers, got 'red'"),
    "a gap": ("a,b,label\n1,,x\n2,3,y\n", "column 'b' .* empty in row 1"),
    "no label": ("a,b,label\n1,2,\n2,3,y\n", "has empty cells"),
    "a regression": ("a,b\n1,2.5\n2,3.5\n", "has fractions"),
    "one column": ("a\n1\n2\n", "at least one of numbers"),
    "one class": ("a,label\n1,x\n2,x\n", "are of class 'x'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_tables_that_are_none(tmp_path: Path, kind: str) -> None:
    text, words = BROKEN[kind]
    with pytest.raises(UsageError, match=words):
        sg.data.load(_csv(tmp_path, text), "all")


# Nothing is drawn of what is no image, and nothing fails


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a signal", "a standardized table", "a volume"])
def test_an_audit_with_its_usual_settings(kind: str, tmp_path: Path) -> None:
    shape, bounds, eps = RANGES[kind]
    model = linear(int(np.prod(shape)))
    data = labeled_by(model, samples(shape, bounds))
    found = sg.audit(model, data, sg.linf(eps, bounds=bounds), checked=6, out=tmp_path / "run").summary
    assert found["models"][0]["robust"]["count"] == len(data)
    page = sg.report.write(tmp_path / "run").read_text(encoding="utf-8")
    assert "are no images" in page


def test_a_table_of_two_columns_has_maps_that_are_compared() -> None:
    a, b = torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    assert sg.attributions.similarity.kendall(a, b).tolist() == [1, -1]


# Radii in other units


@pytest.mark.parametrize(
    ("eps", "bounds", "meant"),
    [(8, (0, 1), "8/255"), (16, (0, 1), "16/255"), (0.6, (0, 1), "0.031"), (4, (-1, 1), "4/255"), (200, (0, 255), "8")],
)
def test_a_radius_of_other_units_is_questioned(eps: float, bounds: tuple[float, float], meant: str) -> None:
    data = samples((1, 4, 4), bounds)
    with pytest.raises(UsageError, match=rf"eps={eps:g} is more than .*range .*did you mean {meant}\?"):
        sg.audit(linear(16), data, sg.linf(eps, bounds=bounds), **QUICK)


def test_other_norms_and_other_ranges_have_other_radii() -> None:
    data = samples((1, 4, 4), (0, 255))
    assert len(sg.evaluate(linear(16), data, FGSM(), sg.linf(8, bounds=(0, 255)))) == 24
    unit = data.within((0, 1))
    assert len(sg.evaluate(linear(16), unit, FGSM(), sg.l2(2))) == 24
    assert len(sg.evaluate(linear(16), unit, FGSM(), sg.linf(1))) == 24
