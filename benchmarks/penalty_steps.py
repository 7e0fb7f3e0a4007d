"""What a step with a gradient penalty costs in plain steps, and perturbation saliency in the forwards that it needs.

    python benchmarks/penalty_steps.py [--batch 128] [--repeats 31] [--images 1000] [--grid 16] [--data cifar10]

Steps: loss, weight gradient and Adam's update on an MNIST-sized LeNet. Saliency: blur saliency and SARFA of
CIFAR-10-sized images (random ones without --data) through the ConvNet, against the same number of forwards of ready
inputs in the same chunks. All are interleaved; ratios of the medians over repetitions of the steps, and over chunks of
the images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import steadygrad as sg
from steadygrad.attributions import SARFA, BlurSaliency
from steadygrad.classifier import frozen
from steadygrad.defenses import Defense, InputGradientPenalty, JacobianPenalty, Plain, State

Work = Callable[[], object]


def timed(work: Work) -> tuple[float, float]:
    """Seconds of a work by the clock, and by the processor, which a busy machine changes less."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def report(laps: Mapping[str, list[tuple[float, float]]], unit: str) -> None:
    """Medians of the laps of each work, and their ratios to those of the first."""
    medians = {name: [statistics.median(column) for column in zip(*times)] for name, times in laps.items()}
    base = next(iter(medians.values()))
    print(f"{'':28}{'clock':>12}{'processor':>12}   in {unit}, by clock and processor")
    for name, values in medians.items():
        shares = "".join(f"{value / b:9.3f}" for value, b in zip(values, base))
        print(f"{name:28}" + "".join(f"{1e3 * value:9.1f} ms" for value in values) + shares)


def steps(batch: int, repeats: int) -> None:
    """One training step of each penalty, in plain steps."""
    x = torch.rand(batch, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(batch) % 10

    def stepper(defense: Defense) -> Work:
        model = sg.models.build("lenet", (1, 28, 28), 10, seed=0).train()
        weights = list(model.parameters())
        optimizer = torch.optim.Adam(weights, 1e-4, fused=True)

        def step() -> None:
            loss = defense.loss(model, x, y, State(seed=1))
            for weight, slope in zip(weights, torch.autograd.grad(loss.total, weights)):
                weight.grad = slope
            optimizer.step()

        return step

    defenses: dict[str, Defense] = {
        "plain": Plain(),
        "input_gradient": InputGradientPenalty(1.0),
        "jacobian, 1 projection": JacobianPenalty(0.01),
        "jacobian, exact": JacobianPenalty(0.01, projections=None),
    }
    works = {name: stepper(defense) for name, defense in defenses.items()}
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            lap = timed(work)
            laps[name] += [lap] if repeat else []  # the first one warms up
    print(f"LeNet, batch {batch}, medians of {repeats} interleaved repetitions, {torch.get_num_threads()} threads")
    report(laps, "plain steps")


def saliency(images: int, grid: int, name: str | None) -> None:
    """Perturbation saliency, in the forwards it needs."""
    x = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    if name is not None:
        x = sg.data.load(name, "test").take(images).tensors()[0]
    model = sg.models.build("convnet", (3, 32, 32), 10, seed=0).eval()
    target = torch.zeros(len(x), dtype=torch.long)
    methods = {"blur_saliency": BlurSaliency(grid=grid), "sarfa": SARFA(grid=grid)}
    chunk, count = methods["sarfa"].chunk, methods["sarfa"].forwards((3, 32, 32))

    def bare(some: Tensor) -> None:
        # The same number of forwards, as full chunks of ready inputs.
        ready, left = some.repeat(-(-chunk // len(some)), 1, 1, 1)[:chunk], count * len(some)
        with frozen(model), torch.no_grad():
            while left > 0:
                model(ready[:left])
                left -= chunk

    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in ("bare forwards", *methods)}
    for start in range(0, len(x), chunk):
        some, classes = x[start : start + chunk], target[start : start + chunk]
        works: dict[str, Work] = {"bare forwards": lambda some=some: bare(some)}
        works |= {n: lambda m=m, s=some, c=classes: m(model, s, c) for n, m in methods.items()}
        for key, work in works.items():
            laps[key].append(timed(work))
    print(f"ConvNet, {len(x)} images of {name or 'random pixels'}, {count} forwards each, in chunks of {chunk}")
    report(laps, "bare forwards")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--repeats", type=int, default=31)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--grid", type=int, default=16)
    options.add_argument("--data")
    given = options.parse_args()
    steps(given.batch, given.repeats)
    saliency(given.images, given.grid, given.data)


if __name__ == "__main__":
    main()
