"""Single bits of kept files are turned, and the same command is run again: it must give what it gave, and say so.

    python -m campaigns.flips [--count 1000] [--reruns 100] [--seed 0] [--only WORD]

Each kind of file is read by itself after `--count` flips, where a wrong value in silence would be a fault; and after
`--reruns` flips the command that made the folder is run once more. It must end with exit code 0 and the same numbers,
and name the damaged file.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campaigns import kept
from campaigns.mutations import flipped
from campaigns.watched import Target, Untold, counted, judged, say
from cli.commands import call, lasting
from steadygrad.audit.audit import FACTS, TABLES
from steadygrad.audit.schema import HardenSummary
from steadygrad.errors import Failure
from steadygrad.run_folders import RECORD
from steadygrad.training import checkpoints

WEIGHTS, SUMMARY = "model.safetensors", "summary.json"


def again(name: str, made: Path, victims: Sequence[str], *line: str | Path, result: Any, **how: Any) -> Target:
    """A target that is read by running the line once more in its folder."""

    def read(folder: Path) -> Any:
        damaged = [file for file in victims if (folder / file).read_bytes() != (made / file).read_bytes()]
        ended = call(*line, "--quiet", "--out", folder)
        if ended.code != 0:
            raise Failure(ended.err)
        found = result(folder)
        told = [file for file in damaged if str(folder / file) in ended.err]
        if told != damaged:
            raise Untold(f"{damaged} not named: {ended.err}")
        return found

    return Target(name, made, tuple(victims), read, mends=True, writes=True, change=flipped, **how)


def commands(root: Path, paper: bool) -> list[Target]:
    """All kinds of kept files, each with the command that mends it; `kept.targets` made the folders below the root."""
    train, audit, harden = (root / name for name in ("trained", "audited", "hardened"))

    def weights(folder: Path) -> Any:
        return [(folder / WEIGHTS).read_bytes().hex(), (folder / "history.csv").read_text()]

    def summary(folder: Path) -> Any:
        left = {name: value for name, value in lasting(folder).items() if name != "sha256"}
        return [left, *([kept.shown(HardenSummary.read(folder).plain())] if (folder / "harden.json").exists() else [])]

    inputs = [path.relative_to(audit).as_posix() for path in sorted((audit / "inputs").iterdir())]
    of_audit = ("audit", train, *kept.AUDIT)
    of_harden = ("harden", train, *kept.HARDEN)
    nested = [f"training/{file}" for file in (RECORD, WEIGHTS, checkpoints.NAME)]
    made = [
        again("weights, trained", train, (WEIGHTS,), *kept.TRAIN, result=weights),
        again("record, trained", train, (RECORD,), *kept.TRAIN, result=weights),
        again("checkpoint, trained", train, (checkpoints.NAME,), *kept.TRAIN, result=weights),
        again("tables, audited", audit, kept.tables_of(audit), *of_audit, result=summary),
        again("facts, audited", audit, (f"{TABLES}/{FACTS}",), *of_audit, result=summary),
        again("record, audited", audit, (RECORD,), *of_audit, result=summary),
        again("summary, audited", audit, (SUMMARY,), *of_audit, result=summary),
        again("inputs, audited", audit, inputs, *of_audit, result=summary),
        again("harden.json", harden, (HardenSummary.FILE,), *of_harden, result=summary),
        again("weights, hardened", harden, (WEIGHTS,), *of_harden, result=summary),
        again("training, hardened", harden, nested, *of_harden, result=summary),
    ]
    if paper:
        folder = kept.reproduced(root)
        files = kept.tables_of(folder)
        records = [file for file in files if "/training-" in file]
        of_paper = {"result": kept.paper}
        made += [
            again("records of a paper", folder, records, *kept.PAPER, **of_paper),
            again("tables of a paper", folder, sorted({*files} - {*records}), *kept.PAPER, **of_paper),
            again("record of a paper", folder, (RECORD,), *kept.PAPER, **of_paper),
        ]
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Turn bits and print what became of them; 1 if there was a fault."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=1000, help="flips in each kind of file that is read by itself")
    options.add_argument("--reruns", type=int, default=100, help="flips in each kind of file that a command mends")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="kinds of files with this word in their name")
    options.add_argument("--no-paper", action="store_true", help="leave out what a paper keeps, which takes longest")
    given = options.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        read = [target for target in kept.targets(root, flipped) if given.only in target.name]
        mended = [target for target in commands(root, not given.no_paper) if given.only in target.name]
        faults = 0
        for title, targets, count in (("read", read, given.count), ("the command again", mended, given.reruns)):
            verdicts = itertools.chain.from_iterable(judged(t, given.seed, range(count)) for t in targets)
            text, found = counted(verdicts, f"bits turned, {title}, seed {given.seed}", [t.name for t in targets])
            say(text + "\n")
            faults += found
    say(f"{faults} faults in {time.monotonic() - started:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
