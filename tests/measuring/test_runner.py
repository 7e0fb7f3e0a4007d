"""The loop over samples and its cache: cut in any way the same, each shard once, nothing left behind."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from steadygrad import randomness
from steadygrad.data import Dataset, from_arrays
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.measure import Batch, Columns, Measure
from steadygrad.measuring.runner import Runner, SavedTables, borrowed
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import Table


@dataclass(frozen=True)
class Noted(Measure):
    """Writes what it was given, so that the runner can be looked at."""

    factor: float = 1.0
    fails: str = ""
    kept: ClassVar[tuple[str, ...]] = ("picture",)
    shard: ClassVar[int] = 4

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        if self.fails:
            raise UsageError(self.fails)
        noise = randomness.uniform(batch.seeds, batch.x)
        columns: dict[str, object] = {
            "sum": self.factor * models[0](batch.x).sum(1).detach(),
            "noise": noise.flatten(1).sum(1),
            "seed": batch.seeds,
            "picture": batch.x,
        }
        if "extra" in batch.given:
            columns["extra"] = batch.of("extra")
        return columns  # type: ignore[return-value]


@dataclass(frozen=True)
class Refusing(Noted):
    may_refuse: ClassVar[bool] = True


class Counted(nn.Module):
    # On the class: what an instance holds is a part of its key.
    seen: ClassVar[int] = 0
    most: ClassVar[int] = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        Counted.seen += len(x)
        if len(x) > Counted.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
        found: Tensor = self.net(x.flatten(1))
        return found


def _data(count: int = 11) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return from_arrays(torch.rand(count, 1, 2, 2, generator=generator), torch.arange(count) % 2, 2)


@pytest.fixture
def model() -> Counted:
    torch.manual_seed(0)
    Counted.seen, Counted.most = 0, 10**9
    return Counted()


def _equal(one: Table, other: Table) -> bool:
    return all(np.allclose(one[n], other[n], atol=1e-6) for n in ("sum", "noise", "seed")) and np.array_equal(
        one["sample"], other["sample"]
    )


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 12), order=st.permutations(range(11)), shard=st.integers(1, 12))
def test_a_result_does_not_depend_on_how_the_samples_are_cut_or_ordered(
    size: int, order: list[int], shard: int
) -> None:
    torch.manual_seed(0)
    model, data = Counted(), _data()
    whole = Runner({"m": model}, data).run(Noted(), "m")

    @dataclass(frozen=True)
    class Cut(Noted):
        pass

    Cut.shard = shard
    runner = Runner({"m": model}, data, batch_size=size)
    runner.seeds = lambda draws_as, ids: Runner({"m": model}, data).seeds(Noted().draws_as, ids)  # type: ignore[method-assign]
    assert _equal(runner.run(Cut(), "m", rows=order).at(data.ids), whole)


def test_rows_of_a_table_are_found_again_in_any_order(model: Counted) -> None:
    runner = Runner({"m": model}, _data())
    runner.run(Noted(), "m", rows=[4, 0, 2, 1])
    seen = Counted.seen
    for rows in ([0, 1], [4], [2, 4, 0]):
        assert runner.run(Noted(), "m", rows=rows)["sample"].tolist() == [_data().ids[i] for i in rows]
    assert Counted.seen == seen


def test_each_shard_is_measured_once_and_a_second_process_measures_nothing(model: Counted, tmp_path: Path) -> None:
    data = _data()
    first = Runner({"m": model}, data, Store(tmp_path))
    table = first.run(Noted(), "m")
    tried = 2  # samples, to see what the model holds
    assert (model.seen, first.store.computed) == (11 + tried, 3)
    second = Runner({"m": model}, data, Store(tmp_path))
    assert _equal(second.run(Noted(), "m"), table)
    assert (model.seen, second.store.computed) == (11 + tried, 0)
    saved = SavedTables(tmp_path, 11).run(Noted(), "m")
    assert _equal(saved, table)
    assert saved.about["seconds"] == table.about["seconds"]


def test_samples_that_are_measured_already_are_taken_from_the_table(model: Counted) -> None:
    runner = Runner({"m": model}, _data())
    whole = runner.run(Noted(), "m")
    some = runner.run(Noted(), "m", rows=[7, 2])
    assert some["sample"].tolist() == [whole["sample"][7], whole["sample"][2]]
    assert model.seen == 11 + 2  # tried, to see what the model holds


@pytest.mark.parametrize("change", ["weights", "settings", "seed", "pixels", "label", "given", "shared", "keep"])
def test_a_shard_follows_everything_that_it_depends_on(change: str, model: Counted, tmp_path: Path) -> None:
    data, measure, seed = _data(), Noted(), 0
    given, shared, keep = {"extra": np.arange(11.0)}, {"center": np.zeros(4)}, [1]
    Runner({"m": model}, data, Store(tmp_path)).run(measure, "m", given=given, shared=shared, keep=keep)
    if change == "weights":
        with torch.no_grad():
            model.net.bias[0] += 1
    elif change == "settings":
        measure = Noted(2.0)
    elif change == "seed":
        seed = 1
    elif change == "pixels":
        x, y = data.tensors()
        x = x.clone()
        x[9] = 0
        data = from_arrays(x, y, 2)
    elif change == "label":
        x, y = data.tensors()
        y = y.clone()
        y[9] = 1 - y[9]
        data = from_arrays(x, y, 2)
    elif change == "given":
        given = {"extra": np.where(np.arange(11) == 9, -1.0, np.arange(11.0))}
    elif change == "shared":
        shared = {"center": np.ones(4)}
    else:
        keep = [9]
    again = Runner({"m": model}, data, Store(tmp_path), seed)
    again.run(measure, "m", given=given, shared=shared, keep=keep)
    expected = {"pixels": 1, "label": 1, "given": 1, "keep": 2}
    assert again.store.computed == expected.get(change, 3)
    # What was measured before the change is gone: the folder holds one table.
    place = place_of("m", measure.title)
    assert len(list((tmp_path / place).glob("*.parquet"))) == 3


def test_large_columns_are_kept_for_the_samples_that_are_named(model: Counted, tmp_path: Path) -> None:
    data = _data()
    table = Runner({"m": model}, data, Store(tmp_path)).run(Noted(), "m", keep=[10, 3])
    kept = SavedTables(tmp_path, 11).run(Noted(), "m").kept("picture")
    assert kept.rows.tolist() == table.kept("picture").rows.tolist() == [3, 10]
    assert np.array_equal(kept.values, data.batch([3, 10])[0].numpy())


def test_a_damaged_shard_is_named_and_measured_again(
    model: Counted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _data()
    table = Runner({"m": model}, data, Store(tmp_path)).run(Noted(), "m")
    file = sorted(tmp_path.rglob("*.parquet"))[1]
    file.write_bytes(file.read_bytes()[:-30])
    again = Runner({"m": model}, data, Store(tmp_path))
    with caplog.at_level(logging.WARNING, "steadygrad"):
        assert _equal(again.run(Noted(), "m"), table)
    assert again.store.computed == 1
    assert str(file) in caplog.text


def test_a_refusal_is_raised_or_written_down(model: Counted, tmp_path: Path) -> None:
    runner = Runner({"m": model}, _data(), Store(tmp_path))
    with pytest.raises(UsageError, match="no layers"):
        runner.run(Noted(fails="no layers"), "m")
    assert runner.run(Refusing(fails="no layers"), "m").refused == "no layers"
    assert SavedTables(tmp_path, 11).run(Refusing(fails="no layers"), "m").refused == "no layers"


def test_out_of_memory_is_tried_again_with_fewer_samples_and_said(
    model: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    data = _data()
    whole = Runner({"m": model}, data).run(Noted(), "m")
    Counted.most = 2
    with caplog.at_level(logging.WARNING, "steadygrad"):
        assert _equal(Runner({"m": model}, data).run(Noted(), "m"), whole)
    assert "again with half of them" in caplog.text
    Counted.most = 0
    with pytest.raises(RuntimeError, match="allocate"):
        Runner({"m": model}, data).run(Noted(), "m")
    Counted.most = 10**9


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="run the same command again"):
        SavedTables(tmp_path, 11).run(Noted(), "m")
    with pytest.raises(UsageError, match="at least one sample"):
        Runner({"m": nn.Linear(4, 2)}, _data()).run(Noted(), "m", rows=[])
    with pytest.raises(UsageError, match="batch_size"):
        Runner({"m": nn.Linear(4, 2)}, _data(), batch_size=0)


def test_names_of_any_kind_make_folders_that_do_not_meet() -> None:
    names = ["a", "A", "a/b", "a b", "../up", "", "ü", "x" * 500, "con", "a\0b"]
    places = [place_of(name, "t") for name in names]
    assert len({place.lower() for place in places}) == len(names)
    for place in places:
        assert ".." not in place
        assert place.count("/") == 1
        assert all(len(part) < 80 for part in place.split("/"))


def test_models_come_back_to_their_device_after_an_error_too() -> None:
    model = nn.Linear(2, 2)

    def stopped() -> None:
        with borrowed([model], None) as where:
            assert where.type == "cpu"
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert model.weight.device.type == "cpu"

    class Spy(nn.Linear):
        def to(self, *args: object, **kwargs: object) -> Spy:
            raise AssertionError("the caller's model was moved")

    with borrowed([Spy(2, 2)], "cpu") as where:
        assert where.type == "cpu"


def test_pieces_of_large_samples_are_small(tmp_path: Path) -> None:
    # Of 3 x 224 x 224 entries a piece has three on a CPU.
    data = Dataset(torch.zeros(11, 3, 224, 224), torch.zeros(11, dtype=torch.int64), ("a", "b"), tuple("abcdefghijk"))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    for shard, pieces in ((None, 4), (11, 1)):
        store = Store(tmp_path / str(shard))
        Runner({"m": model}, data, store, shard=shard).run(Noted(), "m")
        assert store.computed == len(list((tmp_path / str(shard)).rglob("*.parquet"))) == pieces
