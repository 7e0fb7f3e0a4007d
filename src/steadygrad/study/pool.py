"""What run folders hold that people can be shown: adversarial images, maps, and unchanged images."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steadygrad.attributions.pixels import image_array
from steadygrad.errors import Failure, UsageError, reading
from steadygrad.files import key, read_json
from steadygrad.measuring.store import Store, place_of
from steadygrad.measuring.table import Array, Table
from steadygrad.registry import build, label_of
from steadygrad.report.wording import number
from steadygrad.run_folders import audit_in, read_record


@dataclass(frozen=True)
class Shown:
    """Something that can be shown: an image, and perhaps what was made of it.

    Attributes:
        sample: id of the source image.
        label: its class.
        pixels: (C, H, W) from 0 to 1.
        predicted: class that the model predicts for what is shown, where a model is meant.
        maps: (H, W) each, by what they are of: models or attributions.
    """

    sample: str
    label: int
    pixels: Array
    predicted: int | None = None
    model: str | None = None
    attack: str | None = None
    threat: str | None = None
    maps: Mapping[str, Array] = field(default_factory=dict)


@dataclass
class Pool:
    """What some runs offer together.

    Attributes:
        classes: their names, the same in all runs.
        adversarial: images that fool a model which is right about the original, by model and attack.
        pairs: images with two maps, by what these are of.
        clean: unchanged images, by sample.
        runs: the folders, and a hash of what each is.
    """

    classes: tuple[str, ...]
    adversarial: dict[tuple[str, str], list[Shown]] = field(default_factory=dict)
    pairs: dict[tuple[str, ...], list[Shown]] = field(default_factory=dict)
    clean: dict[str, Shown] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)


def read_pool(folders: Sequence[str | Path]) -> Pool:
    """What the run folders of audits and reproductions offer.

    Raises:
        UsageError: a folder is none of a run, or the runs have different classes.
        Failure: a run is damaged or not finished.
    """
    runs = [_Run.at(Path(folder)) for folder in folders]
    for run in runs[1:]:
        if run.classes != runs[0].classes:
            raise UsageError(
                f"the runs have different classes: {runs[0].folder} has {_few(runs[0].classes)}, {run.folder} has "
                f"{_few(run.classes)}; make one study of each"
            )
    names = [name for run in runs for name in run.models]
    pool = Pool(runs[0].classes)
    for run in runs:
        # A model's name says which run it is of, where several have one of that name.
        called = {n: n if names.count(n) == 1 else f"{n} ({run.folder.resolve().name})" for n in run.models}
        if set(called.values()) & {model for model, _ in pool.adversarial}:
            raise UsageError(f"two runs are called {run.folder.resolve().name} and have models of one name: rename one")
        run.into(pool, called)
    return pool


def _few(classes: Sequence[str]) -> str:
    return f"{', '.join(classes[:4])}{', ...' if len(classes) > 4 else ''} ({len(classes)})"


@dataclass
class _Run:
    """One run folder: its tables by measure, model and settings."""

    folder: Path
    record: dict[str, Any]
    classes: tuple[str, ...]
    tables: list[Table]

    @staticmethod
    def at(folder: Path) -> _Run:
        folder = audit_in(folder)
        record = read_record(folder)
        if "classifier" in record:
            raise UsageError(f"{folder} holds a training: audit it first (steadygrad audit {folder})")
        if "study" in record:
            raise UsageError(f"{folder} holds a study: give the runs that are to be judged")
        if "paper" in record and "seed" not in record:
            raise UsageError(f"{folder} holds several seeds: give the folder of one, such as {folder}/seed-0")
        if not (folder / "summary.json").is_file():
            raise Failure(f"the run at {folder} is not finished: run the same command again")
        for room in ("attacks", "attributions"):
            importlib.import_module(f"steadygrad.{room}")  # methods are found by their names below
        with reading(f"the run at {folder} cannot be read", "; run the same command again"):
            classes = record["classes"] if "paper" in record else _facts(folder)["data"]["classes"]
            return _Run(folder, record, tuple(map(str, classes)), list(_tables(folder / "tables")))

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(_model(table) for table in self.tables))

    def into(self, pool: Pool, called: Mapping[str, str]) -> None:
        """Add what this run offers."""
        with reading(f"the run at {self.folder} cannot be read", "; run the same command again"):
            right = self._right()
            by_measure = {"attacked": self._attacked, "every_target": self._targeted}
            for table in self.tables:
                if _measure(table) not in by_measure or not _keeps(table):
                    continue
                model, attack = called[_model(table)], _attack(table)
                fooling = pool.adversarial.setdefault((model, attack), [])
                for shown in by_measure[_measure(table)](table, right):
                    if shown.predicted is None:
                        pool.clean.setdefault(shown.sample, shown)
                    else:
                        fooling.append(replace(shown, model=model, attack=attack))
            self._pictured(pool, called, right)
        pool.runs[str(self.folder)] = key(sorted(map(_hash, self.tables)))

    def _right(self) -> dict[str, dict[str, int]]:
        """By model and sample, what is predicted for the clean input."""
        found: dict[str, dict[str, int]] = {}
        for table in self.tables:
            column = {"attacked": "clean_prediction", "predicted": "prediction"}.get(_measure(table))
            if column is not None:
                said = zip(table["sample"].tolist(), table[column].tolist())
                found.setdefault(_model(table), {}).update((str(sample), int(k)) for sample, k in said)
        return found

    def _attacked(self, table: Table, _: Any) -> Iterator[Shown]:
        """Inputs that were kept: what fooled the model, and what nothing was found for, which is unchanged."""
        kept, threat = table.kept("input"), table.about["measure"]["threat"]
        pixels, rows = _pixels(kept.values, threat), table.select(kept.rows)
        for i in range(len(rows)):
            sample, label, predicted = str(rows["sample"][i]), int(rows["label"][i]), int(rows["prediction"][i])
            if int(rows["clean_prediction"][i]) != label:
                continue
            if not rows["success"][i]:
                yield Shown(sample, label, pixels[i])
            elif predicted not in (label, -1):
                yield Shown(sample, label, pixels[i], predicted, threat=_threat(threat))

    def _targeted(self, table: Table, right: Mapping[str, Mapping[str, int]]) -> Iterator[Shown]:
        """What was pushed into another class, and the originals."""
        threat, known = table.about["measure"]["threat"], right.get(_model(table), {})
        for i in range(len(table)):
            sample, label = str(table["sample"][i]), int(table["label"][i])
            pixels = _scaled(table["pictures"][i], threat)
            if known.get(sample) != label:
                continue
            if label < len(pixels):
                yield Shown(sample, label, pixels[label])
            for target in np.flatnonzero(table["success"][i]).tolist():
                if target != label:
                    yield Shown(sample, label, pixels[target], target, threat=_threat(threat))

    def _pictured(self, pool: Pool, called: Mapping[str, str], right: Mapping[str, Mapping[str, int]]) -> None:
        """Maps in pairs: of two attributions of one model, and of two models by one attribution."""
        low_high = next((t.about["measure"]["threat"] for t in self.tables if "threat" in t.about["measure"]), None)
        seen: dict[tuple[str, str], dict[str, tuple[Shown, Array]]] = {}
        for table in self.tables:
            if _measure(table) != "pictured":
                continue
            model, known = _model(table), right.get(_model(table), {})
            ways = [_label("attribution", a) for a in table.about["measure"]["attributions"]]
            for i, sample in enumerate(map(str, table["sample"].tolist())):
                label, pixels = int(table["label"][i]), _scaled(table["clean"][i], low_high)
                pool.clean.setdefault(sample, Shown(sample, label, pixels))
                if sample not in known or known[sample] < 0:
                    continue
                maps = {way: table[f"map_clean_{place}"][i] for place, way in enumerate(ways)}
                shown = Shown(sample, label, pixels, known[sample], called[model])
                for a, one in enumerate(ways):
                    for other in ways[a + 1 :]:
                        both = replace(shown, maps={one: maps[one], other: maps[other]})
                        pool.pairs.setdefault((one, other), []).append(both)
                for way in ways:
                    earlier = seen.setdefault((sample, way), {})
                    for name, (before, values) in earlier.items():
                        if before.predicted == shown.predicted:  # they explain the same prediction
                            both = replace(shown, model=None, maps={called[name]: values, called[model]: maps[way]})
                            pool.pairs.setdefault((called[name], called[model], way), []).append(both)
                    earlier[model] = (shown, maps[way])


def _facts(folder: Path) -> dict[str, Any]:
    found, sound = read_json(folder / "tables" / "facts.json")
    if not sound:
        raise Failure(f"{folder / 'tables' / 'facts.json'} is damaged or was edited: run the same command again")
    return found


def _tables(folder: Path) -> Iterator[Table]:
    """The tables of measures, in the order of their names."""
    store, of_samples = Store(folder), place_of("", "Predicted").rpartition("/")[2]
    for place in sorted(folder.glob("*/*")):
        table = store.table(str(place.relative_to(folder))) if place.is_dir() else None
        if table is None or not len(table) or table.refused is not None or not _measure(table):
            continue
        if _measure(table) != "predicted" or place.name == of_samples:  # others are of inputs that were given
            yield table


def _measure(table: Table) -> str:
    """The name of the measure; none where a table is of no samples of a model, such as the course of a training."""
    return str((table.about.get("measure") or {}).get("name", "")) if "models" in table.about else ""


def _model(table: Table) -> str:
    return str(table.about["models"][0])


def _hash(table: Table) -> str:
    return key(dict(table.about), [str(s) for s in table["sample"].tolist()])[:8]


def _keeps(table: Table) -> bool:
    """Whether an attack's table has its inputs, on the model as it is."""
    if _measure(table) == "every_target":
        return True
    return table.about["measure"]["scale"] == 1 and len(table.kept("input").rows) > 0


def _attack(table: Table) -> str:
    label = _label("attack", table.about["measure"]["attack"])
    return f"{label}, targeted" if _measure(table) == "every_target" else label


def _label(kind: str, settings: Mapping[str, Any]) -> str:
    values = dict(settings)
    return label_of(build(kind, str(values.pop("name")), values))


def _threat(settings: Mapping[str, Any]) -> str:
    eps = settings.get("eps")
    return str(settings["norm"]) if eps is None else f"{settings['norm']} ≤ {number(float(eps))}"


def _scaled(pixels: Array, threat: Mapping[str, Any] | None) -> Array:
    low, high = (0.0, 1.0) if threat is None else map(float, threat["bounds"])
    return np.asarray(np.clip((pixels.astype(np.float64) - low) / max(high - low, 1e-12), 0.0, 1.0))


def _pixels(inputs: Array, threat: Mapping[str, Any]) -> Array:
    return _scaled(image_array(torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32))), threat)
