"""Random numbers that belong to a sample, not to its batch.

One seed per sample is drawn from the caller's generator, and all that is random about the sample follows from it: a
batch of N equals N batches of one. The global generators are not touched. Only layers such as dropout draw from them;
`replayed` makes them draw the same again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from steadygrad.arguments import public
from steadygrad.errors import UsageError
from steadygrad.files import key
from steadygrad.turns import TURN


def fresh(seed: int = 0) -> torch.Generator:
    """A CPU generator with its own seed."""
    return torch.Generator().manual_seed(seed)


def seed_of(*parts: int | str) -> int:
    """A seed that follows from its parts, such as a purpose, the seed of the run and a step."""
    return int(key(*parts)[:15], 16)


Seeds = torch.Generator | Tensor | None
"""Where the seeds of a batch come from: a generator, the seeds themselves (N,), or None for seed 0."""


@public
def sample_seeds(count: int, generator: Seeds) -> Tensor:
    """One seed per sample, (N,) int64 on the CPU, drawn in order from the generator."""
    if isinstance(generator, Tensor):
        if generator.shape != (count,) or generator.is_floating_point():
            got = f"{generator.dtype} of shape {tuple(generator.shape)}"
            raise UsageError(f"generator must give seeds, integers of shape ({count},), got {got}")
        return generator.cpu()
    generator = generator if generator is not None else fresh()
    seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device)
    return seeds.cpu()


def uniform(seeds: Tensor, like: Tensor, draw: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) of the shape, device and type of `like` (N, *)."""
    return _draw(Tensor.uniform_, seeds, like, draw)


def normal(seeds: Tensor, like: Tensor, draw: int = 0) -> Tensor:
    """Standard normal numbers of the shape, device and type of `like` (N, *)."""
    return _draw(Tensor.normal_, seeds, like, draw)


def exponential(seeds: Tensor, like: Tensor, draw: int = 0) -> Tensor:
    """Standard exponential numbers of the shape, device and type of `like` (N, *)."""
    return _draw(Tensor.exponential_, seeds, like, draw)


def _draw(fill: Callable[..., Tensor], seeds: Tensor, like: Tensor, draw: int) -> Tensor:
    generator, shape = torch.Generator(), like.shape[1:]
    # An odd multiplier keeps the streams of neighboring draws apart.
    states = [(int(s) + draw * 0x9E3779B97F4A7C15) % 2**63 for s in seeds]
    rows = [fill(torch.empty(shape), generator=generator.manual_seed(state)) for state in states]
    out = torch.stack(rows) if rows else torch.empty(0, *shape)
    return out.to(device=like.device, dtype=like.dtype, non_blocking=like.device.type == "cuda")


def state_of(device: torch.device) -> Tensor:
    """The state of the generator from which layers on a device draw."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    state: Tensor = torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()
    return state


@contextlib.contextmanager
def replayed(state: Tensor, device: torch.device) -> Iterator[None]:
    """Within the block, layers on a device draw what they drew after `state_of`; the state of before is restored."""
    with TURN:
        now = state_of(device)
        _set(state, device)
        try:
            yield
        finally:
            _set(now, device)


def _set(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)
