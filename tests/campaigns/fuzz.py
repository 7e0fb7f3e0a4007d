"""Damaged files of all kinds are read: each must end in an error by name, or in a result that may be.

    python -m campaigns.fuzz [--minutes 5] [--count N] [--seed 0] [--only WORD] [--guided KIND]

What people bring (images, arrays, tables, weights, settings, masks) may give another result; what runs keep (tables,
facts, records, checkpoints, weights) may not. Errors that are not foreseen, other results of kept files, crashes, hangs
of 20 s and 2 GB of memory are faults. Damage follows from the seed, the kind of file and a number, which are printed:
`--only KIND --first NUMBER --count 1` repeats one. With `--guided` atheris, where it is installed, looks for damage by
the branches that are taken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from campaigns import brought, kept
from campaigns.watched import Target, Verdict, counted, guided, judged, say

BATCH = 60


def verdicts(
    targets: Sequence[Target], seed: int, first: int, count: int | None, minutes: float, batch: int = BATCH
) -> Iterator[Verdict]:
    """All targets in turns, for so many minutes, or until there are so many verdicts."""
    ends, given = time.monotonic() + 60 * minutes, 0
    starts = {target.name: first for target in targets}
    while True:
        for target in targets:
            left = batch if count is None else min(batch, count - given)
            size = min(left, max(1, round(batch * target.share)))
            if size < 1 or (count is None and time.monotonic() > ends):
                return
            start, starts[target.name] = starts[target.name], starts[target.name] + size
            given += size
            yield from judged(target, seed, range(start, start + size))


def all_targets(root: Path, only: str = "") -> list[Target]:
    """What people bring and what runs keep, below the root."""
    (root / "brought").mkdir()
    (root / "kept").mkdir()
    found = [*brought.targets(root / "brought"), *kept.targets(root / "kept"), *kept.forged(root / "kept")]
    return [target for target in found if only in target.name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Damage files and print what became of them; 1 if there was a fault."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--count", type=int, help="so many damaged files instead of minutes")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0, help="number of the first damage of each kind")
    options.add_argument("--only", default="", help="kinds of files with this word in their name")
    options.add_argument("--guided", metavar="KIND", help="this kind only, by atheris")
    given = options.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        targets = all_targets(Path(place), given.guided or given.only)
        if not targets:
            say(f"there is no kind of file with {(given.guided or given.only)!r} in its name")
            return 2
        if given.guided:
            return guided(targets[0], given.minutes)
        found = verdicts(targets, given.seed, given.first, given.count, given.minutes)
        text, faults = counted(found, f"damaged files, seed {given.seed}", [target.name for target in targets])
    say(f"{text}\n{faults} faults in {time.monotonic() - started:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
