import numpy as np
import pytest

from steadygrad import data
from steadygrad.errors import Failure, UsageError


@pytest.fixture
def hub(monkeypatch, make_png):
    """A Hub of one repository in memory; returns the calls it got."""
    import datasets

    calls: list[tuple[str, str | None, str]] = []

    def load_dataset(repository, config=None, *, split):
        calls.append((repository, config, split))
        if split != "test":
            raise ValueError(f"Unknown split \"{split}\". Should be one of ['test'].")
        features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        images = [{"bytes": make_png(i, 6, 5)[1], "path": None} for i in range(3)]
        return datasets.Dataset.from_dict({"img": images, "label": [1, 0, 1]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.delenv("STEADYGRAD_DATA", raising=False)
    return calls


def answer(monkeypatch, result):
    import datasets

    def load_dataset(*_, **__):
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.delenv("STEADYGRAD_DATA", raising=False)


def test_by_repository(hub, make_png):
    pets = data.load("hub:me/pets", "test")
    assert hub == [("me/pets", None, "test")]
    assert (pets.name, pets.classes, pets.labels.tolist()) == ("me/pets", ("cat", "dog"), [1, 0, 1])
    assert pets.ids[2] == "me/pets/test/00002"
    assert np.array_equal(pets.images[2, 0].numpy(), make_png(2, 6, 5)[0])
    assert data.load("hub:me/pets:small", "test", size=3, color="rgb").shape == (3, 3, 3)
    assert hub[-1] == ("me/pets", "small", "test")


@pytest.mark.parametrize("row", [row for row in data.DATASETS if row.hub], ids=lambda row: row.name)
def test_known_names_go_to_their_repository(hub, row):
    assert data.load(row.name, "test").ids[0] == f"{row.name}/test/00000"
    assert hub == [(row.hub, row.config, "test")]


def test_missing_split(hub):
    with pytest.raises(UsageError, match=r"me/pets has no split 'train'.*Should be one of \['test'\]"):
        data.load("hub:me/pets")


def test_no_network_says_what_to_do(monkeypatch):
    answer(monkeypatch, ConnectionError("Couldn't reach the Hub"))
    with pytest.raises(Failure, match=r"cannot get ylecun/mnist.*reach.*\$STEADYGRAD_DATA/mnist/data/"):
        data.load("mnist")


def test_other_hub_errors(monkeypatch):
    answer(monkeypatch, ValueError("Config name is missing. Please pick one among: ['a', 'b']"))
    with pytest.raises(UsageError, match=r"needs a configuration, hub:me/pets:CONFIG.*'a', 'b'"):
        data.load("hub:me/pets")
    answer(monkeypatch, ValueError("something else"))
    with pytest.raises(Failure, match="cannot read me/pets from the Hub: something else"):
        data.load("hub:me/pets")


def test_bad_tables(monkeypatch, make_png):
    from datasets import Dataset, Features, Image, Value

    features = Features({"image": Image(), "label": Value("int64")})

    def table(images, labels, features=features):
        return Dataset.from_dict({"image": images, "label": labels}, features=features)

    good = {"bytes": make_png(0, 6, 5)[1], "path": None}
    answer(monkeypatch, table([good, good], [0, -1]))
    with pytest.raises(UsageError, match=r"-1 at 'me/pets/train/00001' \(-1 marks unlabeled"):
        data.load("hub:me/pets")
    answer(monkeypatch, table([good, good], [0, None]))
    with pytest.raises(UsageError, match=r"column 'label' of me/pets .train. must hold integer labels, got None"):
        data.load("hub:me/pets")
    answer(monkeypatch, table([good, good], ["a", "b"], Features({"image": Image(), "label": Value("string")})))
    with pytest.raises(UsageError, match=r"column 'label' of me/pets .train. must hold integer labels, got 'a'"):
        data.load("hub:me/pets")
    answer(monkeypatch, table([good, {"bytes": good["bytes"][:40], "path": None}], [0, 1]))
    with pytest.raises(Failure, match=r"image in row 1 of me/pets \(train\) is not a readable image"):
        data.load("hub:me/pets")
    answer(monkeypatch, table([good, None], [0, 1]))
    with pytest.raises(Failure, match=r"image in row 1 of me/pets \(train\) is empty"):
        data.load("hub:me/pets")
    answer(monkeypatch, table([], []))
    with pytest.raises(UsageError, match="split 'train' of me/pets is empty"):
        data.load("hub:me/pets")
    answer(monkeypatch, Dataset.from_dict({"photo": [1], "label": [0]}))
    with pytest.raises(UsageError, match=r"the data set me/pets .train. has no image column.*found: photo, label"):
        data.load("hub:me/pets")


def test_files_of_the_cache_are_read(monkeypatch, tmp_path, make_png):
    from datasets import ClassLabel, Dataset, Features, Image

    paths = []
    for i in range(2):
        paths.append(str(tmp_path / f"{i}.png"))
        (tmp_path / f"{i}.png").write_bytes(make_png(i, 6, 5)[1])
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    answer(monkeypatch, Dataset.from_dict({"image": paths, "label": [0, 1]}, features=features))
    assert np.array_equal(data.load("hub:me/pets").images[1, 0].numpy(), make_png(1, 6, 5)[0])
