"""The experiment on J-SIGR: its measures, its claims, its search, and all of it at a tiny scale."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steadygrad import models, papers, randomness
from steadygrad.attacks import PGD
from steadygrad.attributions import BlurSaliency
from steadygrad.attributions.faithfulness import deletion, faithfulness, insertion
from steadygrad.data import load
from steadygrad.data.dataset import Dataset
from steadygrad.defenses import Plain
from steadygrad.errors import UsageError
from steadygrad.evaluation import validity
from steadygrad.papers.liu2022 import claims, experiment, measures, pages, search
from steadygrad.papers.liu2022.settings import RIVALS, SCALES, TRANSFERRED, defenses, source_of
from steadygrad.papers.store import Store
from steadygrad.threat import linf
from steadygrad.training import FitSettings, fit

EPS = 0.15


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """A model and a source of another architecture."""
    data = load("digits", "train").take(400)
    settings = FitSettings(epochs=8, batch_size=64, lr=5e-3)
    starts = (
        models.build("digits_cnn", data.shape, data.classes, width=8),
        models.build("mlp", data.shape, data.classes, hidden=(24,)),
    )
    trained = [fit(start, Plain(), data, settings=settings).classifier for start in starts]
    return trained[0], trained[1]


def test_the_measures_are_those_of_the_library(pair: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = pair
    monkeypatch.setattr(measures, "JUDGE", BlurSaliency(grid=4))
    bench = measures.MapBench(load("digits", "test").take(60), Store(tmp_path), seed=0, device="cpu")
    ((x, y, seeds),) = bench._batches(40)
    attack = TRANSFERRED["PGD"]
    points = attack.perturb(source, x, y, linf(EPS), generator=seeds)
    right = (model(points).argmax(1) == y).numpy()
    assert 4 < right.sum() < 36
    assert np.array_equal(bench.transferred(source, model, attack, EPS, 40), right)
    found = bench.faithful(model, 10)
    want = faithfulness(model, x[:10], measures.MAP, BlurSaliency(grid=4))
    assert list(found) == list(measures.JUDGED)
    for name, values in want.items():
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, atol=1e-6)
    chance = torch.stack([torch.rand(x.shape[1:], generator=randomness.fresh(int(s))) for s in seeds[:10]])
    for name, sign, curve in (("deletion below", -1, deletion), ("insertion above", 1, insertion)):
        gain = sign * (want[name.split()[0]] - curve(model, x[:10], chance).area)
        np.testing.assert_allclose(found[f"{name} chance"], gain.numpy(), rtol=1e-4, atol=1e-6)


def test_a_model_that_is_certain_has_a_map_too() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, target = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([400.0, 0.0, 1.0]))
    maps = measures.MAP(model, x, target)
    wide = measures.MAP(copy.deepcopy(model).double(), x.double(), target)
    assert (torch.nn.functional.cosine_similarity(maps.flatten(1).double(), wide.flatten(1)) > 0.9999).all()


def _measured(better: str = "jsigr") -> experiment.Measured:
    drawn = np.random.default_rng(0)

    def bits(share: float) -> Any:
        return drawn.random(400) < share

    names = (*RIVALS, "jacobian", "selective", "jsigr")
    return experiment.Measured(
        0.2, "lenet",
        right=dict.fromkeys(names, bits(0.95)),
        transferred={a: {name: bits(0.8 if name == better else 0.5) for name in names} for a in TRANSFERRED},
        kept={}, verdicts={},
        maps={
            name: {
                measure: drawn.random(50) / 10 + (0.5 if (name == better) == more else 0.3)
                for measure, more in measures.JUDGED.items()
            }
            for name in names
        },
    )  # fmt: skip


def test_the_claims_follow_the_measures() -> None:
    fine = claims.judge(_measured())
    assert len(fine) == 3 * len(RIVALS) + 1 + len(measures.JUDGED) + 4
    assert all(claim.held for claim in fine)
    # Against a rival that is better everywhere each of the comparisons fails, the clean accuracy stays.
    turned = [claim.held for claim in claims.judge(_measured("penalty")) if "penalty" in claim.text]
    assert turned == [False] * (3 + len(measures.JUDGED))
    lost = _measured()
    lost.right["jsigr"] = lost.right["jsigr"] & (np.arange(400) % 10 > 0)
    assert not claims.judge(lost)[12].held
    # Equal is not better.
    even = _measured()
    even.maps["jsigr"] = even.maps["plain"]
    even.transferred["FGSM"]["jsigr"] = even.transferred["FGSM"]["plain"]
    same = [claim.held for claim in claims.judge(even)]
    assert (same[0], same[4:12]) == (False, [True] * 8)
    even.maps = dict.fromkeys(even.maps, even.maps["plain"])
    assert [claim.held for claim in claims.judge(even)][13:] == [False] * (len(measures.JUDGED) + 4)


def test_the_search_keeps_the_best_that_is_still_accurate() -> None:
    # (clean, transferred) by model and weights, in the order of the trials; the plain model has 0.9.
    table = {
        ("penalty", 0.3): (0.9, 0.2), ("penalty", 1.0): (0.89, 0.4),
        ("penalty", 3.0): (0.885, 0.6),  # too dear: nothing beyond it is tried
        ("jacobian", 0.003): (0.9, 0.4), ("jacobian", 0.01): (0.9, 0.5), ("jacobian", 0.03): (0.91, 0.6),
        ("jacobian", 0.1): (0.9, 0.6),  # no better than the one before
        ("jsigr", 0.03, 0.3): (0.9, 0.5), ("jsigr", 0.03, 3.0): (0.9, 0.7), ("jsigr", 0.03, 30.0): (0.89, 0.6),
        ("jsigr", 0.01, 3.0): (0.9, 0.65),
    }  # fmt: skip
    found = search.searched(
        lambda name, weights: (name, *(round(w, 9) for w in weights.of(name).values())), table.__getitem__, 0.9, 0.2
    )
    assert {name: weights.of(name) for name, weights in found.chosen.items()} == {
        "penalty": {"penalty": 1.0}, "jacobian": {"jacobian": 0.03},
        "jsigr": {"jacobian": 0.03, "selective": 3.0}, "selective": {"selective": 3.0},
    }  # fmt: skip
    half = search.searched(
        lambda name, weights: (name, *(round(w, 9) for w in weights.at(0.4).of(name).values())),
        table.__getitem__,
        0.9,
        0.1,
    )
    assert half.chosen == {name: weights.at(0.1) for name, weights in found.chosen.items()}
    assert defenses(0.1, SCALES["smoke"], half.chosen)["penalty"].weight == 1.0 / 4
    tried = [
        (row["model"], *(round(w, 9) for w in row["weights"].values()), row["accuracy"], row["transferred"])
        for row in found.rows
    ]
    assert tried == [(*given, *reached) for given, reached in table.items()]
    chosen = defenses(EPS, SCALES["smoke"], found.chosen)
    assert [member.weight for member in chosen["jsigr"].members] == [0.03, 3.0]
    assert chosen["jsigr_pat"].members[1:] == chosen["jsigr"].members
    assert (chosen["penalty"].weight, chosen["jacobian"].weight, chosen["selective"].weight) == (1.0, 0.03, 3.0)


def test_the_page_ticks_the_chosen_weights() -> None:
    rows = [{"model": "jacobian", "weights": {"jacobian": w}, "accuracy": 0.9, "transferred": 0.5} for w in (0.1, 0.3)]
    found = {"defenses": {}, "search": rows, "chosen": {"jacobian": {"jacobian": 0.3}}}
    table = pages._settings(found)[1]
    assert [cells[0].good for _, cells in table.rows] == [None, True]  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_searched_network_is_not_trained_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grids = {"PENALTIES": (0.1, 1.0), "JACOBIANS": (0.03,), "SELECTIVES": (1.0,)}
    for name, grid in grids.items():
        monkeypatch.setattr(search, name, grid)
    monkeypatch.setattr(search, "SLACK", 1.0)  # so short a training may cost anything
    data = load("digits", "train").take(64)
    training = FitSettings(epochs=2, batch_size=32)
    scale = replace(SCALES["smoke"], training=training, grid=2)
    room = experiment._Room(papers.Request(data="digits", out=tmp_path), tmp_path, data, scale, "ross_cnn")
    source = room.train("source", Plain(), "mlp").classifier
    bench = measures.MapBench(load("digits", "test").take(20), Store(tmp_path), seed=0, device="cpu")
    found = experiment._searched(room, bench, source, 0.2)
    folder = tmp_path / "models"
    assert sorted(p.name for p in folder.glob("search/*")) == [
        "jacobian 0.03", "jsigr 0.01 1", "jsigr 0.03 1", "penalty 0.1", "penalty 1",
    ]  # fmt: skip
    seen = {p: p.stat().st_mtime_ns for p in folder.rglob("model.safetensors")}
    chosen = defenses(0.2, scale, found.chosen)
    for name in ("penalty", "jacobian", "jsigr"):
        model = room.train(name, chosen[name]).classifier
        given = " ".join((name, *(f"{value:.3g}" for value in found.chosen[name].of(name).values())))
        same = models.load(folder / "search" / given)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("model.safetensors")} == seen
    tried = {f"search/{p.name}" for p in folder.glob("search/*")}
    assert len(tried & set(room.seconds)) == len(tried) - 3, "a network that was adopted counts once"
    assert experiment._searched(room, bench, source, 0.2) == found


def test_the_source_is_of_another_architecture() -> None:
    assert source_of("ross_cnn", (3, 32, 32)) == "convnet"
    assert source_of("convnet", (1, 28, 28)) == "lenet"
    assert source_of("lenet", (1, 20, 20)) == "mlp"


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(
        SCALES["smoke"], training=FitSettings(epochs=2, batch_size=64), samples=96, steps=1, grid=2,
        transfer=20, suite=2, checked=3, maps=4,
    )  # fmt: skip
    monkeypatch.setitem(experiment.SCALES, "smoke", tiny)
    monkeypatch.setattr(measures, "JUDGE", BlurSaliency(grid=2))
    monkeypatch.setattr(measures, "CHECKED", PGD(steps=2))
    # The checks of nine models would take as long as all the rest ten times over.
    original = measures.MapBench.verdict
    monkeypatch.setattr(
        measures.MapBench,
        "verdict",
        lambda bench, model, *given: original(bench, model, *given) if model.name == "jsigr" else (True, "left out"),
    )
    request = papers.Request(data="digits", out=tmp_path, scale="smoke")
    summary = papers.reproduce("liu2022", request)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    found = summary["results"]
    assert found["source"] == "mlp"
    assert found["images"] == {"accuracy": found["images"]["accuracy"], "transferred": 20, "suite": 2, "checked": 3,
                               "maps": 4}  # fmt: skip
    assert found["models"] == ["plain", "nat", "pat", "distilled", "penalty", "jacobian", "selective", "jsigr",
                               "jsigr_pat"]  # fmt: skip
    jsigr = models.load(tmp_path / "models" / "jsigr")
    data = load("digits", "test")
    checked = validity(jsigr, data, PGD(steps=2), linf(found["eps"]), count=3, name="jsigr", seed=0)
    assert found["rows"]["jsigr"]["verdict"] == str(checked.text)
    assert found["rows"]["jsigr"]["trustworthy"] == checked.trustworthy
    page = (tmp_path / "index.html").read_text()
    for text in ("an undefended mlp", "energy inside (more is better)", "blur saliency of J-SIGR", "J-SIGR + PGD"):
        assert text in page
    kept = [p for p in tmp_path.rglob("*") if p.parent.name == "cells" or p.suffix == ".safetensors"]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert papers.reproduce("liu2022", request)["results"] == found
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())


def test_features_without_a_place_are_refused() -> None:
    data = Dataset(torch.rand(6, 4), torch.tensor([0, 1] * 3), ("a", "b"), tuple("pqrstu"))
    with pytest.raises(UsageError, match=r"needs images \(C, H, W\)"):
        experiment.plan(papers.Request(data="x", out=None), data, data)  # type: ignore[arg-type]
