"""A paper's experiment at one seed: what is trained and measured, or read again from a finished run."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steadygrad.attacks import Attack
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.mean_image import mean_image
from steadygrad.errors import Failure, UsageError
from steadygrad.files import read_toml
from steadygrad.measuring.measure import Measure
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.runner import Runner, SavedTables, Tables
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import Array, Table
from steadygrad.papers.training import Training, train
from steadygrad.threat import Threat


def settings_of(paper: str, name: str = "settings") -> dict[str, Any]:
    """The numbers and labels of a paper: a TOML table beside this file.

    >>> settings_of("zhang2021")["labels"]["plain"]
    'plain'
    """
    folder = Path(__file__).parent / "settings" / paper
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml") if p.stem != "settings"))
        raise UsageError(f"there are no settings for {name!r}: {paper} has {known}")
    return read_toml(path)


@dataclass
class Study:
    """A paper's experiment at one seed: it trains and measures what is missing, or reads a finished run.

    Without data (`samples` is empty) it reads: `fit` looks up what was trained, `table` what was measured.

    Attributes:
        config: of the run folder, as plain data.
        networks: what was trained, by name.
        spent: seconds by title.
    """

    config: dict[str, Any]
    folder: Path
    device: str = "cpu"
    samples: Mapping[str, Dataset] = field(default_factory=dict)
    networks: dict[str, Classifier] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    latest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "tables")
        self._runners: dict[str, Tables] = {}
        self._counted: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """A value of the configuration: "model", "scale", "search", "combined", or what the paper's plan says."""
        return self.config[name]

    @property
    def seed(self) -> int:
        """Of everything random."""
        return int(self["seed"])

    @property
    def live(self) -> bool:
        """Whether it trains and measures, rather than reads."""
        return bool(self.samples)

    def size(self, on: str = "test") -> int:
        """How many samples there are of a name."""
        return int(self["samples"][on]["count"])

    def first(self, count: int, on: str = "test") -> range:
        """The places of the first samples, or of all where there are fewer."""
        return range(min(count, self.size(on)))

    def each(self, measure: Measure, models: Iterable[str], column: str, **options: Any) -> dict[str, Array]:
        """A column of the tables of a measure, by model."""
        return {name: self.table(measure, name, **options)[column] for name in models}

    def tables(self, on: str = "test") -> Tables:
        """What measures the networks on samples."""
        if on not in self._runners:
            self._runners[on] = (
                Runner(self.networks, self.samples[on], self.store, self.seed, self.device)
                if self.live
                else SavedTables(self.folder / "tables", self.size(on))
            )
        return _Counted(self._runners[on], self, "" if on == "test" else on)

    def table(self, measure: Measure, model: str, on: str = "test", **options: Any) -> Table:
        """The table of a measure of a network; options as those of `Runner.run`."""
        return self.tables(on).run(measure, model, **options)

    def fit(self, name: str, training: Training) -> Table:
        """Train a network, or take the one that is there; returns the record of its training."""
        place = place_of(name, "training")
        if self.live:
            seed, data = self.seed + training.seed, self.samples[training.data]
            begin = training.start
            start = copy.deepcopy(self.networks[begin]) if isinstance(begin, str) else begin(data, seed)
            start.name = name
            watched = self.samples[training.watched] if training.watched else None
            self.networks[name] = train(
                training, start, data, watched, self.folder / "models" / name, self.store, place, seed=seed,
                device=self.device,
            )  # fmt: skip
        found = self.store.table(place)
        if found is None:
            where = self.folder / "tables" / place
            raise Failure(f"the run is not complete: there is no table {where}; run the same command again")
        self.count(f"train {name}", found)
        return found

    def fit_all(self, trainings: Mapping[str, Training]) -> dict[str, Table]:
        """Train networks; returns their records."""
        return {name: self.fit(name, training) for name, training in trainings.items()}

    def mean_image(self, of: str) -> dict[str, Array]:
        """The shared column `center`: the mean of samples; nothing where tables are read."""
        return {"center": mean_image(self.samples[of]).numpy()} if self.live else {}

    def withstands(
        self, model: str, suite: Sequence[Attack], threat: Threat, count: int | None = None, on: str = "test"
    ) -> Array:
        """Which of the first samples (n,) no attack of a suite changes; each attack gets those that are left."""
        kept = np.ones(self.size(on) if count is None else len(self.first(count, on)), dtype=bool)
        for attack in suite:
            left = np.flatnonzero(kept)
            if not len(left):
                break
            table = self.table(Attacked(attack, threat), model, on, rows=left.tolist())
            kept[left] = ~table["success"]
        return kept

    def count(self, title: str, table: Table) -> None:
        """Add the time of a table to that of a title, once for each table."""
        about = table.about
        mark = f"{title} {about.get('models')} {about.get('measure')} {about.get('created')} {about.get('seconds')}"
        if mark not in self._counted:
            self._counted.add(mark)
            self.spent[title] = self.spent.get(title, 0.0) + float(about["seconds"])
            self.latest = max(self.latest, about, key=lambda a: str(a.get("created", "")))


@dataclass(frozen=True)
class _Counted:
    """Tables whose time is added up, with titles that name the samples."""

    tables: Tables
    study: Study
    on: str

    def run(self, measure: Measure, model: str, *, title: str = "", **options: Any) -> Table:
        title = title or measure.title
        table = self.tables.run(measure, model, title=f"{title} on {self.on}" if self.on else title, **options)
        self.study.count(str(table.about["measure"]["name"]).replace("_", " "), table)
        return table
