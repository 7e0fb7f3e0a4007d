"""The runner: work that is done once, seeds of samples, devices, what may be refused, a lack of memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from steadygrad.attacks import FGSM, PGD
from steadygrad.data import Dataset
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.measure import Batch, Columns, Measure
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.curve import Curve
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Runner, SavedTables, borrowed, device_of
from steadygrad.measuring.store import Store


def _data(count: int = 23) -> Dataset:
    return Dataset(nets.inputs(count), torch.arange(count) % 3, ("a", "b", "c"), tuple(f"s{i}" for i in range(count)))


def _runner(**more: Any) -> Runner:
    return Runner({"m": nets.build(), "n": nets.build(seed=1)}, _data(), **more)


@dataclass(frozen=True)
class Noted(Measure):
    """Writes down what it is given."""

    size: float = 1.0
    refuses: bool = False
    shard: ClassVar[int] = 10
    kept: ClassVar[tuple[str, ...]] = ("input",)
    may_refuse: ClassVar[bool] = True

    @property
    def title(self) -> str:
        return "noted"

    def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
        if self.refuses and "s15" in batch.ids:
            raise UsageError("s15 is too much")
        columns = {"seed": batch.seeds, "count": torch.full((len(batch.x),), len(batch.x)), "input": batch.x}
        given = {f"given {name}": batch.of(name) for name in batch.given}
        return {**columns, **given, "models": [len(models)] * len(batch.x)}


def test_each_shard_is_computed_once_and_kept(tmp_path: Path) -> None:
    first = _runner(store=Store(tmp_path))
    whole = first.run(Noted(), "m")
    assert first.store.computed == 3
    assert len(list(tmp_path.rglob("*.parquet"))) == 3
    assert whole["sample"].tolist() == list(_data().ids)
    assert first.run(Noted(), "m").frame.equals(whole.frame)
    again = _runner(store=Store(tmp_path))
    assert again.run(Noted(), "m").frame.equals(whole.frame)
    assert (first.store.computed, again.store.computed) == (3, 0)


def test_what_a_result_depends_on_names_its_shards(tmp_path: Path) -> None:
    place = tmp_path / "tables"

    def names(measure: Measure = Noted(), model: str = "m", seed: int = 0, **how: Any) -> frozenset[str]:
        runner = _runner(store=Store(place), seed=seed)
        runner.run(measure, model, title="same", **how)
        return frozenset(p.stem for p in place.rglob("*.parquet") if p.parent.parent.name.startswith(model))

    kinds = [
        names(), names(Noted(2.0)), names(seed=1), names(beside=("n",)), names(given={"extra": np.arange(23)}),
        names(given={"extra": np.arange(23) + 1}), names(shared={"center": np.zeros(3)}), names(keep=[3]),
        names(rows=range(9)), names(model="n"), names(Predicted()),
    ]  # fmt: skip
    assert len(set(kinds)) == len(kinds)
    assert names() == kinds[0]


def test_shards_of_an_earlier_state_are_removed(tmp_path: Path) -> None:
    _runner(store=Store(tmp_path)).run(Noted(1.0), "m")
    _runner(store=Store(tmp_path)).run(Noted(2.0), "m")
    assert len(list(tmp_path.rglob("*.parquet"))) == 3
    saved = SavedTables(tmp_path, 23).run(Noted(2.0), "m")
    assert saved["sample"].tolist() == list(_data().ids)


def test_large_columns_are_kept_for_the_samples_that_are_named() -> None:
    runner = _runner()
    kept = runner.run(Noted(), "m", keep=[2, 11, 22]).kept("input")
    assert kept.rows.tolist() == [2, 11, 22]
    assert torch.equal(torch.from_numpy(kept.values), _data().batch([2, 11, 22])[0])
    assert len(runner.run(Noted(2.0), "m").kept("input").rows) == 0
    with pytest.raises(UsageError, match=r"take table\.kept"):
        runner.run(Noted(), "m")["input"]


def test_a_kept_column_survives_the_files(tmp_path: Path) -> None:
    for _ in range(2):
        kept = _runner(store=Store(tmp_path)).run(Noted(), "m", keep=[2, 11, 22]).kept("input")
        assert kept.rows.tolist() == [2, 11, 22]
        assert torch.equal(torch.from_numpy(kept.values), _data().batch([2, 11, 22])[0])


def test_the_seed_of_a_sample_is_its_own() -> None:
    seeds = _runner().run(Noted(), "m")["seed"]
    assert len(set(seeds.tolist())) == 23
    part = _runner(batch_size=3).run(Noted(), "m", rows=[20, 4, 7])["seed"]
    assert part.tolist() == seeds[[20, 4, 7]].tolist()
    assert not np.isin(_runner(seed=1).run(Noted(), "m")["seed"], seeds).any()
    assert not np.isin(_runner().run(Noted(2.0), "m")["seed"], seeds).any()
    # An attack draws the same at every radius and on a curve, whatever is asked of it.
    alike = [Attacked(PGD(), sg.linf(0.1)), Attacked(PGD(), sg.linf(0.2), scale=2.0), Curve(PGD(), sg.linf(), (0.1,))]
    assert len({str(measure.draws_as) for measure in alike}) == 1
    assert alike[0].draws_as != Attacked(FGSM(), sg.linf(0.1)).draws_as


def test_given_columns_follow_their_samples() -> None:
    table = _runner(batch_size=4).run(Noted(), "m", rows=[5, 1, 20], given={"extra": np.array([50, 10, 200])})
    assert table["given extra"].tolist() == [50, 10, 200]
    assert table["sample"].tolist() == ["s5", "s1", "s20"]


def test_models_beside_are_handed_over() -> None:
    assert set(_runner().run(Noted(), "m", beside=("n",))["models"]) == {2}


def test_what_may_be_refused_is_written_down_for_the_whole_table(tmp_path: Path) -> None:
    for computed in (3, 0):
        runner = _runner(store=Store(tmp_path))
        table = runner.run(Noted(refuses=True), "m")
        assert table.refused == "s15 is too much"
        assert set(table.columns) == {"sample", "label", "refused"}
        assert len(table) == 23
        assert runner.store.computed == computed


def test_other_measures_are_stopped_by_what_they_refuse() -> None:
    @dataclass(frozen=True)
    class Strict(Noted):
        may_refuse: ClassVar[bool] = False

    with pytest.raises(UsageError, match="s15 is too much"):
        _runner().run(Strict(refuses=True), "m")


def test_a_column_of_another_length_is_named() -> None:
    @dataclass(frozen=True)
    class Short(Measure):
        def __call__(self, models: Sequence[nn.Module], batch: Batch) -> Columns:
            return {"half": batch.y[::2]}

    with pytest.raises(Failure, match="returned 12 values of half for 23 samples"):
        _runner().run(Short(), "m", title="short")


class Hungry(nn.Module):
    """Has memory for a few samples."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.net, self.room = nets.build(), room

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return self.net(x)


def test_fewer_samples_at_once_where_memory_is_short(caplog: pytest.LogCaptureFixture) -> None:
    plain = Runner({"m": nets.build()}, _data()).run(Predicted(), "m")
    with caplog.at_level(logging.WARNING, "steadygrad"):
        found = Runner({"m": Hungry(5)}, _data()).run(Predicted(), "m")
    assert found["prediction"].tolist() == plain["prediction"].tolist()
    assert [r.args[0] for r in caplog.records] == [200, 12, 6]  # type: ignore[index]
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Runner({"m": Hungry(0)}, _data()).run(Predicted(), "m")


def test_borrowed_tensors_go_home_after_an_error_too() -> None:
    model = nets.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with contextlib.suppress(KeyboardInterrupt), borrowed([model], "cpu") as where:
        assert where == device_of(model) == torch.device("cpu")
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    meta = torch.nn.Linear(2, 2, device="meta")
    with borrowed([meta], None) as where:
        assert where.type == "meta"
    assert device_of(meta).type == "meta"
    assert device_of(nn.ReLU()).type == "cpu"


def test_no_samples_and_empty_batches_are_refused() -> None:
    with pytest.raises(UsageError, match="noted needs at least one sample"):
        _runner().run(Noted(), "m", rows=[])
    with pytest.raises(UsageError, match="batch_size must be at least 1, got 0"):
        _runner(batch_size=0)


def test_saved_tables_are_read_and_nothing_is_measured(tmp_path: Path) -> None:
    whole = _runner(store=Store(tmp_path)).run(Noted(), "m")
    saved = SavedTables(tmp_path, 23)
    assert saved.run(Noted(), "m").frame.equals(whole.frame)
    assert saved.run(Noted(), "m", rows=range(9)).frame.equals(whole.select(slice(9)).frame)
    with pytest.raises(Failure, match=r"not complete: there is no table .*; run the same command again"):
        saved.run(Noted(), "n")
    sorted(tmp_path.rglob("*.parquet"))[1].unlink()
    with pytest.raises(Failure, match="not complete: 13 of 23 samples are in the table"):
        saved.run(Noted(), "m")
