"""What a step of an attack costs beside its bare passes: the same forwards and input-only backwards of the same batch.

    python -m benchmarks.attack_steps [--models lenet resnet18 efficientnet-lite0] [--steps 10] [--repeats 7]
        [--device cpu] [--result benchmarks/results/steps.json]

PGD and MI-FGSM on LeNet (28 pixels, batch 128), ResNet-18 (32 pixels, batch 16) and EfficientNet-Lite0 (224 pixels,
batch 4; left out where it is not installed), with random weights and random images: what the arithmetic costs does not
depend on them. No sample falls, so that every step takes the whole batch. Attack and bare passes alternate; the ratio
is the median over the repetitions, each beside the bare passes just before and just after.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import steadygrad as sg
from benchmarks.attacks.meter import Meter, clock
from steadygrad import files, provenance
from steadygrad.attacks import MIFGSM, PGD, Attack
from steadygrad.registry import label_of

HEAD = ("model", "batch", "attack", "passes a second, bare", "in the attack", "cost, by the clock", "by the processor")
MODELS = {"lenet": ((1, 28, 28), 128), "resnet18": ((3, 32, 32), 16), "efficientnet-lite0": ((3, 224, 224), 4)}


class Steadfast(nn.Module):
    """A model with the gradients of another that answers class 0 everywhere: no sample falls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K), of which the first is the largest."""
        logits: Tensor = self.model(x)
        return torch.cat([logits[:, :1] + 100, logits[:, 1:]], 1)


def built(names: Sequence[str], device: str) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """The networks that can be had, each with a batch of random images."""
    for name in names:
        shape, batch = MODELS[name]
        if name == "efficientnet-lite0":
            try:
                from efficientnet_lite_pytorch import EfficientNet
            except ImportError:
                print(f"left out: {name} (efficientnet-lite-pytorch is not installed)")
                continue
            net: nn.Module = sg.Classifier(EfficientNet.from_name(name), classes=1000)
        else:
            net = sg.models.build(name, shape, 10, seed=0)
        x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
        yield name, Steadfast(net).eval().requires_grad_(False).to(device), x.to(device)


def bare(model: nn.Module, x: Tensor, forwards: int, backwards: int) -> Tensor:
    """So many passes of a batch x (N, *), with nothing done in between; the last slopes (N, *)."""
    slope = x
    for _ in range(backwards):
        points = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(points).sum(), points)
    with torch.no_grad():
        for _ in range(forwards - backwards):
            model(x)
    return slope


def measured(name: str, model: nn.Module, x: Tensor, attack: Attack, repeats: int) -> dict[str, Any]:
    """One attack on one model in plain data."""
    y, threat = torch.zeros(len(x), dtype=torch.int64, device=x.device), sg.linf(8 / 255)
    meter = Meter(model)
    result = attack(meter, x, y, threat)
    assert not result.success.any(), "a sample fell, and the passes are not of the whole batch"
    forwards, backwards = meter.forwards // len(x), meter.backwards // len(x)

    def passes() -> Tensor:
        return bare(model, x, forwards, backwards)

    def attacked() -> Tensor:
        return attack(model, x, y, threat).inputs

    def seconds(work: Callable[[], Tensor]) -> tuple[float, float]:
        return clock(x, work)[:2]

    seconds(passes)
    laps = [seconds(work) for _ in range(repeats) for work in (passes, attacked)] + [seconds(passes)]
    ratios = [
        [2 * laps[i][which] / (laps[i - 1][which] + laps[i + 1][which]) for i in range(1, len(laps), 2)]
        for which in (0, 1)
    ]
    rate = (forwards + backwards) * len(x)
    return {
        "model": name,
        "batch": len(x),
        "attack": label_of(attack),
        "forwards": forwards,
        "backwards": backwards,
        "bare_per_second": rate / statistics.median(lap[0] for lap in laps[::2]),
        "attack_per_second": rate / statistics.median(lap[0] for lap in laps[1::2]),
        "ratio": {"value": statistics.median(ratios[0]), "low": min(ratios[0]), "high": max(ratios[0])},
        "cpu_ratio": statistics.median(ratios[1]),
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    cost = row["ratio"]
    shown = (row["model"], row["batch"], row["attack"], f"{row['bare_per_second']:,.0f}")
    timed = (f"{row['attack_per_second']:,.0f}", f"{cost['value']:.3f} [{cost['low']:.2f}, {cost['high']:.2f}]")
    return "| " + " | ".join(map(str, (*shown, *timed, f"{row['cpu_ratio']:.3f}"))) + " |"


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--device", default="cpu")
    options.add_argument("--result", type=Path, help="write the figures to this JSON file, too")
    given = options.parse_args()
    rows = []
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for name, model, x in built(given.models, given.device):
        for attack in (PGD(steps=given.steps), MIFGSM(steps=given.steps)):
            rows.append(measured(name, model, x, attack, given.repeats))
            print(line(rows[-1]), flush=True)
    if given.result:
        about = {"version": sg.__version__, "machine": provenance.machine(given.device), "made": provenance.now()}
        files.write_json(given.result, {**about, "rows": rows})


if __name__ == "__main__":
    main()
