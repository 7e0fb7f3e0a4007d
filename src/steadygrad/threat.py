"""Which changes are allowed: a norm, a radius, the range of the inputs and the entries that may change."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from steadygrad import masks, randomness
from steadygrad.arguments import named, public, quick
from steadygrad.errors import UsageError
from steadygrad.precision import exact, wide, widened
from steadygrad.values import Reader, check_settings

Norm = Literal["linf", "l2", "l1", "l0"]
Mask = Annotated[Tensor, Reader("a mask of 0 and 1", lambda name, value: masks.boolean(value))] | None
"""Which entries may change; taken as a tensor, an array or lists."""

# Float32 images are rounded by about 1e-7 per pixel.
_SLACK = 1e-5


@named
@dataclass(frozen=True, eq=False)
class Threat:
    """The allowed changes of an input.

    Args:
        norm: "linf", "l2", "l1" or "l0" (number of changed entries), taken per sample.
        eps: the radius in units of the inputs, a float, a tensor (N,) with one radius per sample,
            or None for "as small as possible".
        bounds: smallest and largest value of an input.
        mask: which entries may change (true or 1), for all inputs alike, of the shape of one or one that can be
            broadcast to it, such as (H, W); or one for each sample, (N, *) with the dimensions of the batch. A tensor,
            an array or nested lists. None lets every entry change.

    Raises:
        UsageError: unknown norm, negative or non-finite eps, empty bounds, a mask of other values than 0 and 1
            or without any 1.

    >>> threat = linf(0.1)
    >>> threat.project(torch.tensor([[0.3, -0.05]]))
    tensor([[ 0.1000, -0.0500]])
    >>> linf(0.1, mask=[True, False]).project(torch.tensor([[0.3, -0.05]]))
    tensor([[0.1000, 0.0000]])
    """

    norm: Norm
    eps: float | Tensor | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    mask: Mask = None

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.bounds[0] < self.bounds[1]:
            raise UsageError(f"bounds must be (low, high) with low < high, got {self.bounds}")
        object.__setattr__(self, "bounds", (float(self.bounds[0]), float(self.bounds[1])))
        if self.eps is None:
            return
        if isinstance(self.eps, Tensor) and (self.eps.is_complex() or self.eps.dtype == torch.bool):
            raise UsageError(f"eps must be a number or one per sample (N,), got {self.eps.dtype}")
        if isinstance(self.eps, Tensor) and self.eps.ndim > 1:
            raise UsageError(f"eps must be a number or one per sample (N,), got shape {tuple(self.eps.shape)}")
        eps = self.eps.tolist() if isinstance(self.eps, Tensor) else self.eps
        if not all(0 <= radius < math.inf for radius in (eps if isinstance(eps, list) else [eps])):
            raise UsageError(f"eps must be finite and not negative, got {self.eps}")

    def _key(self) -> tuple[object, ...]:
        eps = tuple(self.eps.tolist()) if isinstance(self.eps, Tensor) else self.eps
        return (self.norm, eps, self.bounds, self.mask_code)

    @property
    def mask_code(self) -> str | None:
        """A hash of the mask's shape and entries."""
        if self.mask is None:
            return None
        mask = self._mask()
        return hashlib.sha256(f"{tuple(mask.shape)}".encode() + mask.cpu().numpy().tobytes()).hexdigest()

    def _mask(self) -> Tensor:
        assert self.mask is not None
        return self.mask

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Threat) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        masked = "" if self.mask is None else f", mask {self.mask_code:.8}"
        if self.eps is None:
            return f"{self.norm}, smallest{masked}"
        eps = "per sample" if isinstance(self.eps, Tensor) else f"{self.eps:.4g}"
        return f"{self.norm}, eps {eps}{masked}"

    def at(self, eps: float | Tensor | None) -> Threat:
        """The same threat with another radius."""
        checked = replace(self, eps=eps, mask=None)
        return self._with(checked.eps, self.mask)

    def _with(self, eps: float | Tensor | None, mask: Mask) -> Threat:
        # Radii and mask have been checked: a look at values would wait for an accelerator.
        threat = copy.copy(self)
        object.__setattr__(threat, "eps", eps)
        object.__setattr__(threat, "mask", mask)
        return threat

    @quick
    def shrunk(self, eps: Tensor) -> Threat:
        """The same threat with radii (N,) that an attack has computed, which are not looked at."""
        return self._with(eps, self.mask)

    @quick
    def rows(self, rows: Tensor | slice, like: Tensor) -> Threat:
        """The threat for some of the inputs `like` (N, *): radii and masks per sample are those of the rows."""
        eps, mask = self.eps, self.mask
        if isinstance(eps, Tensor) and eps.ndim == 1:
            eps = eps[rows if isinstance(rows, slice) else rows.to(eps.device)]
        if isinstance(mask, Tensor) and mask.ndim == like.ndim and len(mask) > 1:
            mask = mask[rows if isinstance(rows, slice) else rows.to(mask.device)]
        return self if eps is self.eps and mask is self.mask else self._with(eps, mask)

    @quick
    def changeable(self, like: Tensor) -> Tensor | None:
        """Which entries of inputs `like` (N, *) may change, (N, *) bool; None without a mask.

        Raises:
            UsageError: the mask does not fit the inputs.
        """
        if self.mask is None:
            return None
        mask = self._mask().to(like.device)
        try:
            if mask.ndim > like.ndim:
                raise RuntimeError
            return mask.expand_as(like)
        except RuntimeError:
            raise UsageError(
                f"the mask has shape {tuple(mask.shape)}, which does not fit inputs of shape {tuple(like.shape)}: give "
                f"one for all, of shape {tuple(like.shape[1:])} or one that can be broadcast to it, or one for each "
                f"sample, {tuple(like.shape)}"
            ) from None

    @quick
    def for_all(self, shape: Sequence[int]) -> None:
        """Refuse a mask that does not fit samples of this shape (*), or that differs from one to the next."""
        self.changeable(torch.empty(1, *shape))
        if self.mask is not None and self._mask().ndim > len(shape):
            raise UsageError(
                f"a data set takes one mask for all samples, of shape {tuple(shape)} or one that can be broadcast to "
                f"it, got {tuple(self._mask().shape)}"
            )

    @quick
    def masked(self, change: Tensor) -> Tensor:
        """A change or a gradient (N, *), zero where nothing may change."""
        mask = self.changeable(change)
        return change if mask is None else torch.where(mask, change, 0.0)

    @quick
    def within_mask(self, x: Tensor, points: Tensor) -> Tensor:
        """Points (N, *) that are the inputs x to the last digit where nothing may change."""
        mask = self.changeable(x)
        return points if mask is None else torch.where(mask, points, x)

    @quick
    def entries(self, like: Tensor) -> Tensor:
        """How many entries of each of the inputs `like` (N, *) may change, (N,)."""
        mask = self.changeable(like)
        if mask is None:
            return torch.full((len(like),), like[0].numel(), device=like.device)
        return mask.flatten(1).sum(1)

    @quick
    def radius(self, like: Tensor) -> Tensor:
        """eps per sample, (N,), on the device and in the type of the inputs `like` (N, *)."""
        if self.eps is None:
            raise UsageError("this threat has no radius (eps=None): give eps, or use a search for the smallest")
        eps = torch.as_tensor(self.eps, device=like.device, dtype=like.dtype)
        if eps.ndim == 1 and len(eps) != len(like):
            raise UsageError(f"eps has {len(eps)} entries for a batch of {len(like)} samples")
        return eps.expand(len(like))

    @quick
    def largest(self, like: Tensor) -> Tensor:
        """The radius (N,) at which every input within the bounds is allowed."""
        width, entries = self.bounds[1] - self.bounds[0], self.entries(like).to(like.dtype)
        if self.norm == "l0":
            return entries
        return width * entries ** {"linf": 0.0, "l2": 0.5, "l1": 1.0}[self.norm]

    @quick
    def distance(self, delta: Tensor) -> Tensor:
        """Size of a change (N, *) in this norm, per sample (N,)."""
        flat = delta.flatten(1)
        if self.norm == "linf":
            return flat.abs().amax(1)
        if self.norm == "l0":
            return (flat != 0).sum(1).to(delta.dtype)
        size: Tensor = torch.linalg.vector_norm(flat, ord=2 if self.norm == "l2" else 1, dim=1)
        return size

    @quick
    def project(self, delta: Tensor) -> Tensor:
        """The nearest change within the radius and the mask; a change inside the ball is returned untouched."""
        delta = self.masked(delta)
        eps, flat = self.radius(delta), delta.flatten(1)
        if self.norm == "linf":
            out = flat.clamp(-eps[:, None], eps[:, None])
        elif self.norm == "l2":
            norms = self.distance(delta)
            out = flat * torch.where(norms > eps, eps / norms.clamp_min(torch.finfo(norms.dtype).tiny), 1.0)[:, None]
        elif self.norm == "l1":
            out = _soften(flat, eps, torch.full_like(flat, torch.inf))
        else:
            out = _largest(flat, eps)
        return out.view_as(delta)

    @quick
    def constrain(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Bring points x_adv (N, *) into the ball around x and into the bounds.

        The nearest allowed point for linf, l1 and l0; for l2 the ball first, then the bounds.
        """
        low, high = self.bounds
        delta = self.masked(x_adv - x)
        if self.norm == "l1":
            # How far each entry may go in its direction.
            room = torch.where(delta > 0, high - x, x - low).flatten(1)
            delta = _soften(delta.flatten(1), self.radius(x), room).view_as(x)
        elif self.norm == "l0":
            # An entry u that is clipped to c brings the point closer by u^2 - (u - c)^2: the largest are kept.
            clipped = (x + delta).clamp(low, high) - x
            gain = (clipped * (2 * delta - clipped)).flatten(1)
            delta = torch.where(_largest(gain, self.radius(x)).view_as(x) != 0, clipped, 0.0)
        else:
            delta = self.project(delta)
        return self.within_mask(x, (x + delta).clamp(low, high))

    @quick
    def allows(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Which points (N,) are finite, within the bounds, the mask and the radius (as far as there are any)."""
        low, high = self.bounds
        slack = _SLACK * (high - low)
        flat = x_adv.flatten(1)
        inside = torch.isfinite(flat).all(1) & (flat >= low - slack).all(1) & (flat <= high + slack).all(1)
        mask = self.changeable(x)
        if mask is not None:
            inside &= (mask | (x_adv == x)).flatten(1).all(1)
        if self.eps is None:
            return inside
        # Half-precision inputs are rounded by more than the slack of float32.
        relative = max(_SLACK, 2 * torch.finfo(x.dtype).eps)
        change = self.distance(x_adv - x)
        absolute = 0.0 if self.norm == "l0" else slack + torch.finfo(x.dtype).eps * (high - low)
        return inside & (change <= self.radius(x) * (1 + relative) + absolute)

    @quick
    def steepest(self, gradient: Tensor, share: float = 0.05) -> Tensor:
        """The direction of norm 1 (l0: of entries ±1) along which the loss rises fastest.

        For l1 the exact answer moves a single entry; a step spread over the `share` of entries with
        the largest gradient reaches further in as many steps (Tramèr and Boneh 2019). A zero
        gradient gives a zero direction.
        """
        flat = self.masked(gradient).flatten(1)
        if self.norm == "linf":
            out = flat.sign()
        elif self.norm == "l2":
            # The squares of tiny, huge or half-precision gradients leave the range of their type.
            wide = flat.float() if flat.dtype.itemsize < 4 else flat
            wide = wide / wide.abs().amax(1, keepdim=True).clamp_min(torch.finfo(wide.dtype).tiny)
            out = (wide / torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min(1)).to(flat.dtype)
        else:
            out = _largest(flat, (share * widened(self.entries(gradient))).round().clamp_min(1)).sign()
            if self.norm == "l1":
                out = out / out.abs().sum(1, keepdim=True).clamp_min(1)
        return out.view_as(gradient)

    @quick
    def random(self, x: Tensor, seeds: Tensor, draw: int = 0) -> Tensor:
        """A random allowed point for each input: uniform in the ball, then brought into the bounds.

        `seeds` (N,) come from `randomness.sample_seeds`; `draw` numbers independent points.
        """
        eps, mask = self.radius(x)[:, None], self.changeable(x)
        free = 1.0 if mask is None else mask.flatten(1).to(x.dtype)
        sign = 2 * randomness.uniform(seeds, x, 3 * draw).flatten(1) - 1
        if self.norm == "linf":
            delta = sign * eps
        elif self.norm == "l0":
            rank = randomness.uniform(seeds, x, 3 * draw + 1).flatten(1) * free
            low, high = self.bounds
            target = low + (high - low) * (sign + 1) / 2
            delta = torch.where(_largest(rank, eps[:, 0]) != 0, target - x.flatten(1), 0.0)
        else:
            root = (1 / self.entries(x).clamp_min(1)).to(x.dtype)[:, None]
            reach = randomness.uniform(seeds, x.new_empty(len(x), 1), 3 * draw + 1) ** root
            if self.norm == "l2":
                way = randomness.normal(seeds, x, 3 * draw + 2).flatten(1) * free
                way = way / torch.linalg.vector_norm(way, dim=1, keepdim=True).clamp_min(1e-30)
            else:
                # Exponentials divided by their sum are uniform on the simplex.
                size = randomness.exponential(seeds, x, 3 * draw + 2).flatten(1) * free
                way = sign.sign() * size / size.sum(1, keepdim=True).clamp_min(1e-30)
            delta = way * reach * eps
        return self.constrain(x, x + delta.view_as(x))


@public
def linf(eps: float | Tensor | None = None, bounds: tuple[float, float] = (0.0, 1.0), mask: Mask = None) -> Threat:
    """Every entry may change by at most eps."""
    return Threat("linf", eps, bounds, mask)


@public
def l2(eps: float | Tensor | None = None, bounds: tuple[float, float] = (0.0, 1.0), mask: Mask = None) -> Threat:
    """The Euclidean length of the change is at most eps."""
    return Threat("l2", eps, bounds, mask)


@public
def l1(eps: float | Tensor | None = None, bounds: tuple[float, float] = (0.0, 1.0), mask: Mask = None) -> Threat:
    """The absolute changes sum to at most eps."""
    return Threat("l1", eps, bounds, mask)


@public
def l0(k: float | Tensor | None = None, bounds: tuple[float, float] = (0.0, 1.0), mask: Mask = None) -> Threat:
    """At most k entries (pixels times channels) may change, by any amount within the bounds."""
    return Threat("l0", k, bounds, mask)


def check_radius(threat: Threat, share: float = 1.0) -> None:
    """Refuse radii of linf above a share of the range of the inputs, which are meant in other units.

    >>> check_radius(linf(8))
    Traceback (most recent call last):
    steadygrad.errors.UsageError: eps=8 is more than the range [0, 1] of the inputs: did you mean 8/255?
    """
    (low, high), eps = threat.bounds, threat.eps
    largest = 0.0 if eps is None else float(torch.as_tensor(eps).max())
    if threat.norm != "linf" or largest <= (high - low) * share * (1 + 1e-9):
        return
    part = "the" if share == 1 else "half of the" if share == 0.5 else f"{share:g} of the"
    meant = f"{largest:g}/255" if high - low <= 2 and largest >= 1 else f"{8 / 255 * (high - low):.2g}"
    raise UsageError(
        f"eps={largest:g} is more than {part} range [{low:g}, {high:g}] of the inputs: did you mean {meant}?"
    )


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Values (A,) as (A, 1, ...), to meet tensors like (A, *)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _largest(flat: Tensor, count: Tensor) -> Tensor:
    """Keep the `count` (N,) entries of largest size in each row of (N, D), zero the others."""
    order = flat.abs().argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(flat.shape[1], device=flat.device, dtype=wide(flat.device))
    keep = torch.zeros_like(flat, dtype=torch.bool)
    keep.scatter_(1, order, rank[None] < widened(count).floor()[:, None])
    return torch.where(keep, flat, 0.0)


def _soften(flat: Tensor, eps: Tensor, room: Tensor) -> Tensor:
    """Nearest rows to (N, D) with absolute sum <= eps and each entry's size <= room, by sorting.

    The answer is sign(u) clip(|u| - t, 0, room) with the smallest t >= 0 that meets the sum, which
    is piecewise linear in t, with bends where an entry begins to shrink (|u| - room) and where it
    reaches zero (|u|).
    """
    # Sums over many entries lose the digits of a small radius in float32.
    given = flat
    flat, eps, room = exact(flat), exact(eps), exact(room)
    size = flat.abs()
    capped = torch.minimum(size, room)
    start = (size - room).clamp_min(0)  # where the entry begins to shrink; 0 without a bound
    bends, order = torch.cat([start, size], 1).sort(dim=1)
    slopes = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1)
    falling = slopes.gather(1, order).cumsum(1)  # entries shrinking just after each bend (N, 2D)
    width = bends.diff(dim=1, append=bends[:, -1:])
    # Sum that is left at each bend; all rows begin at sum(capped) since bends start at >= 0.
    gone = torch.cat([torch.zeros_like(width[:, :1]), (falling * width).cumsum(1)[:, :-1]], 1)
    left = capped.sum(1, keepdim=True) - gone
    # The last bend at which the sum is still too large: from there on, go linearly.
    last = (left >= eps[:, None]).sum(1, keepdim=True).clamp_min(1) - 1
    rest = left.gather(1, last) - eps[:, None]
    shift = bends.gather(1, last) + rest / falling.gather(1, last).clamp_min(1)
    softened = flat.sign() * torch.minimum((size - shift).clamp_min(0), room)
    inside = capped.sum(1) <= eps
    return torch.where(inside[:, None], flat.sign() * capped, softened).to(given)
