"""Deep Defense's experiment: the tables of settings, the scores, the choice, and all of it at a tiny scale."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steadygrad import models, papers
from steadygrad.attacks import DDN
from steadygrad.attacks.suites import SUITES
from steadygrad.data import load
from steadygrad.defenses import AdversarialTraining, Defense, Parseval, Plain
from steadygrad.engines import Shared
from steadygrad.errors import UsageError
from steadygrad.files import read_json
from steadygrad.measuring.measures.attacked import Attacked
from steadygrad.measuring.measures.predicted import Predicted
from steadygrad.measuring.measures.signed_steps import SignedSteps, halving_radius
from steadygrad.measuring.runner import Runner
from steadygrad.papers.paper import draw
from steadygrad.papers.study import Study
from steadygrad.papers.yan2018 import MULTIPLES, Measured, judge
from steadygrad.papers.yan2018_networks import METHODS, SCALES, recipe_of
from steadygrad.threat import l2, linf
from steadygrad.training import FitSettings, fit

NETWORKS = ("mlp", "lenet", "convnet", "nin", "alexnet", "resnet18")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_a_table_whose_candidates_can_be_made(network):
    recipe = recipe_of(network)
    assert recipe.reference().defense == Plain()
    for name in (*METHODS, "combined"):
        ways = [recipe.method(name), *(recipe.method(name, c) for c in recipe.candidates(name))]
        assert all(isinstance(way.defense, Defense) and isinstance(way.settings, FitSettings) for way in ways)
        # Methods are compared after equally long fine-tuning of the same reference.
        assert {way.settings.epochs for way in ways} == {recipe.table["finetuning"]["epochs"]}
        assert {way.settings.freeze_norms for way in ways} == {network == "resnet18"}
        assert {way.start for way in ways} == {"reference"}
    assert isinstance(recipe.method("parseval").defense, Parseval)
    second = recipe.method("adversarial_deepfool").defense
    assert isinstance(second, AdversarialTraining)
    assert second.eps is None


def test_changes_reach_the_objective_and_the_training():
    recipe = recipe_of("mlp")
    way = recipe.method("deep_defense", {"defense.weight": 3.5, "training.lr": 0.125})
    assert way.defense.weight == 3.5
    assert way.settings.lr == 0.125
    assert recipe.method("deep_defense").defense.weight != 3.5
    assert recipe.shortened(0.01).method("deep_defense").settings.epochs == 1
    with pytest.raises(UsageError, match="no settings for 'vgg'"):
        recipe_of("vgg")


@pytest.fixture(scope="module")
def model():
    data = load("digits", "train")
    start = models.build("mlp", data.shape, data.classes, hidden=(24,))
    return fit(start, Plain(), data, settings=FitSettings(epochs=4, batch_size=64, lr=5e-3)).classifier


@pytest.fixture
def tables(model):
    return Runner({"model": model}, load("digits", "test").take(120))


def test_the_reference_radius_halves_the_accuracy(tables, model):
    x, y = tables.data.tensors()
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)

    def accuracy(radius):
        return float((model((x.detach() + radius * slope.sign()).clamp(0, 1)).argmax(1) == y).double().mean())

    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if accuracy(middle) <= 0.5 else (middle, high)
    radius = halving_radius(tables, "model")
    assert radius == high
    assert 0 < radius < 1
    assert accuracy(radius) <= 0.5 < accuracy(radius - 2e-4)
    right = tables.run(SignedSteps((0.0, radius / 2, radius)), "model")["right"][:, 0]
    assert right.mean(0) == pytest.approx([accuracy(r) for r in (0.0, radius / 2, radius)])


def test_images_whose_slope_is_rounded_are_counted(tables, model):
    assert not tables.run(Predicted(), "model")["rounded"].any()
    certain = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in list(certain.parameters())[-2:]:
            parameter.mul_(30)
    x, y = tables.data.tensors()
    logits = certain(x).detach().double()
    lead = logits.gather(1, y[:, None])[:, 0] - logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    found = Runner({"certain": certain}, tables.data).run(Predicted(), "certain")["rounded"]
    assert 0 < found.sum() < len(y)
    assert found[(lead > 18).numpy()].all()
    assert not found[(lead < 15).numpy()].any()


def test_the_other_judges_leave_what_every_attack_alone_leaves(tables, model, tmp_path):
    config = {"seed": 0, "samples": {"test": {"count": 120}}}
    study = Study(config, tmp_path, samples={"test": tables.data}, networks={"model": model})
    kept = study.withstands("model", SUITES["fast"], linf(0.1), 40)
    alone = [tables.run(Attacked(a, linf(0.1)), "model", rows=range(40))["success"] for a in SUITES["fast"]]
    assert (kept == ~np.any(alone, axis=0)).all()
    assert 0 < kept.sum() < 40
    found = tables.run(Attacked(DDN(), l2()), "model", rows=range(40))["distance"]
    assert np.isfinite(found).all()
    assert ((found == 0) == ~tables.run(Predicted(), "model")["right"][:40]).all()


def _measured(better: str, other: str, halved: bool = True) -> tuple[dict, Measured]:
    """The paper's rows, and measures of a LeNet in which one model is better than all, another one than nothing."""
    drawn = np.random.default_rng(0)
    names = ("reference", *METHODS)
    rank = {name: 2 if name == better else 0 if name == other else 1 for name in names}

    def bits(share):
        return drawn.random(1000) < share

    accuracy = {name: bits((0.9, 0.95, 1.0)[r]) for name, r in rank.items()}
    at = (0.2, 0.35, 0.5) if halved else (0.2, 0.35, 0.6)
    found = Measured(
        radius=0.2, right=accuracy,
        changes={name: (r + 1) * (1 + 0.1 * drawn.random(1000)) for name, r in rank.items()},
        norms=np.full(1000, 10.0), centered_norms=np.full(1000, 8.0),
        fgs={name: np.stack([bits(at[r])] * len(MULTIPLES)) for name, r in rank.items()},
        distances={name: (r + 1) * (1 + 0.1 * drawn.random(300)) for name, r in rank.items()},
        withstands={}, rounded={},
    )  # fmt: skip
    for name, rows in found.fgs.items():
        rows[:, :] = np.arange(1000) < at[rank[name]] * 1000
    theirs = {"accuracy": 0.97, "rho2": 0.3, "fgs": {"0.2": 0.9, "0.5": 0.8, "1": 0.5}}
    return {"deep_defense": theirs, "reference": {**theirs, "rho2": 0.15}}, found


def test_the_claims_follow_the_measures():
    theirs, found = _measured("deep_defense", "parseval")
    claims = judge("lenet", theirs, found)
    assert len(claims) == 2 + 3 * 3 + 1
    assert all(claim.held for claim in claims)
    turned = judge("lenet", *_measured("parseval", "deep_defense"))
    assert not any(claim.held for claim in turned)
    # Of a network without absolute figures the reference is the bar, and a tie is not more than it.
    for network, bar, held in (("nin", "above 1 times", True), ("convnet", "at least 1.8 times", False)):
        relative = judge(network, theirs, found)
        assert [claim.needed for claim in relative[:2]] == ["at least 0 points", bar]
        assert relative[1].held == (
            found.changes["deep_defense"].mean() >= 1.8 * found.changes["reference"].mean() or held
        )
    found.changes["reference"] = found.changes["deep_defense"]
    assert not judge("nin", theirs, found)[1].held


def test_the_combination_is_held_against_the_papers_row():
    theirs, found = _measured("deep_defense", "parseval")
    for name, held in (("deep_defense", True), ("parseval", False)):
        for measured in (found.right, found.changes, found.fgs):
            measured["combined"] = measured[name]
        claims = judge("lenet", theirs, found)
        assert [claim.held for claim in claims[-3:]] == [held] * 3
        assert [claim.text.partition(":")[0] for claim in claims[-4:]] == ["Deep Defense", *["Combined"] * 3]


def test_without_a_radius_that_halves_nothing_is_compared_there():
    theirs, found = _measured("deep_defense", "parseval", halved=False)
    assert not found.halved
    verdicts = [claim.verdict for claim in judge("lenet", theirs, found) if "ε_ref" in claim.text]
    assert verdicts == ["not measured"] * 6
    for measured in (found.right, found.changes, found.fgs):
        measured["combined"] = measured["deep_defense"]
    assert [claim.verdict == "not measured" for claim in judge("lenet", theirs, found)[-3:]] == [False, False, True]


def _tiny(monkeypatch):
    monkeypatch.setitem(
        SCALES, "smoke", {"part": 0.01, "training": 100, "test": 40, "distances": 6, "suite": 6, "validation": 20}
    )


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path, monkeypatch):
    _tiny(monkeypatch)
    request = papers.Request(data="digits", out=tmp_path, model="mlp", scale="smoke", combined=True)
    summary = papers.reproduce("yan2018", request)
    assert read_json(tmp_path / "summary.json")[0] == summary
    found = summary["results"]
    assert list(found["rows"]) == ["reference", *METHODS, "combined"]
    assert found["rows"]["deep_defense"]["fgs"]["1"]["value"] <= 0.5
    assert [claim["needed"] for claim in summary["claims"]][-1] == "at least 1.25 times"
    assert summary["left_out"][0].startswith("One seed")
    assert summary["command"].endswith("--data digits --model mlp --scale smoke --combined")
    page = (tmp_path / "index.html").read_text()
    for text in ("The paper&#39;s table", "Other judges", "adversarial training II (DeepFool)", "What each method"):
        assert text in page

    kept = [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".safetensors")]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert papers.reproduce("yan2018", request) == summary
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items())

    # The page follows from the configuration and the tables alone.
    shutil.rmtree(tmp_path / "models")
    (tmp_path / "index.html").unlink()
    (tmp_path / "summary.json").unlink()
    assert draw(papers.PAPERS["yan2018"], tmp_path) == summary
    assert (tmp_path / "index.html").read_text() == page


@pytest.mark.slow
def test_several_seeds_give_means_over_trainings(tmp_path, monkeypatch):
    _tiny(monkeypatch)
    request = papers.Request(data="digits", out=tmp_path, model="mlp", scale="smoke", seeds=(0, 1))
    summary = papers.reproduce("yan2018", request)
    single = [read_json(tmp_path / f"seed-{seed}" / "summary.json")[0] for seed in (0, 1)]
    assert summary["seeds"] == [0, 1]
    assert not any(line.startswith("One seed") for line in summary["left_out"])
    (row,) = [r for r in summary["over_seeds"] if r["text"] == "Deep Defense: accuracy"]
    values = [found["results"]["rows"]["deep_defense"]["accuracy"]["value"] for found in single]
    assert row["mean"]["value"] == pytest.approx(np.mean(values))
    assert row["mean"]["count"] == 2
    assert values == [row["by_seed"][str(seed)]["value"] for seed in (0, 1)]
    assert summary["claims"][-1]["detail"] == (
        f"mean over seeds; held at {sum(found['claims'][-1]['held'] for found in single)} of 2"
    )
    assert "Over seeds" in (tmp_path / "index.html").read_text()

    shared = dataclasses.replace(request, out=tmp_path / "shared", engine=Shared())
    found = papers.reproduce("yan2018", shared)
    assert [found[key] for key in ("claims", "over_seeds")] == [summary[key] for key in ("claims", "over_seeds")]
    with pytest.raises(UsageError, match="divides seeds, and there is one"):
        dataclasses.replace(shared, seeds=(0,))


@pytest.mark.slow
def test_a_search_trains_what_it_chose_on_data_it_did_not_validate_on(tmp_path, monkeypatch):
    _tiny(monkeypatch)
    summary = papers.reproduce("yan2018", papers.Request("digits", tmp_path, model="mlp", scale="smoke", search=True))
    for name, found in summary["results"]["search"].items():
        assert len(found["rows"]) == len(recipe_of("mlp").candidates(name))
        way = summary["results"]["settings"][name]
        for place, value in found["chosen"]["settings"].items():
            part, _, key = place.partition(".")
            assert way[part][key] == value


def test_a_network_the_paper_does_not_have_is_refused(tmp_path):
    with pytest.raises(UsageError, match="vgg16"):
        papers.reproduce("yan2018", papers.Request(data="digits", out=tmp_path, model="vgg16"))
    with pytest.raises(UsageError, match="there is no paper 'yan2019'"):
        papers.reproduce("yan2019", papers.Request(data="digits", out=tmp_path))
    with pytest.raises(UsageError, match="there is no scale 'long'"):
        papers.Request(data="digits", out=tmp_path, scale="long")
