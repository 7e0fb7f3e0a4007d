"""Records and cells: columns, files, the worst case per sample, work that is done once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from steadygrad.errors import Failure, UsageError
from steadygrad.evaluation.records import COLUMNS, Cells, Records, robust_accuracy


def table(success: list[bool], **values: Any) -> Records:
    """One row per flag, of samples s0, s1, ..."""
    n = len(success)
    defaults: dict[str, Any] = {
        "model": "m", "source": "m", "sample": [f"s{i}" for i in range(n)], "label": 1, "clean_prediction": 1,
        "clean_confidence": 0.9, "attack": "FGSM", "norm": "linf", "eps": 0.1, "success": success, "prediction": 1,
        "broken_by": ["FGSM" if f else "" for f in success],
        "confidence": 0.5, "distance": [0.1 if s else float("inf") for s in success], "forwards": 2, "backwards": 1,
        "zero_gradient": False, "rounded_success": False, "seed": 0,
    }  # fmt: skip
    return Records(pd.DataFrame({**defaults, **values}, index=range(n)))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(column: str) -> None:
    frame = table([True]).frame.drop(columns=column)
    with pytest.raises(UsageError, match=f"lack the columns {column};"):
        Records(frame)


def test_join_and_plus_put_tables_below_each_other() -> None:
    a, b = table([True, False]), table([False], attack="PGD")
    joined = a + b
    assert len(joined) == 3
    assert joined.frame["attack"].tolist() == ["FGSM", "FGSM", "PGD"]
    assert joined.frame.index.tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(joined.frame, Records.join([a, b]).frame)


def test_joining_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no records to join"):
        Records.join([])


def test_where_keeps_the_rows_with_all_given_values() -> None:
    records = table([True, False]) + table([True, True], attack="PGD") + table([False, True], attack="PGD", eps=0.2)
    chosen = records.where(attack="PGD", eps=0.2)
    assert chosen.frame["success"].tolist() == [False, True]
    assert len(records.where(attack="PGD")) == 4
    assert len(records.where(attack="none")) == 0
    assert len(records) == 6


def test_accuracy_counts_rows_without_success_in_any_flag_column() -> None:
    records = table([True, False, False, True], rounded_success=[False, False, False, True])
    assert records.accuracy().value == 0.5
    assert records.accuracy("rounded_success").value == 0.75
    assert records.accuracy().count == 4


def test_success_rate_is_over_samples_whose_clean_prediction_is_right() -> None:
    records = table([True, True, False, True, False], clean_prediction=[0, 1, 1, 0, 1])
    rate = records.success_rate()
    assert rate is not None
    assert (rate.value, rate.count) == (1 / 3, 3)
    assert table([True], clean_prediction=0).success_rate() is None


def test_records_come_back_from_parquet(tmp_path: Path) -> None:
    records = table([True, False], sample=["ä/1", "b 2"], eps=0.1 + 0.2)
    records.write(tmp_path / "deep" / "r.parquet")
    back = Records.read(tmp_path / "deep" / "r.parquet")
    pd.testing.assert_frame_equal(back.frame, records.frame)
    assert list(tmp_path.glob("deep/*")) == [tmp_path / "deep" / "r.parquet"]


def test_a_folder_of_files_is_read_in_order_of_names_and_beside_remains_of_a_killed_run(tmp_path: Path) -> None:
    table([True], attack="b").write(tmp_path / "b.parquet")
    table([False], attack="a").write(tmp_path / "a.parquet")
    (tmp_path / ".c.parquet.x1.parquet").write_bytes(b"PAR1 half")
    (tmp_path / "notes.txt").write_text("no records")
    assert Records.read(tmp_path).frame["attack"].tolist() == ["a", "b"]


def test_missing_records_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.parquet"):
        with pytest.raises(UsageError, match="no records at"):
            Records.read(path)


def _whole(tmp_path: Path) -> bytes:
    table([True] * 50).write(tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "half": lambda b: b[: len(b) // 2],
    "no end": lambda b: b[:-3],
    "text": lambda b: b"model,source\n",
    "zeros inside": lambda b: b[:4] + bytes(len(b) // 2) + b[4 + len(b) // 2 :],
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("inside_a_folder", [False, True])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, kind: str, inside_a_folder: bool) -> None:
    path = tmp_path / "records" / "r.parquet"
    table([True]).write(path.with_name("a.parquet"))
    path.write_bytes(DAMAGE[kind](_whole(tmp_path)))
    with pytest.raises(Failure, match=r"(?s)records/r\.parquet: .*; delete the file to have it made again"):
        Records.read(path.parent if inside_a_folder else path)


def test_a_parquet_file_of_something_else_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(Failure, match=r"r\.parquet: records lack the columns"):
        Records.read(tmp_path / "r.parquet")


def test_robust_accuracy_is_the_worst_case_per_sample() -> None:
    # Each attack leaves 3 of 4; together they leave 2: neither the mean nor the least of the two.
    records = table([True, False, False, False]) + table([False, True, False, False], attack="PGD")
    found = robust_accuracy(records)
    assert (found.value, found.count) == (0.5, 4)


def test_robust_accuracy_does_not_depend_on_the_order_of_rows() -> None:
    records = table([True, False, False, False]) + table([False, True, False, False], attack="PGD")
    shuffled = Records(records.frame.sample(frac=1, random_state=3))
    assert robust_accuracy(shuffled) == robust_accuracy(records)


@pytest.mark.parametrize(
    ("other", "column"), [({"model": "n"}, "model"), ({"eps": 0.2}, "eps"), ({"norm": "l2"}, "norm")]
)
def test_robust_accuracy_refuses_a_mixture(other: dict[str, Any], column: str) -> None:
    with pytest.raises(UsageError, match=rf"records of one {column}, got \[.*records.where\({column}=...\)"):
        robust_accuracy(table([True, False]) + table([True, False], **other))


def test_robust_accuracy_refuses_a_search_for_the_smallest_change() -> None:
    with pytest.raises(UsageError, match="one eps"):
        robust_accuracy(table([True], eps=float("nan")))


@pytest.mark.parametrize(
    "second",
    [["s0"], ["s0", "s2"], ["s2", "s3"]],
    ids=["a sample lacks an attack", "one sample more, one less", "each attack has samples of its own"],
)
def test_robust_accuracy_refuses_attacks_on_different_samples(second: list[str]) -> None:
    records = table([True, False]) + table([True] * len(second), sample=second, attack="PGD")
    with pytest.raises(UsageError, match="every attack on every sample"):
        robust_accuracy(records)


@pytest.mark.parametrize("kept", [False, True])
def test_a_cell_is_computed_once(tmp_path: Path, kept: bool) -> None:
    cells = Cells(tmp_path if kept else None)
    first = cells.get("a", lambda: table([True]))
    assert cells.get("a", lambda: pytest.fail("computed again")) is first
    cells.get("b", lambda: table([False]))
    assert cells.computed == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == (["a.parquet", "b.parquet"] if kept else [])


def test_cells_of_an_earlier_run_are_read(tmp_path: Path) -> None:
    before = Cells(tmp_path)
    before.get("a", lambda: table([True, False]))
    after = Cells(tmp_path)
    again = after.get("a", lambda: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(again.frame, table([True, False]).frame)
    assert after.computed == 0


def test_cells_that_fail_leave_nothing(tmp_path: Path) -> None:
    cells = Cells(tmp_path)

    def fail() -> Records:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cells.get("a", fail)
    assert list(tmp_path.iterdir()) == []
    assert len(cells.get("a", lambda: table([True]))) == 1


def test_a_damaged_cell_is_named_and_made_again_once_deleted(tmp_path: Path) -> None:
    Cells(tmp_path).get("a", lambda: table([True]))
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Failure, match=r"a\.parquet: .*delete the file"):
        Cells(tmp_path).get("a", lambda: table([True]))
    path.unlink()
    assert len(Cells(tmp_path).get("a", lambda: table([True]))) == 1
