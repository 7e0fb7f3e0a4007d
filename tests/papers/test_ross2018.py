"""The experiment on regularized input gradients: settings, measures, choice of weights, all of it at a tiny scale."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steadygrad import models, papers
from steadygrad.attacks import BIM, JSMA
from steadygrad.data import load
from steadygrad.errors import UsageError
from steadygrad.files import read_json, read_toml
from steadygrad.measuring.measures.gradient_norms import GradientNorms
from steadygrad.measuring.measures.pictured import EveryTarget
from steadygrad.measuring.measures.predicted import LogProbabilities
from steadygrad.measuring.measures.signed_steps import SignedSteps
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.table import Table
from steadygrad.papers import paper, ross2018
from steadygrad.papers.ross2018_networks import GRIDS, LABELS, SCALES, WEIGHTS, defenses, ours, weights_of
from steadygrad.threat import l0, linf

TINY = {
    **SCALES["smoke"],
    "training": {"epochs": 1, "batch_size": 32, "lr": 5e-3},
    "samples": 120,
    "images": 30,
    "epsilons": [0.1, 0.2, 0.3],
    "targeted": 3,
    "curve": 2,
    "part": 1.0,
    "every": 12,
}


def test_weights_are_those_of_the_authors_per_sample():
    # Theirs is half the squared gradient of the mean over 256: sum_n |g_n / 256|^2 / 2 = mean_n |g_n|^2 / 512.
    gradients = torch.randn(256, 7, generator=torch.Generator().manual_seed(0))
    theirs = 1000.0 * (gradients / 256).square().sum() / 2
    mine = ours(1000.0) * gradients.square().sum(1).mean()
    assert float(mine) == pytest.approx(float(theirs), rel=1e-5)
    assert WEIGHTS["mnist"]["doubleback"] == pytest.approx(109.8, abs=0.05)
    assert WEIGHTS["notmnist"]["insensitive"] == pytest.approx(0.35, abs=0.005)
    assert GRIDS["doubleback"][11] == pytest.approx(WEIGHTS["mnist"]["doubleback"], rel=1e-6)
    assert {name: len(grid) for name, grid in GRIDS.items()} == {"doubleback": 13, "both": 13, "insensitive": 13}


def test_short_scales_take_no_more_than_the_authors_weights():
    assert weights_of("mnist", "paper") == weights_of("digits", "paper") == WEIGHTS["mnist"]
    assert weights_of("mnist", "short")["doubleback"] == pytest.approx(6.18, abs=0.01)
    assert weights_of("notmnist", "short") == WEIGHTS["notmnist"]


def test_in_a_smaller_unit_the_same_change_costs_the_same() -> None:
    # Inputs a tenth as large: gradients are ten times larger, and eps is a tenth.
    whole, tenth = (defenses(WEIGHTS["mnist"], unit) for unit in (1.0, 0.1))
    for name in ("insensitive", "doubleback"):
        assert tenth[name].weight == pytest.approx(whole[name].weight / 100)
    assert tenth["both"].members[1].weight == pytest.approx(whole["both"].members[1].weight / 100)
    assert tenth["advtrain"].eps == pytest.approx(0.03)


def test_svhn_is_read_in_grey(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    asked = []

    def read(name: str, split: str, color: str | None = None) -> Any:
        asked.append((name, split, color))
        raise UsageError("enough")

    monkeypatch.setattr(paper, "load", read)
    for name in ("svhn", "mnist"):
        with pytest.raises(UsageError, match="enough"):
            papers.reproduce("ross2018", papers.Request(data=name, out=tmp_path))
    assert asked == [("svhn", "train", "gray"), ("mnist", "train", None)]


def test_the_combined_loss_is_half_the_penalized_and_half_the_adversarial_one():
    data = load("digits", "train").take(20)
    model = models.build("mlp", data.shape, data.classes, hidden=(8,))
    x, y = data.tensors()
    made = defenses({"doubleback": 3.0, "insensitive": 1.0, "both": 3.0})
    both, penalized = (float(made[n].loss(model, x, y).total.detach()) for n in ("both", "doubleback"))
    adversarial = float(made["advtrain"].loss(model, x, y).parts["adversarial"])
    assert both == pytest.approx(penalized / 2 + adversarial, rel=1e-5)


@pytest.fixture(scope="module")
def tables():
    data = load("digits", "test").take(40)
    named = {
        name: models.build("mlp", data.shape, data.classes, seed=seed, hidden=(12,))
        for seed, name in enumerate(("normal", "other"))
    }
    return Runner(named, data)


@pytest.mark.parametrize("targeted", [False, True])
def test_transfer_is_a_single_signed_step_judged_by_all(tables, targeted):
    x, y = tables.data.batch(slice(0, 25))
    x = x.requires_grad_()
    goal = (y + 1) % 10 if targeted else y
    (slope,) = torch.autograd.grad(F.cross_entropy(tables.models["normal"](x), goal, reduction="sum"), x)
    points = (x.detach() + (-0.2 if targeted else 0.2) * slope.sign()).clamp(0, 1)
    expected = torch.stack([m.eval()(points).argmax(1) == y for m in tables.models.values()], 1)
    found = tables.run(SignedSteps((0.1, 0.2), targeted), "normal", beside=["other"], rows=range(25))["right"]
    assert found.shape == (25, 2, 2)
    assert np.array_equal(found[:, :, 1], expected.numpy())


def test_gradient_norms_and_log_probabilities_by_hand(tables):
    x, y = tables.data.batch(slice(0, 10))
    model = tables.models["other"]
    found = tables.run(GradientNorms(), "other", rows=range(10))
    for key, label in (("norm", y), ("next_norm", (y + 1) % 10)):
        for i in range(10):
            one = x[i : i + 1].clone().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(model(one), label[i : i + 1]), one)
            assert found[key][i] == pytest.approx(float(slope.norm()), rel=1e-4)
    logs = tables.run(LogProbabilities(), "other", rows=range(10))["log_probabilities"]
    assert logs == pytest.approx(model(x).log_softmax(1).detach().numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("attack", "threat"), [(JSMA(theta=1.0, gamma=0.25), l0()), (BIM(steps=10, loss="ce"), linf(1.0))]
)
def test_every_target_says_what_it_reached(tables, attack, threat):
    rows = [0, 3, 5]
    found = tables.run(EveryTarget(attack, threat, 10), "normal", rows=rows)
    x, y = tables.data.batch(rows)
    model = tables.models["normal"]
    assert found["success"].any()
    for i, j in np.ndindex(found["success"].shape):
        image = torch.from_numpy(found["pictures"][i, j])
        if j == y[i]:
            assert torch.equal(image, x[i])
        elif found["success"][i, j]:
            assert int(model(image[None]).argmax()) == j
        assert int((image != x[i]).sum()) == found["changed"][i, j]
        if isinstance(attack, JSMA):
            assert found["changed"][i, j] <= 0.25 * 64


def _judged(fine: bool) -> list[Any]:
    """The claims on results in which everything is as the paper says, or nothing is."""
    kept = {
        # At .2, .3 and .5, each under its own FGSM.
        "normal": (0.1, 0.05, 0.0), "distilled": (0.95, 0.95, 0.95), "advtrain": (0.9, 0.85, 0.1),
        "insensitive": (0.2, 0.1, 0.0), "doubleback": (0.6, 0.5, 0.3), "both": (0.9, 0.9, 0.4),
    } if fine else {
        "normal": (0.6, 0.5, 0.3), "distilled": (0.5, 0.4, 0.3), "advtrain": (0.5, 0.4, 0.3),
        "insensitive": (0.5, 0.4, 0.0), "doubleback": (0.7, 0.6, 0.2), "both": (0.4, 0.3, 0.2),
    }  # fmt: skip

    def bits(share: float) -> np.ndarray:
        return np.arange(1000) < share * 1000

    right = {}
    for place, eps in enumerate((0.2, 0.3, 0.5)):
        for source in LABELS:
            # On the examples of another model: above 85 % if all is fine.
            rows = [bits(kept[m][place] if m == source else (0.9 if fine else 0.5)) for m in LABELS]
            right["fgsm", source, eps] = dict(zip(LABELS, rows))
            right["tgsm", source, eps] = {m: bits(0.1 if fine else 0.6) for m in LABELS}
    # Two norms a decade apart for the normal model; for the others smaller and alike, or larger and further apart.
    norms = {m: (1.0, 10.0) if m == "normal" else (0.1, 0.2) if fine else (1.0, 100.0) for m in LABELS}
    spread = 1 + 0.01 * np.arange(1000) / 1000
    found = ross2018.Measured(
        labels=np.zeros(1000), clean={}, right=right,
        stands={"PGD, margin": {"distilled": bits(0.1 if fine else 0.5)}},
        norms={m: Table({"norm": low * spread, "next_norm": high * spread**2}) for m, (low, high) in norms.items()},
    )  # fmt: skip
    return ross2018.judge(found, {})


def test_the_claims_follow_the_measures() -> None:
    fine, turned = _judged(True), _judged(False)
    assert len(fine) == len(turned) == 2 + 2 + 1 + 2 + 1 + 6
    assert [claim.text for claim in fine if not claim.held] == []
    assert [claim.text for claim in turned if claim.held] == []


@pytest.mark.slow
def test_the_whole_experiment_is_written_down_and_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setitem(SCALES, "smoke", TINY)
    request = papers.Request(data="digits", out=tmp_path, scale="smoke", search=True)
    summary = papers.reproduce("ross2018", request)
    assert read_json(tmp_path / "summary.json")[0] == summary
    found = summary["results"]
    assert list(found["clean"]) == list(LABELS)
    assert set(found["transfer"]["fgsm"]["normal"]) == {"0.1", "0.2", "0.3"}
    overlap = found["overlap"]
    assert all(sum(row["images"] for row in rows) == overlap["count"] for rows in overlap["sources"].values())
    assert len(summary["claims"]) == 14
    assert all(curve and curve[-1]["step"] == 4 for curve in found["curves"].values())
    page = (tmp_path / "index.html").read_text()
    for text in ("What this run leaves out", "certainty penalty (1/K)", "JSMA: original by target", "Transfer"):
        assert text in page
    assert "http" not in page.replace("http://www.w3.org", "")

    # The search tried two weights of each grid and the models were trained with its choice.
    for name, tried in found["search"].items():
        assert [row["settings"] for row in tried["rows"]] == list(GRIDS[name][::12])
        assert found["weights"][name] == tried["chosen"]["settings"]
    config = read_toml(tmp_path / "models" / "doubleback" / "config.toml")
    assert config["defense"]["weight"] == pytest.approx(found["weights"]["doubleback"])

    kept = [p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".safetensors")]
    done = {p: p.stat().st_mtime_ns for p in kept}
    assert sum(p.name == "model.safetensors" for p in done) == 6 + 1 + 7  # with a teacher, and the search
    assert papers.reproduce("ross2018", request) == summary
    assert done == {p: p.stat().st_mtime_ns for p in done}
    assert set(kept) == {p for p in tmp_path.rglob("*") if p.suffix in (".parquet", ".safetensors")}

    # The page follows from the configuration and the tables alone.
    shutil.rmtree(tmp_path / "models")
    assert paper.draw(papers.PAPERS["ross2018"], tmp_path) == summary
    assert (tmp_path / "index.html").read_text() == page
