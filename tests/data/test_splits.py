import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadygrad.data.splits import Part, holdout, part_of
from steadygrad.errors import UsageError


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_train_and_test_are_disjoint_complete_and_a_fifth_of_every_class(labels):
    train, test = holdout(labels, "train"), holdout(labels, "test")
    assert sorted(train + test) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        held = sum(labels[i] == label for i in test)
        assert held == (0 if count == 1 else max(1, round(count / 5)))


@given(order=st.permutations(range(12)))
def test_the_split_of_a_sample_does_not_depend_on_the_order(order):
    keys, labels = [f"k{i}" for i in range(12)], [i % 2 for i in range(12)]
    wanted = {keys[i] for i in holdout(labels, "test", keys)}
    found = holdout([labels[i] for i in order], "test", [keys[i] for i in order])
    assert {keys[order[i]] for i in found} == wanted


NONE: list[str] = []


@pytest.mark.parametrize(
    ("asked", "available", "wanted"),
    [
        (None, ["train", "test"], "test"),
        (None, ["train", "val", "test"], "test"),
        (None, ["train", "val"], "val"),
        (None, ["Training", "Valid"], "Valid"),
        (None, ["TRAIN", "eval", "extra"], "eval"),
        (None, ["train"], "test of train"),
        (None, NONE, "test of it"),
        ("train", NONE, "train of it"),
        ("test", NONE, "test of it"),
        ("all", NONE, "all"),
        ("train", ["train"], "train"),
        ("valid", ["train", "val"], "val"),
        ("validation", ["train", "dev"], "dev"),
        ("TEST", ["train", "test"], "test"),
        ("test", ["train", "Testing"], "Testing"),
        ("val", ["train", "val", "valid"], "val"),
        ("fold2", ["fold1", "fold2"], "fold2"),
        ("Fold2", ["fold1", "fold2"], "fold2"),
    ],
)
def test_the_split_to_judge_on(asked, available, wanted):
    part = part_of("pets", asked, available)
    assert (f"{part.held} of {part.split or 'it'}" if part.held else part.split or "all") == wanted


@pytest.mark.parametrize(
    ("asked", "available", "wanted"),
    [
        (None, ["train", "test"], Part("train")),
        (None, ["Training", "val"], Part("Training")),
        (None, ["train"], Part("train", "train")),
        (None, NONE, Part(None, "train")),
        ("extra", ["train", "extra"], Part("extra")),
    ],
)
def test_the_split_to_train_on(asked, available, wanted):
    assert part_of("pets", asked, available, training=True) == wanted


@pytest.mark.parametrize(
    ("asked", "available", "training", "message"),
    [
        ("val", ["train", "test"], False, "pets has no split 'val'; available: test, train"),
        ("test", ["train", "val"], False, "pets has no split 'test'; available: train, val"),
        ("test", ["train"], False, "pets has no split 'test'; available: train"),
        ("val", NONE, False, "pets has no split 'val'; available: all, test, train"),
        ("all", ["train", "test"], False, "pets has no split 'all'"),
        ("validation", ["train", "val", "dev"], False, "pets has the splits dev and val, of which 'validation' means"),
        (None, ["fold1", "fold2"], False, "pets has the splits fold1, fold2: say which one to judge on .--split"),
        (None, ["test", "val"], True, "pets has the splits test, val: say which one to train on .--train-split"),
    ],
)
def test_splits_that_are_not_there_are_refused(asked, available, training, message):
    with pytest.raises(UsageError, match=message):
        part_of("pets", asked, available, training=training)
