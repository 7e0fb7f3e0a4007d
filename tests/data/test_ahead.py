"""The next batch is decoded meanwhile, each image once, in the order and with the values of the data."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch

import steadygrad as sg
from steadygrad.data import image_files, lazy
from steadygrad.data.ahead import Ahead, in_order
from steadygrad.errors import Failure
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Runner


@pytest.fixture
def pets(tmp_path, make_folder, monkeypatch):
    """Lazy images of which none are held, and the names of those that were decoded, with the threads that did it."""
    monkeypatch.setattr(lazy, "MOST_BYTES", 0)
    root = make_folder(tmp_path / "pets", ("cat", "dog"), 10, (8, 8))
    found, decode = [], image_files.decode
    monkeypatch.setattr(
        image_files,
        "decode",
        lambda c, f, w: (found.append((w, threading.get_ident())), decode(c, f, w))[1],
    )
    data = sg.data.load(root, "all")
    found.clear()
    return data, found


def test_the_next_batch_is_decoded_while_one_is_worked_on(pets):
    data, found = pets
    ahead = Ahead(data)
    x, _ = ahead.batch([3, 1], [7, 9])
    ahead._pool.shutdown(wait=True)  # what is asked for afterwards is there already
    assert [where[-9:] for where, _ in found] == ["cat/1.png", "cat/3.png", "cat/7.png", "cat/9.png"]
    assert {thread == threading.get_ident() for _, thread in found[2:]} == {False}
    y, labels = ahead.batch(torch.tensor([7, 9]))
    assert len(found) == 4
    assert torch.cat([x, y]).equal(data.batch([3, 1, 7, 9])[0])
    assert labels.tolist() == [0, 0]


def test_other_places_than_were_told_are_right_too(pets):
    data, _ = pets
    ahead = Ahead(data)
    ahead.batch([0], [1])
    assert ahead.batch([2])[0].equal(data.batch([2])[0])


@pytest.fixture
def copies(monkeypatch):
    """What goes to a CUDA device that is none: which tensors were pinned, in which thread, and how they were copied."""
    pinned, sent, to = {}, [], torch.Tensor.to

    def pin(tensor):
        pinned[tensor.data_ptr()] = threading.get_ident()
        return tensor

    def moved(tensor, *where, **how):
        if where and isinstance(where[0], torch.device) and where[0].type == "cuda":
            sent.append((tensor.data_ptr() in pinned, how))
            return tensor
        return to(tensor, *where, **how)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    return pinned, sent


@pytest.mark.parametrize("kind", ["files", "memory", "own code"])
def test_the_next_batch_for_a_gpu_is_pinned_meanwhile_and_nothing_waits_for_its_copy(pets, copies, kind):
    data, cuda = pets[0], torch.device("cuda")
    pinned, sent = copies
    if kind == "memory":
        data = sg.data.from_arrays(*data.tensors())
    if kind == "own code":
        data = dataclasses.replace(data, images=dataclasses.replace(data.images, hashes=None))
    ahead = Ahead(data)
    x, y = ahead.batch([3, 1], [7, 9], cuda)
    if kind != "own code":  # which runs in the thread of its owner
        ahead._pool.shutdown(wait=True)
        assert sum(thread != threading.get_ident() for thread in pinned.values()) == 2
    z, _ = ahead.batch([7, 9], device=cuda)
    assert len(pinned) == 4
    assert sent == [(True, {"non_blocking": True})] * 4
    assert torch.cat([x, z]).equal(data.batch([3, 1, 7, 9])[0])
    assert y.equal(data.labels[[3, 1]])


def test_batches_for_the_cpu_are_not_pinned(pets, copies):
    for data in (pets[0], sg.data.from_arrays(*pets[0].tensors())):
        list(in_order(data, 4))
    assert copies == ({}, [])


def test_an_error_comes_with_its_batch(pets, tmp_path):
    data, _ = pets
    (tmp_path / "pets" / "cat" / "5.png").write_bytes(b"no image")
    ahead = Ahead(data)
    ahead.batch([0], [5])
    with pytest.raises(Failure, match=r"cat/5\.png is not a readable image"):
        ahead.batch([5], [6])


def test_all_in_order_is_all(pets):
    data, found = pets
    assert torch.cat([x for x, _ in in_order(data, 7)]).equal(data.tensors()[0])
    assert len(found) == 2 * len(data)


def test_a_runner_and_a_training_decode_each_image_once_and_ahead(pets):
    data, found = pets
    model = sg.models.build("mlp", data.shape, data.classes, seed=0)
    runner = Runner({"m": model}, data, batch_size=3, shard=8)
    runner.room("m", torch.device("cpu"))  # a trial on the first samples, once for a model
    found.clear()
    table = runner.run(Predicted(), "m")
    assert np.array_equal(table["label"], data.labels.numpy())
    assert len(found) == len({where for where, _ in found}) == len(data)
    assert sum(thread == threading.get_ident() for _, thread in found) == 3  # the first batch
    found.clear()
    settings = sg.FitSettings(epochs=1, batch_size=4)
    trained = sg.fit(model, sg.defenses.Plain(), data, settings=settings)
    memory = sg.data.from_arrays(data.tensors()[0], data.labels, data.classes)
    same = sg.fit(model, sg.defenses.Plain(), memory, settings=settings)
    assert sum(thread != threading.get_ident() for _, thread in found) == 16
    for a, b in zip(trained.classifier.parameters(), same.classifier.parameters()):
        assert a.equal(b)
