"""Five defenses that only look robust, three that do not pretend, and what the audit says about each.

`python tests/audit/broken_defenses.py` trains all of them on the digits with several seeds and
prints the table of docs/concepts/validity.md: the audited number beside that of an oracle that
knows what is broken. The tests run a smaller version of the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if __name__ == "__main__":  # the tests' own folder, as pytest has it
    sys.path.insert(0, str(Path(__file__).parents[1]))

import steadygrad as sg
from audit.victims import Sharp
from steadygrad.attacks import PGD, Expectation
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.defenses import AdversarialTraining, Defense, Distillation, InputGradientPenalty, Plain
from steadygrad.training import FitSettings

EPS = 0.1
NEAR = 0.02
"""What the number may lie above the oracle's and still count as right: 6 of 300 samples."""
ORACLE = PGD(steps=100, restarts=9, loss="rivals")  # a restart for each wrong class


class Quantized(nn.Module):
    """Inputs rounded to a few levels; with `through`, the backward pass takes the rounding for nothing (BPDA)."""

    def __init__(self, model: nn.Module, levels: int = 4, *, through: bool = False) -> None:
        super().__init__()
        self.model, self.levels, self.through = model, levels, through

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x * self.levels).round() / self.levels
        return self.model(x + (rounded - x).detach() if self.through else rounded)


class NoisyInput(nn.Module):
    """Fresh noise on the input of every call."""

    def __init__(self, model: nn.Module, sigma: float = 0.2) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + self.sigma * torch.randn_like(x))


class Saturating(nn.Module):
    """A steep activation that is flat but in a narrow band; with `through`, backward as tanh (BPDA)."""

    def __init__(self, slope: float = 100.0, *, through: bool = False) -> None:
        super().__init__()
        self.slope, self.through = slope, through

    def forward(self, z: Tensor) -> Tensor:
        hard = (self.slope * z).clamp(-1, 1)
        soft = z.tanh()
        return soft + (hard - soft).detach() if self.through else hard


@dataclass(frozen=True)
class Case:
    """A model, whether it is honest, and the model that an oracle attacks in its place."""

    kind: str
    seed: int
    honest: bool
    model: nn.Module
    attacked: nn.Module


@dataclass(frozen=True)
class Outcome:
    """What the audit says of a case, and what the oracle leaves."""

    case: Case
    clean: float
    robust: float
    oracle: float
    trusted: bool
    failed: tuple[str, ...]

    @property
    def right(self) -> bool:
        """The number does not lie above the oracle's by more than `NEAR`."""
        return self.robust <= self.oracle + NEAR + 1e-9


def fitted(defense: Defense, seed: int, **settings: Any) -> Classifier:
    """An MLP trained on the digits with a defense."""
    train = sg.data.load("digits", "train")
    model = sg.models.build("mlp", train.shape, train.classes, seed=seed, hidden=(64,))
    given = {"epochs": 20, "lr": 5e-3, "batch_size": 64, **settings}
    return sg.fit(model, defense, train, settings=FitSettings(**given), seed=seed).classifier.eval()


def saturated(seed: int, *, epochs: int = 20) -> Callable[[bool], nn.Module]:
    """An MLP with steep activations, trained through tanh; returns a maker of it with or without BPDA."""
    train = sg.data.load("digits", "train")
    x, y = train.tensors()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = nn.Linear(64, 128), nn.Linear(128, 10)
        net = nn.Sequential(nn.Flatten(), first, Saturating(through=True), last)
        steps = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(64):
                steps.zero_grad()
                cross_entropy(net(x[batch]), y[batch]).backward()
                steps.step()

    def make(through: bool) -> nn.Module:
        return nn.Sequential(nn.Flatten(), first, Saturating(through=through), last).eval()

    return make


def broken(seed: int) -> list[Case]:
    """The five broken defenses, each with what its oracle attacks."""
    plain = fitted(Plain(), seed)
    distilled = fitted(Distillation(50.0), seed)
    steep = saturated(seed)
    rows: list[tuple[str, nn.Module, nn.Module]] = [
        ("logits x 100", Sharp(plain, 100.0), plain),
        ("distillation, T = 50", distilled, Sharp(distilled, 0.02)),
        ("quantized input", Quantized(plain), Quantized(plain, through=True)),
        ("noise on the input", NoisyInput(plain), Expectation(NoisyInput(plain), 64)),
        ("saturating activation", steep(False), steep(True)),
    ]
    return [Case(kind, seed, False, model, attacked) for kind, model, attacked in rows]


def honest(seed: int) -> list[Case]:
    """Three models that hide nothing."""
    defenses: dict[str, Defense] = {
        "plain": Plain(),
        "PGD-trained": AdversarialTraining(eps=0.15, attack=PGD(steps=5, loss="ce")),
        "gradient-penalized": InputGradientPenalty(1.0),
    }
    models = {kind: fitted(defense, seed) for kind, defense in defenses.items()}
    return [Case(kind, seed, True, model, model) for kind, model in models.items()]


def audited(case: Case, data: Dataset, suite: Any = "fast") -> Outcome:
    """Audit a case, and attack it with the oracle."""
    threat = sg.linf(EPS)
    found = sg.audit(
        {case.kind: case.model}, data, threat, attacks=suite, attributions=(), gallery=0, transfer=False, seed=case.seed
    ).summary["models"][0]
    left = sg.robust_accuracy(sg.evaluate(case.attacked, data, ORACLE, threat, seed=1000 + case.seed)).value
    failed = tuple(check["name"] for check in found["verdict"]["checks"] if check["passed"] is False)
    values = (found["clean"]["value"], found["robust"]["value"], left)
    return Outcome(case, *values, found["verdict"]["state"] == "holds", failed)


def row(outcome: Outcome) -> str:
    """The outcome as a row of the table."""
    shares = " | ".join(f"{100 * share:.1f}" for share in (outcome.clean, outcome.robust, outcome.oracle))
    verdict = "holds" if outcome.trusted else f"refused: {', '.join(outcome.failed)}"
    return f"{outcome.case.kind} | {outcome.case.seed} | {shares} | {verdict}"


def table(seeds: Sequence[int], samples: int = 300) -> Iterator[str]:
    """The table, line by line as it is made, with a count of wrong verdicts at its end."""
    data = sg.data.load("digits", "test").draw(samples)
    yield f"digits test, {len(data)} samples drawn, linf {EPS}, suite fast, seeds {list(seeds)}"
    yield f"steadygrad {sg.__version__}, torch {torch.__version__}, CPU, {torch.get_num_threads()} thread"
    yield "model | seed | clean % | robust % | oracle % | verdict\n---|---|---|---|---|---"
    outcomes = []
    for seed in seeds:
        for case in (*broken(seed), *honest(seed)):
            outcomes.append(audited(case, data))
            yield row(outcomes[-1])
    hidden = [o for o in outcomes if not o.case.honest]
    open_ = [o for o in outcomes if o.case.honest]
    believed = sum(o.trusted and not o.right for o in hidden)
    alarms = sum(not o.trusted for o in open_)
    yield f"wrong numbers that hold: {believed} of {len(hidden)}; false alarms: {alarms} of {len(open_)}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in table([int(seed) for seed in sys.argv[1:]] or range(3)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
