"""`study make`: from run folders to a study folder, with a design and its pictures under names that tell nothing."""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steadygrad.arguments import public
from steadygrad.errors import Failure, UsageError, one_of
from steadygrad.files import atomic, key, write_json
from steadygrad.measuring.table import Array
from steadygrad.report import png
from steadygrad.run_folders import run_folder
from steadygrad.study.design import Design, Slot, Stimulus, fill, slots
from steadygrad.study.folder import DESIGN, PICTURES
from steadygrad.study.pool import Pool, Shown, read_pool
from steadygrad.study.settings import FILE, template
from steadygrad.values import Count, Seed, Whole

_MOST_OPTIONS, _FEWEST_BLOCKS, _USUAL_MAPS = 10, 4, 6
_OFFERED = dict[tuple[str, ...], list[Stimulus]]


@public
def make(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    trials: Count = 30,
    maps: Whole | None = None,
    clean: Whole = 3,
    attention: Whole = 2,
    practice: Count = 3,
    models: Sequence[str] = (),
    attacks: Sequence[str] = (),
    seed: Seed = 0,
) -> Design:
    """Make a study from run folders of audits and reproductions.

    Args:
        out: the study folder. It needs the runs no more.
        trials: about adversarial images, of each person.
        maps: trials about pairs of maps; None for up to 6, as many as there are images for.
        clean: unchanged images among the trials, as controls.
        attention: trials whose answer is told.
        practice: trials before the first, of unchanged images.
        models, attacks: by name, those that are asked about; by default all models, under the attack of which most is
            kept.

    Raises:
        UsageError: the runs have different classes, or there is no such model or attack.
        Failure: there are too few stimuli, of which it says how many are missing, or a run is damaged.
    """
    if not runs:
        raise UsageError("runs is empty: give at least one run folder of an audit or a reproduction")
    pool = read_pool(runs)
    named = _models_and_attacks(pool, models, attacks)
    settings = {
        "trials": trials, "maps": maps, "clean": clean, "attention": attention, "practice": practice, "seed": seed,
        "models": list(dict.fromkeys(m for m, _ in named)), "attacks": list(dict.fromkeys(a for _, a in named)),
    }  # fmt: skip
    config = {"study": 1, "runs": pool.runs, "settings": settings, "classes": list(pool.classes)}
    made = _Making(pool, named, seed, key(list(pool.runs.values()), settings))
    design = made.design(trials, maps, clean, attention, practice)
    with run_folder(out, config) as folder:
        for name, data in made.pictures(design).items():
            with atomic(folder / PICTURES / f"{name}.png") as temporary:
                temporary.write_bytes(data)
        write_json(folder / DESIGN, design.plain())
        template(folder / FILE)
    return design


def _models_and_attacks(pool: Pool, models: Sequence[str], attacks: Sequence[str]) -> list[tuple[str, str]]:
    """Which models are asked about, under which attacks, each of which must have tried each model."""
    if not pool.adversarial:
        raise Failure(
            f"the runs keep no adversarial inputs ({', '.join(pool.runs)}): audit with --gallery 6 or more, or with "
            "--keep-inputs"
        )
    known = dict.fromkeys(model for model, _ in pool.adversarial)
    for model in models:
        one_of("model of the runs", model, known)
    tried = dict.fromkeys(attack for _, attack in pool.adversarial)
    for attack in attacks:
        one_of("attack of which the runs keep inputs", attack, tried)
    wanted = list(models) or list(known)
    if not attacks:
        # The one that all models have, and of which most is there for whom least is there.
        def least(attack: str) -> tuple[int, int]:
            counts = [
                len({s.sample for s in pool.adversarial[m, attack]}) for m in wanted if (m, attack) in pool.adversarial
            ]
            return len(counts), min(counts, default=0)

        attacks = [max(tried, key=least)]
    pairs = [(model, attack) for model in wanted for attack in attacks]
    absent = [f"{model} under {attack}" for model, attack in pairs if (model, attack) not in pool.adversarial]
    if absent:
        raise UsageError(
            f"the runs keep no adversarial inputs of {', '.join(absent)}: choose models and attacks that go together "
            f"(--model, --attack; there are {'; '.join(f'{m} under {a}' for m, a in pool.adversarial)})"
        )
    return pairs


@dataclass
class _Making:
    """From what runs offer to a design and its pictures."""

    pool: Pool
    named: Sequence[tuple[str, str]]
    seed: int
    key: str

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(int(key(self.seed, "design")[:15], 16))
        self.shown: dict[str, Shown] = {}

    def design(self, trials: int, maps: int | None, clean: int, attention: int, practice: int) -> Design:
        """The design, with as many maps as are wanted, or else as many as there are images for."""
        offered = self._offered()
        first = self._practice(offered.pop(("practice",)), practice)
        seen = {stimulus.sample for stimulus in first}
        offered = {name: [s for s in found if s.sample not in seen] for name, found in offered.items()}
        about = [("labels", model, attack) for model, attack in self.named]
        families = [name for name in offered if name[0] == "maps" and offered[name]] or [("maps", "methods")]
        tries = (
            [maps] if maps is not None else [*range(_USUAL_MAPS if any(offered[f] for f in families) else 0, 0, -1), 0]
        )
        while True:
            count = tries.pop(0)
            try:
                blocks = self._blocks(offered, about, families, (trials, clean, attention, count))
                break
            except Failure:
                if not tries:
                    raise
        used = {*first, *(s for main, pairs in blocks for s in (*main, *pairs))}
        return Design(
            self.key,
            self.seed,
            self.pool.classes,
            {s.id: s for s in sorted(used, key=lambda s: s.id)},
            tuple(s.id for s in first),
            tuple((tuple(s.id for s in main), tuple(s.id for s in pairs)) for main, pairs in blocks),
        )

    def _blocks(
        self,
        offered: _OFFERED,
        about: Sequence[tuple[str, ...]],
        families: Sequence[tuple[str, ...]],
        counts: tuple[int, int, int, int],
    ) -> list[tuple[list[Stimulus], list[Stimulus]]]:
        trials, clean, attention, maps = counts
        used: Counter[str] = Counter()
        draw = np.random.default_rng(int(key(self.seed, "blocks")[:15], 16))
        found = []
        for block in range(len(about) * -(-_FEWEST_BLOCKS // len(about))):
            wanted: list[Slot] = [
                *slots(about, trials, block, self.pool.classes),
                *slots([("clean",)], clean, block, self.pool.classes),
                *slots([("attention",)], attention, block, None),
            ]
            chosen = fill([*wanted, *slots(families, maps, block, None)], offered, used, draw)
            main, pairs = chosen[: len(wanted)], chosen[len(wanted) :]
            found.append(tuple([part[i] for i in draw.permutation(len(part))] for part in (main, pairs)))
        return found  # type: ignore[return-value]

    def _practice(self, offered: Sequence[Stimulus], count: int) -> list[Stimulus]:
        """Of the samples that are needed least elsewhere, of different classes where there are."""
        needed = Counter(s.sample for found in self.pool.adversarial.values() for s in found)
        order = sorted(offered, key=lambda s: (needed[s.sample], self.draw.random()))
        turns: Counter[str] = Counter()
        ranked = []
        for stimulus in order:
            ranked.append((turns[stimulus.label], stimulus))
            turns[stimulus.label] += 1
        chosen = [stimulus for _, stimulus in sorted(ranked, key=lambda pair: pair[0])[:count]]
        if len(chosen) < count:
            raise Failure(
                f"too few stimuli: {len(offered)} unchanged images for {count} practice trials, "
                f"{count - len(offered)} are missing; ask for fewer (--practice), or audit with more --gallery"
            )
        return chosen

    def _offered(self) -> _OFFERED:
        """All that could be shown, by condition."""
        pool, names = self.pool, self.pool.classes
        found: _OFFERED = {("maps", "methods"): [], ("maps", "models"): []}
        for model, attack in self.named:
            shown = pool.adversarial[model, attack]
            found["labels", model, attack] = [self._stimulus("labels", s) for s in shown]
        if len({model for model, _ in self.named}) < len({model for model, _ in pool.adversarial}):
            asked = {model for model, _ in self.named}
        else:
            asked = {model for pair in pool.pairs.values() for s in pair for model in (s.model, *s.maps) if model}
        for pair, shown in pool.pairs.items():
            family = ("maps", "methods" if len(pair) == 2 else "models")
            if family[1] == "methods" or set(pair[:2]) <= asked:
                found[family] += [self._stimulus("maps", s) for s in shown if family[1] == "models" or s.model in asked]
        unchanged = sorted(pool.clean.values(), key=lambda s: s.sample)
        for kind in ("practice", "clean"):
            found[kind,] = [self._stimulus("clean", s, kind) for s in unchanged]
        found["attention",] = [
            dataclasses.replace(s, told=str(self.draw.choice([o for o in s.options if o != s.label])))
            for s in (self._stimulus("attention", shown) for shown in unchanged)
            if len(names) > 1
        ]
        return found

    def _stimulus(self, kind: str, shown: Shown, purpose: str = "") -> Stimulus:
        names = self.pool.classes
        name = key(self.key, self.seed, len(self.shown), kind, purpose)[:16]
        self.shown[name] = shown
        pictures = tuple(key(name, i)[:16] for i in range(1 + len(shown.maps)))
        return Stimulus(
            name, kind, shown.sample, names[shown.label], pictures,
            tuple(names[c] for c in self._options(shown)) if kind != "maps" else (),
            None if shown.predicted is None else names[shown.predicted],
            shown.model, shown.attack, shown.threat, None, tuple(shown.maps),
        )  # fmt: skip

    def _options(self, shown: Shown) -> list[int]:
        """Which classes are offered: all, or of many the two that count and others at random."""
        count = len(self.pool.classes)
        if count <= _MOST_OPTIONS:
            return list(range(count))
        kept = list(dict.fromkeys(c for c in (shown.label, shown.predicted) if c is not None))
        others = [c for c in self.draw.permutation(count).tolist() if c not in kept]
        return sorted([*kept, *others[: _MOST_OPTIONS - len(kept)]])

    def pictures(self, design: Design) -> Mapping[str, bytes]:
        """The PNG files of a design, by name."""
        found = {}
        for stimulus in design.stimuli.values():
            shown = self.shown[stimulus.id]
            image, *maps = stimulus.images
            found[image] = _png(png.image(shown.pixels))
            for name, values in zip(maps, shown.maps.values()):
                found[name] = _png(png.map_(_plain(values), float(np.abs(values).max(initial=0.0))))
        return found


def _plain(values: Array) -> Array:
    return np.abs(values.astype(np.float64))


def _png(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])
