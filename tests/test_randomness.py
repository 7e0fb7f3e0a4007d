"""Random numbers belong to the sample: no batch, neighbor or global state changes them."""

from __future__ import annotations

import pytest
import torch

from steadygrad import randomness

DRAWS = [randomness.uniform, randomness.normal, randomness.exponential]


@pytest.mark.parametrize("draw", DRAWS)
def test_a_sample_keeps_its_numbers_in_any_batch(draw):
    seeds = randomness.sample_seeds(5, randomness.fresh(3))
    like = torch.zeros(5, 2, 3)
    together = draw(seeds, like)
    kept = torch.tensor([4, 1])
    assert torch.equal(draw(seeds[kept], like[kept]), together[kept])
    assert torch.equal(torch.cat([draw(seeds[i : i + 1], like[i : i + 1]) for i in range(5)]), together)


@pytest.mark.parametrize("draw", DRAWS)
def test_samples_and_draws_differ(draw):
    seeds = randomness.sample_seeds(4, None)
    like = torch.zeros(4, 50)
    rows = torch.cat([draw(seeds, like, draw=k) for k in range(3)])
    assert len({tuple(row.tolist()) for row in rows}) == 12
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.6


@pytest.mark.parametrize(
    ("draw", "mean", "variance"),
    [(randomness.uniform, 1 / 2, 1 / 12), (randomness.normal, 0.0, 1.0), (randomness.exponential, 1.0, 1.0)],
)
def test_each_distribution_has_its_moments(draw, mean, variance):
    values = draw(randomness.sample_seeds(50, None), torch.zeros(50, 1000, dtype=torch.float64))
    assert values.mean().item() == pytest.approx(mean, abs=0.02)
    assert values.var().item() == pytest.approx(variance, abs=0.03)


def test_seeds_come_in_order_from_the_callers_generator():
    generator = randomness.fresh(7)
    first, second = randomness.sample_seeds(3, generator), randomness.sample_seeds(2, generator)
    assert torch.equal(torch.cat([first, second]), randomness.sample_seeds(5, randomness.fresh(7)))
    assert torch.equal(randomness.sample_seeds(4, None), randomness.sample_seeds(4, randomness.fresh(0)))
    assert first.dtype == torch.int64


def test_the_global_state_is_neither_read_nor_written():
    seeds, like = randomness.sample_seeds(2, None), torch.zeros(2, 3)
    reference = randomness.normal(seeds, like)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(randomness.normal(seeds, like), reference)
    randomness.uniform(seeds, like), randomness.exponential(seeds, like), randomness.sample_seeds(9, None)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("draw", DRAWS)
def test_type_shape_and_the_empty_batch_follow_the_inputs(draw):
    seeds = randomness.sample_seeds(2, None)
    wide = draw(seeds, torch.zeros(2, 3, dtype=torch.float64))
    assert wide.dtype == torch.float64
    torch.testing.assert_close(draw(seeds, torch.zeros(2, 3)), wide.float())
    assert draw(seeds[:0], torch.zeros(0, 3, 4)).shape == (0, 3, 4)
