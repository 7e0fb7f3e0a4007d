"""Who sees what, in which order: balanced blocks, Latin squares, sides and buttons, all from one seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steadygrad.errors import Failure
from steadygrad.files import key
from steadygrad.measuring.table import Array

_MISSING, _OTHER_CLASS, _USED = 1e9, 1e5, 10.0


@dataclass(frozen=True)
class Stimulus:
    """What a trial shows, and what is known of it; people are told the images and options alone.

    Attributes:
        id: opaque, as are the names of the images.
        kind: "labels", "clean", "maps" or "attention".
        images: of the picture; of `maps` followed by the two maps.
        options: classes that are offered, in the order of the classes.
        told: of `attention`, the answer that is asked for.
        of: of `maps`, the model or attribution method of each map.
    """

    id: str
    kind: str
    sample: str
    label: str
    images: tuple[str, ...]
    options: tuple[str, ...] = ()
    predicted: str | None = None
    model: str | None = None
    attack: str | None = None
    threat: str | None = None
    told: str | None = None
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One trial of one person.

    Attributes:
        position: in the person's order, from 0.
        kind: "practice", or that of the stimulus.
        options: classes, in the order of the buttons.
        flipped: whether the second of two maps is on the left.
    """

    position: int
    kind: str
    stimulus: Stimulus
    options: tuple[str, ...]
    flipped: bool = False

    @property
    def sides(self) -> tuple[str | None, str | None]:
        """What the maps on the left and on the right are of."""
        if self.stimulus.kind != "maps":
            return None, None
        one, other = self.stimulus.of
        return (other, one) if self.flipped else (one, other)


@dataclass(frozen=True)
class Design:
    """A study: its stimuli, and which of them each block shows.

    Attributes:
        key: of the study; a database belongs to one.
        practice: ids of what everybody sees first.
        blocks: ids of the trials about labels, with controls, and of those about maps, for each block.
    """

    key: str
    seed: int
    classes: tuple[str, ...]
    stimuli: Mapping[str, Stimulus]
    practice: tuple[str, ...]
    blocks: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

    def trials(self, number: int) -> list[Trial]:
        """All trials of the person with this number, who is in block `number % len(blocks)`."""
        block, row = number % len(self.blocks), number // len(self.blocks)
        draw = np.random.default_rng(int(key(self.seed, "person", number)[:15], 16))
        place = {self.classes[c]: i for i, c in enumerate(draw.permutation(len(self.classes)).tolist())}
        ids = [(name, True) for name in self.practice]
        for part in self.blocks[block]:
            ids += [(part[i], False) for i in latin_row(len(part), row)]
        found = []
        for position, (name, practice) in enumerate(ids):
            stimulus = self.stimuli[name]
            options = tuple(sorted(stimulus.options, key=place.__getitem__))
            kind = "practice" if practice else stimulus.kind
            found.append(Trial(position, kind, stimulus, options, bool(draw.integers(2))))
        return found

    def counted(self) -> dict[str, Any]:
        """How much there is of what: blocks, trials of a person after practice, stimuli, and the models."""
        models = sorted({s.model for s in self.stimuli.values() if s.kind == "labels" and s.model is not None})
        counted = {"blocks": len(self.blocks), "practice": len(self.practice), "trials": sum(map(len, self.blocks[0]))}
        return {**counted, "stimuli": len(self.stimuli), "models": models}

    def plain(self) -> dict[str, Any]:
        """As plain data; `read` takes it back."""
        stimuli = [{n: v for n, v in vars(s).items() if v not in (None, ())} for s in self.stimuli.values()]
        return {**vars(self), "stimuli": stimuli}

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Design:
        """From plain data."""
        listed: list[dict[str, Any]] = [
            {n: tuple(v) if isinstance(v, list) else v for n, v in row.items()} for row in plain["stimuli"]
        ]
        stimuli = [Stimulus(**row) for row in listed]
        return Design(
            str(plain["key"]),
            int(plain["seed"]),
            tuple(plain["classes"]),
            {s.id: s for s in stimuli},
            tuple(plain["practice"]),
            tuple((tuple(main), tuple(maps)) for main, maps in plain["blocks"]),
        )


def latin_row(size: int, row: int) -> list[int]:
    """A row of a balanced Latin square (Williams 1949): over its rows each item is once at each position.

    Each item also follows each other one equally often; an odd size takes each row forwards and backwards.

    >>> [latin_row(4, row) for row in range(4)]
    [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]]
    """
    if size == 0:
        return []
    first = [(i + 1) // 2 if i % 2 else (size - i // 2) % size for i in range(size)]
    found = [(item + row) % size for item in first]
    return found[::-1] if size % 2 and (row // size) % 2 else found


@dataclass(frozen=True)
class Slot:
    """A trial to be filled: something of a condition, of a class where there is one."""

    condition: tuple[str, ...]
    label: str | None = None


def slots(conditions: Sequence[tuple[str, ...]], count: int, block: int, classes: Sequence[str] | None) -> list[Slot]:
    """Conditions in equal numbers, and the classes in each; what does not divide goes round with the blocks.

    >>> [slot.condition[0] + slot.label for slot in slots([("x",), ("y",)], 4, 1, ["a", "b"])]
    ['yb', 'xa', 'ya', 'xb']
    """
    found, turns = [], Counter[tuple[str, ...]]()
    for i in range(count):
        at = (i + block) % len(conditions)
        condition = conditions[at]
        label = None
        if classes is not None:
            label = classes[(turns[condition] + block * (count // len(conditions) or 1) + at) % len(classes)]
        turns[condition] += 1
        found.append(Slot(condition, label))
    return found


def fill(
    wanted: Sequence[Slot],
    offered: Mapping[tuple[str, ...], Sequence[Stimulus]],
    used: Counter[str],
    draw: np.random.Generator,
) -> list[Stimulus]:
    """A stimulus for each slot, of different samples, those that were used least; `used` counts on.

    Of the ways to do so it takes the one that misses the fewest classes (an assignment problem).

    Raises:
        Failure: there are too few; it says of which condition how many are missing.
    """
    from scipy.optimize import linear_sum_assignment

    samples = sorted({s.sample for slot in wanted for s in offered[slot.condition]})
    column = {sample: i for i, sample in enumerate(samples)}
    # A column of its own for each slot stands for nothing.
    cost: Array = np.full((len(wanted), len(samples) + len(wanted)), _MISSING)
    best: dict[tuple[int, int], Stimulus] = {}
    for i, slot in enumerate(wanted):
        for stimulus in offered[slot.condition]:
            at = (i, column[stimulus.sample])
            value = _USED * used[stimulus.id] + draw.random() + _USED * 0.1 * used[" ".join(stimulus.of)]
            value += _OTHER_CLASS * (slot.label not in (None, stimulus.label))
            if value < cost[at]:
                cost[at], best[at] = value, stimulus
    rows, columns = linear_sum_assignment(cost)
    chosen = {int(i): best[i, j] for i, j in zip(rows.tolist(), columns.tolist()) if (i, j) in best}
    if len(chosen) < len(wanted):
        raise Failure(_too_few(wanted, offered, [s for i, s in enumerate(wanted) if i not in chosen]))
    for stimulus in chosen.values():
        used.update([stimulus.id, " ".join(stimulus.of)])
    return [chosen[i] for i in range(len(wanted))]


def _too_few(
    wanted: Sequence[Slot], offered: Mapping[tuple[str, ...], Sequence[Stimulus]], lacking: Sequence[Slot]
) -> str:
    needed, said = Counter(slot.condition for slot in wanted), []
    for condition, count in needed.items():
        there = len({s.sample for s in offered[condition]})
        if there < count:
            missing = f"{count - there} {'is' if count - there == 1 else 'are'} missing"
            said.append(f"{_named(condition)}: {there} of {count} needed, {missing}")
    if not said:
        short = ", ".join(f"{n} of {_named(c)}" for c, n in Counter(s.condition for s in lacking).items())
        said.append(
            f"no person sees one source image twice, and so {short} {'is' if len(lacking) == 1 else 'are'} missing"
        )
    return (
        f"too few stimuli for a person: {'; '.join(said)}. Give more runs, or audit with --keep-inputs or more "
        "--gallery; or ask for less (--trials, --maps, --clean), or for fewer models (--model)"
    )


def _named(condition: tuple[str, ...]) -> str:
    """A condition in words."""
    kind, *of = condition
    if kind == "labels":
        return f"images that fool {of[0]} ({of[1]})"
    return {"maps": f"pairs of maps of two {' '.join(of)}", "clean": "unchanged images"}.get(kind, f"{kind} images")
