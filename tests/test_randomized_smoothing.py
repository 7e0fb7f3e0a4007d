"""Randomized smoothing: the closed form of a linear model, the confidence that is stated, and what changes nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from oracles import randomized_smoothing as oracle
from steadygrad import Classifier, Failure, RandomizedSmoothing, UsageError, l2, randomness
from steadygrad.attacks import FGSM, PGD, is_deterministic
from steadygrad.calling import samples_may_fail
from steadygrad.memory import room_for

SIGMA = 0.5
W = torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64)


class Linear(nn.Module):
    """Two classes on either side of the hyperplane W x = b."""

    def __init__(self, b: float = 0.3) -> None:
        super().__init__()
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ W.to(x) - self.b
        return torch.stack([-margin, margin], 1)


def at(distances: Any) -> Tensor:
    """Inputs (N, 4) of class 1 at so many units of length from the hyperplane."""
    return (0.3 + torch.as_tensor(distances, dtype=torch.float64)[:, None] * W.norm()) * W / W.norm() ** 2


def test_a_linear_model_is_certified_up_to_its_hyperplane() -> None:
    distances = torch.tensor([0.2, 0.3, 0.5, 0.9, -0.4], dtype=torch.float64)
    smoothing = RandomizedSmoothing(SIGMA, n=20_000)
    found = smoothing.certify(Linear(), at(distances))
    assert found.prediction.tolist() == [1, 1, 1, 1, 0]
    exact = torch.tensor([oracle.normal_cdf(abs(float(d)) / SIGMA) for d in distances], dtype=torch.float64)
    share = found.counts.max(1).values / smoothing.n
    spread = (exact * (1 - exact) / smoothing.n).sqrt()
    assert ((share - exact).abs() < 4 * spread).all()
    assert (found.p_lower < exact).all()
    assert (found.radius < distances.abs()).all()
    assert (found.radius > distances.abs() - 0.03).all()  # what 20,000 draws leave of the limit
    assert not found.abstained.any()
    assert found.holds(torch.tensor([1, 1, 1, 0, 0]), 0.25).tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("alpha", [0.001, 0.2])
def test_bound_and_radius_are_those_of_a_bisection(alpha: float) -> None:
    smoothing = RandomizedSmoothing(SIGMA, n=200, alpha=alpha)
    found = smoothing.certify(Linear(), at([0.25, 0.3, 0.5, 0.7, 5.0]))
    assert found.counts.sum(1).tolist() == [200] * 5
    for (_, hits), lower, radius in zip(found.counts.tolist(), found.p_lower.tolist(), found.radius.tolist()):
        assert lower == pytest.approx(oracle.lower_bound(hits, 200, alpha), abs=1e-11)
        assert radius == pytest.approx(oracle.radius(hits, 200, alpha, SIGMA), abs=1e-9)
    assert float(found.p_lower[-1]) == pytest.approx(alpha ** (1 / 200))


def test_the_bound_is_too_high_no_more_often_than_is_stated() -> None:
    runs, n, alpha, distance = 4000, 50, 0.1, 0.42
    exact = oracle.normal_cdf(distance / SIGMA)
    smoothing = RandomizedSmoothing(SIGMA, n=n, alpha=alpha)
    found = smoothing.certify(Linear(), at([distance]).expand(runs, -1), generator=torch.Generator().manual_seed(4))
    expected = oracle.overshoot(n, alpha, exact)
    assert 0.03 < expected <= alpha
    for wrong in (found.p_lower > exact, found.radius > distance):
        share = float(wrong.double().mean())
        assert share <= alpha
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / runs)


def test_on_the_hyperplane_it_abstains_as_often_as_is_stated() -> None:
    runs, alpha = 2000, 0.1
    smoothing = RandomizedSmoothing(SIGMA, n=100, alpha=alpha)
    x = at([0.0]).expand(runs, -1)
    found = smoothing.certify(Linear(), x)
    expected = oracle.overshoot(100, alpha, 0.5)
    assert 0.05 < expected <= alpha
    assert abs(float((~found.abstained).double().mean()) - expected) < 4 * math.sqrt(expected / runs)
    assert ((found.prediction == -1) == found.abstained).all()
    assert (found.radius[found.abstained] == 0).all()
    assert (found.radius[~found.abstained] > 0).all()
    assert not found.holds(torch.full((runs,), -1)).any()
    predicted = smoothing.predict(Linear(), x)
    answered = float((predicted != -1).double().mean())
    exact = 2 * oracle.tail(59, 100, 0.5)  # the least number of hits that the test lets pass
    assert exact <= alpha < 2 * oracle.tail(58, 100, 0.5)
    assert abs(answered - exact) < 4 * math.sqrt(exact / runs)
    assert (smoothing.predict(Linear(), at([0.6, -0.6])) == torch.tensor([1, 0])).all()


def test_no_prediction_changes_within_its_radius() -> None:
    net, x = nets.build(), nets.inputs(12)
    smoothing = RandomizedSmoothing(0.2, n=2000)
    found = smoothing.certify(net, x)
    sure = ~found.abstained
    assert sure.sum() >= 6
    x, y, radius = x[sure], found.prediction[sure], found.radius[sure]
    # The soft vote leads towards other classes; beyond the radius it finds them.
    for factor, crosses in ((1.0, False), (30.0, True)):
        threat = l2((factor * radius).float(), bounds=(-9, 9))
        points = PGD(steps=20).perturb(smoothing(net), x, y, threat)
        now = smoothing.predict(net, points)
        assert bool(((now != y) & (now != -1)).any()) is crosses


def test_seeds_belong_to_samples() -> None:
    net, x = nets.build(dtype=torch.float64), nets.inputs(9).double()
    smoothing = RandomizedSmoothing(0.3, n0=70, n=150)
    seeds = randomness.sample_seeds(9, None)
    whole = smoothing.certify(net, x).counts
    assert len({tuple(row) for row in whole.tolist()}) > 3
    order = torch.tensor([4, 0, 8, 2])
    assert torch.equal(smoothing.certify(net, x[order], generator=seeds[order]).counts, whole[order])
    for room in (1, 7, 100):
        with room_for(room):
            assert torch.equal(smoothing.certify(net, x).counts, whole)
            assert torch.equal(smoothing.predict(net, x), smoothing.predict(net, x, generator=seeds))
    assert not torch.equal(smoothing.certify(net, x, generator=torch.Generator().manual_seed(1)).counts, whole)


def test_choice_and_estimate_see_other_noise() -> None:
    seen: list[Tensor] = []

    class Watching(Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return super().forward(x)

    RandomizedSmoothing(SIGMA, n0=100, n=300).certify(Watching(), at([0.2, 0.4]))
    points = torch.cat(seen)
    assert len(points) == 2 * 400
    assert len(points.unique(dim=0)) == len(points)


def test_noise_is_not_clipped() -> None:
    spread: list[float] = []

    class Watching(Linear):
        def forward(self, x: Tensor) -> Tensor:
            spread.extend((float(x.min()), float(x.max())))
            return super().forward(x)

    smoothing = RandomizedSmoothing(SIGMA, n=500)
    smoothing.certify(Classifier(Watching(), classes=2), torch.rand(2, 4))
    assert min(spread) < -0.5
    assert max(spread) > 1.5
    with pytest.raises(UsageError, match=r"inputs must lie within \[0, 1\]"):
        smoothing.certify(Classifier(Watching(), classes=2), 2 + torch.rand(2, 4))


class Gaps(Linear):
    """No answer on one side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] < 0, torch.nan, super().forward(x))


def test_draws_without_an_answer_are_votes_for_no_class() -> None:
    x = torch.tensor([[0.5 * SIGMA, -1.0, 0.0, 0.0]], dtype=torch.float64)
    smoothing = RandomizedSmoothing(SIGMA, n=2000)
    with pytest.raises(Failure, match="NaN or infinite logits"):
        smoothing.certify(Gaps(), x)
    with samples_may_fail():
        found = smoothing.certify(Gaps(), x)
    answered = int(found.counts.sum())
    assert abs(answered / 2000 - oracle.normal_cdf(0.5)) < 0.05
    assert float(found.p_lower) < answered / 2000


# The model that is attacked in its place


def soft(**settings: Any) -> tuple[nn.Module, RandomizedSmoothing]:
    net = nets.build(dtype=torch.float64)
    return net, RandomizedSmoothing(0.3, draws=5, **settings)


def test_the_soft_vote_is_the_mean_probability_over_fixed_noise() -> None:
    net, smoothing = soft(seed=3)
    x = nets.inputs(4).double()
    noise = 0.3 * randomness.normal(torch.tensor([3]), x[:1, None].expand(1, 5, *x.shape[1:]))[0]
    torch.testing.assert_close(smoothing(net)(x), oracle.soft_vote(net, x, noise))
    assert not torch.equal(smoothing(net)(x), soft(seed=4)[1](net)(x))


def test_the_soft_vote_is_one_differentiable_function() -> None:
    net, smoothing = soft()
    x, model = nets.inputs(4).double(), smoothing(net)
    assert is_deterministic(model, x)
    gates.assert_gradient(model, x)
    gates.assert_batch_invariant(model, x)
    for room in (1, 3):
        with room_for(room):
            torch.testing.assert_close(model(x), smoothing(net)(x))
    assert next(model.parameters()) is next(net.parameters())


def test_every_draw_of_the_soft_vote_is_counted() -> None:
    net, smoothing = soft()
    x, y = nets.inputs(3).double(), torch.tensor([0, 1, 2])
    one, five = (FGSM()(model, x, y, l2(1e-6)) for model in (net, smoothing(net)))
    unlike = one.success != five.success
    assert not unlike.all()
    assert torch.equal(five.forwards[~unlike], 5 * one.forwards[~unlike])
    assert torch.equal(five.backwards[~unlike], 5 * one.backwards[~unlike])


def test_the_bounds_of_a_classifier_are_known_through_the_noise() -> None:
    model = RandomizedSmoothing(0.1)(Classifier(nets.build(), bounds=(0, 255), name="net"))
    assert model.name == "net (smoothed)"
    with pytest.raises(UsageError, match=r"give bounds=\(0.0, 255.0\) to the threat"):
        FGSM()(model, nets.inputs(2), torch.tensor([0, 1]), l2(0.1))


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0}, "sigma must be positive and finite, got 0"),
        ({"sigma": -0.1}, "sigma must be positive and finite, got -0.1"),
        ({"sigma": math.inf}, "sigma must be positive and finite, got inf"),
        ({"sigma": "much"}, "sigma must be a number, got 'much'"),
        ({}, "missing a required argument: 'sigma'"),
        ({"sigma": 1, "alpha": 0}, r"alpha must be within \(0, 1\), got 0"),
        ({"sigma": 1, "alpha": 1}, r"alpha must be within \(0, 1\), got 1"),
        ({"sigma": 1, "n": 0}, "n must be at least 1, got 0"),
        ({"sigma": 1, "n0": 0}, "n0 must be at least 1, got 0"),
        ({"sigma": 1, "n": 1.5}, "n must be a whole number, got 1.5"),
        ({"sigma": 1, "draws": 0}, "draws must be at least 1, got 0"),
        ({"sigma": 1, "noise": 3}, "there is no argument of RandomizedSmoothing 'noise'"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RandomizedSmoothing(**settings)


@pytest.mark.parametrize("verb", ["certify", "predict"])
def test_bad_inputs_are_refused_by_name(verb: str) -> None:
    ask = getattr(RandomizedSmoothing(0.1, n=10), verb)
    net, x = nets.build(), nets.inputs(2)
    for wrong, message in (
        ((255 * x).to(torch.uint8), "x must be a floating-point batch .* divide pixels by 255"),
        (x[:0], "x: the batch of inputs is empty"),
        (x * math.nan, "inputs must be finite"),
    ):
        with pytest.raises(UsageError, match=message):
            ask(net, wrong)
    with pytest.raises(UsageError, match="generator must give seeds"):
        ask(net, x, generator=torch.tensor([1, 2, 3]))
    with pytest.raises(UsageError, match=r"model is smoothed already .*give the one beneath it, model.model"):
        ask(RandomizedSmoothing(0.1)(net), x)
    with pytest.raises(UsageError, match="model is smoothed already"):
        RandomizedSmoothing(0.1)(RandomizedSmoothing(0.1)(net))
    with pytest.raises(UsageError, match="the model returns probabilities"):
        ask(nn.Sequential(net, nn.Softmax(1)), x)


def test_labels_that_are_none_of_the_samples_are_refused() -> None:
    found = RandomizedSmoothing(0.1, n=10).certify(nets.build(), nets.inputs(2))
    with pytest.raises(UsageError, match="y must hold a label for each of 2 samples, got 3"):
        found.holds(torch.tensor([0, 1, 2]))
    with pytest.raises(UsageError, match="radius must be at least 0 and finite, got -1"):
        found.holds(torch.tensor([0, 1]), -1)


def test_a_certificate_leaves_no_trace() -> None:
    net, x = nets.build("conv"), nets.inputs(2)
    smoothing = RandomizedSmoothing(0.1, n=10)
    gates.assert_leaves_no_trace(net, lambda: (smoothing.certify(net, x), smoothing.predict(net, x)), inputs=[x])
