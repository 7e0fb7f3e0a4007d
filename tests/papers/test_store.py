"""Pieces of work are done once, kept whole, and made anew when what they depend on changes."""

from __future__ import annotations

import numpy as np
import pytest

from steadygrad.errors import Failure
from steadygrad.papers import store as room
from steadygrad.papers.store import Store


def test_a_piece_is_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(3)}

    for _ in range(2):
        store = Store(tmp_path)
        assert store.get("piece", compute, "x", 1)["a"].tolist() == [0, 1, 2]
        assert store.seconds["piece"] >= 0
    assert len(calls) == 1
    assert store.computed == 0
    store.get("piece", compute, "x", 2)
    assert len(calls) == 2


def test_the_time_of_a_piece_counts_once(tmp_path):
    store = Store(tmp_path)

    def compute():
        return {"a": np.zeros(1)}

    store.get("piece", compute, 1)
    once = store.seconds["piece"]
    store.get("piece", compute, 1)
    assert store.seconds["piece"] == once
    store.get("piece", compute, 2)
    assert store.seconds["piece"] > once


def test_a_change_of_the_code_makes_it_anew(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.get("piece", lambda: {"a": np.zeros(1)})
    monkeypatch.setattr(room, "code_key", lambda: "another")
    assert store.get("piece", lambda: {"a": np.ones(1)})["a"] == 1


def test_a_failed_piece_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def broken():
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        store.get("piece", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(tmp_path):
    Store(tmp_path).get("piece", lambda: {"a": np.zeros(4)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(Failure, match="delete it to have it made again"):
        room.read(path)
