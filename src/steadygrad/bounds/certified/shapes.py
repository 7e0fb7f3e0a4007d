"""What is known about scalar functions: where they bend which way, so that their extremes on an interval are known.

A function minus a line has its largest value on an interval at an end where the function is convex, and where it is
concave below any of its tangents. So it is cut into pieces that bend one way only; its derivative too.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Map = Callable[[Tensor], Tensor]

# softplus is linear where beta x > 20 in PyTorch: its value and its slope are off by less than this there.
_SNAP = 2.1e-9


@dataclass(frozen=True)
class Piece:
    """A smooth function between two points, convex (bend 1), concave (-1) or straight (0) there."""

    low: float
    high: float
    bend: int
    value: Map
    slope: Map


@dataclass(frozen=True)
class Shape:
    """A continuous scalar function, cut into pieces, and its derivative, cut likewise.

    Attributes:
        plain, slope, second: the function and its derivatives, at a kink as PyTorch takes them.
        values, slopes: pieces of the function and of its derivative, in order, which cover all numbers.
        kinks: whether there are points without a derivative.
        unit: a value that is neither small nor large, beside which rounding is judged.
        snap: how far PyTorch's own function and its slope may be off, and from which input on.
    """

    plain: Map
    slope: Map
    second: Map
    values: tuple[Piece, ...]
    slopes: tuple[Piece, ...]
    kinks: bool = False
    unit: float = 1.0
    snap: tuple[float, float, float] = (0.0, 0.0, math.inf)

    @functools.cached_property
    def rises(self) -> bool:
        """Whether it never falls: its slope, which is least where it ceases to fall, is nowhere negative."""
        ends = {end for piece in self.values for end in (piece.low, piece.high) if math.isfinite(end)} | {-1e9, 1e9}
        places = torch.tensor(sorted(ends), dtype=torch.float64)
        return all(
            bool((piece.slope(places[(places >= piece.low) & (places <= piece.high)]) >= 0).all())
            for piece in self.values
        )

    @property
    def curved(self) -> bool:
        """Whether it has a second derivative other than zero."""
        return any(piece.bend for piece in self.values)


def _cut(points: Sequence[float], first: int, value: Map, slope: Map) -> tuple[Piece, ...]:
    """Pieces of a smooth function that bends the other way from each point on, at first so."""
    ends = [-math.inf, *points, math.inf]
    return tuple(Piece(a, b, first * (-1) ** i, value, slope) for i, (a, b) in enumerate(itertools.pairwise(ends)))


def _smooth(
    plain: Map,
    slope: Map,
    second: Map,
    bends: tuple[Sequence[float], int],
    turns: tuple[Sequence[float], int],
    unit: float = 1.0,
    snap: tuple[float, float, float] = (0.0, 0.0, math.inf),
) -> Shape:
    """A smooth function with the zeros of its second and third derivative, and their signs at first."""
    return Shape(plain, slope, second, _cut(*bends, plain, slope), _cut(*turns, slope, second), unit=unit, snap=snap)


@functools.lru_cache(maxsize=64)
def straight(knots: tuple[float, ...], slopes: tuple[float, ...], at: float = 0.0) -> Shape:
    """A piecewise linear function: its knots, its slopes between them, and its value at the first knot."""
    heights = [at]
    for a, b, slope in zip(knots, knots[1:], slopes[1:]):
        heights.append(heights[-1] + slope * (b - a))
    anchors = [(knots[0], at, slopes[0]), *zip(knots, heights, slopes[1:])]

    def line(x: Tensor, knot: float, height: float, slope: float) -> Tensor:
        return height + slope * (x - knot)

    def chosen(x: Tensor, values: Sequence[Tensor | float]) -> Tensor:
        out = torch.as_tensor(values[0], dtype=x.dtype, device=x.device).expand_as(x)
        for knot, value in zip(knots, values[1:]):
            out = torch.where(x > knot, value, out)
        return out

    ends = [-math.inf, *knots, math.inf]
    lines = [functools.partial(line, knot=k, height=h, slope=s) for k, h, s in anchors]
    zero = torch.zeros_like
    flats = [functools.partial(torch.full_like, fill_value=s) for s in slopes]
    spans = list(itertools.pairwise(ends))
    rectifier = (knots, slopes, at) == ((0.0,), (0.0, 1.0), 0.0)
    return Shape(
        F.relu if rectifier else lambda x: chosen(x, [f(x) for f in lines]),
        lambda x: chosen(x, slopes),
        zero,
        tuple(Piece(a, b, 0, f, s) for (a, b), f, s in zip(spans, lines, flats)),
        tuple(Piece(a, b, 0, s, zero) for (a, b), s in zip(spans, flats)),
        kinks=True,
        unit=max(1.0, *(abs(v) for v in (*knots, *heights))),
    )


RELU = straight((0.0,), (0.0, 1.0))


@functools.lru_cache(maxsize=64)
def softplus(beta: float) -> Shape:
    """log(1 + exp(beta x)) / beta, smooth as far as float64 reaches."""

    def second(x: Tensor) -> Tensor:
        return beta * torch.sigmoid(beta * x) * torch.sigmoid(-beta * x)

    return _smooth(
        lambda x: F.softplus(x, beta, threshold=500.0),
        lambda x: torch.sigmoid(beta * x),
        second,
        ((), 1),
        ((0.0,), 1),
        unit=max(1.0, 1 / beta),
        snap=(_SNAP / beta, _SNAP, 19.9 / beta),
    )


def _sigmoid_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _sigmoid_second(x: Tensor) -> Tensor:
    return -_sigmoid_slope(x) * torch.tanh(x / 2)


_LOG = math.log(2 + math.sqrt(3))
SIGMOID = _smooth(torch.sigmoid, _sigmoid_slope, _sigmoid_second, ((0.0,), 1), ((-_LOG, _LOG), 1))
TANH = _smooth(
    torch.tanh,
    lambda x: 4 * _sigmoid_slope(2 * x),
    lambda x: 8 * _sigmoid_second(2 * x),
    ((0.0,), 1),
    ((-_LOG / 2, _LOG / 2), 1),
)


def _silu_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) + x * _sigmoid_slope(x)


def _silu_second(x: Tensor) -> Tensor:
    return 2 * _sigmoid_slope(x) + x * _sigmoid_second(x)


_SILU_BEND, _SILU_TURN = 2.3993572805154668, 3.4358409935351107
SILU = _smooth(F.silu, _silu_slope, _silu_second, ((-_SILU_BEND, _SILU_BEND), -1), ((-_SILU_TURN, 0.0, _SILU_TURN), -1))


def _bell(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)


GELU = _smooth(
    F.gelu,
    lambda x: torch.special.ndtr(x) + x * _bell(x),
    lambda x: (2 - x.square()) * _bell(x),
    ((-math.sqrt(2), math.sqrt(2)), -1),
    ((-2.0, 0.0, 2.0), -1),
)


def _tanh_gelu_slope(x: Tensor) -> Tensor:
    inner, rate = _cubic(x)
    return torch.sigmoid(2 * inner) + 0.5 * x * (4 * _sigmoid_slope(2 * inner)) * rate


def _tanh_gelu_second(x: Tensor) -> Tensor:
    inner, rate = _cubic(x)
    first, second = 4 * _sigmoid_slope(2 * inner), 8 * _sigmoid_second(2 * inner)
    return first * rate + 0.5 * x * (second * rate.square() + first * 6 * 0.044715 * math.sqrt(2 / math.pi) * x)


def _cubic(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = math.sqrt(2 / math.pi)
    return scale * (x + 0.044715 * x**3), scale * (1 + 3 * 0.044715 * x.square())


TANH_GELU = _smooth(
    lambda x: F.gelu(x, approximate="tanh"),
    _tanh_gelu_slope,
    _tanh_gelu_second,
    ((-1.4185040087908284, 1.4185040087908284), -1),
    ((-2.0134807246245793, 0.0, 2.0134807246245793), -1),
)


@functools.lru_cache(maxsize=64)
def elu(alpha: float) -> Shape:
    """x above 0, alpha (exp(x) - 1) below."""

    def curve(x: Tensor) -> Tensor:
        return alpha * torch.expm1(x.clamp_max(0))

    def slope(x: Tensor) -> Tensor:
        return alpha * torch.exp(x.clamp_max(0))

    one, zero, bend = torch.ones_like, torch.zeros_like, 1 if alpha >= 0 else -1
    return Shape(
        lambda x: torch.where(x > 0, x, curve(x)),
        lambda x: torch.where(x > 0, 1.0, slope(x)),
        lambda x: torch.where(x > 0, 0.0, slope(x)),
        (Piece(-math.inf, 0.0, bend, curve, slope), Piece(0.0, math.inf, 0, lambda x: x, one)),
        (Piece(-math.inf, 0.0, bend, slope, slope), Piece(0.0, math.inf, 0, one, zero)),
        kinks=True,
        unit=max(1.0, abs(alpha)),
    )


def _swish(x: Tensor) -> Tensor:
    return x * (x + 3) / 6


def _swish_slope(x: Tensor) -> Tensor:
    return x / 3 + 0.5


HARDSWISH = Shape(
    F.hardswish,
    lambda x: torch.where(x <= -3, 0.0, torch.where(x < 3, _swish_slope(x), 1.0)),
    lambda x: torch.where((x > -3) & (x < 3), 1 / 3, 0.0).to(x),
    (
        Piece(-math.inf, -3.0, 0, torch.zeros_like, torch.zeros_like),
        Piece(-3.0, 3.0, 1, _swish, _swish_slope),
        Piece(3.0, math.inf, 0, lambda x: x, torch.ones_like),
    ),
    (
        Piece(-math.inf, -3.0, 0, torch.zeros_like, torch.zeros_like),
        Piece(-3.0, 3.0, 0, _swish_slope, lambda x: torch.full_like(x, 1 / 3)),
        Piece(3.0, math.inf, 0, torch.ones_like, torch.zeros_like),
    ),
    kinks=True,
    unit=3.0,
)


SQUARE = _smooth(torch.square, lambda x: 2 * x, lambda x: torch.full_like(x, 2.0), ((), 1), ((), 0))


@functools.lru_cache(maxsize=64)
def inverse_root(eps: float) -> Shape:
    """1 / sqrt(x + eps) of numbers that are not negative; its tangent at 0 below, where there are none."""
    top, steep = float(eps**-0.5), float(-0.5 * eps**-1.5)

    def value(x: Tensor) -> Tensor:
        return torch.rsqrt(x.clamp_min(0) + eps)

    def slope(x: Tensor) -> Tensor:
        return -0.5 * value(x).pow(3)

    def second(x: Tensor) -> Tensor:
        return 0.75 * value(x).pow(5)

    def below(x: Tensor) -> Tensor:
        return top + steep * x

    flat = functools.partial(torch.full_like, fill_value=steep)
    return Shape(
        lambda x: torch.where(x < 0, below(x), value(x)),
        lambda x: torch.where(x < 0, steep, slope(x)),
        lambda x: torch.where(x < 0, 0.0, second(x)),
        (Piece(-math.inf, 0.0, 0, below, flat), Piece(0.0, math.inf, 1, value, slope)),
        (Piece(-math.inf, 0.0, 0, flat, torch.zeros_like), Piece(0.0, math.inf, -1, slope, second)),
        kinks=True,
        unit=max(1.0, top),
    )
