"""Deep Defense's experiment: the tables of settings, the scores, the choice, and all of it at a tiny scale."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steadygrad import evaluation, models, papers
from steadygrad.data import load
from steadygrad.defenses import AdversarialTraining, Defense, Parseval, Plain
from steadygrad.errors import UsageError
from steadygrad.measuring import statistics
from steadygrad.papers.bench import Bench
from steadygrad.papers.store import Store
from steadygrad.papers.yan2018 import experiment, recipes
from steadygrad.papers.yan2018.claims import judge
from steadygrad.papers.yan2018.measures import MULTIPLES, Measured
from steadygrad.training import FitSettings, fit

NETWORKS = ("mlp", "lenet", "convnet", "nin", "alexnet", "resnet18")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_a_table_whose_candidates_can_be_made(network):
    recipe = recipes.load(network)
    assert recipe.reference.defense == Plain()
    for name in recipe.methods(combined=True):
        ways = [recipe.method(name), *(recipe.method(name, c) for c in recipe.candidates(name))]
        assert all(isinstance(way.defense, Defense) and isinstance(way.training, FitSettings) for way in ways)
        # Methods are compared after equally long fine-tuning.
        assert {way.training.epochs for way in ways} == {recipe.table["finetuning"]["epochs"]}
        assert {way.training.freeze_norms for way in ways} == {network == "resnet18"}
    assert isinstance(recipe.method("parseval").defense, Parseval)
    second = recipe.method("adversarial_deepfool").defense
    assert isinstance(second, AdversarialTraining)
    assert second.eps is None


def test_changes_reach_the_objective_and_the_training():
    recipe = recipes.load("mlp")
    way = recipe.method("deep_defense", {"defense.weight": 3.5, "training.lr": 0.125})
    assert way.defense.weight == 3.5
    assert way.training.lr == 0.125
    assert recipe.method("deep_defense").defense.weight != 3.5
    assert recipe.shortened(0.01).method("deep_defense").training.epochs == 1
    with pytest.raises(UsageError, match="no settings for 'vgg'"):
        recipes.load("vgg")


@pytest.fixture(scope="module")
def model():
    data = load("digits", "train")
    start = models.build("mlp", data.shape, data.classes, hidden=(24,))
    return fit(start, Plain(), data, settings=FitSettings(epochs=4, batch_size=64, lr=5e-3)).classifier


@pytest.fixture
def bench(tmp_path):
    return Bench(load("digits", "test").take(120), Store(tmp_path), seed=0, device="cpu")


def test_rho2_is_the_librarys(bench, model):
    center = evaluation.mean_image(bench.data)
    found = evaluation.rho2(model, bench.data, center=center)
    changes = bench.changes(model)
    assert float((changes / bench.norms(None)).mean()) == pytest.approx(found.pixels.value, rel=1e-6)
    assert float((changes / bench.norms(center)).mean()) == pytest.approx(found.centered.value, rel=1e-6)


def test_the_reference_radius_halves_the_accuracy(bench, model):
    x, y = bench.data.tensors()
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)

    def accuracy(radius):
        return float((model((x.detach() + radius * slope.sign()).clamp(0, 1)).argmax(1) == y).double().mean())

    radius = bench.reference_radius(model)
    assert 0 < radius < 1
    assert accuracy(radius) <= 0.5 < accuracy(radius - 2e-4)
    right = bench.under_fgs(model, [0.0, radius / 2, radius])
    assert right.mean(1) == pytest.approx([accuracy(r) for r in (0.0, radius / 2, radius)])


def test_images_whose_slope_is_rounded_are_counted(bench, model):
    assert not bench.rounded(model).any()
    certain = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in list(certain.parameters())[-2:]:
            parameter.mul_(30)
    x, y = bench.data.tensors()
    logits = certain(x).detach().double()
    lead = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    found = bench.rounded(certain)
    assert 0 < found.sum() < len(y)
    assert found[(lead > 18).numpy()].all()
    assert not found[(lead < 15).numpy()].any()


def test_the_other_judges_agree_with_evaluate(bench, model):
    kept = bench.withstands(model, 0.1, 40)
    test = bench.data.take(40)
    records = evaluation.evaluate(model, test, evaluation.SUITES["fast"], evaluation.robustness.Threat("linf", 0.1))
    assert abs(kept.mean() - evaluation.robust_accuracy(records).value) <= 1 / 40
    distances = bench.distances(model, 40)
    assert np.isfinite(distances).all()
    assert ((distances == 0) == ~bench.right(model)[:40]).all()


def _measured(better: str, other: str, halved: bool = True) -> tuple[dict, Measured]:
    """Results of a LeNet in which one model is better than all, another one than nothing."""
    drawn = np.random.default_rng(0)
    names = ("reference", *recipes.METHODS)
    rank = {name: 2 if name == better else 0 if name == other else 1 for name in names}

    def bits(share):
        return drawn.random(1000) < share

    accuracy = {name: bits((0.9, 0.95, 1.0)[r]) for name, r in rank.items()}
    at = (0.2, 0.35, 0.5) if halved else (0.2, 0.35, 0.6)
    found = Measured(
        radius=0.2, suite_radius=0.1, right=accuracy,
        changes={name: (r + 1) * (1 + 0.1 * drawn.random(1000)) for name, r in rank.items()},
        norms=np.full(1000, 10.0), centered_norms=np.full(1000, 8.0),
        fgs={name: np.stack([bits(at[r])] * len(MULTIPLES)) for name, r in rank.items()},
        distances={name: (r + 1) * (1 + 0.1 * drawn.random(300)) for name, r in rank.items()},
        withstands={}, rounded={},
    )  # fmt: skip
    for name, rows in found.fgs.items():
        rows[:, :] = np.arange(1000) < at[rank[name]] * 1000
    scores = {
        name: {
            "accuracy": statistics.share_of(accuracy[name]).plain(),
            "rho2_centered": statistics.mean(found.changes[name] / found.centered_norms).plain(),
            "fgs": {"1": statistics.share_of(found.fgs[name][0]).plain()},
        }
        for name in names
    }
    theirs = {"accuracy": 0.97, "rho2": 0.3, "fgs": {"0.2": 0.9, "0.5": 0.8, "1.0": 0.5}}
    published = {"deep_defense": theirs, "reference": {**theirs, "rho2": 0.15}}
    return {"network": "lenet", "rows": scores, "published": published}, found


def test_the_claims_follow_the_measures():
    results, found = _measured("deep_defense", "parseval")
    claims = judge(results, found)
    assert len(claims) == 2 + 3 * 3 + 1
    assert all(claim.held for claim in claims)
    turned = judge(*_measured("parseval", "deep_defense"))
    assert not any(claim.held for claim in turned)
    # Of a network without absolute figures the reference is the bar, and a tie is not more than it.
    for network, bar, held in (("nin", "above 1 times", True), ("convnet", "at least 1.8 times", False)):
        relative = judge({**results, "network": network}, found)
        assert [claim.needed for claim in relative[:2]] == ["at least 0 points", bar]
        assert relative[1].held == (
            found.changes["deep_defense"].mean() >= 1.8 * found.changes["reference"].mean() or held
        )
    found.changes["reference"] = found.changes["deep_defense"]
    assert not judge({**results, "network": "nin"}, found)[1].held


def test_the_combination_is_held_against_the_papers_row():
    results, found = _measured("deep_defense", "parseval")
    results["rows"]["combined"] = results["rows"]["deep_defense"]
    assert [claim.held for claim in judge(results, found)[-3:]] == [True] * 3
    results["rows"]["combined"] = results["rows"]["parseval"]
    assert [claim.held for claim in judge(results, found)[-3:]] == [False] * 3


def test_without_a_radius_that_halves_nothing_is_compared_there():
    results, found = _measured("deep_defense", "parseval", halved=False)
    assert not found.halved
    verdicts = [claim.verdict for claim in judge(results, found) if "ε_ref" in claim.text]
    assert verdicts == ["not measured"] * 6
    results["rows"]["combined"] = results["rows"]["deep_defense"]
    assert [claim.verdict == "not measured" for claim in judge(results, found)[-3:]] == [False, False, True]


def _tiny(monkeypatch):
    monkeypatch.setitem(experiment.SCALES, "smoke", experiment.Scale(0.01, 100, 40, 6, 6, 20))


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path, monkeypatch):
    _tiny(monkeypatch)
    request = papers.Request(data="digits", out=tmp_path, model="mlp", scale="smoke", combined=True)
    summary = papers.reproduce("yan2018", request)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    found = summary["results"]
    assert found["models"] == ["reference", *recipes.METHODS, "combined"]
    assert found["rows"]["deep_defense"]["fgs"]["1"]["value"] <= 0.5
    assert [claim["needed"] for claim in summary["claims"]][-1] == "at least 1.25 times"
    page = (tmp_path / "index.html").read_text()
    for text in ("The paper&#39;s table", "Other judges", "adversarial training II (DeepFool)", "What each method"):
        assert text in page

    kept = [p for p in tmp_path.rglob("*") if p.parent.name == "cells" or p.suffix == ".safetensors"]
    before = {p: p.stat().st_mtime_ns for p in kept}
    again = papers.reproduce("yan2018", request)
    assert again["results"] == found
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())


@pytest.mark.slow
def test_a_search_trains_what_it_chose_on_data_it_did_not_validate_on(tmp_path, monkeypatch):
    _tiny(monkeypatch)
    summary = papers.reproduce("yan2018", papers.Request("digits", tmp_path, model="mlp", scale="smoke", search=True))
    for name, table in summary["results"]["search"]["candidates"].items():
        assert len(table["rows"]) == len(recipes.load("mlp").candidates(name))
        way = summary["results"]["settings"][name]
        for place, value in table["chosen"].items():
            part, _, key = place.partition(".")
            assert way[part][key] == value


def test_a_network_the_paper_does_not_have_is_refused(tmp_path):
    with pytest.raises(UsageError, match="vgg16"):
        papers.reproduce("yan2018", papers.Request(data="digits", out=tmp_path, model="vgg16"))
    with pytest.raises(UsageError, match="there is no paper 'yan2019'"):
        papers.reproduce("yan2019", papers.Request(data="digits", out=tmp_path))
    with pytest.raises(UsageError, match="there is no scale 'long'"):
        papers.Request(data="digits", out=tmp_path, scale="long")
