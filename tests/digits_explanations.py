"""How far the maps of a digits CNN can be pushed: `python tests/digits_explanations.py [SAMPLES]`.

Random noise, the attack with the second-order term cut out, and the attack with the right gradient,
on the same test images, under the same threat, with the same steps. The rectifiers are softplus(50).
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadygrad import data, models
from steadygrad.attacks.maps.attribution_attacks import IFIA, AttributionPGD, ExplanationAttack
from steadygrad.attributions import Attribution, InputXGradient, IntegratedGradients, Saliency
from steadygrad.attributions import similarity as sim
from steadygrad.attributions.attribution import Forward
from steadygrad.measuring.statistics import Estimate, mean
from steadygrad.smoothing import smooth
from steadygrad.threat import Threat, l2, linf

EPS = {"linf": 0.05, "l2": 0.3}
K = 8 / 64
STEPS, RESTARTS = 20, 1
BETA = 50.0


def cut(attribution: Attribution) -> Attribution:
    """The attribution with the derivative of its gradients left out, as where a graph is lost on the way.

    Saliency then has no derivative at all, so this is for products with the input only.
    """

    @dataclass(frozen=True)
    class Cut(type(attribution)):  # type: ignore[misc]
        def maps(self, forward: Forward, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
            maps: Tensor = super().maps(forward, x, target, create_graph=create_graph)
            if not create_graph:
                return maps
            away = x - getattr(self, "baseline", 0.0)
            # At a zero of the factor the product is zero, and so is what is divided there.
            return away * (maps / torch.where(away == 0, 1.0, away)).detach()

    return Cut(**{name: getattr(attribution, name) for name in attribution.__dataclass_fields__})


def network(epochs: int = 15) -> tuple[nn.Module, Tensor, Tensor]:
    """The digits CNN, trained with seed 0, and the test images with their labels."""
    train, test = data.load("digits", "train"), data.load("digits", "test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = models.build("digits_cnn", train.shape, train.classes)
        x, y = train.tensors()
        optimizer = torch.optim.Adam(net.parameters(), 4e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    for parameter in net.parameters():
        parameter.grad = None
    return net.eval(), *test.tensors()


def overlap(before: Tensor, after: Tensor) -> Tensor:
    """Share of the top 8 pixels in common, (N,)."""
    return sim.top_k_intersection(before, after, K)


def compare(model: nn.Module, x: Tensor, attribution: Attribution, threat: Threat) -> dict[str, Tensor]:
    """Top-8 overlaps (N,) of clean and changed maps, by what changed them."""
    found = IFIA(attribution, k=K, steps=STEPS, restarts=RESTARTS)(model, x, None, threat)
    assert found.noise is not None
    rows = {"noise": found.noise.similarity(overlap), "attack": found.similarity(overlap)}
    if not isinstance(attribution, Saliency):
        lame = IFIA(cut(attribution), k=K, steps=STEPS, restarts=RESTARTS, noise_draws=0)(model, x, None, threat)
        rows["second order cut"] = lame.similarity(overlap)
    return rows


def _mean(values: Tensor) -> Estimate:
    return mean(values.double().numpy())


def _text(values: Tensor | None) -> str:
    if values is None:
        return "no slope"
    estimate = _mean(values)
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def show(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(count: int = 100) -> None:
    """Print the tables."""
    net, x, y = network()
    accuracy = float((net(x).argmax(1) == y).float().mean())
    model, x = smooth(net, BETA, pooling=False), x[:count]
    show(f"digits CNN, softplus({BETA:g}), test accuracy {accuracy:.3f}, n = {len(x)}, seed 0,")
    show(f"{STEPS} steps, {RESTARTS} start, 10 random points; torch {torch.__version__}, {platform.machine()} CPU")
    show("\nmean top-8 intersection with the clean map, 95 % interval")
    show("| map | threat | random noise | second order cut | attack |\n|---|---|---|---|---|")
    for attribution in (Saliency(), InputXGradient(), IntegratedGradients(8)):
        for threat in (linf(EPS["linf"]), l2(EPS["l2"])):
            rows = compare(model, x, attribution, threat)
            cells = [_text(rows.get(name)) for name in ("noise", "second order cut", "attack")]
            show(f"| {type(attribution).__name__} | {threat} | {' | '.join(cells)} |")
    show("\nmean deviation of the saliency map under linf, 95 % interval")
    show("| measure | random noise | attack |\n|---|---|---|")
    attacks: list[ExplanationAttack] = [
        IFIA(goal="mass-center", steps=STEPS, restarts=RESTARTS),
        AttributionPGD(steps=STEPS, restarts=RESTARTS),
        AttributionPGD(distance="cosine", steps=STEPS, restarts=RESTARTS),
    ]
    for attack in attacks:
        found = attack(model, x, None, linf(EPS["linf"]))
        assert found.noise is not None
        show(f"| {attack.objective} | {_text(found.noise.deviation)} | {_text(found.deviation)} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:2]))
