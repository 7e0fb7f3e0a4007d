"""Square: random search over square changes, by scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from steadygrad import randomness
from steadygrad.attacks.attack import ATTACKS, Attack
from steadygrad.attacks.losses import attack_loss
from steadygrad.attacks.run import Run
from steadygrad.threat import per_sample
from steadygrad.values import Count, Share

# The share of the image that a square covers is halved at these queries of 10,000.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_BLOCK = 64  # queries whose random numbers are drawn together
_FIRST_CHECK = 128


@ATTACKS.register(
    "square",
    summary="random squares that raise the margin are kept: needs scores only, so it sees through masked gradients",
    reference="Andriushchenko et al. 2020, arXiv 1912.00049",
    cost="queries forwards, fewer for samples that fall early",
    order=0,
)
@dataclass(frozen=True)
class Square(Attack):
    """Changes a random square of the image at a time and keeps what raises the margin.

    Args:
        queries: points looked at per sample.
        share: of the image that the first squares cover.

    Inputs (N, C, H, W) are images; of any other shape, the entries after the channels (N, C, *), or all
    entries (N, D), make a strip one entry high, and a square is a stretch of it. A square that would change nothing, as
    every second one of grey images in linf, gets another sign instead, as in the authors' code.

    >>> Square(queries=100).share
    0.8
    """

    queries: Count = 5000
    share: Share = 0.8
    needs_gradient: ClassVar[bool] = False

    def search(self, run: Run, bar: Tensor | None = None, optimism: float = 0.0) -> Tensor | None:
        """The search; with a bar (A,), samples leave in which it is far behind and has no prospects.

        At query 128, 256, 512, ... a sample leaves if its margin is below the bar and would stay below
        zero even with `optimism` times the gain of the last doubling of the queries in each to come.
        """
        shape = _image(run.x)
        best = _stripes(run, shape) if run.threat.norm == "linf" else _patches(run, shape)
        value = attack_loss("margin", run.look(best), run.y, run.target, None)
        earlier, bar = value, torch.full_like(value, -torch.inf) if bar is None else bar.to(value.dtype)
        best, value, earlier, bar = run.drop_solved(best, value, earlier, bar)
        numbers = best.new_empty(0)
        for query in range(1, self.queries):
            if len(run.index) == 0:
                return None
            place = (query - 1) % _BLOCK
            if place == 0:
                like = torch.empty(len(best), min(_BLOCK, self.queries - query), 5 + shape[0], device=best.device)
                numbers = randomness.uniform(run.seeds, like, 1 + (query - 1) // _BLOCK)
            points = self._propose(run, best, shape, numbers[:, place], query)
            seen = attack_loss("margin", run.look(points), run.y, run.target, None)
            better = seen > value
            best = torch.where(per_sample(better, best), points, best)
            value = torch.where(better, seen, value)
            best, value, earlier, bar, numbers = run.drop_solved(best, value, earlier, bar, numbers)
            seen_so_far = query + 1
            if seen_so_far >= _FIRST_CHECK // 2 and seen_so_far.bit_count() == 1:
                hope = optimism * math.log2(self.queries / seen_so_far) * (value - earlier)
                behind = (value < bar) & (value + hope < 0) & (seen_so_far >= _FIRST_CHECK)
                best, value, bar, numbers = run.keep(~behind, best, value, bar, numbers)
                earlier = value
        return best if run.goal == "strongest" else None

    def _propose(self, run: Run, best: Tensor, shape: tuple[int, ...], numbers: Tensor, query: int) -> Tensor:
        """The best points (A, *) with one more square changed; `numbers` (A, 5 + C) are uniform."""
        _, height, width = shape
        share = self.share / 2 ** sum(query * 10_000 > bar * self.queries for bar in _HALVINGS)
        least = 1 if run.threat.norm == "linf" else 3
        tall, wide = _window(share, height, width, least)
        mask = run.threat.changeable(run.x)
        free = None if mask is None else mask.reshape(-1, *shape)
        first = _cover(numbers[:, 0:2], tall, wide, shape, free)
        signs = torch.where(numbers[:, 5:] < 0.5, -1.0, 1.0).to(best.dtype)[:, :, None, None]  # (A, C, 1, 1)
        images = best.reshape(-1, *shape)
        if run.threat.norm == "linf":
            reach = run.threat.radius(run.x).view(-1, 1, 1, 1)
            clean = run.x.reshape(images.shape)
            inside = first[:, None] >= 0 if free is None else (first[:, None] >= 0) & free

            def put(signs: Tensor) -> Tensor:
                return torch.where(inside, clean + signs * reach, images).clamp(*run.threat.bounds)

            points = put(signs)
            # On grey images every second square has the sign that is there already.
            same = (points == images).flatten(1).all(1).view(-1, 1, 1, 1)
            turned = signs * _flips(numbers[:, 2], shape[0]).to(best.dtype)
            return torch.where(same, put(turned), points).view_as(best)
        second = _cover(numbers[:, 2:4], tall, wide, shape, free)
        pattern = _bumps(tall, wide, best)
        # Of a window that is no square the turned pattern would not fit: its sign is turned instead.
        turned = pattern.t() if tall == wide else -pattern
        bumps = torch.where(numbers[:, 4, None, None] < 0.5, pattern, turned)  # (A, tall, wide)
        bumps = bumps.flatten(1).gather(1, first.clamp_min(0).flatten(1)).view_as(first)
        delta = images - run.x.reshape(images.shape)
        moved = _shift_mass(run, delta, first >= 0, second >= 0, signs * bumps[:, None])
        return _fill(run, moved).view_as(best)


def _flips(numbers: Tensor, channels: int) -> Tensor:
    """Signs (A, C, 1, 1), not all of them 1 and any others alike, by uniform numbers (A,)."""
    free = min(channels, 16)  # more need no flip: their signs are hardly ever all there already
    ways = 2**free - 1
    bits = 1 + (numbers * ways).long().clamp_max(ways - 1)  # not zero
    signs = numbers.new_ones(len(numbers), channels)
    signs[:, :free] -= 2.0 * ((bits[:, None] >> torch.arange(free, device=bits.device)) & 1)
    return signs[:, :, None, None]


def _image(x: Tensor) -> tuple[int, ...]:
    """Channels, height and width under which inputs (N, *) are seen."""
    channels = 1 if x.ndim == 2 else x.shape[1]
    return (channels, *x.shape[2:]) if x.ndim == 4 else (channels, 1, x[0].numel() // channels)


def _window(share: float, height: int, width: int, least: int) -> tuple[int, int]:
    """Height and width of a square that covers a share of the image; of a strip, a stretch."""
    if height == 1:
        return 1, min(max(round(share * width), least), width)
    side = max(round(math.sqrt(share * height * width)), least)
    side += least == 3 and side % 2 == 0
    return min(side, height), min(side, width)


def _cover(numbers: Tensor, tall: int, wide: int, shape: tuple[int, ...], free: Tensor | None = None) -> Tensor:
    """For each pixel (A, H, W) its index within a square at a random place, -1 outside.

    With a mask (A, C, H, W) the square is one of those that hold a random one of the pixels that may change.
    """
    _, height, width = shape
    down, across = ((numbers[:, i] * (n - size + 1)).long() for i, n, size in ((0, height, tall), (1, width, wide)))
    if free is not None:
        plane = free.any(1).flatten(1)
        place = numbers[:, 0] * plane.sum(1)
        pixel = (plane.cumsum(1) <= place.long()[:, None]).sum(1).clamp_max(height * width - 1)
        # What is left of the first number says where in the square the pixel lies.
        down = (pixel // width - (place.frac() * tall).long()).clamp_min(0)
        across = (pixel % width - (numbers[:, 1] * wide).long()).clamp_min(0)

    def offset(start: Tensor, extent: int, size: int) -> Tensor:
        index = torch.arange(extent, device=numbers.device)[None] - start.clamp_max(extent - size)[:, None]
        return torch.where(index < size, index, -1)

    rows, columns = offset(down, height, tall)[:, :, None], offset(across, width, wide)[:, None, :]
    return torch.where((rows >= 0) & (columns >= 0), rows * wide + columns, -1)


def _stripes(run: Run, shape: tuple[int, ...]) -> Tensor:
    """The first points in linf: vertical stripes of full size and random sign."""
    images = run.x.reshape(-1, *shape) + _signs(run, shape[0], 1, shape[2]) * run.threat.radius(run.x).view(-1, 1, 1, 1)
    return run.threat.constrain(run.x, images.view_as(run.x))


def _patches(run: Run, shape: tuple[int, ...]) -> Tensor:
    """The first points in l2 and l1: a grid of patches with a bump and a dent each, of random sign."""
    channels, height, width = shape
    tall, wide = max(height // 5, 1), max(width // 5, 1)
    down, across = height // tall, width // wide
    pattern = _bumps(tall, wide, run.x).repeat(down, across)
    signs = _signs(run, channels, down, across).repeat_interleave(tall, 2).repeat_interleave(wide, 3)
    delta = run.x.new_zeros(len(run.x), *shape)
    top, left = (height - down * tall) // 2, (width - across * wide) // 2
    delta[:, :, top : top + down * tall, left : left + across * wide] = signs * pattern
    return _fill(run, delta).view_as(run.x)


def _signs(run: Run, *shape: int) -> Tensor:
    """Random signs (A, *shape) by the seeds of the samples."""
    like = torch.empty(len(run.x), *shape, device=run.x.device)
    return torch.where(randomness.uniform(run.seeds, like) < 0.5, -1.0, 1.0).to(run.x.dtype)


def _bumps(tall: int, wide: int, like: Tensor) -> Tensor:
    """A bump in the first half of a window and a dent in the second, of Euclidean length 1."""
    if tall == 1:
        return _bumps(wide, 1, like).t() if wide > 1 else like.new_ones(1, 1)
    half = tall // 2
    pattern = torch.cat([_bump(half, wide, like), -_bump(tall - half, wide, like)])
    return pattern / cast(Tensor, torch.linalg.vector_norm(pattern))


def _bump(tall: int, wide: int, like: Tensor) -> Tensor:
    """Nested rectangles around the middle, lower toward the edge."""
    bump = like.new_zeros(tall, wide)
    top, left = tall // 2, wide // 2
    for ring in range(max(tall, wide) // 2 + 1):
        rows = slice(max(top - ring, 0), min(top + ring + 1, tall))
        columns = slice(max(left - ring, 0), min(left + ring + 1, wide))
        bump[rows, columns] += 1 / (ring + 1) ** 2
    return bump / cast(Tensor, torch.linalg.vector_norm(bump))


def _shift_mass(run: Run, delta: Tensor, first: Tensor, second: Tensor, bumps: Tensor) -> Tensor:
    """Take the change out of the second window and put as much, and what is left of eps, into the first.

    The changes are delta (A, C, H, W), the windows masks (A, H, W), the new bumps (A, C, H, W).
    """
    first, second = first[:, None], second[:, None]
    order = 2 if run.threat.norm == "l2" else 1

    def size(part: Tensor) -> Tensor:  # per channel (A, C, 1, 1), to the power of the norm
        return part.abs().pow(order).sum((2, 3), keepdim=True)

    # A new bump may cancel the old change: what rounding leaves of it must not be blown up to full size.
    tiny = torch.finfo(delta.dtype).eps ** 0.5
    spent = size(delta).sum(1, keepdim=True)
    left = (run.threat.radius(run.x).view(-1, 1, 1, 1) ** order - spent).clamp_min(0) / delta.shape[1]
    mass = size(torch.where(first | second, delta, 0.0)) + left
    old = torch.where(first, delta, 0.0)
    fresh = torch.where(first, bumps, 0.0) + old / (size(old).sum(1, keepdim=True) ** (1 / order) + tiny)
    fresh = fresh / (size(fresh) ** (1 / order) + tiny) * mass ** (1 / order)
    return torch.where(first, fresh, torch.where(second, 0.0, delta))


def _fill(run: Run, delta: Tensor) -> Tensor:
    """Clean inputs plus the changes, scaled to the radius and brought into the bounds (A, C, H, W)."""
    delta = run.threat.masked(delta.view_as(run.x)).view_as(delta)
    distance = run.threat.distance(delta).clamp_min(1e-12)
    scale = (run.threat.radius(run.x) / distance).view(-1, 1, 1, 1)
    return (run.x.reshape(delta.shape) + delta * scale).clamp(*run.threat.bounds)
