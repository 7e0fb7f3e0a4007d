"""The experiment on neuron sensitivity: its measures, its claims, and all of it at a tiny scale."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from steadygrad import models, neurons, papers
from steadygrad.attacks.suites import SUITES
from steadygrad.data import load
from steadygrad.defenses import Plain
from steadygrad.errors import UsageError
from steadygrad.files import read_json
from steadygrad.measuring.measures.attacked import radius_leaving
from steadygrad.measuring.measures.neuron_changes import NeuronChanges, by_layer, most_moved
from steadygrad.measuring.measures.neurons_held import WAYS, NeuronsHeld, shares_right
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.runner import Runner
from steadygrad.papers import zhang2021
from steadygrad.papers.paper import draw
from steadygrad.papers.study import Study
from steadygrad.papers.zhang2021 import LABELS, PAIRS, Measured, defenses, judge, trainings
from steadygrad.threat import linf
from steadygrad.training import FitSettings, fit

EPS = 0.15


@pytest.fixture(scope="module")
def model():
    data = load("digits", "train").take(400)
    start = models.build("mlp", data.shape, data.classes, hidden=(24, 16))
    return fit(start, Plain(), data, settings=FitSettings(epochs=8, batch_size=64, lr=5e-3)).classifier


@pytest.fixture
def tables(model):
    return Runner({"model": model}, load("digits", "test").take(80))


def test_the_measures_are_those_of_the_library(tables, model):
    measure = NeuronChanges(PAIRS, linf(EPS))
    pairs = tables.run(measure, "model", rows=range(60), keep=range(60))
    x, y = tables.data.batch(slice(0, 60))
    x_adv = PAIRS.perturb(model, x, y, linf(EPS), generator=tables.seeds(measure.draws_as, tables.data.ids[:60]))
    assert np.array_equal(pairs.kept("input").values, x_adv.numpy())
    right, wrong = model(x).argmax(1) == y, model(x_adv).argmax(1) != y
    assert np.array_equal(pairs["fooled"], (right & wrong).numpy())
    assert 10 < pairs["fooled"].sum() < 60
    found = by_layer(pairs)["2"]
    with torch.no_grad():
        sizes = model.module[:3](x).abs().mean(1)
    np.testing.assert_allclose(found["size"], sizes.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["sigma"], neurons.sensitivity(model, x, x_adv)["2"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["change"].mean(), found["sigma"].mean(), rtol=1e-6)

    fooled = (right & wrong).nonzero().flatten()
    net, most = model.module, neurons.select({"2": torch.from_numpy(found["sigma"])}, 0.1)["2"]
    held = {way: shares_right(tables, "model", pairs, found["sigma"], NeuronsHeld("2", way=way)) for way in WAYS}
    with torch.no_grad():
        benign, moved = net[:3](x[fooled]), net[:3](x_adv[fooled])
        edited = {"patched": moved.clone(), "off": moved.clone(), "clean": benign.clone()}
        edited["patched"][:, most] = benign[:, most]
        edited["off"][:, most] = 0
        edited["clean"][:, most] = 0
        for way, values in edited.items():
            assert held[way]["most"].tolist() == (net[3:](values).argmax(1) == y[fooled]).double().tolist()
    # Sets that hold the whole layer always restore the class.
    whole = shares_right(tables, "model", pairs, found["sigma"], NeuronsHeld("2", share=1.0))
    assert (whole["random"] == 1).all()
    # Random sets are averaged, and follow from their seed.
    single = [NeuronsHeld("2", draws=1, seed=seed) for seed in (3, 4)]
    mean = np.mean([shares_right(tables, "model", pairs, found["sigma"], m)["random"] for m in single], axis=0)
    both = shares_right(tables, "model", pairs, found["sigma"], NeuronsHeld("2", draws=2, seed=3))
    np.testing.assert_array_equal(both["random"], mean)


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="way to hold neurons 'of'"):
        NeuronsHeld("2", way="of")


def test_the_movers_are_those_of_the_library():
    data = load("digits", "test").take(30)
    model = models.build("digits_cnn", data.shape, data.classes, width=8)
    tables = Runner({"model": model}, data)
    pairs = tables.run(NeuronChanges(PAIRS, linf(EPS)), "model", rows=range(20), keep=range(20))
    layer = next(iter(by_layer(pairs)))
    neuron = int(by_layer(pairs)[layer]["sigma"].argmax())
    x, x_adv = data.batch(slice(0, 20))[0], torch.from_numpy(pairs.kept("input").values)
    want = neurons.movers(model, x, x_adv, layer, neuron, count=4)
    images, patches = most_moved(tables, "model", pairs, layer, 4)
    assert np.array_equal(images, x_adv[want.index].numpy())
    assert np.array_equal(patches, want.patches(x_adv).numpy())


def test_the_radius_leaves_the_share_that_was_asked_for(tables, model, tmp_path):
    assert radius_leaving(tables, "model", 1.0, range(80)) == 0.0
    assert not tables.run(NeuronChanges(PAIRS, linf(0.0)), "model", rows=range(10))["fooled"].any()
    config = {"seed": 0, "samples": {"test": {"count": 80}}}
    study = Study(config, tmp_path, samples={"test": tables.data}, networks={"model": model})
    right = tables.run(Predicted(), "model")["right"]
    assert study.withstands("model", SUITES["fast"], linf(0.0), 10).mean() == right[:10].mean()
    kept = study.withstands("model", SUITES["fast"], linf(radius_leaving(tables, "model", 0.3, range(80))), 80)
    assert 0.15 <= kept.mean() <= 0.35


def test_all_models_are_trained_for_equally_many_steps(tmp_path):
    assert list(defenses(0.1, 7)) == list(LABELS)
    for count, epochs in ((1000, 19), (5500, 4)):
        study = Study({"model": "mlp", "scale": "short", "samples": {"train": {"count": count}}}, tmp_path)
        assert {way.settings.epochs for way in trainings(study, 0.1).values()} == {epochs}


def _measured(**changes):
    drawn = np.random.default_rng(0)

    def bits(share):
        return drawn.random(400) < share

    def held(most, other, least):
        shares = {"most": most, "random": other, "least": least}
        return {f"patched/{choice}": bits(share).astype(float) for choice, share in shares.items()}

    change = {"plain": 1.0, "nat": 0.7, "pat": 0.4}
    fine = Measured(
        eps=0.1, own={"plain": 0.05},
        right={name: bits(0.95) for name in ("plain", "sns")},
        moved={
            name: {
                la: {what: size * (1 + 0.1 * drawn.random(50)) for what, size in (("change", moves), ("size", 2.0))}
                for la in "abc"
            }
            for name, moves in change.items()
        },
        chosen={"plain": "b"},
        restored={"plain": {"a": held(0.1, 0.9, 0.9), "b": held(0.8, 0.4, 0.1)}},
        kept={"plain": bits(0.3), "sns": bits(0.7), "steady": bits(0.6)},
        kept_trained={"pat": bits(0.5), "pat_sns": bits(0.7)},
    )  # fmt: skip
    return replace(fine, **changes)


def test_the_claims_follow_the_measures():
    fine = _measured()
    assert [claim.held for claim in judge(fine)] == [True] * 10
    few = fine.restored["plain"]["b"]
    turned = {
        "restored": {"plain": {"b": dict.fromkeys(few, few["patched/least"])}},
        "moved": {"plain": fine.moved["pat"], "nat": fine.moved["nat"], "pat": fine.moved["plain"]},
        "kept": {"plain": fine.kept["sns"], "sns": fine.kept["plain"], "steady": fine.kept["plain"]},
        "kept_trained": {"pat": fine.kept_trained["pat_sns"], "pat_sns": fine.kept_trained["pat"]},
        "right": {"plain": fine.right["plain"], "sns": fine.kept["plain"]},
    }  # fmt: skip
    # No difference at all between most, random and least is no restoring.
    assert [claim.held for claim in judge(_measured(**turned))] == [False] * 10
    none = {"plain": {"b": dict.fromkeys(few, np.zeros(0))}}
    verdicts = [claim.verdict for claim in judge(_measured(restored=none))]
    assert verdicts[:2] == ["not measured"] * 2
    # Layers that are not sure leave the claim open.
    unsure = {**fine.moved["nat"]["a"], "change": fine.moved["plain"]["b"]["change"]}
    found = judge(_measured(moved={**fine.moved, "nat": {**fine.moved["nat"], "a": unsure}}))[2].found
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(2 / 3), 1.0)
    # A model that is calm because its activations are small is not calmer by its ratios.
    small = {
        name: {la: {k: v * (0.1 if name == "nat" else 1.0) for k, v in row.items()} for la, row in moved.items()}
        for name, moved in fine.moved.items()
    }
    verdicts = [claim.held for claim in judge(_measured(moved=small))[2:6]]
    assert verdicts == [True, False, True, True]
    # No radius leaves a model 30 % that has less to begin with.
    nothing = judge(_measured(own={"plain": 0.0}))
    assert [claim.verdict == "not measured" for claim in nothing[6:]] == [True, False, True, False]


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path, monkeypatch):
    tiny = {"epochs": 1, "least": 1, "samples": 96, "steps": 1, "looked": 8, "images": 30, "curves": 20, "suite": 2}
    monkeypatch.setitem(zhang2021.SCALES, "smoke", {**tiny, "draws": 3})
    request = papers.Request(data="digits", out=tmp_path, scale="smoke")
    summary = papers.reproduce("zhang2021", request)
    assert read_json(tmp_path / "summary.json")[0] == summary
    found = summary["results"]
    assert found["neurons"] == {"2": 32, "6": 64, "11": 1024}
    assert set(found["rows"]) == {"plain", "nat", "pat", "trades", "sns", "steady", "pat_sns"}
    assert found["images"] == {"accuracy": found["images"]["accuracy"], "pairs": 30, "curves": 20, "suite": 2}
    page = (tmp_path / "index.html").read_text()
    for text in ("What sensitive neurons carry", "Sensitivity spectra", "What moves a neuron", "PAT + SNS"):
        assert text in page
    kept = [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".safetensors")]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert papers.reproduce("zhang2021", request) == summary
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())

    # The page follows from the configuration and the tables alone.
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "tables", copy / "tables")
    shutil.copy(tmp_path / "config.toml", copy)
    assert draw(papers.PAPERS["zhang2021"], copy) == summary
    assert (copy / "index.html").read_text() == page


def test_there_is_nothing_to_search(tmp_path):
    with pytest.raises(UsageError, match="nothing to search"):
        papers.reproduce("zhang2021", papers.Request(data="digits", out=tmp_path, search=True))
