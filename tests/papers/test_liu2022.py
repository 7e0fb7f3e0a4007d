"""The experiment on J-SIGR: its measures, its claims, its search, and all of it at a tiny scale."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from steadygrad import models, papers, randomness
from steadygrad.attacks import PGD
from steadygrad.attributions import BlurSaliency
from steadygrad.attributions.faithfulness import deletion, faithfulness, insertion
from steadygrad.audit.checks.validity import validity
from steadygrad.audit.checks.verdict import Verdict
from steadygrad.data import load
from steadygrad.data.dataset import Dataset
from steadygrad.defenses import Plain
from steadygrad.errors import UsageError
from steadygrad.files import read_json
from steadygrad.measuring.measures.map_faithfulness import FAITHFUL, MapFaithfulness
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table
from steadygrad.papers import liu2022
from steadygrad.papers.liu2022 import (
    RIVALS,
    SCALES,
    TRANSFERRED,
    Measured,
    defenses,
    judge,
    scaled,
    searched,
    source_of,
    transferred,
)
from steadygrad.papers.paper import draw
from steadygrad.papers.search import Rule, Search, Tried
from steadygrad.papers.study import Study
from steadygrad.threat import linf
from steadygrad.training import FitSettings, fit

EPS = 0.15


@pytest.fixture(scope="module")
def pair():
    """A model and a source of another architecture."""
    data = load("digits", "train").take(400)
    settings = FitSettings(epochs=8, batch_size=64, lr=5e-3)
    starts = (
        models.build("digits_cnn", data.shape, data.classes, width=8),
        models.build("mlp", data.shape, data.classes, hidden=(24,)),
    )
    trained = [fit(start, Plain(), data, settings=settings).classifier for start in starts]
    return trained[0], trained[1]


def test_transferred_attacks_are_made_on_the_source(pair, tmp_path):
    model, source = pair
    data = load("digits", "test").take(60)
    config = {"seed": 0, "eps": EPS, "samples": {"test": {"count": 60}}}
    study = Study(config, tmp_path, samples={"test": data}, networks={"model": model, "source": source})
    attack = TRANSFERRED["PGD"]
    x, y = data.batch(slice(0, 40))
    seeds = Runner({}, data).seeds({"name": "pgd", **dataclasses.asdict(attack)}, data.ids[:40])
    right = (model(attack.perturb(source, x, y, linf(EPS), generator=seeds)).argmax(1) == y).numpy()
    assert 4 < right.sum() < 36
    assert np.array_equal(transferred(study, attack, "model", 40), right)


def test_the_measures_of_maps_are_those_of_the_library(pair):
    measure, data = MapFaithfulness(reference=BlurSaliency(grid=4)), load("digits", "test").take(10)
    runner = Runner({"model": pair[0]}, data)
    found = runner.run(measure, "model", keep=range(3))
    x, seeds = data.tensors()[0], runner.seeds(measure.draws_as, data.ids)
    want = faithfulness(pair[0], x, measure.attribution, measure.reference)
    assert [name for name in found.columns if name in FAITHFUL] == list(FAITHFUL)
    for name, values in ((name, want[name]) for name in FAITHFUL if name in want):
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, atol=1e-6)
    chance = torch.stack([torch.rand(x.shape[1:], generator=randomness.fresh(int(s))) for s in seeds])
    for name, sign, curve in (("deletion below", -1, deletion), ("insertion above", 1, insertion)):
        gain = sign * (want[name.split()[0]] - curve(pair[0], x, chance).area)
        np.testing.assert_allclose(found[f"{name} chance"], gain.numpy(), rtol=1e-4, atol=1e-6)
    # The pictures show the very maps that were judged.
    for column, attribution in (("map", measure.attribution), ("reference", measure.reference)):
        maps = attribution(pair[0], x, pair[0](x).argmax(1))[:3]
        np.testing.assert_allclose(found.kept(column).values, maps.numpy(), rtol=1e-4, atol=1e-6)


def test_a_model_that_is_certain_has_a_map_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, target = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([400.0, 0.0, 1.0]))
    maps = liu2022.MAPS.attribution(model, x, target)
    wide = liu2022.MAPS.attribution(copy.deepcopy(model).double(), x.double(), target)
    assert (torch.nn.functional.cosine_similarity(maps.flatten(1).double(), wide.flatten(1)) > 0.9999).all()


def _measured(better="jsigr"):
    drawn = np.random.default_rng(0)

    def bits(share):
        return drawn.random(400) < share

    names = (*RIVALS, "jacobian", "selective", "jsigr")
    return Measured(
        0.2, "lenet",
        right=dict.fromkeys(names, bits(0.95)),
        right_at={a: {name: bits(0.8 if name == better else 0.5) for name in names} for a in TRANSFERRED},
        kept={}, verdicts={},
        maps={
            name: Table({
                column: drawn.random(50) / 10 + (0.5 if (name == better) == more else 0.3)
                for column, more in FAITHFUL.items()
            })
            for name in names
        },
    )  # fmt: skip


def test_the_claims_follow_the_measures():
    fine = judge(_measured())
    assert len(fine) == 3 * len(RIVALS) + 1 + len(FAITHFUL) + 4
    assert all(claim.held for claim in fine)
    # Against a rival that is better everywhere each of the comparisons fails, the clean accuracy stays.
    turned = [claim.held for claim in judge(_measured("penalty")) if "penalty" in claim.text + claim.detail]
    assert turned == [False] * (3 + len(FAITHFUL))
    lost = _measured()
    lost.right["jsigr"] = lost.right["jsigr"] & (np.arange(400) % 10 > 0)
    assert not judge(lost)[12].held
    # Equal is not better.
    even = _measured()
    even.maps["jsigr"] = even.maps["plain"]
    even.right_at["FGSM"]["jsigr"] = even.right_at["FGSM"]["plain"]
    same = [claim.held for claim in judge(even)]
    assert (same[0], same[4:12]) == (False, [True] * 8)
    even.maps.update(dict.fromkeys(even.maps, even.maps["plain"]))
    assert [claim.held for claim in judge(even)][13:] == [False] * (len(FAITHFUL) + 4)


def test_the_search_keeps_the_best_that_is_still_accurate():
    # (clean, transferred) by model and weights, in the order of the trials; the plain model has 0.9.
    table = {
        ("penalty", 0.3): (0.9, 0.2), ("penalty", 1.0): (0.89, 0.4),
        ("penalty", 3.0): (0.885, 0.6),  # too dear: nothing beyond it is tried
        ("jacobian", 0.003): (0.9, 0.4), ("jacobian", 0.01): (0.9, 0.5), ("jacobian", 0.03): (0.91, 0.6),
        ("jacobian", 0.1): (0.9, 0.6),  # no better than the one before
        ("jsigr", 0.03, 0.3): (0.9, 0.5), ("jsigr", 0.03, 3.0): (0.9, 0.7), ("jsigr", 0.03, 30.0): (0.89, 0.6),
        ("jsigr", 0.01, 3.0): (0.9, 0.65),
    }  # fmt: skip
    found = searched(lambda name, weights: table[(name, *(round(w, 9) for w in weights.values()))], 0.9)
    chosen = {name: tried.chosen.settings for name, tried in found.items()}
    assert chosen == {
        "penalty": {"penalty": 1.0},
        "jacobian": {"jacobian": 0.03},
        "jsigr": {"jacobian": 0.03, "selective": 3.0},
    }
    tried = [
        (name, *(round(w, 9) for w in row.settings.values()), row.accuracy, row.score)
        for name, rows in found.items()
        for row in rows.rows
    ]
    assert tried == [(*given, *reached) for given, reached in table.items()]
    assert defenses(0.1, SCALES["smoke"], chosen)["penalty"].weight == 1.0 / 4
    named = defenses(0.2, SCALES["smoke"], chosen | {"selective": {"selective": 3.0}})
    assert [member.weight for member in named["jsigr"].members] == [0.03, 3.0]
    assert named["jsigr_pat"].members[1:] == named["jsigr"].members
    assert (named["penalty"].weight, named["jacobian"].weight, named["selective"].weight) == (1.0, 0.03, 3.0)
    assert list(named) == list(liu2022.LABELS)
    assert scaled({"penalty": 1.0}, 0.1) == {"penalty": 0.25}


def test_the_page_ticks_the_chosen_weights():
    rows = [Tried({"jacobian": weight}, 0.9, 0.5) for weight in (0.1, 0.3)]
    found = SimpleNamespace(eps=0.2, searched={"jacobian": Search(rows, rows[1], Rule(0.9, 0.01))})
    table = liu2022._searched_blocks(found)[0]
    assert [cells[0].good for _, cells in table.rows] == [None, True]
    assert table.rows[0][1][0].text == "jacobian 0.1"


def _tiny(monkeypatch, **more):
    training = {"epochs": 2, "batch_size": 64}
    tiny = {"training": training, "samples": 96, "steps": 1, "grid": 2, "transfer": 20, "suite": 2, "checked": 3}
    monkeypatch.setitem(SCALES, "smoke", {**SCALES["smoke"], **tiny, "maps": 4, **more})
    monkeypatch.setattr(liu2022, "MAPS", MapFaithfulness(reference=BlurSaliency(grid=2)))
    monkeypatch.setattr(liu2022, "CHECKED", PGD(steps=2))


def _redrawn(folder, page, summary):
    """The page follows from the configuration and the tables alone."""
    copied = folder / "copy"
    shutil.copytree(folder / "tables", copied / "tables")
    shutil.copy(folder / "config.toml", copied)
    assert draw(papers.PAPERS["liu2022"], copied) == summary
    assert (copied / "index.html").read_text() == page


@pytest.mark.slow
def test_a_searched_network_is_not_trained_again(tmp_path, monkeypatch):
    grids = {"penalty": [0.1, 1.0], "jacobian": [0.03], "selective": [1.0]}
    monkeypatch.setitem(liu2022.SETTINGS, "grids", grids)
    monkeypatch.setattr(liu2022, "_LOSS_ALLOWED", 1.0)  # so short a training may cost anything
    monkeypatch.setattr(liu2022, "believed", lambda *given: Verdict(True, "left out"))
    _tiny(monkeypatch, held=20)
    # The radius of the digits is three quarters of that to which the weights belong.
    monkeypatch.setitem(liu2022.SETTINGS, "radii", {"digits": 0.2})
    request = papers.Request(data="digits", out=tmp_path, scale="smoke", search=True)
    summary = papers.reproduce("liu2022", request)
    names = sorted(p.name for p in (tmp_path / "models").iterdir())
    assert names == [
        "distilled", "jsigr_pat", "nat", "pat", "plain", "search jacobian 0.03", "search jsigr 0.01 1",
        "search jsigr 0.03 1", "search penalty 0.1", "search penalty 1", "selective", "source",
    ]  # fmt: skip
    found = summary["results"]["search"]
    chosen = {name: tried["chosen"]["settings"] for name, tried in found.items()}
    assert summary["results"]["defenses"]["penalty"]["weight"] == chosen["penalty"]["penalty"]
    assert summary["results"]["defenses"]["selective"]["weight"] == chosen["jsigr"]["selective"]
    page = (tmp_path / "index.html").read_text()
    assert "a third of it" in page
    _redrawn(tmp_path, page, summary)


def test_the_source_is_of_another_architecture():
    assert source_of("ross_cnn", (3, 32, 32)) == "convnet"
    assert source_of("convnet", (1, 28, 28)) == "lenet"
    assert source_of("lenet", (1, 20, 20)) == "mlp"


def test_all_but_ross_cnn_are_trained_with_the_channels_last():
    kinds = [liu2022.fitting(SCALES["smoke"], network).channels_last for network in ("lenet", "ross_cnn")]
    assert kinds == [True, False]


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path, monkeypatch):
    _tiny(monkeypatch)
    # The checks of nine models would take as long as all the rest ten times over.
    original, left = liu2022.believed, Verdict(True, "left out")
    monkeypatch.setattr(liu2022, "believed", lambda study, name: original(study, name) if name == "jsigr" else left)
    request = papers.Request(data="digits", out=tmp_path, scale="smoke")
    summary = papers.reproduce("liu2022", request)
    assert read_json(tmp_path / "summary.json")[0] == summary
    found = summary["results"]
    assert summary["config"]["source"] == "mlp"
    assert found["images"] == {"accuracy": found["images"]["accuracy"], "transferred": 20, "suite": 2, "checked": 3,
                               "maps": 4}  # fmt: skip
    assert list(found["rows"]) == ["plain", "nat", "pat", "distilled", "penalty", "jacobian", "selective", "jsigr",
                               "jsigr_pat"]  # fmt: skip
    jsigr = models.load(tmp_path / "models" / "jsigr")
    checked = validity(jsigr, load("digits", "test"), PGD(steps=2), linf(summary["config"]["eps"]), count=3)
    assert found["rows"]["jsigr"]["verdict"] == checked.text
    assert found["rows"]["jsigr"]["holds"] == checked.holds
    page = (tmp_path / "index.html").read_text()
    for text in ("an undefended mlp", "energy inside (more is better)", "blur saliency of J-SIGR", "J-SIGR + PGD"):
        assert text in page
    kept = [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".safetensors")]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert papers.reproduce("liu2022", request) == summary
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())
    _redrawn(tmp_path, page, summary)


def test_features_without_a_place_are_refused():
    data = Dataset(torch.rand(6, 4), torch.tensor([0, 1] * 3), ("a", "b"), tuple("pqrstu"))
    with pytest.raises(UsageError, match=r"needs images \(C, H, W\)"):
        liu2022.samples(None, data, data)
