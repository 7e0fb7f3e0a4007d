"""Every number follows from the tables: computed again here, by other code, and by the library from the folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor, nn

import steadygrad as sg
from audit import victims
from oracles import intervals
from steadygrad.attacks import BIM, FGSM, PGD, Attack, DeepFool, RandomNoise, Standard
from steadygrad.attributions import Saliency
from steadygrad.audit.audit import read
from steadygrad.audit.findings import Audit
from steadygrad.data import Dataset
from steadygrad.measuring.measure import settings_of
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.registry import label_of

pytestmark = pytest.mark.slow

LEVELS = ("0.05", "0.25", "0.5", "0.75", "0.95")


class Windows(nn.Module):
    """Wrong in two narrow windows of one pixel only, so that more room saves samples; its gradient points up."""

    def forward(self, x: Tensor) -> Tensor:
        moved = x.flatten(1)[:, 0] - 0.5
        wrong = ((moved > 0.045) & (moved < 0.055)) | ((moved > 0.19) & (moved < 0.21))
        return torch.stack([torch.zeros_like(moved), 10.0 * wrong - 5 + 1e-2 * moved], 1)


class Constant(nn.Module):
    """Says the same of everything, without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2] * 0 + torch.tensor([2.0, 0.0])


def _net(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 2)).requires_grad_(False)


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "honest": _net,
    "windows": lambda seed: Windows(),
    "constant": lambda seed: Constant(),
    "rounds its inputs": lambda seed: victims.Quantized(_net(seed)),
    "noisy": lambda seed: victims.Noisy(_net(seed), 0.3),
    "shattered": lambda seed: victims.Shattered(_net(seed)),
    "knows its batch": lambda seed: victims.BatchCentered(_net(seed)),
    "certain": lambda seed: victims.Sharp(_net(seed), 1000.0),
}
ATTACKS: tuple[Attack, ...] = (
    BIM(steps=3, loss="margin"), PGD(steps=3, loss="ce"), FGSM(), RandomNoise(draws=2),
    Standard(steps=2, queries=10, targets=1), DeepFool(steps=3),
)  # fmt: skip


def _data(count: int, seed: int, right: nn.Module | None) -> Dataset:
    """Random images around the middle of the range, some at its ends; labels of a model but for some, or random."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 3, 3, generator=draw)
    x[::3, 0, 0, 0] = 0.5
    x[1::5] = 0.0
    y = torch.randint(0, 2, (count,), generator=draw)
    if right is not None:
        y = torch.where(torch.rand(count, generator=draw) < 0.8, right(x).argmax(1), y)
    return Dataset(x, y, ("a", "b"), tuple(f"s{i}" for i in range(count)))


@dataclass
class Tables:
    """The files of a folder, read without the library."""

    folder: Path

    def of(self, model: str, measure: str, beside: str = "", **wanted: Any) -> pd.DataFrame:
        """The one table of a measure with these settings."""
        found: dict[Path, list[pd.DataFrame]] = {}
        for path in sorted((self.folder / "tables").rglob("*.parquet")):
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[b"steadygrad"])
            said = about["measure"]
            names = [model, beside] if beside else [model]
            if about["models"] == names and said["name"] == measure and wanted.items() <= said.items():
                found.setdefault(path.parent, []).append(table.to_pandas())
        (parts,) = found.values()
        return pd.concat(parts, ignore_index=True)

    def searched(self, model: str, attack: str) -> pd.DataFrame:
        """The table of a search for the smallest change."""
        for path in sorted((self.folder / "tables").rglob("*.parquet")):
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[b"steadygrad"])
            said = about["measure"]
            asked = about["models"] == [model] and said["name"] == "attacked" and said["attack"]["name"] == attack
            if asked and said["threat"]["eps"] is None:
                return table.to_pandas()
        raise AssertionError(f"no search by {attack}")


def is_share(found: Any, hits: Any) -> None:
    hits = np.asarray(hits, dtype=bool)
    low, high = intervals.wilson(int(hits.sum()), len(hits))
    assert found["count"] == len(hits)
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (hits.mean(), max(0.0, low), min(1.0, high)), abs=1e-9
    )


def is_mean(found: Any, values: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """The interval is Student's, but ends where the values can."""
    values = [float(v) for v in values]
    assert found["count"] == len(values)
    if len(values) > 1:
        wanted = intervals.student_interval(values)
        wanted = (wanted[0], max(low, wanted[1]), min(high, wanted[2]))
        assert (found.get("value", found.get("mean")), found["low"], found["high"]) == pytest.approx(wanted, abs=1e-9)


def are_quantiles(found: Any, values: Any, at: tuple[str, ...] = LEVELS) -> None:
    values = [float(v) for v in values]
    for level in at:
        wanted = intervals.quantile(values, Fraction(level)) if values else math.inf
        assert found[level] == (wanted if math.isfinite(wanted) else None)


def are_intervals(found: Any, values: Any) -> None:
    """Quantiles with the order statistics between which they lie with 95 %."""
    values = sorted(float(v) for v in values)
    are_quantiles({level: row["value"] for level, row in found.items()}, values)
    for level, row in found.items():
        count, share = len(values), float(level)
        # The largest rank r with P(B < r) <= 2.5 %, and the smallest s with P(B >= s) <= 2.5 %.
        below = [r for r in range(1, count + 1) if binom.cdf(r - 1, count, share) <= 0.025]
        above = [s for s in range(1, count + 1) if binom.sf(s - 1, count, share) <= 0.025]
        low = values[max(below) - 1] if below else 0.0
        high = values[min(above) - 1] if above else math.inf
        assert row["low"] == (low if math.isfinite(low) else None)
        assert row["high"] == (high if math.isfinite(high) else None)


def check_model(found: Audit, row: Any, tables: Tables, suite: tuple[Attack, ...], checked: int) -> None:
    """All numbers of a model, from its rows of the records and from the files."""
    name, eps = row["name"], found.summary["threat"]["eps"]
    frame = found.records.frame
    frame = frame[frame["model"] == name]
    lead = frame[frame["attack"] == label_of(suite[0])].reset_index(drop=True)
    right = (lead["clean_prediction"] == lead["label"]).to_numpy()
    is_share(row["clean"], right)
    is_share(row["robust"], ~frame.groupby("sample")["success"].any())
    assert set(frame["source"]) == {name}
    broken: dict[str, set[str]] = {}
    for attack, said in zip(suite, row["attacks"], strict=True):
        mine = frame[frame["attack"] == label_of(attack)]
        assert said["label"] == label_of(attack)
        assert sg.registry.build("attack", said["name"], said["settings"]) == attack
        is_share(said["accuracy"], ~mine["success"])
        is_share(said["after_rounding"], ~mine["rounded_success"])
        turned = mine[mine["clean_prediction"] == mine["label"]]
        if len(turned):
            is_share(said["success_rate"], turned["success"])
        else:
            assert said["success_rate"] is None
        for key in ("zero_gradient", "forwards", "backwards"):
            assert said[key] == pytest.approx(mine[key].mean())
        are_quantiles({"0.5": said["median_distance"]}, mine["distance"], ("0.5",))
        broken[label_of(attack)] = set(mine.loc[mine["success"] & (mine["distance"] > 0), "sample"])
    for said in row["broken_by"]:
        mine = frame[frame["attack"] == said["attack"]]
        member = said["member"] or said["attack"]
        fell = set(mine.loc[mine["broken_by"] == member, "sample"])
        others = set().union(*(ids for label, ids in broken.items() if label != said["attack"]))
        assert (said["samples"], said["alone"]) == (len(fell), len(fell - others))
    curve = tables.of(name, "curve")
    assert [point["eps"] for point in row["curve"]["points"]] == [0.0, *(eps * g for g in (0.5, 1.0, 2.0))]
    for point in row["curve"]["points"]:
        is_share(point["accuracy"], curve["radius"] > point["eps"])
    # The curve at the radius of the audit is the headline, and all that it found is in the records.
    assert row["curve"]["points"][2]["accuracy"] == row["robust"]
    _distances(found, row, tables, frame, curve, checked)
    score = tables.of(name, "rho2")
    some = score[score["norm"] > 0]
    if len(some):
        is_mean(row["rho2"]["pixels"], some["change"] / some["norm"], low=0.0)
    assert row["rho2"]["centered"] is None
    is_share(row["rho2"]["turned"], score["turned"])
    norms = tables.of(name, "gradient_norms")
    are_quantiles(row["gradient_norm"]["quantiles"], norms["norm"])
    are_quantiles(row["gradient_norm"]["next_class"], norms["next_norm"])
    are_quantiles(row["confidence"]["clean"], lead["clean_confidence"])
    are_quantiles(row["confidence"]["adversarial"], lead["confidence"])
    maps = tables.of(name, "map_stability")
    assert len(row["explanations"]) == 4
    for said in row["explanations"]:
        least = {"top-10 % intersection": 0.0, "Kendall tau-b": -1.0}[said["measure"]]
        is_mean(said, maps[f"{said['attribution']}: {said['under']}: {said['measure']}"], least, 1.0)
    labels, stood = lead["label"].to_numpy(), ~frame.groupby("sample")["success"].any()[lead["sample"]].to_numpy()
    for said in row["by_class"]:
        mine = labels == found.summary["data"]["classes"].index(said["name"])
        is_share(said["clean"], right[mine])
        is_share(said["robust"], stood[mine])
    assert len(row["by_class"]) == len(set(labels))
    failed = [check["text"] for check in row["verdict"]["checks"] if check["passed"] is False]
    assert (row["verdict"]["state"] == "refuted") is bool(failed)
    assert all(text in row["verdict"]["text"] for text in failed)


def _distances(found: Audit, row: Any, tables: Tables, frame: pd.DataFrame, curve: pd.DataFrame, checked: int) -> None:
    name, norm = row["name"], found.summary["threat"]["norm"]
    sizes = tables.searched(name, "smallest")["distance"].to_numpy()
    assert len(sizes) == checked
    for _, mine in frame.groupby("attack"):
        fell = np.where(mine["success"], mine["distance"], np.inf)
        sizes = np.minimum(sizes, fell[:checked])
    sizes = np.minimum(sizes, curve["radius"][:checked])
    mine = found.distances.frame
    mine = mine[mine["model"] == name]
    assert mine["distance"].tolist() == sizes.tolist()
    assert mine["sample"].tolist() == curve["sample"][:checked].tolist()
    first = frame.drop_duplicates("sample")[:checked]
    right = (first["clean_prediction"] == first["label"]).to_numpy()
    assert row["distances"]["count"] == right.sum()
    assert row["distances"]["censored"] == np.isinf(sizes[right]).sum()
    assert row["distances"]["limit"] == pytest.approx(1.0 if norm == "linf" else 3.0)
    are_intervals(row["distances"]["quantiles"], sizes[right])


def stripped(folder: Path, to: Path) -> Path:
    """A copy of a run folder that holds nothing but its configuration and its tables."""
    to.mkdir()
    shutil.copy(folder / "config.toml", to)
    shutil.copytree(folder / "tables", to / "tables")
    return to


def same_again(found: Audit, to: Path) -> None:
    assert found.folder is not None
    again = read(stripped(found.folder, to))
    assert again.summary == found.summary
    assert again.records.frame.equals(found.records.frame)
    assert again.distances.frame.equals(found.distances.frame)
    assert set(again.arrays) == set(found.arrays)
    for name, values in found.arrays.items():
        assert again.arrays[name].dtype == values.dtype
        np.testing.assert_array_equal(again.arrays[name], values)
    assert (to / "summary.json").read_bytes() == (found.folder / "summary.json").read_bytes()


@given(
    kinds=st.lists(st.sampled_from(sorted(MODELS)), min_size=1, max_size=2, unique=True),
    seed=st.integers(0, 1000),
    random_labels=st.booleans(),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.sampled_from([0.05, 0.1, 0.5]),
    suite=st.lists(st.sampled_from(ATTACKS), min_size=1, max_size=3, unique=True),
    checked=st.sampled_from([4, 11]),
)
# Shrinking takes minutes here, and the values are small already.
@settings(max_examples=10, phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)
def test_numbers_of_any_model_follow_from_the_tables(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    seed: int,
    random_labels: bool,
    norm: Any,
    eps: float,
    suite: list[Attack],
    checked: int,
) -> None:
    folder = tmp_path_factory.mktemp("numbers")
    models = {kind: MODELS[kind](seed) for kind in kinds}
    data = _data(11, seed, None if random_labels else _net(seed))
    found = sg.audit(
        models, data, sg.Threat(norm, eps), attacks=suite, attributions=(Saliency(),), grid=(0.5, 1.0, 2.0),
        checked=checked, gallery=1, draws=3, seed=seed, out=folder / "run",
    )  # fmt: skip
    tables = Tables(folder / "run")
    for row in found.summary["models"]:
        check_model(found, row, tables, tuple(suite), checked)
    if len(kinds) == 2:
        for source, cells in zip(kinds, found.summary["transfer"]["accuracy"], strict=True):
            for name, cell in zip(kinds, cells, strict=True):
                if name == source:
                    assert cell == found.summary["models"][kinds.index(name)]["attacks"][0]["accuracy"]
                else:
                    is_share(cell, ~tables.of(name, "transferred", beside=source)["success"])
    for name, captions in found.summary["gallery"]["models"].items():
        place = kinds.index(name)
        lead = found.records.where(model=name, attack=label_of(suite[0])).frame.set_index("sample")
        for number, caption in enumerate(captions):
            said = lead.loc[caption["id"]]
            assert caption["adversarial_confidence"] == said["confidence"]
            assert data.classes[said["prediction"]] == caption["adversarial_prediction"]
            assert caption["distance"] == (said["distance"] if said["success"] else None)
            moved = torch.from_numpy(
                found.arrays[f"adversarial_{place}"][number] - found.arrays[f"clean_{place}"][number]
            )
            if said["success"]:
                assert float(sg.Threat(norm).distance(moved[None])[0]) == pytest.approx(said["distance"], abs=1e-6)
            else:
                assert not moved.any()
    same_again(found, folder / "again")


def test_the_headline_of_a_model_that_is_not_monotone_is_that_of_its_records() -> None:
    x = torch.full((20, 1, 1, 1), 0.5)
    x[10:] = 0.0
    y = torch.zeros(20, dtype=torch.long)
    y[-1] = 1
    found = sg.audit(
        Windows(), sg.data.from_arrays(x, y, 2), sg.linf(0.1), attacks=[BIM(steps=3, loss="margin")], checked=5,
        gallery=0, attributions=(),
    )  # fmt: skip
    row = found.summary["models"][0]
    assert row["robust"] == sg.robust_accuracy(found.records).plain()
    # What stands at the radius falls below it, which only the search of the curve sees.
    assert row["robust"]["value"] < row["attacks"][0]["accuracy"]["value"]


def test_pictures_show_what_was_counted(digits: Dataset, honest: nn.Module, tmp_path: Path) -> None:
    attacks = [PGD(steps=5), FGSM()]
    found = sg.audit(
        {"m": honest}, digits.take(60), sg.linf(0.08), attacks=attacks, checked=20, gallery=6, out=tmp_path / "run"
    )
    frame = found.records.where(attack="PGD, 5 steps").frame.set_index("sample")
    captions = found.summary["gallery"]["models"]["m"]
    assert len(captions) == 6
    shown = torch.from_numpy(found.arrays["adversarial_0"].copy())
    said = honest(shown).softmax(1).max(1)
    clean = digits.tensors()[0]
    for place, caption in enumerate(captions):
        row = frame.loc[caption["id"]]
        assert (caption["distance"] is not None) == row["success"]
        assert caption["adversarial_confidence"] == row["confidence"]
        assert said.values[place].item() == pytest.approx(row["confidence"], rel=1e-4)
        assert said.indices[place].item() == row["prediction"]
        moved = (shown[place] - clean[digits.ids.index(caption["id"])]).abs().max()
        assert float(moved) == pytest.approx(row["distance"] if row["success"] else 0.0, abs=1e-6)
    same_again(found, tmp_path / "again")


def test_inputs_of_all_samples_are_kept_on_demand(digits: Dataset, honest: nn.Module, tmp_path: Path) -> None:
    attacks = [FGSM(), RandomNoise()]
    data = digits.take(20)
    settings: dict[str, Any] = {"attacks": attacks, "gallery": 0, "checked": 5, "attributions": ()}
    found = sg.audit({"m": honest}, data, sg.linf(0.1), keep_inputs=True, out=tmp_path / "run", **settings)
    for attack in attacks:
        measure = settings_of(Attacked(attack, sg.linf(0.1)))
        table = Tables(tmp_path / "run").of("m", **{"measure": measure.pop("name"), **measure})
        inputs = torch.tensor(np.stack(table["input"].tolist())).view(20, 1, 8, 8)
        frame = found.records.where(attack=label_of(attack)).frame
        assert honest(inputs).argmax(1).tolist() == frame["prediction"].tolist()
    plain = sg.audit({"m": honest}, data, sg.linf(0.1), **settings)
    assert plain.summary["models"] == found.summary["models"]
