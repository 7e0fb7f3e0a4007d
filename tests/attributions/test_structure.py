"""Similarities that know the place of a pixel: against loops, and what moves them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gates
from oracles import structure as oracle
from steadygrad.attributions import similarity as sim
from steadygrad.attributions import structure
from steadygrad.errors import UsageError


def _maps(seed: int, size: tuple[int, int] = (8, 8), count: int = 3) -> Tensor:
    values = torch.randn(count, 2, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    # Few values, so that there are ties.
    return (4 * values).round() / 4


def _pictures(maps: Tensor) -> list[oracle.Picture]:
    return [m.abs().sum(0).tolist() for m in maps]


@pytest.mark.parametrize("size", [(8, 8), (13, 12), (4, 9), (1, 1), (2, 30)])
def test_ssim_equals_its_formula(size: tuple[int, int]) -> None:
    a, b = _maps(1, size), _maps(2, size)
    for other in (b, a + 0.3 * b):
        want = [oracle.ssim(p, q) for p, q in zip(_pictures(a), _pictures(other))]
        torch.testing.assert_close(sim.ssim(a, other), torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (4, 9)])
def test_the_center_of_mass_equals_its_formula(size: tuple[int, int]) -> None:
    a, b = _maps(1, size), _maps(2, size)
    centers = [oracle.center(p) for p in _pictures(a)]
    torch.testing.assert_close(structure.center_of_mass(a), torch.tensor(centers, dtype=torch.float64))
    far = [math.dist(c, oracle.center(q)) for c, q in zip(centers, _pictures(b))]
    want = torch.tensor(far, dtype=torch.float64)
    torch.testing.assert_close(sim.mass_center_displacement(a, b, pixels=True), want)
    torch.testing.assert_close(sim.mass_center_displacement(a, b), want / math.hypot(size[0] - 1, size[1] - 1))


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("k", [0.05, 0.2, 1.0])
def test_the_tolerant_top_k_equals_its_definition(radius: int, k: float) -> None:
    a, b = _maps(1, (6, 9)), _maps(2, (6, 9))
    count = max(1, round(k * 54))
    want = [oracle.near_top_k(p, q, count, radius) for p, q in zip(_pictures(a), _pictures(b))]
    got = sim.local_top_k_intersection(a, b, k, radius)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))
    if radius == 0:
        torch.testing.assert_close(got, sim.top_k_intersection(a, b, k))


def test_a_shift_by_one_pixel_is_forgiven_and_one_across_the_picture_is_not() -> None:
    a = torch.zeros(1, 12, 12)
    a[0, 2:4, 2:4] = 1
    near, far = a.roll(1, 2), a.roll((7, 7), (1, 2))
    k = 4 / 144
    assert sim.top_k_intersection(a, near, k).item() == 0.5
    assert sim.local_top_k_intersection(a, near, k).item() == 1
    assert sim.local_top_k_intersection(a, far, k).item() == 0
    assert sim.mass_center_displacement(a, near, pixels=True).item() == pytest.approx(1)
    assert sim.mass_center_displacement(a, far, pixels=True).item() == pytest.approx(math.hypot(7, 7), rel=1e-5)
    assert sim.ssim(a, near).item() > sim.ssim(a, far).item()


@pytest.mark.parametrize("function", [sim.ssim, sim.mass_center_displacement])
def test_derivatives_equal_differences(function) -> None:  # type: ignore[no-untyped-def]
    a, b = (m + 0.01 * torch.rand_like(m) for m in (_maps(1), _maps(2)))
    gates.assert_gradient(lambda p: function(p, b), a)


def test_tiny_and_zero_maps_have_a_center_and_a_finite_slope() -> None:
    a = _maps(3).float()
    torch.testing.assert_close(structure.center_of_mass(1e-38 * a), structure.center_of_mass(a))
    zero = torch.zeros(1, 5, 7, requires_grad=True)
    assert structure.center_of_mass(zero).tolist() == [[2.0, 3.0]]
    other = a[:1, :, :5, :7].sum(1)
    (slope,) = torch.autograd.grad((sim.ssim(zero, other) + sim.mass_center_displacement(zero, other)).sum(), zero)
    assert bool(torch.isfinite(slope).all())


def test_wrong_arguments_are_refused() -> None:
    a = _maps(1)
    with pytest.raises(UsageError, match="with a place"):
        sim.ssim(a.flatten(1), a.flatten(1))
    with pytest.raises(UsageError, match="same shape"):
        sim.mass_center_displacement(a, a[:, :, 1:])
    with pytest.raises(UsageError, match="radius must be at least 0 pixels, got -1"):
        sim.local_top_k_intersection(a, a, radius=-1)
    with pytest.raises(UsageError, match=r"share of the pixels in \(0, 1\]"):
        sim.local_top_k_intersection(a, a, k=8)
