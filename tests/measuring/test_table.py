"""Tables: rows below each other, chosen and ordered, on disk and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measuring.test_store import DAMAGE
from steadygrad.errors import Failure, UsageError
from steadygrad.measuring.table import REFUSED, Kept, Table


def table(*flags: bool, **more: Any) -> Table:
    names = np.array([f"s{i}" for i in range(len(flags))])
    return Table({"sample": names, "success": np.array(flags)}).assign(**more)


def test_join_puts_tables_below_each_other() -> None:
    a, b = table(True, False, attack="FGSM"), table(False, attack="PGD")
    joined = Table.join([a, b])
    assert len(joined) == 3
    assert joined["attack"].tolist() == ["FGSM", "FGSM", "PGD"]
    assert joined.frame.index.tolist() == [0, 1, 2]


def test_joining_nothing_or_other_columns_is_refused() -> None:
    with pytest.raises(UsageError, match="no tables to join"):
        Table.join([])
    with pytest.raises(UsageError, match="these differ: extra"):
        Table.join([table(True), table(True, extra=1)])


def test_where_one_part_was_refused_all_are() -> None:
    joined = Table.join([table(True), Table({"sample": np.array(["s1", "s2"]), REFUSED: np.array(["no", "no"])})])
    assert joined.refused == "no"
    assert joined["sample"].tolist() == ["s0", "s1", "s2"]
    assert set(joined.columns) == {"sample", REFUSED}
    assert table(True).refused is None


def test_where_keeps_the_rows_with_all_given_values() -> None:
    records = Table.join([
        table(True, False, attack="FGSM", eps=0.1), table(True, True, attack="PGD", eps=0.1),
        table(False, True, attack="PGD", eps=0.2),
    ])  # fmt: skip
    assert records.where(attack="PGD", eps=0.2)["success"].tolist() == [False, True]
    assert len(records.where(attack="PGD")) == 4
    assert len(records.where(attack="none")) == 0
    assert len(records) == 6


def test_at_orders_by_sample_and_names_what_is_missing() -> None:
    found = table(True, False, True, number=np.arange(3)).at(["s2", "s0"])
    assert found["number"].tolist() == [2, 0]
    with pytest.raises(UsageError, match=r"no sample 's7' \(2 of 3 are missing\)"):
        table(True).at(["s7", "s0", "s9"])


def test_columns_of_large_values_follow_their_samples() -> None:
    kept = Kept(5, np.array([1, 3]), np.array([[10, 11], [30, 31]]))
    made = Table({**table(*[True] * 5).columns, "input": kept})
    some = made.select([3, 0, 1]).kept("input")
    assert (some.count, some.rows.tolist(), some.values.tolist()) == (3, [0, 2], [[30, 31], [10, 11]])
    joined = Table.join([made, made]).kept("input")
    assert (joined.rows.tolist(), len(joined.values)) == ([1, 3, 6, 8], 4)
    assert "input" not in made.frame


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
VALUES = st.one_of(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=4, max_size=4).map(np.array),
    st.lists(st.integers(-(2**60), 2**60), min_size=4, max_size=4).map(np.array),
    st.lists(st.booleans(), min_size=4, max_size=4).map(np.array),
    st.lists(TEXTS, min_size=4, max_size=4).map(lambda texts: np.array(texts, dtype=str)),
    st.integers(0, 9).map(lambda n: np.full((4, 2, 3), n, dtype=np.float32)),
    st.sets(st.integers(0, 3)).map(
        lambda rows: Kept(4, np.array(sorted(rows), dtype=np.int64), np.ones((len(rows), 2, 2), dtype=np.float32))
    ),
)


@given(columns=st.dictionaries(st.sampled_from("abcdef"), VALUES, min_size=1), seconds=st.floats(0, 1e6))
@settings(max_examples=30)
def test_tables_come_back_from_parquet_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, Any], seconds: float
) -> None:
    path = tmp_path_factory.mktemp("deep") / "er" / "t.parquet"
    Table(columns, {"seconds": seconds}).write(path)
    back = Table.read(path)
    assert list(back.columns) == list(columns)
    assert back.about == {"seconds": seconds}
    for name, column in columns.items():
        if isinstance(column, Kept):
            assert back.kept(name).rows.tolist() == column.rows.tolist()
            np.testing.assert_array_equal(back.kept(name).values, column.values)
        else:
            np.testing.assert_array_equal(back[name], column)
            assert back[name].dtype.kind == column.dtype.kind
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tables" / "r.parquet"
    table(*[True] * 50).write(path)
    damage: Callable[[bytes], bytes] = DAMAGE[kind]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Failure, match=r"(?s)tables/r\.parquet: .*; delete the file to have it made again"):
        Table.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no table"):
        Table.read(tmp_path / "none.parquet")


def test_time_adds_up_and_the_last_part_dates_the_whole() -> None:
    parts = [Table(table(True).columns, {"seconds": s, "created": c}) for s, c in ((1.5, "b"), (2.0, "c"), (0.5, "a"))]
    assert Table.join(parts).about == {"seconds": 4.0, "created": "c"}


def test_the_frame_holds_one_value_per_sample() -> None:
    made = table(True, False, wide=np.zeros((2, 3)))
    pd.testing.assert_frame_equal(made.frame, pd.DataFrame({"sample": ["s0", "s1"], "success": [True, False]}))
