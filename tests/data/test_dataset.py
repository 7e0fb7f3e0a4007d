import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steadygrad.data import Dataset
from steadygrad.errors import UsageError


def tiny(count: int = 6, dtype: torch.dtype = torch.uint8, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 3, 2), generator=generator, dtype=torch.uint8)
    if dtype != torch.uint8:
        images = images.to(dtype) / 255
    ids = tuple(f"tiny/{i}" for i in range(count))
    return Dataset(images, torch.arange(count) % 2, ("a", "b"), ids, "tiny", "test")


def test_batch_scales_8_bit_images_to_the_unit_interval():
    data = tiny()
    x, y = data.batch(torch.tensor([4, 1]))
    assert x.dtype == torch.float32
    assert torch.equal(x, data.images[[4, 1]].to(torch.float32) / 255)
    assert y.tolist() == [0, 1]
    assert torch.equal(data.batch(slice(1, 3))[0], data.tensors()[0][1:3])


def test_white_is_exactly_one_and_floats_pass_unchanged():
    white = Dataset(torch.full((2, 1, 1, 1), 255, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), ("p", "q"))
    assert white.tensors()[0].flatten().tolist() == [1.0, 1.0]
    data = tiny(dtype=torch.float32)
    assert torch.equal(data.tensors()[0], data.images)


def test_says_what_it_is():
    data = tiny()
    assert (len(data), data.shape, data.bounds) == (6, (1, 3, 2), (0.0, 1.0))
    assert repr(data) == "Dataset(tiny/test: 6 samples of shape (1, 3, 2), 2 classes)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_select_keeps_pixels_labels_and_ids_together():
    data = tiny()
    part = data.select([5, 0])
    assert part.ids == ("tiny/5", "tiny/0")
    assert torch.equal(part.images, data.images[[5, 0]])
    assert part.labels.tolist() == [1, 0]
    assert data.select(data.labels == 1).ids == ("tiny/1", "tiny/3", "tiny/5")


@pytest.mark.parametrize("indices", [[6], [-7], torch.ones(5, dtype=torch.bool)])
def test_select_refuses_indices_outside_the_data(indices):
    with pytest.raises(UsageError, match=r"tiny/test: 6 samples.*cannot be indexed"):
        tiny().select(indices)


def test_select_refuses_nothing_and_repeats():
    with pytest.raises(UsageError, match="tiny/test is empty"):
        tiny().select(torch.zeros(6, dtype=torch.bool))
    with pytest.raises(UsageError, match="1 different ids for 2 samples"):
        tiny().select([3, 3])


def test_take_first_ones_and_at_most_all():
    assert tiny().take(2).ids == ("tiny/0", "tiny/1")
    assert tiny().take(100).fingerprint == tiny().fingerprint
    with pytest.raises(UsageError, match="n=0"):
        tiny().take(0)


@given(n=st.integers(1, 20), count=st.integers(2, 20), seed=st.integers(0, 2**40))
def test_taken_samples_are_distinct_ordered_and_nested(n, count, seed):
    data = tiny(count)
    taken = data.take(n, seed)
    positions = [data.ids.index(i) for i in taken.ids]
    assert len(taken) == min(n, count)
    assert positions == sorted(set(positions))
    assert set(taken.ids) <= set(data.take(n + 1, seed).ids)
    assert torch.equal(taken.images, data.images[positions])


def test_take_depends_on_its_seed():
    data = tiny(50)
    assert data.take(10, 1).ids == data.take(10, 1).ids
    assert data.take(10, 1).ids != data.take(10, 2).ids


def labeled(labels: list[int]) -> Dataset:
    data = tiny(len(labels))
    return dataclasses.replace(data, labels=torch.tensor(labels), classes=tuple("abcde"))


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40), count=st.integers(1, 45), seed=st.integers(0, 2**40)
)
def test_drawn_samples_are_balanced_and_nested(labels, count, seed):
    data = labeled(labels)
    drawn = data.draw(count, seed)
    positions = [data.ids.index(i) for i in drawn.ids]
    assert len(set(positions)) == len(drawn) == min(count, len(labels))
    assert torch.equal(drawn.images, data.images[positions])
    assert drawn.labels.tolist() == [labels[i] for i in positions]
    assert drawn.ids == data.draw(None, seed).ids[:count]
    # A class has fewer than another one, by more than the last turn, only where all of its samples are drawn.
    shares = {label: drawn.labels.tolist().count(label) for label in set(labels)}
    for label, share in shares.items():
        assert share >= max(shares.values()) - 1 or share == labels.count(label)


@given(seed=st.integers(0, 2**40), state=st.integers(0, 100))
def test_a_draw_follows_from_its_seed_alone(seed, state):
    data = labeled([0, 1, 1, 2, 4] * 8)
    expected = data.draw(12, seed).ids
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        assert data.draw(12, seed).ids == expected
        assert torch.equal(torch.get_rng_state(), before)
    assert data.draw(12, seed + 1).ids != expected or data.draw(12, seed + 2).ids != expected


def test_every_sample_of_a_class_is_drawn_equally_often():
    data = labeled([0] * 4 + [1] * 8)
    drawn = [data.draw(5, seed) for seed in range(400)]
    times = torch.tensor([sum(name in part.ids for part in drawn) for name in data.ids]).double()
    # Five of two classes are three and two or two and three: 2.5 of the 4, 2.5 of the 8; five standard deviations.
    assert (times[:4] / 400 - 2.5 / 4).abs().max() < 0.13
    assert (times[4:] / 400 - 2.5 / 8).abs().max() < 0.13


def test_a_draw_of_nothing_is_refused():
    with pytest.raises(UsageError, match="count=0"):
        tiny().draw(0)


@given(count=st.integers(2, 40), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**40))
def test_divide_is_disjoint_complete_and_stable(count, fraction, seed):
    data = tiny(count)
    size = round(count * fraction)
    if not 0 < size < count:
        with pytest.raises(UsageError, match="one part empty"):
            data.divide(fraction, seed)
        return
    train, validation = data.divide(fraction, seed)
    assert len(validation) == size
    assert set(train.ids) | set(validation.ids) == set(data.ids)
    assert not set(train.ids) & set(validation.ids)
    again = data.divide(fraction, seed)
    assert (train.fingerprint, validation.fingerprint) == (again[0].fingerprint, again[1].fingerprint)


def test_divide_leaves_the_global_generator_alone_and_does_not_follow_it():
    data = tiny(40)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = data.divide(0.25, seed=3)[1].ids
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert data.divide(0.25, seed=3)[1].ids == first
    assert data.divide(0.25, seed=4)[1].ids != first


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, 0.01, float("nan")])
def test_divide_refuses_fractions_that_leave_a_part_empty(fraction):
    with pytest.raises(UsageError, match=r"one part empty|must be a number, got nan"):
        tiny().divide(fraction, seed=0)


def test_fingerprint_sees_one_pixel_one_label_one_id():
    data = tiny()
    images, labels = data.images.clone(), data.labels.clone()
    images[3, 0, 1, 1] ^= 1
    labels[0] = 1
    others = [
        dataclasses.replace(data, images=images),
        dataclasses.replace(data, labels=labels),
        dataclasses.replace(data, ids=("other", *data.ids[1:])),
        data.select([1, 0, 2, 3, 4, 5]),
    ]
    assert tiny().fingerprint == data.fingerprint
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_content_keys_see_one_pixel_one_label_one_id_and_nothing_of_the_others():
    data = tiny()
    images, labels = data.images.clone(), data.labels.clone()
    images[3, 0, 1, 1] ^= 1
    labels[0] = 1
    assert len(set(data.content_keys())) == 6
    assert tiny().content_keys() == data.content_keys()
    assert data.select([4, 1]).content_keys() == (data.content_keys()[4], data.content_keys()[1])
    for changed, row in (
        (dataclasses.replace(data, images=images), 3),
        (dataclasses.replace(data, labels=labels), 0),
        (dataclasses.replace(data, ids=("other", *data.ids[1:])), 0),
    ):
        assert [a != b for a, b in zip(changed.content_keys(), data.content_keys())] == [i == row for i in range(6)]


def test_content_keys_are_those_of_the_values_not_of_the_layout():
    data = tiny(2500)
    channels_last = dataclasses.replace(data, images=data.images.to(memory_format=torch.channels_last))
    transposed = dataclasses.replace(data, images=data.images.transpose(2, 3).contiguous().transpose(2, 3))
    assert len(set(data.content_keys())) == 2500
    assert channels_last.content_keys() == transposed.content_keys() == data.content_keys()
    as_floats = dataclasses.replace(data, images=data.tensors()[0])
    flat = dataclasses.replace(as_floats, images=as_floats.images.flatten(1))
    assert not set(as_floats.content_keys()) & {*data.content_keys(), *flat.content_keys()}
    assert data.content_keys()[0] == "e944fa46cdc0cace7756"


def change(**fields):
    return lambda: dataclasses.replace(tiny(dtype=torch.float32), **fields)


def with_pixel(value: float) -> torch.Tensor:
    images = tiny(dtype=torch.float32).images.clone()
    images[2, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            change(images=torch.empty(0, 1, 3, 2), labels=torch.empty(0, dtype=torch.int64), ids=()),
            "tiny/test is empty",
        ),
        (change(images=torch.zeros(6)), r"got torch.float32 of shape \(6,\)"),
        (change(images=torch.zeros(6, 1, 3, 2, dtype=torch.float64)), "got torch.float64"),
        (change(images=torch.zeros(6, 4, dtype=torch.uint8)), "divide them by 255"),
        (change(labels=torch.zeros(5, dtype=torch.int64)), r"int64 of shape \(6,\).*\(5,\)"),
        (change(labels=torch.zeros(6)), "got torch.float32"),
        (
            change(labels=torch.tensor([0, 1, 2, 0, 1, 3])),
            r"within 0\.\.1.*2 of 6 are not; the first is 2 at 'tiny/2'$",
        ),
        (change(labels=torch.tensor([0, 1, 0, -1, -1, -1])), r"3 of 6.*-1 at 'tiny/3' \(-1 marks unlabeled"),
        (change(ids=("x",) * 6), "1 different ids for 6"),
        (change(images=with_pixel(float("nan"))), r"holds NaN \(1 of 6 samples, the first is 'tiny/2'\)"),
        (change(images=with_pixel(-2.1)), r"got \[-2\.1, .*'tiny/2'\): did you normalize"),
        (change(images=with_pixel(float("inf"))), r"inf\].*did you normalize"),
    ],
)
def test_bad_data_is_refused_by_name(make, message):
    with pytest.raises(UsageError, match=message):
        make()
