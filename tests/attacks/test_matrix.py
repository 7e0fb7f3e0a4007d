"""Every registered attack in every situation: the engine's promises hold in all of them.

A situation is a norm, a target, a number of classes, a shape, a type of number and a kind of radius. For
each attack enough situations are drawn up that every value of one meets every value of each other.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
from attacks.cheap import cheap
from steadygrad import randomness
from steadygrad.attacks import ATTACKS, Attack, AttackResult
from steadygrad.threat import Threat

pytestmark = pytest.mark.slow

TARGETS = (None, "labels", "random")
CLASSES = (2, 3, 10, 100)
SHAPES = ((20,), (1, 8, 8), (3, 9, 7))
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
RADII = ("one", "each", None)
COUNT = 4


@dataclasses.dataclass(frozen=True)
class Situation:
    """One attack, and what it meets."""

    name: str
    norm: str
    target: str | None
    classes: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    radius: str | None

    def __str__(self) -> str:
        parts = (self.name, self.norm, self.target, self.classes, "x".join(map(str, self.shape)), self.dtype)
        return "-".join(str(p).removeprefix("torch.") for p in (*parts, self.radius))


@functools.cache
def pairwise(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Rows of levels such that every two levels of two axes meet in one of them, greedily few."""
    rows, every = [], list(itertools.product(*map(range, sizes)))
    axes = list(itertools.combinations(range(len(sizes)), 2))
    open_ = {(a, i, b, j) for a, b in axes for i in range(sizes[a]) for j in range(sizes[b])}
    while open_:
        row = max(every, key=lambda row: sum((a, row[a], b, row[b]) in open_ for a, b in axes))
        open_ -= {(a, row[a], b, row[b]) for a, b in axes}
        rows.append(row)
    return tuple(rows)


def situations(name: str, norms: Sequence[str]) -> list[Situation]:
    axes: list[Sequence[Any]] = [norms, TARGETS, CLASSES, SHAPES, DTYPES, RADII]
    return [
        Situation(name, *(axis[level] for axis, level in zip(axes, row))) for row in pairwise(tuple(map(len, axes)))
    ]


EVERY = [s for row in ATTACKS for s in situations(row.name, row.norms)]


class OneByOne(nn.Module):
    """Runs the samples of a batch one after the other: what rounding does to one cannot depend on the rest."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(row) for row in x.split(1)])


@functools.cache
def victim(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A curved network that is certain (margins of several units), inputs and labels, the first one wrong."""
    generator = randomness.fresh(7)
    width = 12
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(torch.Size(shape).numel(), width)]
    if len(shape) == 3:
        layers = [nn.Conv2d(shape[0], 2, 3), nn.Softplus(), nn.Flatten()]
        layers.append(nn.Linear(2 * (shape[1] - 2) * (shape[2] - 2), width))
    net = nn.Sequential(*layers, nn.Softplus(), nn.Linear(width, classes)).double()
    many = torch.rand(200, *shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan**0.5)
        last = net[-1]
        assert isinstance(last, nn.Linear)
        last.bias -= net(many).mean(0)
        gaps = net(many).topk(2, dim=1).values
        last.weight *= 8 / (gaps[:, 0] - gaps[:, 1]).mean()
        last.bias *= 8 / (gaps[:, 0] - gaps[:, 1]).mean()
        x = many[:COUNT]
        y = net(x).argmax(1)
        y[0] = (y[0] + 1) % classes
    return OneByOne(net).eval(), x, y


@functools.cache
def reach(shape: tuple[int, ...], classes: int, norm: str) -> float:
    """The median distance to the boundary in a linear model of the victim; in l0 a few entries."""
    if norm == "l0":
        return 4.0
    model, x, _ = victim(shape, classes)
    leaf = x.clone().requires_grad_()
    first, second = model(leaf).topk(2, dim=1).values.unbind(1)
    (slope,) = torch.autograd.grad((first - second).sum(), leaf)
    dual = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
    return float(((first - second).detach() / torch.linalg.vector_norm(slope.flatten(1), dual, dim=1)).median())


@dataclasses.dataclass(frozen=True)
class Case:
    """A situation set up: how to attack, and what with."""

    attack: Attack
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    target: Tensor | str | None

    def run(self, rows: slice = slice(None)) -> AttackResult:
        eps, aim, seeds = self.threat.eps, self.target, torch.arange(100, 100 + COUNT)
        threat = self.threat.at(eps[rows] if isinstance(eps, Tensor) else eps)
        given = aim[rows] if isinstance(aim, Tensor) else aim
        return self.attack(self.model, self.x[rows], self.y[rows], threat, target=given, generator=seeds[rows])


@functools.cache
def case(situation: Situation, dtype: torch.dtype) -> Case:
    s = situation
    model, x, y = victim(s.shape, s.classes)
    lower = OneByOne(_copy(model.net, dtype)).eval()
    size = 1.5 * reach(s.shape, s.classes, s.norm)
    eps: float | Tensor | None = None
    if s.radius == "one":
        eps = size
    elif s.radius == "each":
        eps = size * torch.tensor([1.0, 0.1, 0.8, 3.0])
    target = (y + 1) % s.classes if s.target == "labels" else s.target
    return Case(cheap(s.name), lower, x.to(dtype), y, Threat(s.norm, eps), target)


def _copy(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    import copy

    return copy.deepcopy(net).to(dtype)


@functools.cache
def outcome(situation: Situation) -> tuple[AttackResult, dict[str, int]]:
    this = case(situation, situation.dtype)
    with gates.counted(this.model) as passes:
        result = this.run()
    return result, passes


def judged_again(this: Case, result: AttackResult) -> Tensor:
    """Which inputs (N,) of the result are wrong, or at the target, in a batch of other neighbors."""
    company = torch.cat([this.x.flip(0)[:1], result.inputs.flip(0), this.x])
    with torch.no_grad():
        seen = this.model(company).double()[1 : 1 + COUNT].flip(0)
    best = seen.argmax(1)
    if this.target is None:
        return best != this.y
    if isinstance(this.target, Tensor):
        return best == this.target
    return best != this.y  # a target drawn by rule is another class than the label


@pytest.mark.parametrize("situation", EVERY, ids=str)
def test_the_promises_of_the_engine_hold(situation):
    this = case(situation, situation.dtype)
    result, passes = outcome(situation)
    x, found = this.x.double(), result.inputs.double()
    assert result.inputs.dtype == situation.dtype
    assert result.inputs.shape == this.x.shape
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    # Within eps, but for the rounding of the inputs' own type.
    size = distance(situation.norm, found - x)
    grain = torch.finfo(situation.dtype).eps
    if this.threat.eps is not None:
        slack = 0.0 if situation.norm == "l0" else 1e-5 + grain
        assert (size <= this.threat.eps * (1 + max(1e-5, 3 * grain)) + slack).all()
    # Success is true, and failure leaves no mark.
    failed = ~result.success
    assert judged_again(this, result)[result.success].all()
    assert torch.equal(result.inputs[failed], this.x[failed])
    assert torch.isinf(result.distance[failed]).all()
    torch.testing.assert_close(
        result.distance[result.success].double(), size[result.success], rtol=max(1e-5, 2 * grain), atol=1e-6
    )
    if this.target is None:
        assert result.success[0]
        assert result.distance[0] == 0
        assert result.backwards[0] == 0
    # Passes are those that the model saw.
    assert int(result.forwards.sum()) == passes["samples"]
    assert int(result.backwards.sum()) == passes["samples_back"]


def distance(norm: str, delta: Tensor) -> Tensor:
    flat = delta.flatten(1)
    order = {"linf": torch.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}[norm]
    size: Tensor = torch.linalg.vector_norm(flat, order, dim=1)
    return size


@pytest.mark.parametrize(
    "situation", [s for s in EVERY if getattr(ATTACKS[s.name].method, "per_sample", True)], ids=str
)
def test_a_batch_is_its_samples(situation):
    this = case(situation, situation.dtype)
    whole, _ = outcome(situation)
    rtol = 100 * torch.finfo(situation.dtype).eps
    # A search for the smallest radius is many attacks: a look at two samples has to do.
    for n in range(COUNT) if situation.radius else (1, 3):
        alone = this.run(slice(n, n + 1))
        for field in dataclasses.fields(AttackResult):
            one, all_ = getattr(alone, field.name)[0], getattr(whole, field.name)[n]
            torch.testing.assert_close(one, all_, rtol=rtol, atol=rtol, msg=lambda m, f=field.name, n=n: f"{f} {n} {m}")


@pytest.mark.parametrize("situation", [s for s in EVERY if s.dtype != torch.float32], ids=str)
def test_no_gradient_vanishes_that_float32_has(situation):
    here, _ = outcome(situation)
    there = case(situation, torch.float32).run()
    assert int(here.zero_gradient.sum()) <= int(there.zero_gradient.sum())


@pytest.mark.parametrize("name", [row.name for row in ATTACKS])
def test_each_attack_meets_samples_that_fall_and_that_stand(name):
    # Else the promises would be about nothing.
    results = [outcome(s)[0] for s in EVERY if s.name == name]
    assert sum(int((r.success & (r.distance > 0)).sum()) for r in results) >= 3
    assert sum(int((~r.success).sum()) for r in results) >= 3


@pytest.mark.parametrize("axis", [f.name for f in dataclasses.fields(Situation)])
def test_samples_fall_in_every_kind_of_situation(axis):
    fell: dict[Any, list[bool]] = {}
    for s in EVERY:
        found = outcome(s)[0]
        fell.setdefault(getattr(s, axis), []).append(bool((found.success & (found.distance > 0)).any()))
    for value, results in fell.items():
        assert sum(results) >= 0.2 * len(results), value


@pytest.mark.parametrize("name", [row.name for row in ATTACKS])
def test_every_two_values_meet(name):
    axes = ("norm", "target", "classes", "shape", "dtype", "radius")
    sizes = dict(zip(axes, map(len, (ATTACKS[name].norms, TARGETS, CLASSES, SHAPES, DTYPES, RADII))))
    mine = [s for s in EVERY if s.name == name]
    for a, b in itertools.combinations(axes, 2):
        assert len({(getattr(s, a), getattr(s, b)) for s in mine}) == sizes[a] * sizes[b]
