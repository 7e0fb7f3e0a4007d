"""Attributions from inputs that are changed in one place at a time: forward passes only, no gradient."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.attributions.attribution import ATTRIBUTIONS, Attribution, Forward, Of, score
from steadygrad.attributions.baselines import Baseline, of_inputs
from steadygrad.attributions.blur import blurred
from steadygrad.derivatives import in_chunks
from steadygrad.errors import UsageError
from steadygrad.memory import at_once
from steadygrad.values import Count, Positive, Share


class PerturbationAttribution(Attribution):
    """How the output changes when one window of the image, a row by a column, at a time is replaced.

    At most `chunk` perturbed inputs exist at a time. The value of a pixel is shared evenly by its channels.
    """

    chunk: Count

    def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
        """Maps (N, C, H, W) without a graph: `forwards` forwards per sample, no backward."""
        if create_graph:
            raise UsageError(
                f"{type(self).__name__} is made of values, not of gradients, and has no derivative to follow: "
                "call it without create_graph, or take an attribution made of gradients, such as Saliency"
            )
        if x.ndim != 4:
            name, got = type(self).__name__, tuple(x.shape)
            raise UsageError(f"{name} explains images (N, C, H, W), got inputs of shape {got}")
        with torch.no_grad():
            values = in_chunks(functools.partial(self._chunk_maps, forward), self.chunk, x.detach(), target)
        return (values[:, None] / x.shape[1]).expand_as(x).contiguous()

    def forwards(self, shape: tuple[int, ...]) -> int:
        """Forwards per sample of shape (C, H, W), the clean one among them.

        >>> BlurSaliency(grid=4).forwards((3, 32, 32))
        17
        """
        rows, columns = self._windows(int(shape[-2]), int(shape[-1]))
        return 1 + len(rows) * len(columns)

    def _chunk_maps(self, forward: Forward, x: Tensor, target: Tensor) -> Tensor:
        rows, columns = (w.to(x) for w in self._windows(*x.shape[2:]))  # (R, H), (S, W)
        change = self._replacement(x) - x
        clean = forward(x)
        scores, places = [], len(rows) * len(columns)
        windows = max(1, at_once(self.chunk, x.shape[1:], x.device) // len(x))
        for start in range(0, places, windows):
            which = torch.arange(start, min(start + windows, places), device=x.device)
            window = rows[which // len(columns), :, None] * columns[which % len(columns), None]  # (G, H, W)
            points = torch.addcmul(x, window[:, None, None], change)  # (G, N, C, H, W)
            logits = forward(points.flatten(0, 1)).view(len(which), *clean.shape)
            scores.append(self._score(clean, logits, target))
        grid = torch.cat(scores).T.reshape(len(x), len(rows), len(columns)).to(x)
        return self._spread(grid, rows, columns)

    @abstractmethod
    def _windows(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """How much is replaced, in [0, 1]: rows (R, H) and columns (S, W), whose products are the windows."""

    @abstractmethod
    def _replacement(self, x: Tensor) -> Tensor:
        """What comes in the place of inputs (N, C, H, W)."""

    @abstractmethod
    def _score(self, clean: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """How much changed (G, N): from clean logits (N, K) to logits (G, N, K)."""

    @abstractmethod
    def _spread(self, grid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Maps (N, H, W) from the scores of the windows (N, R, S)."""


@dataclass(frozen=True)
class _Blurring(PerturbationAttribution):
    """Phi = x (1 - M) + A(x) M: a Gaussian bump M of height 1 says where the blurred image A(x) shows."""

    grid: Count = 16
    radius: Positive = 1 / 16
    sigma: Positive = 3.0
    chunk: Count = 128

    def _windows(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        shorter = min(height, width)
        counts = [min(size, max(1, round(self.grid * size / shorter))) for size in (height, width)]
        rows, columns = (_bumps(s, n, self.radius * shorter) for s, n in zip((height, width), counts))
        return rows, columns

    def _replacement(self, x: Tensor) -> Tensor:
        return blurred(x, self.sigma)

    def _spread(self, grid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        # The centers of the bumps are the points between which this interpolates.
        size = (rows.shape[1], columns.shape[1])
        return F.interpolate(grid[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


@ATTRIBUTIONS.register(
    "blur_saliency",
    summary="change of all logits where the image is blurred",
    reference="Greydanus et al. 2018, arXiv:1711.00138",
    cost="1 + `grid`² forwards",
    order=0,
)
@dataclass(frozen=True)
class BlurSaliency(_Blurring):
    """Half the squared change of the logits, ||z(x) - z(Phi)||² / 2, when x is blurred around a pixel.

    It looks at all logits: `target` is checked and plays no part. Computed on a grid and interpolated.

    Args:
        grid: places along the shorter side (at most one per pixel); 16 as on the authors' 80 x 80 images.
        radius: standard deviation of the bump, as a share of the shorter side; theirs is 5 / 80.
        sigma: standard deviation of the blur, in pixels.
        chunk: perturbed inputs in one pass; bounds the memory, changes no value.

    Source: Greydanus et al. 2018, equations 1 and 2.
    """

    def _score(self, clean: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        return (clean - logits).square().sum(2) / 2


@ATTRIBUTIONS.register(
    "sarfa",
    summary="fall of the target's probability where the image is blurred, less where other classes move too",
    reference="Puri et al. 2020, arXiv:1912.12191",
    cost="1 + `grid`² forwards",
    order=0,
)
@dataclass(frozen=True)
class SARFA(_Blurring):
    """2 K dP / (K + dP): dP is the fall of the target's probability, K = 1 / (1 + KL) of the other classes.

    KL goes from the renormalized probabilities of the other classes at x to those at Phi, as in the
    authors' code; a rise of the target's probability counts as 0. In [0, 1]. The perturbation is that
    of `BlurSaliency`, and so are the arguments.

    Source: Puri et al. 2020, section 3.
    """

    def _score(self, clean: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        own = target.long().view(1, -1, 1)
        before, after = clean[None], logits
        fall = (_at(before.softmax(2), own) - _at(after.softmax(2), own)).clamp_min(0)[..., 0]  # (G, N)
        order = torch.arange(clean.shape[1] - 1, device=clean.device)
        others = order + (order >= own)  # (1, N, K - 1)
        p, q = (_at(z, others).log_softmax(2) for z in (before, after))
        kept = 1 / (1 + (p.exp() * (p - q)).sum(2).clamp_min(0))
        return 2 * kept * fall / (kept + fall)


@ATTRIBUTIONS.register(
    "occlusion",
    summary="fall of the score where a square is covered",
    reference="Zeiler and Fergus 2014, arXiv:1311.2901",
    cost="1 + one forward per place of the square",
    order=0,
)
@dataclass(frozen=True)
class Occlusion(PerturbationAttribution):
    """Mean fall of the score over the squares that cover a pixel, signed.

    Args:
        window: side of the square, as a share of the shorter side of the image (at least one pixel).
        stride: from one square to the next, likewise; the last one ends at the border.
        baseline: what covers, as for `IntegratedGradients`.
        of, chunk: as for `Saliency` and `BlurSaliency`.

    Source: Zeiler and Fergus 2014, section 4.2.
    """

    window: Share = 1 / 4
    stride: Share = 1 / 8
    baseline: Baseline = 0.0
    of: Of = "logit"
    chunk: Count = 128

    def _windows(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        side, step = (max(1, round(share * min(height, width))) for share in (self.window, self.stride))
        return _intervals(height, side, step), _intervals(width, side, step)

    def _replacement(self, x: Tensor) -> Tensor:
        return of_inputs(self.baseline, x).expand_as(x)

    def _score(self, clean: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        moved = score(logits.flatten(0, 1), target.repeat(len(logits)), self.of).view(logits.shape[:2])
        return score(clean, target, self.of) - moved

    def _spread(self, grid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        # A pixel that lies between the squares is covered by none.
        covered = (rows.sum(0)[:, None] * columns.sum(0)).clamp_min(1)
        return torch.einsum("nrs,rh,sw->nhw", grid, rows, columns) / covered


def _bumps(size: int, count: int, spread: float) -> Tensor:
    """Gaussian bumps (count, size) of height 1, their centers spread evenly over a line of pixels."""
    centers = (torch.arange(count, dtype=torch.float64) + 0.5) * size / count - 0.5
    # From the pixel nearest to the center, whose value becomes 1: a narrow bump would else vanish between pixels.
    exponent = -(torch.arange(size) - centers[:, None]).square() / (2 * spread**2)
    return torch.exp(exponent - exponent.amax(1, keepdim=True))


def _intervals(size: int, side: int, step: int) -> Tensor:
    """Which pixels (places, size) of a line each interval of length `side` covers; 1 or 0."""
    starts = torch.tensor([*range(0, size - side, step), size - side])
    pixels = torch.arange(size)
    return ((pixels >= starts[:, None]) & (pixels < starts[:, None] + side)).double()


def _at(values: Tensor, classes: Tensor) -> Tensor:
    """Values (G, N, K) at classes (1, N, L): (G, N, L)."""
    return values.gather(2, classes.expand(len(values), -1, -1))
