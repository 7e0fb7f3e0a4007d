"""A number that is wrong is refused, and one that is right is not."""

from __future__ import annotations

import pytest

from audit import broken_defenses
from audit.broken_defenses import Case, Outcome, audited, broken, fitted, honest
from steadygrad.attacks import PGD, RandomNoise
from steadygrad.data import Dataset
from steadygrad.defenses import InputGradientPenalty

SUITE = (PGD(steps=20, restarts=3, loss="rivals"), RandomNoise(draws=2))


@pytest.fixture(scope="module")
def some(digits: Dataset) -> Dataset:
    return digits.take(120)


@pytest.fixture(scope="module")
def hidden() -> dict[str, Case]:
    return {case.kind: case for case in broken(0)}


KINDS = (
    "logits x 100", "distillation, T = 50", "quantized input", "noise on the input", "saturating activation"
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_defense_is_refused_or_its_number_is_right(
    monkeypatch: pytest.MonkeyPatch, some: Dataset, hidden: dict[str, Case], kind: str
) -> None:
    monkeypatch.setattr(broken_defenses, "ORACLE", PGD(steps=30, restarts=4, loss="rivals"))
    found = audited(hidden[kind], some, SUITE)
    assert found.clean > 0.8
    assert found.oracle < found.clean - 0.1
    assert found.right or not found.trusted, broken_defenses.row(found)


@pytest.mark.slow
def test_masked_gradients_give_wrong_numbers_which_are_refused(some: Dataset, hidden: dict[str, Case]) -> None:
    # So that the tests above are not met by numbers that all happen to be right.
    for kind in ("quantized input", "saturating activation"):
        found = audited(hidden[kind], some, SUITE)
        assert not found.right, kind
        assert not found.trusted, kind


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_an_honest_model_raises_no_alarm(some: Dataset, seed: int) -> None:
    for case in honest(seed):
        found = audited(case, some, "fast")
        assert found.trusted, broken_defenses.row(found)
        assert found.right, broken_defenses.row(found)


@pytest.mark.slow
def test_too_few_restarts_against_an_honest_model_are_seen(some: Dataset) -> None:
    # Three restarts aim at three of nine wrong classes, which leaves a gradient-penalized model too much.
    model = fitted(InputGradientPenalty(1.0), 1)
    found = audited(Case("gradient-penalized", 1, True, model, model), some, SUITE)
    assert not found.right
    assert found.failed == ("steps suffice",)


def test_right_means_not_above_the_oracle() -> None:
    case = Case("a", 0, False, None, None)  # type: ignore[arg-type]
    values = [(0.5, 0.5), (0.4, 0.5), (0.52, 0.5), (0.53, 0.5)]
    assert [Outcome(case, 1.0, robust, oracle, True, ()).right for robust, oracle in values] == [
        True,
        True,
        True,
        False,
    ]
    assert "refused: noise" in broken_defenses.row(Outcome(case, 1.0, 0.9, 0.1, False, ("noise",)))
