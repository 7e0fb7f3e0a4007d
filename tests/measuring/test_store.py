"""The store: a shard is computed once, what is damaged is made again, what failed leaves nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from steadygrad.errors import Failure
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import Table


def shard(*flags: bool) -> Table:
    return Table({"sample": np.array([f"s{i}" for i in range(len(flags))]), "success": np.array(flags)})


@pytest.mark.parametrize("in_files", [False, True])
def test_a_shard_is_computed_once(tmp_path: Path, in_files: bool) -> None:
    store = Store(tmp_path if in_files else None)
    first = store.get("p", "a", lambda: shard(True))
    assert store.get("p", "a", lambda: pytest.fail("computed again")).frame.equals(first.frame)
    store.get("p", "b", lambda: shard(False))
    assert store.computed == 2
    found = sorted(str(p.relative_to(tmp_path)).rpartition("-")[0] for p in tmp_path.rglob("*.parquet"))
    assert found == (["p/a", "p/b"] if in_files else [])


def test_shards_of_an_earlier_run_are_read(tmp_path: Path) -> None:
    Store(tmp_path).get("p", "a", lambda: shard(True, False))
    after = Store(tmp_path)
    assert after.get("p", "a", lambda: pytest.fail("computed again")).frame.equals(shard(True, False).frame)
    assert after.computed == 0


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> Table:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("p", "a", fail)
    assert list(tmp_path.iterdir()) == []
    assert len(store.get("p", "a", lambda: shard(True))) == 1


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "half": lambda b: b[: len(b) // 2],
    "no end": lambda b: b[:-3],
    "text": lambda b: b"model,source\n",
    "zeros inside": lambda b: b[:4] + bytes(len(b) // 2) + b[4 + len(b) // 2 :],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_is_made_again_and_named_in_the_log(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    store.get("p", "a", lambda: shard(*[True] * 50))
    (path,) = (tmp_path / "p").iterdir()
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    with caplog.at_level(logging.WARNING, "steadygrad"):
        assert len(store.get("p", "a", lambda: shard(True))) == 1
    (line,) = caplog.messages
    assert f"{path} is damaged and is made again" in line
    assert store.computed == 2
    (path,) = (tmp_path / "p").iterdir()
    assert len(Table.read(path)) == 1


def test_no_flipped_bit_of_a_shard_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("p", "a", shard(*[True, False] * 20))
    (path,) = (tmp_path / "p").iterdir()
    whole = path.read_bytes()
    for place in np.random.default_rng(0).permutation(8 * len(whole))[:1000].tolist():
        path.write_bytes(whole[: place // 8] + bytes([whole[place // 8] ^ (1 << place % 8)]) + whole[place // 8 + 1 :])
        assert store.read("p", "a") is None
        with pytest.raises(Failure, match=r"is damaged .*: run the same command again"):
            store.table("p")
    path.write_bytes(whole)
    assert store.read("p", "a") is not None


def test_a_table_is_its_shards_in_order_beside_remains_of_a_killed_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get("p", "0000010-b", lambda: shard(True))
    store.get("p", "0000000-a", lambda: shard(False, False))
    (tmp_path / "p" / ".partial-1f-c.parquet").write_bytes(b"PAR1 half")
    (tmp_path / "p" / "notes.txt").write_text("no table")
    found = store.table("p")
    assert found is not None
    assert found["success"].tolist() == [False, False, True]
    assert store.table("q") is None
    store.keep_only("p", ["0000000-a"])
    kept = sorted(p.name.rpartition("-")[0] or p.name for p in (tmp_path / "p").iterdir())
    assert kept == [".partial-1f", "0000000-a", "notes.txt"]


def test_the_shards_of_a_table_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        Store(tmp_path).put("p", name, shard(True))
    listed: list[str] = []
    listing = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: listed.append(self.name) or listing(self, pattern))
    store = Store(tmp_path)
    for name in "abcde":
        assert store.get("p", name, lambda: shard(False)) is not None
    assert store.computed == 2
    assert listed == ["p"]


def test_of_two_that_made_one_shard_one_is_left_whoever_comes_last(tmp_path: Path) -> None:
    tables = [Table({"sample": np.array(["s"])}, {"seconds": seconds}) for seconds in (1, 2)]
    left = []
    for order in (tables, tables[::-1]):
        folder = tmp_path / str(len(left))
        stores = [Store(folder, together=True) for _ in order]
        for store in stores:
            assert not store.has("p")  # neither knows of the other
        for store, table in zip(stores, order):
            store.put("p", "a", table)
            (path,) = (folder / "p").iterdir()
        left.append(path.name)
        found = Store(folder).table("p")
        assert found is not None
        assert len(found) == 1
    assert left[0] == left[1]
    path.with_name(f"a-{'0' * 16}.parquet").write_bytes(b"damaged")
    stores[0].put("p", "a", tables[0])
    assert [p.name for p in (folder / "p").iterdir()] == [path.name]


def test_names_that_differ_never_share_a_folder() -> None:
    names = ["m", "M", "m/..", "../m", "m ", "ä", "ö", "x" * 200, "x" * 199, ""]
    places = [place_of(name, "t") for name in names]
    assert len({place.lower() for place in places}) == len(names)
    assert all(".." not in place and place.count("/") == 1 and len(place) < 100 for place in places)
