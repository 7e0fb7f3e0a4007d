# ruff: noqa: T201
"""Random and attacked points by the hundred thousand against certified margins: `python tests/bounds/soundness.py`.

Prints for every architecture how many points were tried within linf, l2 and l1 balls, how many were below the certified
margin of their sample (none may be), and how near the nearest came, as a share of what the margin can fall.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

sys.path.insert(0, str(__file__).rsplit("/", 2)[0])

import steadygrad as sg
from bounds.certified.test_certified_margin import NETWORKS, THREATS, Branches, margins
from steadygrad import randomness
from steadygrad.attacks import PGD
from steadygrad.bounds import CertifiedMargin

POINTS = 200_000


class Residual(nn.Module):
    """A small residual ConvNet with SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.stem(x))
        x = nn.functional.silu(self.norm(x + self.two(nn.functional.silu(self.one(x)))))
        return self.head(x.mean((2, 3)))


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...], int]]:
    """Name -> model, input shape, classes."""
    torch.manual_seed(1)
    found = {name: (net, (1, 4, 4), 3) for name, net in NETWORKS.items()}
    found["wider branches"] = (Branches(nn.GELU()).eval(), (1, 4, 4), 3)
    found["residual, SiLU"] = (Residual().eval(), (1, 12, 12), 5)
    found["LeNet"] = (sg.models.build("lenet", (1, 28, 28), 10, seed=0), (1, 28, 28), 10)
    return found


def main() -> None:
    torch.set_num_threads(1)
    for name, (model, shape, classes) in networks().items():
        x = torch.rand(20, *shape, generator=randomness.fresh(7))
        x[:3] = x[:3].round()
        y, seeds = model(x).argmax(1), torch.arange(20)
        tried = below = 0
        nearest = 0.0
        for threat in THREATS:
            bound, clean = CertifiedMargin()(model, x, y, threat), margins(model, x, y)
            least, draw = clean.clone(), 0
            points = [PGD(steps=10)(model, x, y, threat, target=(y + i) % classes).inputs for i in range(1, classes)]
            while tried < POINTS * (THREATS.index(threat) + 1) / len(THREATS):
                for p in (points.pop() if points else threat.random(x, seeds, draw),):
                    for way in (p, threat.constrain(x, x + 1e3 * (p - x))):
                        found = margins(model, way, y)
                        below += int((found < bound.margins).any(1).sum())
                        least = torch.minimum(least, found)
                        tried += len(x)
                draw += 1
            share = ((clean - least) / (clean - bound.margins))[clean.isfinite()]
            nearest = max(nearest, float(share.max()))
        print(f"{name}: {tried} points, {below} below, nearest {nearest:.3f}", flush=True)


if __name__ == "__main__":
    main()
