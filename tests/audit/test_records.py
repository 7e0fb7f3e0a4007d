"""Records: which columns, the worst case per sample, shares with their counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import steadygrad as sg
from audit.victims import Halfspace, features
from steadygrad.attacks import FGSM, PGD
from steadygrad.audit.records import accuracy, fallen, records, records_of_curve, robust_accuracy, success_rate
from steadygrad.errors import UsageError
from steadygrad.measuring.measures.attacked import RECORDS, Attacked
from steadygrad.measuring.measures.curve import Curve
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table


def table(success: list[bool], **values: Any) -> Table:
    """One row per flag, of samples s0, s1, ..."""
    n = len(success)
    defaults: dict[str, Any] = {
        "model": "m", "source": "m", "sample": [f"s{i}" for i in range(n)], "label": 1, "clean_prediction": 1,
        "clean_confidence": 0.9, "attack": "FGSM", "norm": "linf", "eps": 0.1, "success": success, "prediction": 1,
        "broken_by": ["FGSM" if f else "" for f in success],
        "confidence": 0.5, "distance": [0.1 if s else float("inf") for s in success], "forwards": 2, "backwards": 1,
        "zero_gradient": False, "rounded_success": False,
    }  # fmt: skip
    assert set(defaults) == set(RECORDS)
    rows = {name: np.full(n, v) if np.ndim(v) == 0 else np.asarray(v) for name, v in {**defaults, **values}.items()}
    return Table(rows)


def test_accuracy_counts_rows_without_success_in_any_flag_column() -> None:
    found = table([True, False, False, True], rounded_success=[False, False, False, True])
    assert accuracy(found).value == 0.5
    assert accuracy(found, "rounded_success").value == 0.75
    assert accuracy(found).count == 4


def test_success_rate_is_over_samples_whose_clean_prediction_is_right() -> None:
    rate = success_rate(table([True, True, False, True, False], clean_prediction=[0, 1, 1, 0, 1]))
    assert rate is not None
    assert (rate.value, rate.count) == (1 / 3, 3)
    assert success_rate(table([True], clean_prediction=0)) is None


def test_robust_accuracy_is_the_worst_case_per_sample() -> None:
    # Each attack leaves 3 of 4; together they leave 2: neither the mean nor the least of the two.
    found = robust_accuracy(
        Table.join([table([True, False, False, False]), table([False, True, False, False], attack="PGD")])
    )
    assert (found.value, found.count) == (0.5, 4)


def test_robust_accuracy_does_not_depend_on_the_order_of_rows() -> None:
    joined = Table.join([table([True, False, False, False]), table([False, True, False, False], attack="PGD")])
    shuffled = joined.select(np.random.default_rng(3).permutation(8))
    assert robust_accuracy(shuffled) == robust_accuracy(joined)


@pytest.mark.parametrize(
    ("other", "column"), [({"model": "n"}, "model"), ({"eps": 0.2}, "eps"), ({"norm": "l2"}, "norm")]
)
def test_robust_accuracy_refuses_a_mixture(other: dict[str, Any], column: str) -> None:
    with pytest.raises(UsageError, match=rf"records of one {column}, got \[.*records.where\({column}=...\)"):
        robust_accuracy(Table.join([table([True, False]), table([True, False], **other)]))


def test_robust_accuracy_refuses_a_search_for_the_smallest_change() -> None:
    for eps in ([float("nan")], [float("nan")] * 2):
        with pytest.raises(UsageError, match="one eps"):
            robust_accuracy(table([True] * len(eps), eps=eps))


@pytest.mark.parametrize(
    "second",
    [["s0"], ["s0", "s2"], ["s2", "s3"]],
    ids=["a sample lacks an attack", "one sample more, one less", "each attack has samples of its own"],
)
def test_robust_accuracy_refuses_attacks_on_different_samples(second: list[str]) -> None:
    joined = Table.join([table([True, False]), table([True] * len(second), sample=second, attack="PGD")])
    with pytest.raises(UsageError, match="every attack on every sample"):
        robust_accuracy(joined)


def test_who_fell_under_any_attack() -> None:
    assert fallen([table([True, False, False]), table([False, False, True])]) == {"s0", "s2"}


def test_a_curve_counts_what_it_found_within_the_radius() -> None:
    data = features([[0.5], [0.57], [0.1], [0.9]], [0, 0, 0, 0])
    runner, threat = Runner({"m": Halfspace([1.0], 0.6)}, data), sg.linf(0.08)
    measure = Curve(FGSM(), threat, (0.04, 0.08, 0.16))
    found = records_of_curve(runner.run(measure, "m"), measure, "m", 0.08)
    assert list(found.columns) == list(RECORDS)
    assert found["success"].tolist() == [False, True, False, True]
    assert found["distance"].tolist() == [np.inf, 0.04, np.inf, 0.0]
    assert found["broken_by"].tolist() == ["", "FGSM (curve)", "", ""]
    assert set(found["attack"]) == {"FGSM (curve)"}
    attacked = Attacked(PGD(steps=2), threat)
    both = Table.join([records(runner.run(attacked, "m"), attacked, "m"), found])
    assert robust_accuracy(both).value == 0.5
