"""A study folder, as it is read again: its design, all of whose pictures are there."""

from __future__ import annotations

from pathlib import Path

from steadygrad.errors import Failure, UsageError
from steadygrad.files import read_json
from steadygrad.run_folders import RECORD
from steadygrad.study.design import Design

DESIGN, PICTURES = "design.json", "stimuli"


def read(folder: str | Path) -> Design:
    """The design of a study folder, all of whose pictures are there.

    Raises:
        UsageError: there is no study in the folder.
        Failure: a file is missing or damaged.
    """
    path = Path(folder) / DESIGN
    if not path.is_file():
        raise UsageError(
            f"there is no study at {folder}: make one with steadygrad study make RUN --out {folder}"
            if not (Path(folder) / RECORD).is_file()
            else f"{folder} holds a run and no study: make one of it with steadygrad study make {folder} --out STUDY"
        )
    again = "make the study again from its runs (steadygrad study make)"
    try:
        plain, sound = read_json(path)
        design = Design.read(plain)
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{path} is damaged ({error}): {again}") from None
    if not sound:
        raise Failure(f"{path} is damaged or was edited: {again}")
    shown = [name for stimulus in design.stimuli.values() for name in stimulus.images]
    missing = [name for name in shown if not (Path(folder) / PICTURES / f"{name}.png").is_file()]
    if missing:
        raise Failure(f"{len(missing)} of {len(shown)} pictures of {folder} are missing, such as {missing[0]}: {again}")
    return design
