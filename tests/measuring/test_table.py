"""Tables: columns of any shape, joined, selected, written and read back the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.table import REFUSED, Kept, Table

TYPES = st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.uint8])


@st.composite
def tables(draw: st.DrawFn, count: int | None = None) -> Table:
    n = draw(st.integers(0, 7)) if count is None else count
    columns: dict[str, object] = {"sample": np.array([f"s{i}" for i in range(n)], dtype=str)}
    for place in range(draw(st.integers(0, 3))):
        shape = (n, *draw(st.lists(st.integers(1, 3), max_size=3)))
        columns[f"c{place}"] = draw(arrays.arrays(draw(TYPES), shape))
    rows = np.array(sorted(draw(st.sets(st.integers(0, n - 1))) if n else ()), dtype=np.int64)
    columns["kept"] = Kept(
        n, rows, draw(arrays.arrays(np.float32, (len(rows), 2, 2), elements=st.floats(0, 1, width=32)))
    )
    return Table(columns, {"seconds": 1.0, "created": "2020", "measure": {"name": "m"}})  # type: ignore[arg-type]


def same(one: Table, other: Table) -> bool:
    if list(one.columns) != list(other.columns) or len(one) != len(other):
        return False
    for name in one.columns:
        if isinstance(one.columns[name], Kept):
            mine, theirs = one.kept(name), other.kept(name)
            if mine.rows.tolist() != theirs.rows.tolist() or not np.array_equal(mine.values, theirs.values):
                return False
        elif (
            not np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
            or one[name].dtype.kind != other[name].dtype.kind
        ):
            return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_what_is_written_is_read(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table.write(path)
    found = Table.read(path)
    assert same(table, found)
    assert found.about == dict(table.about)


@settings(max_examples=60, deadline=None)
@given(table=tables(count=6), cut=st.integers(0, 6))
def test_parts_join_to_the_whole(table: Table, cut: int) -> None:
    parts = [table.select(slice(0, cut)), table.select(slice(cut, None))]
    joined = Table.join(parts)
    assert same(joined, table)
    assert joined.about["seconds"] == 2.0


@settings(max_examples=40, deadline=None)
@given(table=tables(count=5), order=st.permutations(range(5)))
def test_samples_are_found_by_name_in_any_order(table: Table, order: list[int]) -> None:
    names = [f"s{i}" for i in order]
    found = table.at(names)
    assert found["sample"].tolist() == names
    assert same(found.at([f"s{i}" for i in range(5)]), table)


def test_a_kept_column_is_selected_with_its_rows() -> None:
    kept = Kept(4, np.array([1, 3]), np.array([[10.0], [30.0]]))
    some = kept[np.array([3, 0, 1])]
    assert (some.count, some.rows.tolist(), some.values.tolist()) == (3, [0, 2], [[30.0], [10.0]])
    masked = kept[np.array([True, True, False, True])]
    assert (masked.count, masked.rows.tolist()) == (3, [1, 2])


def test_a_refused_part_refuses_the_whole() -> None:
    good = Table({"sample": np.array(["a"]), "label": np.array([0]), "x": np.array([1.0])})
    bad = Table({"sample": np.array(["b"]), "label": np.array([1]), REFUSED: np.array(["no gradient"])})
    joined = Table.join([good, bad])
    assert joined.refused == "no gradient"
    assert joined["sample"].tolist() == ["a", "b"]
    assert "x" not in joined
    assert good.refused is None


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    one, other = Table({"sample": np.array(["a"])}), Table({"sample": np.array(["a"]), "x": np.array([1])})
    with pytest.raises(UsageError, match="these differ: x"):
        Table.join([one, other])
    with pytest.raises(UsageError, match="at least one"):
        Table.join([])
    with pytest.raises(UsageError, match="no sample 'z'"):
        one.at(["z"])
    with pytest.raises(UsageError, match="some samples only"):
        Table({"k": Kept(1, np.array([0]), np.zeros((1, 2)))})["k"]
    with pytest.raises(UsageError, match="there is no table"):
        Table.read(tmp_path / "none.parquet")


def test_every_damage_to_the_values_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    generator = np.random.default_rng(0)
    table = Table({"sample": np.array([f"s{i}" for i in range(300)]), "x": generator.normal(size=(300, 4))})
    table.write(path)
    whole = path.read_bytes()
    for place in generator.integers(0, len(whole), 60).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with contextlib.suppress(Failure):
            assert same(Table.read(path), table)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Failure, match=r"cannot read the table.*run the same command again"):
        Table.read(path)
