from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from steadygrad.errors import Failure
from steadygrad.study.design import Design, Stimulus, fill, latin_row, slots
from study import studies


@pytest.mark.parametrize("size", [1, 2, 5, 6, 9])
def test_over_the_rows_each_item_is_once_at_each_position_and_after_each_other(size):
    rows = [latin_row(size, row) for row in range(size if size % 2 == 0 else 2 * size)]
    times = len(rows) // size
    for position in range(size):
        assert Counter(row[position] for row in rows) == dict.fromkeys(range(size), times)
    after = Counter(pair for row in rows for pair in itertools.pairwise(row))
    if size > 1:
        assert set(after.values()) == {times}
        assert len(after) == size * (size - 1)


def test_orders_are_the_same_again_and_balanced(tmp_path):
    design = studies.small(tmp_path, trials=10)
    assert Design.read(design.plain()) == design
    persons = [design.trials(number) for number in range(60)]
    assert persons == [design.trials(number) for number in range(60)]
    for number, trials in enumerate(persons):
        assert [t.position for t in trials] == list(range(14))
        assert [t.kind for t in trials[:2]] == ["practice"] * 2
        assert {t.kind for t in trials[-2:]} == {"maps"}
        main, pairs = design.blocks[number % 3]
        assert sorted(t.stimulus.id for t in trials[2:]) == sorted((*main, *pairs))
        assert len({t.stimulus.sample for t in trials}) == 14
        assert all(set(t.options) == set(t.stimulus.options) for t in trials)
        # One order of the buttons for one person.
        assert len({t.options for t in trials if t.options}) == 1
    assert len({trials[0].options for trials in persons}) > 50
    at = Counter((trials[2].stimulus.id) for trials in persons)
    assert set(at.values()) == {2}  # 60 persons, 3 blocks of 10 trials
    left = [trial.flipped for trials in persons for trial in trials if trial.kind == "maps"]
    assert 40 < sum(left) < 80


def _stimuli(condition: tuple[str, ...], samples: range, classes: str) -> list[Stimulus]:
    return [Stimulus(f"{condition[-1]}{i}", condition[0], f"s{i}", classes[i % len(classes)], ()) for i in samples]


def test_blocks_have_all_models_and_classes_equally_and_no_sample_twice():
    conditions = [("labels", "one", "a"), ("labels", "two", "a")]
    offered = {c: _stimuli(c, range(40), "xy") for c in conditions}
    used: Counter[str] = Counter()
    draw = np.random.default_rng(0)
    for block in range(4):
        wanted = slots(conditions, 8, block, ["x", "y"])
        chosen = fill(wanted, offered, used, draw)
        assert len({s.sample for s in chosen}) == 8
        assert Counter((s.id[0], s.label) for s in chosen) == dict.fromkeys(
            [("a", "x"), ("a", "y")], 4
        )  # both conditions end in "a", and there are 2 of each model and class
        assert Counter(slot.condition for slot in wanted) == dict.fromkeys(conditions, 4)
    assert max(used[s.id] for found in offered.values() for s in found) <= 2


def test_the_least_used_are_taken():
    condition = ("labels", "one", "a")
    used: Counter[str] = Counter()
    draw = np.random.default_rng(0)
    for _ in range(3):
        fill(slots([condition], 4, 0, None), {condition: _stimuli(condition, range(12), "x")}, used, draw)
    assert set(used[f"a{i}"] for i in range(12)) == {1}


def test_what_is_missing_is_counted_by_model():
    conditions = [("labels", "plain", "PGD"), ("labels", "hardened", "PGD")]
    offered = {conditions[0]: _stimuli(conditions[0], range(40), "xy"), conditions[1]: []}
    with pytest.raises(
        Failure, match=r"fool hardened \(PGD\): 0 of 5 needed, 5 are missing\. Give more runs"
    ) as caught:
        fill(slots(conditions, 10, 0, ["x", "y"]), offered, Counter(), np.random.default_rng(0))
    assert "plain" not in str(caught.value)


def test_images_of_the_same_samples_are_missing_too():
    conditions = [("labels", "one", "PGD"), ("labels", "two", "PGD")]
    offered = {c: _stimuli(c, range(6), "x") for c in conditions}
    with pytest.raises(Failure, match=r"no person sees one source image twice, and so 2 of images that fool"):
        fill(slots(conditions, 8, 0, None), offered, Counter(), np.random.default_rng(0))
