"""Runs are killed, run in pairs into one folder, and lose their folder: what is left must be right.

    python -m campaigns.kills [--kills 200] [--pairs 100] [--deleted 20] [--minutes M] [--seed 0] [--only WORD]

Each command is killed with SIGKILL at random moments, continued and killed again, until it ends: its result must be
that of an undisturbed run, and nothing that was done may be done again. Pairs of runs that start together into one
folder must not mix: one wins and the other is refused by name, or goes to the next folder. A run whose folder is
deleted must say so, and leave nothing behind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns import kept
from campaigns.watched import say, table
from children import alive
from cli.commands import Nursery, Result, times
from steadygrad.locks import HOLDER

CHAIN = 5
"""So many kills of one run, before it may end."""
KILLED: dict[str, tuple[str, ...]] = {
    "train": (
        *("train", "--model", "mlp:hidden=[8]", "--limit", "300", "--epochs", "6", "--set", "batch_size=16"),
        *("--set", "checkpoint_steps=2", "--defense", "adversarial:eps=0.1,attack=fgsm"),
    ),
    "audit": ("audit", "{trained}", *kept.AUDIT),
    "audit, shared": ("audit", "{trained}", *kept.AUDIT, "--engine", "shared"),
    "harden": ("harden", "{trained}", *kept.HARDEN),
    "reproduce": kept.PAPER,
    "demo": ("demo", "--samples", "20"),
}
_SHARES = {"train": 0.3, "audit": 0.2, "audit, shared": 0.1, "harden": 0.25, "reproduce": 0.1, "demo": 0.05}
PAIRED: dict[str, tuple[str, ...]] = {
    "train": kept.TRAIN,
    "train, seed 1": (*kept.TRAIN, "--seed", "1"),
    "audit": ("audit", "{trained}", *kept.AUDIT),
    "audit, eps 0.2": ("audit", "{trained}", *kept.AUDIT, "--eps", "0.2"),
    "harden": ("harden", "{trained}", *kept.HARDEN),
}


@dataclass
class Ground:
    """Where the runs lie, who runs them, and how they end undisturbed."""

    root: Path
    seed: int
    only: str = ""
    ends: float = math.inf
    faults: list[str] = field(default_factory=list)
    whole: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trained = kept.trained(self.root)
        self.nurseries = []
        for place in ("first", "second"):
            (self.root / place).mkdir()
            self.nurseries.append(Nursery(self.root / place))

    def more(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.ends

    def line(self, words: Sequence[str]) -> list[str]:
        """A command line, with the trained model in its place."""
        return [word.format(trained=self.trained) for word in words] + ["--quiet"]

    def undisturbed(self, name: str, words: Sequence[str]) -> Any:
        """What a command leaves that nobody disturbs."""
        key = f"{name} {words}"
        if key not in self.whole:
            out, started = self.root / "undisturbed" / f"{len(self.whole)}" / "run", time.monotonic()
            ended = self.nurseries[0].run(*self.line(words), "--out", out)
            assert ended.code == 0, ended.err
            self.whole[key], self.seconds[name] = outcome(out), time.monotonic() - started
        return self.whole[key]

    def wrong(self, what: str, *facts: object) -> None:
        """Note a fault."""
        self.faults.append(f"{what}: {'; '.join(map(str, facts))}")


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run left and that must be the same each time, by the path below its folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in ("summary.json", "harden.json"):
            text = re.sub(r'"[^"]*/model\.safetensors"', '"FILE"', path.read_text(encoding="utf-8"))
            found[name] = kept.shown(json.loads(text))
        elif path.name in ("model.safetensors", "history.csv", "index.html"):
            found[name] = path.exists() if path.suffix == ".html" else path.read_bytes()
        elif path.name.startswith(".partial"):
            found[name] = "left over"
        elif path.suffix == ".parquet":
            found[name.rpartition("-")[0]] = True  # what follows is the hash of the content, with its date
    return found


def killed(ground: Ground, count: int) -> list[tuple[Any, ...]]:
    """Kill each command its share of times, in chains, and see what is left; rows for the table."""
    rows = []
    for name, words in KILLED.items():
        kills, runs, wanted = 0, 0, round(count * _SHARES[name]) if ground.only in name else 0
        if not wanted:
            continue
        whole = ground.undisturbed(name, words)
        before = len(ground.faults)
        while kills < wanted and ground.more():
            out = ground.root / "killed" / f"{name}-{runs}" / "run"
            drawn = random.Random(f"{ground.seed} {name} {runs}")
            runs += 1
            for turn in range(min(CHAIN, wanted - kills)):
                done = times(out)
                ends = time.monotonic() + drawn.uniform(0, ground.seconds[name] * (0.9 if turn == 0 else 0.6))
                how: dict[str, Any] = {"sent": signal.SIGKILL, "when": lambda ends=ends: time.monotonic() > ends}
                ended = ground.nurseries[0].run(*ground.line(words), "--out", out, **how)
                again = [shard for shard, when in done.items() if times(out).get(shard) != when]
                if again:
                    ground.wrong(f"{name} {runs}, kill {turn}", "made again", *again)
                if ended.code != -signal.SIGKILL:
                    if ended.code:
                        ground.wrong(f"{name} {runs}, kill {turn}", ended)
                    break
                kills += 1
            ended = ground.nurseries[0].run(*ground.line(words), "--out", out)
            left = outcome(out) if ended.code == 0 else {}
            if ended.code:
                ground.wrong(f"{name} {runs}", ended)
            _compare(ground, f"{name} {runs}", left, whole)
            shutil.rmtree(out.parent, ignore_errors=True)
        rows.append((name, kills, runs, len(ground.faults) - before))
    return rows


def paired(ground: Ground, count: int) -> list[tuple[Any, ...]]:
    """Start pairs of runs together into one folder, or both without one; rows for the table."""
    different = list(itertools.combinations(PAIRED, 2))
    alike = [pair for pair in different if pair[0].split(",")[0] == pair[1].split(",")[0]]
    ways = {
        "different runs, one --out": different,
        "different runs, no --out": alike,
        "the same run twice": [(name, name) for name in PAIRED],
    }
    rows: dict[str, Counter[str]] = {way: Counter() for way in ways}
    for number in itertools.takewhile(lambda _: ground.more(), range(count)):
        drawn = random.Random(f"{ground.seed} pair {number}")
        way = (*ways, "different runs, one --out")[number % 4]
        names = drawn.sample(drawn.choice(ways[way]), 2)
        folder = ground.root / "pairs" / str(number)
        folder.mkdir(parents=True)
        out = [] if way.endswith("no --out") else ["--out", str(folder / "run")]
        for nursery, name in zip(ground.nurseries, names):
            nursery.begin(*ground.line(PAIRED[name]), *out, folder=folder)
            time.sleep(drawn.choice((0, 0, drawn.uniform(0, 0.3))))
        ended = [nursery.ended() for nursery in ground.nurseries]
        before = len(ground.faults)
        judge = _judge_one_folder if out else _judge_next_folder
        judge(ground, f"pair {number}, {way}, {' and '.join(names)}", names, ended, folder)
        won = sum(result.code == 0 for result in ended)
        rows[way].update(pairs=1, won=won, refused=2 - won, faults=len(ground.faults) - before)
        shutil.rmtree(folder, ignore_errors=True)
    return [(way, r["pairs"], r["won"], r["refused"], r["faults"]) for way, r in rows.items()]


def _judge_one_folder(ground: Ground, what: str, names: list[str], ended: list[Result], folder: Path) -> None:
    """One has won, the folder is its own, and the other one was refused by name."""
    won = [name for name, result in zip(names, ended) if result.code == 0]
    if len({*won}) != 1:
        ground.wrong(what, f"{len(won)} won", *ended)
        return
    for result in ended:
        known = ("is working in the output folder", "another configuration", "another run is beginning")
        if result.code and (result.code != 2 or not any(words in result.err for words in known)):
            ground.wrong(what, "not refused by name", result)
    _compare(ground, what, outcome(folder / "run"), ground.undisturbed(won[0], PAIRED[won[0]]))


def _judge_next_folder(ground: Ground, what: str, names: list[str], ended: list[Result], folder: Path) -> None:
    """Both have won, each in a folder of its own."""
    if any(result.code for result in ended):
        ground.wrong(what, *ended)
        return
    found = [outcome(path) for path in sorted((folder / "runs").iterdir())]
    for name in names:
        whole = ground.undisturbed(name, PAIRED[name])
        if found.count(whole) != 1:
            ground.wrong(what, f"no folder is that of {name}", [sorted(left)[:3] for left in found])


def _compare(ground: Ground, what: str, left: dict[str, Any], whole: dict[str, Any]) -> None:
    if left != whole:
        ground.wrong(what, *sorted(k for k in {*left, *whole} if left.get(k) != whole.get(k))[:5])


def deleted(ground: Ground, count: int) -> list[tuple[Any, ...]]:
    """Delete the folder of a run that works in it; rows for the table."""
    rows: dict[str, Counter[str]] = {name: Counter() for name in PAIRED}
    for number in itertools.takewhile(lambda _: ground.more(), range(count)):
        drawn = random.Random(f"{ground.seed} deleted {number}")
        name, out = list(PAIRED)[number % len(PAIRED)], ground.root / "deleted" / str(number) / "run"
        ground.undisturbed(name, PAIRED[name])
        nursery, before = ground.nurseries[0], len(ground.faults)
        child = nursery.begin(*ground.line(PAIRED[name]), "--out", out)
        while not (out / HOLDER).exists() and alive(child):
            time.sleep(0.001)
        time.sleep(drawn.uniform(0, 0.5) * ground.seconds[name])
        gone = alive(child) and not any((out / last).exists() for last in ("model.safetensors", "summary.json"))
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)  # what was written while it was being deleted
        result = nursery.ended()
        if gone and (result.code != 1 or "was deleted or replaced" not in result.err):
            ground.wrong(f"deleted {number}, {name}", result)
        if gone and out.exists():
            ground.wrong(f"deleted {number}, {name}", "came back", *sorted(out.rglob("*"))[:5])
        rows[name].update(deleted=1, refused=int(result.code == 1), faults=len(ground.faults) - before)
    return [(name, r["deleted"], r["refused"], r["faults"]) for name, r in rows.items() if r["deleted"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb runs and print what became of them; 1 if there was a fault."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--pairs", type=int, default=100)
    options.add_argument("--deleted", type=int, default=20)
    options.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after so many")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="kill commands with this word in their name")
    given = options.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        ground = Ground(Path(place), given.seed, given.only, started + 60 * given.minutes)
        parts = (
            ("killed", ("command", "kills", "runs", "faults"), killed, given.kills),
            ("pairs", ("way", "pairs", "won", "refused", "faults"), paired, given.pairs),
            ("folder deleted", ("command", "deleted", "refused", "faults"), deleted, given.deleted),
        )
        for title, head, work, count in parts:
            if count:
                say(table(f"{title}, seed {given.seed}", [head, *work(ground, count)]) + "\n")
        for fault in ground.faults:
            say(fault)
        for nursery in ground.nurseries:
            nursery.close()
    say(f"{len(ground.faults)} faults in {time.monotonic() - started:.0f} s")
    return 1 if ground.faults else 0


if __name__ == "__main__":
    sys.exit(main())
