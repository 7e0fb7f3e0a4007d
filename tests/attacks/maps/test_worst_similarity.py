"""The worst over a suite, sample by sample, of the maps of the model itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from steadygrad.attacks.maps.attribution_attacks import IFIA, AttributionPGD
from steadygrad.attacks.maps.worst_similarity import WorstSimilarity, explanation_suite, worst_similarity
from steadygrad.attributions import InputXGradient, Saliency
from steadygrad.attributions import similarity as sim
from steadygrad.errors import UsageError
from steadygrad.threat import l2, linf

NAMES = ("top_k_intersection", "euclidean", "kendall", "mass_center_displacement")


def _suite(pictures: bool = True):  # type: ignore[no-untyped-def]
    return explanation_suite(Saliency(), k=0.25, steps=3, restarts=1, noise_draws=2, pictures=pictures)


def _case(activation: type[nn.Module] = nn.GELU) -> tuple[nn.Module, Tensor]:
    return nets.build("conv", activation=activation, dtype=torch.float64), nets.inputs(5, dtype=torch.float64)


def test_the_worst_is_taken_per_sample_over_the_attacks() -> None:
    model, x = _case()
    found = worst_similarity(model, x, None, linf(0.1), Saliency(), attacks=_suite(), similarities=NAMES)
    for name in NAMES:
        row = sim.SIMILARITIES[name]
        for values, results in (
            (found.worst[name], [p for r in found.results for p in (r, r.noise)]),
            (found.noise[name], [r.noise for r in found.results]),
        ):
            for n in range(5):
                each = [float(row.function(r.clean_maps[n : n + 1], r.maps[n : n + 1])) for r in results]
                assert float(values[n]) == pytest.approx((min if row.higher_is_more_similar else max)(each))
        for n in range(5):
            point, before, after = found.example(name, n)
            assert float(row.function(before[None], after[None])) == pytest.approx(float(found.worst[name][n]))
            torch.testing.assert_close(Saliency()(model, point[None], found.results[0].target[n : n + 1])[0], after)
    assert float(found.worst["euclidean"].mean()) > float(found.noise["euclidean"].mean())


def test_a_sample_does_not_depend_on_its_batch_and_nothing_is_left_behind() -> None:
    model, x = _case()

    def call(x: Tensor, index: Tensor) -> WorstSimilarity:
        generator = gates.generator_at(index)
        return worst_similarity(model, x, None, l2(0.3), Saliency(), attacks=_suite(), generator=generator)

    gates.assert_batch_invariant(call, x, torch.arange(5))
    gates.assert_leaves_no_trace(
        model, lambda: worst_similarity(model, x, None, l2(0.3), Saliency()), inputs=[x], failing_at=(0, 2)
    )


def test_a_point_of_a_baseline_that_is_worse_is_the_one_that_counts() -> None:
    model, x = _case(nn.ReLU)[0], nets.inputs(16, dtype=torch.float64)
    attacks = [IFIA(k=0.25, steps=2, restarts=1, noise_draws=5)]
    found = worst_similarity(model, x, None, linf(0.1), Saliency(), attacks=attacks, similarities=["kendall"])
    assert bool((found.worst["kendall"] <= found.noise["kendall"]).all())
    below = found.results[0].similarity(sim.kendall) > found.noise["kendall"]
    assert bool(below.any())  # what has the fewest top pixels in common need not have the least tau
    n = int(below.nonzero()[0])
    _, before, after = found.example("kendall", n)
    assert float(sim.kendall(before[None], after[None])) == pytest.approx(float(found.worst["kendall"][n]))
    assert int(found.by["kendall"][n]) == 0


def test_vectors_have_no_center_of_mass() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3))
    found = worst_similarity(net, torch.rand(2, 6), None, linf(0.1), Saliency(), attacks=_suite(pictures=False))
    assert [attack.objective for attack in found.attacks] == ["top-k", "cosine"]


def test_wrong_calls_are_refused() -> None:
    model, x = _case()
    with pytest.raises(UsageError, match="did you mean 'kendall'"):
        worst_similarity(model, x, None, linf(0.1), Saliency(), similarities=["kendal"])
    for attacks in ([], [IFIA(InputXGradient())], [AttributionPGD(noise_draws=0)]):
        with pytest.raises(UsageError, match="at least one attack on the given attribution"):
            worst_similarity(model, x, None, linf(0.1), Saliency(), attacks=attacks)
