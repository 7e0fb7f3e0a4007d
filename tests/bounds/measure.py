# ruff: noqa: T201
"""What the bounds cost and how sharp they are: `python tests/bounds/measure.py lenet|sizes|certified|pooling`.

`lenet` and `pooling` train on some thousand MNIST images (they need STEADYGRAD_DATA or the network), the others need no
data.
"""

from __future__ import annotations

import platform
import resource
import sys
import time

import torch
from torch import nn

import steadygrad as sg
from steadygrad.attributions import IntegratedGradients, Saliency
from steadygrad.bounds import Bound, CertifiedDeviation, LinearizedDeviation
from steadygrad.models.architectures import seeded


def trained_lenet(data: str = "mnist", name: str = "lenet", count: int = 4000) -> sg.Classifier:
    train = sg.data.load(data, "train").take(count)
    return trained(sg.models.build(name, train.shape, train.classes, seed=0), train)


def trained(model: sg.Classifier, train) -> sg.Classifier:
    images, labels = train.tensors()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):
        for first in range(0, len(images), 64):
            loss = torch.nn.functional.cross_entropy(model(images[first : first + 64]), labels[first : first + 64])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def show(what: str, method: Bound, model, x, target, threat) -> None:
    start = time.perf_counter()
    bound = method(model, x, target, threat)
    took = (time.perf_counter() - start) / len(x)
    gaps = bound.gap.sort().values
    print(
        f"{what}: n {len(x)}, bound / best feasible median {gaps[len(gaps) // 2]:.4f}, least {gaps[0]:.4f}, "
        f"largest {gaps[-1]:.4f}; attack / bound largest {(bound.attack / bound.upper).max():.3f}; "
        f"backwards median {int(bound.backwards.median())}; {took:.1f} s per input",
        flush=True,
    )


def lenet() -> None:
    model = trained_lenet()
    x, _ = sg.data.load("mnist", "test").take(20).tensors()
    smooth, target = sg.smooth(model, 50.0, pooling=False), model(x).argmax(1)
    for attribution in (IntegratedGradients(steps=8), Saliency()):
        for threat in (sg.linf(0.1), sg.l2(0.5)):
            name = f"{type(attribution).__name__}, LeNet softplus 50, {threat}"
            show(name, LinearizedDeviation(attribution), smooth, x, target, threat)


def sizes() -> None:
    for name, shape, settings in (
        ("lenet", (1, 28, 28), {}),
        ("convnet", (3, 32, 32), {}),
        ("resnet18", (3, 224, 224), {"width": 8}),
    ):
        model = sg.smooth(sg.models.build(name, shape, 10, **settings), 50.0, pooling=False)
        x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
        for threat in (sg.l2(0.1), sg.linf(1 / 255)):
            show(
                f"{name} {shape} untrained, {threat}",
                LinearizedDeviation(Saliency(), rank=32 if shape[1] > 100 else 64),
                model,
                x,
                x.new_zeros(1).long(),
                threat,
            )
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", flush=True)


def certified() -> None:
    model = trained_lenet("digits", "digits_cnn", 1000)
    x, _ = sg.data.load("digits", "test").take(10).tensors()
    target = model(x).argmax(1)
    for name, net in (("ReLU", model), ("softplus 10", sg.smooth(model, 10.0, pooling=False))):
        for eps in (1e-4, 1e-3, 1e-2):
            method = CertifiedDeviation(Saliency())
            show(f"digits CNN {name}, certified, linf {eps:g}", method, net, x, target, sg.linf(eps))
            if eps < 1e-2:
                share = method(net, x, target, sg.linf(eps)).certain_top_k(0.1).float().sum(1).mean() / round(6.4)
                print(f"  certain share of the top 10 %: {share:.2f}", flush=True)


def pooling() -> None:
    """The same small network with strided convolutions, average pooling and max pooling."""
    train = sg.data.load("mnist", "train").take(6000)
    x, _ = sg.data.load("mnist", "test").take(3).tensors()
    for name in ("strided", "average", "max"):
        with seeded(0):
            bend, half = nn.Softplus(10.0), nn.MaxPool2d(2) if name == "max" else nn.AvgPool2d(2)
            first = [nn.Conv2d(1, 6, 5), half] if name != "strided" else [nn.Conv2d(1, 8, 4, 2, 1)]
            second = [nn.Conv2d(6, 16, 5), half] if name != "strided" else [nn.Conv2d(8, 16, 4, 2, 1)]
            net = nn.Sequential(*first, bend, *second, bend, nn.Flatten(), nn.LazyLinear(10))
            net(x)
        model = trained(sg.Classifier(net, classes=10, input_shape=(1, 28, 28)), train)
        for threat in (sg.linf(0.001), sg.linf(0.01), sg.l2(0.01), sg.l2(0.1)):
            method = CertifiedDeviation(Saliency(), units=0)
            show(f"{name}, softplus 10, certified, {threat}", method, model, x, model(x).argmax(1), threat)


if __name__ == "__main__":
    print(f"{platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}")
    {"lenet": lenet, "sizes": sizes, "certified": certified, "pooling": pooling}[sys.argv[1]]()
