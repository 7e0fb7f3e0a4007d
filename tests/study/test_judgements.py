from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.judgements import DESIGNS, Design, answer, answers, held
from steadygrad.errors import UsageError
from steadygrad.measuring.statistics import wilson
from steadygrad.study.agreement import _nominal, alpha
from steadygrad.study.answers_table import checked
from steadygrad.study.clusters import difference, share
from steadygrad.study.exclusions import Rules, exclude
from steadygrad.study.judgements import judge
from steadygrad.study.mixed_logit import fit
from steadygrad.study.preferences import preferences, ranks

krippendorff = pytest.importorskip("krippendorff", reason="needs the extra study")

RATES = {"plain": (0.1, 0.4), "robust": (0.3, 0.6)}


def test_intervals_hold_what_was_planted() -> None:
    # The full count, over more designs, is benchmarks/judgements.py; here are 15 studies of 6 shares and differences.
    found: dict[str, list[bool]] = {}
    for seed in range(15):
        for name, values in held(DESIGNS[2], seed).items():
            found.setdefault(name, []).extend(values)
    shares = {name: np.mean(values) for name, values in found.items()}
    assert min(shares["share"], shares["difference"], shares["odds ratio"]) >= 0.9
    assert shares["share, Wilson"] < 0.9  # as if each answer stood alone


def test_alpha_is_that_of_the_published_example() -> None:
    # Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units, .743.
    observers = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    cells = [(v, u) for row in observers for u, v in enumerate(row.split()) if v != "."]
    found = alpha(*zip(*cells, strict=True))
    assert round(found.value, 3) == 0.743
    assert found.low < 0.743 < found.high
    assert found.count == 11  # the last unit was judged once


def test_the_bootstrap_draws_the_same_alpha() -> None:
    counts = np.random.default_rng(0).integers(0, 4, (30, 5)) + 1
    times = np.array([[1] * 30, [2] * 15 + [0] * 15])
    both = [counts, np.repeat(counts[:15], 2, axis=0)]
    expected = [krippendorff.alpha(value_counts=c, level_of_measurement="nominal") for c in both]
    assert _nominal(times, counts) == pytest.approx(expected)


def test_alpha_of_what_tells_nothing_is_none() -> None:
    assert alpha(["a", "a", "a", "a"], [0, 0, 1, 1]) is None  # all the same
    assert alpha(["a", "b"], [0, 0]) is None  # one stimulus
    assert alpha([], []) is None


def test_an_interval_of_answers_that_hang_together_is_wider() -> None:
    persons, images = np.repeat(np.arange(10), 10), np.tile(np.arange(10), 10)
    together, apart = share(persons < 4, persons, images), share((persons + images) % 10 < 4, persons, images)
    assert together.independent < 15
    by_image = share(images < 4, persons, images)
    assert (by_image.low, by_image.high) == pytest.approx((together.low, together.high))
    assert apart.independent == 100
    assert together.high - together.low > 2.5 * (apart.high - apart.low)
    alone = wilson(40, 100)
    assert apart.wilson == together.wilson == (alone.low, alone.high)


def test_a_difference_of_answers_that_hang_together_is_wider() -> None:
    persons, images = np.repeat(np.arange(10), 10), np.tile(np.arange(10), 10)
    groups = (persons, persons), (images, images + 10)  # the same people, other images
    by_image = difference(images < 5, images < 2, *groups)
    apart = difference((persons + images) % 10 < 5, (persons + images) % 10 < 2, *groups)
    assert by_image.value == apart.value == pytest.approx(0.3)
    assert by_image.includes_zero
    assert apart.low > 0.1


def test_a_share_of_none_has_a_width() -> None:
    found = share(np.zeros(20, bool), np.repeat([0, 1, 2, 3], 5), np.arange(20))
    assert found.low == 0 < found.wilson[1] < found.high < 0.5
    assert difference(np.zeros(20), np.zeros(20), (np.arange(20),) * 2, (np.arange(20),) * 2).high > 0.05


def test_too_few_is_said() -> None:
    assert share([True, False], ["a", "a"], [1, 2]) is None
    assert share([True, False], ["a", "b"], [1, 1]) is None
    assert share([], [], []) is None


def test_the_mixed_logit_finds_the_planted_odds_and_spreads() -> None:
    rng = np.random.default_rng(0)
    persons, images = (g.ravel() for g in np.meshgrid(np.arange(60), np.arange(60)))
    model = rng.integers(0, 2, persons.size)
    logit = -1 + 1.5 * model + rng.normal(0, 1.0, 60)[persons] + rng.normal(0, 0.5, 60)[images]
    found = fit(rng.random(persons.size) < 1 / (1 + np.exp(-logit)), np.eye(2)[model], persons, images)
    odds = found.contrast([-1, 1])
    assert odds.low < 1.5 < odds.high
    assert odds.high - odds.low < 0.5
    assert found.spreads == pytest.approx((1.0, 0.5), abs=0.2)


def test_who_is_left_out_is_counted_once() -> None:
    rows = [
        answer(p, f"i{k}", "plain", False, False, position=k, seconds=0.1 if p == 2 or (p == 3 and k == 0) else 3.0,
               finished=p != 1)
        for p in range(4) for k in range(20)
    ]  # fmt: skip
    rows.append(answer(0, "told", position=20, kind="attention", correct=False))
    rows.append(answer(1, "told", position=20, kind="attention", correct=False))
    table = checked(pd.DataFrame(rows).assign(finished=lambda t: t["person"] != "p1"))
    kept = exclude(table, Rules())
    assert kept.persons == {"did not finish": 1, "wrong attention checks": 1, "too quick": 1}
    assert (set(kept.table["person"]), len(kept.table), kept.answers) == ({"p3"}, 19, 1)
    everybody = exclude(table, Rules(finished=False, attention=9, fastest=0.0))
    assert everybody.persons == {"did not finish": 0, "wrong attention checks": 0, "too quick": 0}


def maps(preferred: list[tuple[int, str, str, str | None]]) -> pd.DataFrame:
    rows = [
        answer(p, f"m{k}", position=k, kind="maps", left=a, right=b, preferred=c)
        for k, (p, a, b, c) in enumerate(preferred)
    ]
    return checked(pd.DataFrame(rows))


def test_preferences_count_pairs_whatever_the_side() -> None:
    rows = [(p, *pair) for p in range(6) for pair in (("a", "b", "a"), ("b", "a", "a"), ("a", "b", None))]
    (found,) = preferences(maps(rows))
    assert (found.first, found.answers, found.undecided, found.preferred) == ("a", 18, 6, 12)
    assert found.share.value == 1
    assert (found.persons_for_first, found.persons_for_second) == (6, 0)
    assert found.p == pytest.approx(2 / 64)
    people = judge(maps(rows))
    assert people.left.value == 0.5  # the place did not matter
    assert people.models == [] and people.ranks == []  # noqa: PT018


def test_several_maps_are_ranked() -> None:
    rng = np.random.default_rng(0)
    strength = {"a": 1.0, "b": 0.0, "c": -1.0}
    rows = []
    for person in range(30):
        for left, right in (("a", "b"), ("c", "b"), ("a", "c"), ("b", "c")):
            wins = rng.random() < 1 / (1 + np.exp(strength[right] - strength[left]))
            rows.append((person, left, right, left if wins else right))
    found = ranks(maps(rows))
    assert [rank.name for rank in found] == ["a", "b", "c"]
    for rank in found:
        assert rank.low < 1 / (1 + np.exp(-strength[rank.name])) < rank.high
    apart = maps([(0, "a", "b", "a"), (1, "c", "d", "c")])
    assert ranks(apart) == []
    both = ranks(maps([*rows, *((p, "x", "y", "x") for p in range(9)), *((p, "y", "z", "y") for p in range(9))]))
    assert [(rank.name, rank.scale) for rank in both] == [("a", 0), ("b", 0), ("c", 0), ("x", 1), ("y", 1), ("z", 1)]
    assert both[:3] == found  # the other scale changes nothing


@pytest.mark.parametrize("persons", [1, 2])
def test_a_study_of_few_is_told_without_numbers_that_are_none(persons: int) -> None:
    table = answers(Design(persons, 3, 3, 0.0, 0.0), RATES, 0)
    people = judge(table, models=["plain", "robust", "unseen"])
    assert [row.model for row in people.models] == ["plain", "robust", "unseen"]
    assert people.models[2].answers == 0 and people.models[2].fooled is None  # noqa: PT018
    assert (people.models[0].fooled is None) is (persons == 1)
    assert {c.note for c in people.contrasts if "unseen" in (c.first, c.second)} == {"no answers"}
    people.model_dump_json()


def test_where_all_are_left_out_the_counts_are_told() -> None:
    people = judge(answers(DESIGNS[0], RATES, 0).assign(finished=False))
    assert people.answers == 0 and people.seconds is None  # noqa: PT018
    assert [row.answers for row in people.models] == [0, 0]
    assert people.excluded.persons["did not finish"] == 11


def test_no_ratio_of_odds_is_made_up_where_all_answers_are_the_same() -> None:
    people = judge(answers(DESIGNS[0], {"plain": (0.0001, 0.4), "robust": (0.3, 0.6)}, 0))
    first = people.contrasts[0]
    assert (first.odds, first.note) == (None, "all answers about plain are the same")
    assert first.difference.high < 0
    assert people.contrasts[1].odds.high < 1


def test_the_same_table_in_another_order_gives_the_same() -> None:
    table = answers(DESIGNS[1], RATES, 3)
    assert judge(table) == judge(table.sample(frac=1, random_state=0))


def test_attacks_are_told_apart_and_taken_into_account() -> None:
    table = answers(DESIGNS[1], RATES, 1)
    table["attack"] = np.where(table["position"] % 2, "PGD", "JSMA")
    people = judge(table)
    assert [(r.model, r.attack) for r in people.models[:3]] == [("plain", None), ("plain", "JSMA"), ("plain", "PGD")]
    assert people.models[1].answers + people.models[2].answers == people.models[0].answers
    # An attack of one model alone cannot be told from the model: the ratio is then that of the models.
    alone = answers(DESIGNS[1], RATES, 1)
    alone["attack"] = np.where(alone["model"] == "plain", "PGD", "JSMA")
    assert judge(alone).contrasts[0].odds == judge(answers(DESIGNS[1], RATES, 1)).contrasts[0].odds


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(UsageError, match="has no answers"):
        judge(answers(DESIGNS[0], RATES, 0)[:0])
