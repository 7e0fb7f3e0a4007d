"""Models whose classes are not those of the data in number and order: matched by name, or refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steadygrad as sg
from cli.commands import call
from steadygrad.attacks import FGSM, PGD
from steadygrad.audit.audited_models import agreeing
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.models.class_names import match_classes, read_class_names

PETS = ("cat", "dog", "golden retriever", "rabbit", "tabby cat")
QUICK: dict[str, Any] = {"attacks": [FGSM()], "checked": 4, "mapped": 4, "gallery": 3, "attributions": "saliency"}


class Levels(nn.Module):
    """Logits that are largest for the output whose level is nearest to the mean of the input, but for some noise."""

    def __init__(self, levels: list[float]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))

    def forward(self, x: Tensor) -> Tensor:
        return -10 * (x.flatten(1).mean(1, keepdim=True) - self.levels).square()


def images(names: tuple[str, ...], levels: list[float], each: int = 6) -> Dataset:
    """Gray images of the level of their class; every sixth one is a step off."""
    labels = torch.arange(each * len(names)) % len(names)
    values = torch.tensor(levels)[labels]
    values = values + torch.where(torch.arange(len(labels)) % 6 == 5, 0.2 * (0.5 - values).sign(), 0.0)
    noise = torch.rand(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.01
    pixels = (values[:, None, None, None] + noise).clamp(0, 1)
    return Dataset(pixels, labels, names, tuple(f"{i}" for i in range(len(labels))), name="pets")


def levels_of(count: int) -> list[float]:
    return [(i + 0.5) / count for i in range(count)]


def by_hand(model: Classifier, data: Dataset, names: tuple[str, ...]) -> float:
    """Clean accuracy by a plain loop that compares names; `names` are the model's words for the data's classes."""
    right = 0
    for i in range(len(data)):
        x, y = data.batch([i])
        right += model.classes[int(model(x).argmax())] == names[int(y)]
    return right / len(data)


def audited(model: nn.Module, data: Dataset, **settings: Any) -> dict[str, Any]:
    return sg.audit(model, data, sg.linf(0.05), **{**QUICK, **settings}).summary


# What matches: the data's names, and the model's words for them where they differ

MATCHED: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "the same": (PETS, None),
    "another order": (PETS[::-1], None),
    "two swapped": (("dog", "cat", *PETS[2:]), None),
    "two of five": (("dog", "cat"), None),
    "capital letters": (("Dog", "CAT"), ("dog", "cat")),
    "underscores": (("golden_retriever", "tabby_cat", "dog"), ("golden retriever", "tabby cat", "dog")),
    "hyphens and no spaces": (("Golden-Retriever", "TabbyCat"), ("golden retriever", "tabby cat")),
    "spaces around": ((" dog ", "rabbit"), ("dog", "rabbit")),
}


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("kind", MATCHED)
def test_names_are_matched(kind: str, only: bool) -> None:
    names, words = MATCHED[kind]
    words = words or names
    model = Classifier(Levels(levels_of(5)), classes=PETS)
    data = images(names, [levels_of(5)[PETS.index(word)] for word in words], each=7)
    fitted = agreeing(model, data, sg.linf(0.05), of_data_only=only)
    table = sg.evaluate(fitted.model, data.relabeled(range(len(names)), fitted.classes), FGSM(), sg.linf(0.05))
    clean = float((table["clean_prediction"] == table["label"]).mean())
    if only:
        places = [PETS.index(word) for word in words]
        right = [int(model(data.batch([i])[0])[0, places].argmax()) == int(data.labels[i]) for i in range(len(data))]
        assert clean == pytest.approx(sum(right) / len(right))
    else:
        assert clean == pytest.approx(by_hand(model, data, words))
        assert 0.5 < clean < 1
    assert bool(fitted.notes) == (kind != "the same")


def test_synonyms_and_numbers_are_matched() -> None:
    assert match_classes(["tench, Tinca tinca", "goldfish, Carassius auratus"], 2, ["goldfish", "tench"]).positions == (
        1,
        0,
    )
    numbers = [str(i) for i in range(12)]
    assert match_classes(numbers, 12, sorted(numbers)).positions == tuple(int(name) for name in sorted(numbers))
    assert match_classes(numbers, 12, ["07", "03"]).positions == (7, 3)
    assert match_classes([*numbers[:10], "a", "b"], 12, numbers[:10]).positions == tuple(range(10))


@pytest.mark.parametrize("model", [None, ["0", "1", "2"], ["a", "b", "c"]])
def test_without_names_on_one_side_equal_counts_are_matched_by_position(model: list[str] | None) -> None:
    data = ["0", "1", "2"] if model == ["a", "b", "c"] else ["x", "y", "z"]
    found = match_classes(model, 3, data)
    assert (found.positions, found.how, found.text) == ((0, 1, 2), "by position", "")


def test_folders_in_the_order_of_text_are_doubted_where_the_model_has_no_names() -> None:
    found = match_classes(None, 4, ["1", "10", "2", "3"])
    assert found.how == "by position"
    assert "1, 10, 2, 3" in found.text


REFUSED: dict[str, tuple[list[str] | None, int, list[str], str]] = {
    "other names": (["cat", "dog"], 2, ["car", "dog"], "no class 'car' \\(near: 'cat'\\) of the data"),
    "all others": (["cat", "dog"], 2, ["ship", "lorry"], "no class 'ship', 'lorry' of the data"),
    "more than the model has": (["cat", "dog"], 2, ["cat", "dog", "cow"], "no class 'cow'"),
    "an unknown number of outputs": (None, 1000, ["cat", "dog"], "has 1000 classes, .* has 2.*--classes FILE"),
    "numbered outputs": ([str(i) for i in range(1000)], 1000, ["cat", "dog"], "which of its outputs are meant"),
    "numbers on both sides": ([str(i) for i in range(30)], 30, ["0", "1"], "give the data classes=30"),
    "named outputs and numbers": (["cat", "dog", "cow"], 3, ["0", "1"], "name the classes of the data"),
    "fewer outputs": (None, 2, ["a", "b", "c"], "has 2 classes, the data has 3"),
    "a name twice": (["crane", "crane", "cow"], 3, ["crane", "cow"], "'crane' of the data may be any of its outputs 0"),
    "two spellings": (["Cat", "dog"], 2, ["c_at", "cat"], "'c_at' and 'cat' of the data are both 'Cat'"),
    "a shared synonym": (
        ["crane, bird", "crane, machine"],
        2,
        ["crane", "bird"],
        "'crane' and 'bird' of the data are both",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_names_that_do_not_match_are_refused(kind: str) -> None:
    model, outputs, data, words = REFUSED[kind]
    with pytest.raises(UsageError, match=words):
        match_classes(model, outputs, data)


# Everything that judges goes by the same rule

SHUFFLED = ("rabbit", "cat", "tabby cat", "golden retriever", "dog")


def _pair() -> tuple[Classifier, Dataset, Dataset]:
    """A model, data in another order of classes, and the same data in the order of the model."""
    model = Classifier(Levels(levels_of(5)), classes=PETS)
    data = images(SHUFFLED, [levels_of(5)[PETS.index(name)] for name in SHUFFLED])
    places = torch.tensor([PETS.index(name) for name in SHUFFLED])
    return model, data, dataclasses.replace(data, labels=places[data.labels], classes=PETS)


def test_evaluate_and_validity_go_by_name() -> None:
    model, data, same = _pair()
    found, right = (sg.evaluate(model, part, PGD(steps=3), sg.linf(0.05)).frame for part in (data, same))
    assert found["label"].tolist() == data.labels.tolist()
    names = [[SHUFFLED, PETS][k] for k in (0, 1)]
    for column in ("label", "clean_prediction", "prediction"):
        mine, theirs = ([n[i] for i in frame[column]] for n, frame in zip(names, (found, right), strict=True))
        assert mine == theirs
    assert found["success"].tolist() == right["success"].tolist()
    assert found["distance"].tolist() == pytest.approx(right["distance"].tolist())
    verdicts = [sg.validity(model, part, FGSM(), sg.linf(0.05), count=8) for part in (data, same)]
    # What is planted is random in each logit, so that it follows their order.
    checks, sames = ([c for c in v.checks if c.name != "finds a planted point"] for v in verdicts)
    assert checks == sames


@pytest.mark.slow
def test_names_are_right_in_the_gallery_and_under_transfer() -> None:
    model, data, same = _pair()
    turned = Classifier(Levels(levels_of(5)[::-1]), classes=PETS[::-1], name="turned")
    found, right = (audited([model, turned], part) for part in (data, same))
    for name in ("Levels", "turned"):
        mine, theirs = ({row["id"]: row for row in run["gallery"]["models"][name]} for run in (found, right))
        for place in set(mine) & set(theirs):
            for column in ("label", "clean_prediction", "adversarial_prediction"):
                assert mine[place][column] == theirs[place][column]
    values = [[[cell["value"] for cell in row] for row in run["transfer"]["accuracy"]] for run in (found, right)]
    assert values[0] == values[1]
    assert values[0][0] == values[0][1]  # the two models are one function
    assert found["gallery"]["grid"]["classes"] == list(SHUFFLED)
    order = [SHUFFLED.index(name) for name in PETS]
    grid = np.array(found["gallery"]["grid"]["success"], dtype=object)[np.ix_(order, order)]
    assert grid.tolist() == right["gallery"]["grid"]["success"]


@pytest.mark.parametrize("only", [False, True])
def test_checks_know_among_how_many_classes_is_judged(only: bool) -> None:
    names = tuple(f"n{i:03}" for i in range(50))
    model = Classifier(Levels(levels_of(50)), classes=names)
    data = images(("n007", "n033"), [levels_of(50)[7], levels_of(50)[33]], each=10)
    summary = audited(model, data, classes_of_data_only=only)
    [entry] = summary["models"]
    check = next(c for c in entry["verdict"]["checks"] if c["name"] == "unbounded attack wins")
    assert check["limit"] == f"at most chance ({50.0 if only else 2.0} %)"
    assert summary["data"]["classes"][:2] == ["n007", "n033"]
    assert len(summary["data"]["classes"]) == (2 if only else 50)
    assert ("among these 2" if only else "among all 50") in entry["findings"][0]["text"]


def test_models_of_other_classes_are_compared_among_those_of_the_data_only() -> None:
    data = images(("dog", "rabbit"), [0.3, 0.7], each=10)
    many = Classifier(Levels(levels_of(5)), classes=PETS, name="many")
    few = Classifier(Levels([0.7, 0.3]), classes=("rabbit", "dog"), name="few")
    with pytest.raises(UsageError, match=r"many and few have 5 and 2 classes.*--classes-of-data-only"):
        audited([many, few], data)
    summary = audited([many, few], data, classes_of_data_only=True)
    values = [model["clean"]["value"] for model in summary["models"]]
    assert values == pytest.approx([by_hand(few, data, data.classes)] * 2)
    assert by_hand(many, data, data.classes) != values[0]


def test_labels_are_those_of_the_folder_of_corrupted_images(tmp_path: Path) -> None:
    model, data, same = _pair()
    for name, part in (("data", data), ("same", same)):
        folder = tmp_path / name
        folder.mkdir()
        pixels = np.tile((part.tensors()[0].permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8), (5, 1, 1, 1))
        np.save(folder / "fog.npy", pixels)
        np.save(folder / "labels.npy", np.tile(part.labels.numpy(), 5))
    mine, theirs = (
        audited(model, part, corruptions=str(tmp_path / name))["models"][0]["corruptions"]
        for name, part in (("data", data), ("same", same))
    )
    assert mine == theirs
    assert mine["mean_error"] < 0.5


@pytest.mark.slow
def test_hardening_goes_by_name() -> None:
    model, data, same = _pair()
    settings = sg.FitSettings(epochs=1, lr=1e-3)
    runs = []
    for part in (data, same):
        train, test = part.select(slice(0, 20)), part.select(slice(20, None))
        found = sg.harden(model, train, sg.defenses.Plain(), sg.linf(0.05), test=test, settings=settings, **QUICK)
        runs.append((found.comparison.plain(), found.classifier.state_dict()["module.levels"].tolist()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("wrapper", ["subclass", "parallel"])
def test_wrapped_classifiers_keep_their_names(wrapper: str) -> None:
    class Doubled(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    _, data, _ = _pair()
    kind = Doubled if wrapper == "subclass" else Classifier
    inner = kind(Levels(levels_of(5)), classes=PETS, mean=0.5, std=0.25)
    with torch.no_grad():
        inner.module.levels.sub_(0.5).div_(0.25)
    model = inner if wrapper == "subclass" else nn.DataParallel(inner)
    [entry] = audited(model, data)["models"]
    assert entry["clean"]["value"] == pytest.approx(by_hand(inner, data, data.classes))


def test_certified_bounds_read_the_chosen_outputs() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
    model = Classifier(net, classes=PETS).choosing([3, 1], ["rabbit", "dog"])
    from steadygrad.bounds.certified.tracing import trace

    x = torch.rand(4, 1, 4, 4)
    assert torch.allclose(trace(model, x)(x.double()).float(), net(x)[:, [3, 1]], atol=1e-5)


def test_chosen_outputs_are_not_saved(tmp_path: Path) -> None:
    model = Classifier(Levels(levels_of(5)), classes=PETS).choosing([3, 1], ["rabbit", "dog"])
    assert model.choosing([1], ["dog"])(torch.full((1, 1, 2, 2), 0.3)).shape == (1, 1)
    with pytest.raises(UsageError, match="some outputs of its module"):
        model.save(tmp_path / "a.safetensors")


# The command line

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, count=5):
        super().__init__()
        self.levels = nn.Parameter((torch.arange(count) + 0.5) / count)
    def forward(self, x):
        return -10 * (x.flatten(1).mean(1, keepdim=True) - self.levels).square()

def make(): return Net()
def wrong(): return Net(7)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    for name in ("Dog", "cat"):
        for split in ("train", "test"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(6):
                level = 255 * levels_of(5)[PETS.index(name.lower())] + (30 * (i % 3))
                pixels = np.full((4, 4), round(level), np.uint8)
                pixels[0, 0] = 10 * i + (split == "test")
                Image.fromarray(pixels).save(tmp_path / "pets" / split / name / f"{i}.png")
    (tmp_path / "class_names_net.py").write_text(NET)
    (tmp_path / "names.txt").write_text("\n".join(PETS))
    (tmp_path / "names.json").write_text(json.dumps({"id2label": dict(enumerate(PETS))}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ("--data", "./pets", "--attack", "fgsm", "--eps", "0.05", "--checked", "4", "--gallery", "0", "--json")


@pytest.mark.slow
@pytest.mark.parametrize("names", ["names.txt", "names.json"])
def test_the_audit_takes_the_names_of_a_plain_module_from_a_file(folder: Path, names: str) -> None:
    done = call("audit", "class_names_net:make", "--classes", names, *COMMAND)
    assert done.code == 0, done.err
    entry = json.loads(done.out)["models"][0]
    data = sg.data.load(folder / "pets", "test")
    model = Classifier(Levels(levels_of(5)), classes=PETS)
    assert entry["clean"]["value"] == pytest.approx(by_hand(model, data, ("dog", "cat")))


def test_a_plain_module_with_more_outputs_is_refused_with_the_way_out(folder: Path) -> None:
    done = call("audit", "class_names_net:make", *COMMAND)
    assert done.code == 2
    assert "5 logits for 2 classes" in done.err
    assert "--classes FILE" in done.err
    done = call("audit", "class_names_net:wrong", "--classes", "names.txt", *COMMAND)
    assert done.code == 2
    assert "7 logits for 5 classes" in done.err
    with pytest.raises(UsageError, match=r"5 classes, pets has 2.*sg.Classifier"):
        sg.evaluate(Levels(levels_of(5)), sg.data.load(folder / "pets", "test"), FGSM(), sg.linf(0.05))


@pytest.mark.slow
def test_the_hardening_takes_them_too(folder: Path) -> None:
    done = call(
        "harden", "class_names_net:make", "--classes", "names.txt", "--defense", "plain", "--epochs", "1", *COMMAND
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", None, "cannot read the class names"),
        ("a.txt", "one\n", "at least two"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"0": "a", "2": "b"}', "positions 0, 1, 2"),
        ("a.json", "3", "at least two"),
    ],
)
def test_files_of_names_that_are_none(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        read_class_names(tmp_path / name)


def test_keras_writes_synonyms(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}')
    assert match_classes(read_class_names(tmp_path / "a.json"), 2, ["n01443537", "n01440764"]).positions == (1, 0)
