import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadygrad.data.splits import holdout
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


def test_other_splits_are_refused():
    with pytest.raises(UsageError, match=r"no split 'valid'; available: test, train"):
        holdout([0], "valid")
