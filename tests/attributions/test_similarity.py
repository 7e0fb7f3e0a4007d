"""Similarity of maps: against definitions, and the laws of the stated convention."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gates
from oracles import attributions as oracle
from steadygrad.attributions import similarity as sim
from steadygrad.errors import UsageError

ROWS = list(sim.SIMILARITIES.values())
by_name = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])

# Few distinct values make many ties.
_rows = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    min_size=4,
    max_size=12,
).filter(lambda rows: all(len({abs(r[i]) for r in rows}) > 1 for i in (0, 1)))


def _maps(rows: list[tuple[int, int]]) -> tuple[Tensor, Tensor, list[float], list[float]]:
    a, b = (torch.tensor([[float(r[i]) for r in rows]], dtype=torch.float64) for i in (0, 1))
    return a, b, a.abs()[0].tolist(), b.abs()[0].tolist()


@given(_rows)
def test_rank_statistics_equal_their_definitions(rows: list[tuple[int, int]]) -> None:
    a, b, p, q = _maps(rows)
    assert sim.kendall(a, b).item() == pytest.approx(oracle.tau_b(p, q), abs=1e-12)
    assert sim.spearman(a, b).item() == pytest.approx(oracle.rank_correlation(p, q), abs=1e-12)


@given(_rows, st.floats(0.01, 1.0))
def test_top_k_equals_its_definition(rows: list[tuple[int, int]], k: float) -> None:
    a, b, p, q = _maps(rows)
    want = oracle.top_k_common(p, q, max(1, round(k * len(p))))
    assert sim.top_k_intersection(a, b, k).item() == pytest.approx(want)


@given(_rows)
def test_angles_and_distances_equal_their_formulas(rows: list[tuple[int, int]]) -> None:
    a, b, p, q = _maps(rows)
    norms = [math.sqrt(sum(v * v for v in m)) for m in (p, q)]
    cosine = sum(u * v for u, v in zip(p, q)) / (norms[0] * norms[1])
    assert sim.cosine(a, b).item() == pytest.approx(cosine)
    assert sim.euclidean(a, b).item() == pytest.approx(math.sqrt(max(0.0, 2 - 2 * cosine)), abs=1e-7)
    assert sim.euclidean(a, b, normalize=False).item() == pytest.approx(math.dist(p, q))


def _random(seed: int, count: int = 5, shape: tuple[int, ...] = (3, 6, 6)) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@by_name
def test_symmetric_within_range_and_extreme_at_itself(row: sim.Similarity) -> None:
    a, b = _random(1), _random(2)
    low, high = row.range
    value = row.function(a, b)
    assert value.shape == (5,)
    assert torch.equal(value, row.function(b, a))
    assert bool(((value >= low) & (value <= high)).all())
    best = high if row.higher_is_more_similar else low
    torch.testing.assert_close(row.function(a, a), torch.full((5,), best))
    assert bool((value != row.function(a, a)).all())


@by_name
def test_scale_and_sign_do_not_count(row: sim.Similarity) -> None:
    a, b = _random(1), _random(2)
    for factor in (-1.0, 1e-30, 1e12):
        torch.testing.assert_close(row.function(factor * a, b), row.function(a, b), rtol=1e-4, atol=1e-5)


@by_name
def test_every_sample_is_compared_on_its_own(row: sim.Similarity) -> None:
    gates.assert_batch_invariant(row.function, _random(1), _random(2))


@by_name
def test_channels_are_summed_in_absolute_value(row: sim.Similarity) -> None:
    a, b = _random(1), _random(2)
    torch.testing.assert_close(row.function(a, b), row.function(a.abs().sum(1), b.abs().sum(1)))
    flat = a.abs().sum(1).flatten(1), b.abs().sum(1).flatten(1)
    if row.needs_place:
        with pytest.raises(UsageError, match="with a place"):
            row.function(*flat)
    else:
        torch.testing.assert_close(row.function(a, b), row.function(*flat))


@by_name
def test_maps_that_say_nothing_have_a_defined_value(row: sim.Similarity) -> None:
    low, high = row.range
    same, different = (1.0, 0.0) if row.higher_is_more_similar else (low, high)
    zero, some = torch.zeros(2, 1, 3, 3), _random(1, 2, (1, 3, 3))
    torch.testing.assert_close(row.function(zero, zero), torch.full((2,), same))
    torch.testing.assert_close(row.function(zero, some), torch.full((2,), different))
    torch.testing.assert_close(row.function(some, zero), torch.full((2,), different))


@pytest.mark.parametrize("function", [sim.top_k_intersection, sim.kendall, sim.spearman])
def test_a_constant_map_has_no_order(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    flat, some = torch.full((1, 9), 0.3), _random(1, 1, (9,))
    assert function(flat, 2 * flat).item() == 1
    assert function(flat, some).item() == 0


def test_ties_matter_to_kendall() -> None:
    a = torch.zeros(1, 100)
    a[0, :20] = torch.arange(1.0, 21.0)
    noisy = a + 1e-9 * torch.rand(1, 100, generator=torch.Generator().manual_seed(0))
    assert sim.kendall(a, a).item() == 1
    assert sim.kendall(a.double(), noisy.double()).item() < 0.9


def test_ties_in_a_large_top_k_go_by_index() -> None:
    a, b = torch.zeros(1, 20000), torch.zeros(1, 20000)
    a[0, 10000:10100] = 1
    b[0, :100] = 1
    # Top 200: the marked pixels, then the first zeros; those of b are pixels 0..199, those of a 0..99 and the marked.
    assert sim.top_k_intersection(a, b, k=0.01).item() == 0.5


@by_name
def test_nan_and_infinite_values_are_refused(row: sim.Similarity) -> None:
    a, b = _random(1), _random(2)
    for value in (math.nan, math.inf):
        bad = a.clone()
        bad[2, 0, 1, 1] = value
        with pytest.raises(UsageError, match="a holds NaN or infinite values in 1 of 5"):
            row.function(bad, b)
        with pytest.raises(UsageError, match="b holds NaN"):
            row.function(b, bad)


def test_wrong_arguments_are_refused() -> None:
    a = _random(1)
    with pytest.raises(UsageError, match="same shape"):
        sim.cosine(a, a[:2])
    with pytest.raises(UsageError, match=r"share of the pixels in \(0, 1\], got 10"):
        sim.top_k_intersection(a, a, k=10)
    with pytest.raises(UsageError, match="floating-point maps"):
        sim.pixel_maps(torch.ones(3))
    with pytest.raises(UsageError, match="floating-point maps"):
        sim.pixel_maps(torch.ones(3, 4, dtype=torch.long))


@pytest.mark.parametrize("normalize", [True, False])
def test_euclidean_is_differentiable(normalize: bool) -> None:
    a, b = _random(1).double(), _random(2).double()
    gates.assert_gradient(lambda p: sim.euclidean(p, b, normalize), a)


def test_cosine_is_differentiable_and_zero_maps_give_no_nan() -> None:
    a, b = _random(1).double(), _random(2).double()
    gates.assert_gradient(lambda p: sim.cosine(p, b), a)
    for function in (sim.cosine, sim.euclidean):
        zero = torch.zeros_like(a).requires_grad_()
        (slope,) = torch.autograd.grad(function(zero, b).sum() + function(zero, zero).sum(), zero)
        assert bool(torch.isfinite(slope).all())
