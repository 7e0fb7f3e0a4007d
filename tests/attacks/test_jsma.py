"""JSMA against the formulas with all pairs, its passes and its memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import gates
import nets
from oracles import jsma as oracle
from steadygrad.attacks import JSMA, jsma
from steadygrad.attacks.jsma import best_pair
from steadygrad.errors import UsageError
from steadygrad.threat import l0


def _fields(kind: int, entries: int) -> tuple[Tensor, Tensor]:
    a, c = torch.randn(2, 4, entries, dtype=torch.float64)
    if kind == 1:  # many ties
        a, c = torch.randint(-3, 4, (2, 4, entries)).double()
    elif kind == 2:  # almost every entry is a candidate
        c = 0.5 * torch.randint(0, 2, a.shape) - a
    elif kind == 3:  # few different entries, many times
        some = torch.randint(min(3, entries), (entries,))
        a, c = a[:, some], c[:, some]
    return a, c


@pytest.mark.parametrize("block", [1, 2**22])
def test_the_best_pair_is_that_of_brute_force(block, monkeypatch):
    monkeypatch.setattr(jsma, "_BLOCK", block)
    seen = {True: 0, False: 0}
    for case in range(200):
        a, c = _fields(case % 4, 2 + case % 17)
        able = torch.rand(a.shape) > 0.2
        pairs, found = best_pair(a, c, able)
        for row in range(4):
            score = oracle.best_score(a[row].numpy(), c[row].numpy(), able[row].tolist())
            seen[score is not None] += 1
            assert bool(found[row]) == (score is not None)
            if score is not None:
                p, q = pairs[row].tolist()
                assert p != q
                assert able[row, p]
                assert able[row, q]
                assert float((a[row, p] + a[row, q]) * (c[row, p] + c[row, q])) == score
    assert min(seen.values()) > 50


def test_the_largest_two_gradients_are_not_always_the_best_pair():
    # Entry 2 alone is poor, but it mends what entry 0 spoils.
    a, c = torch.tensor([[9.0, 2.0, -1.0]]), torch.tensor([[-4.0, 2.0, 8.0]])
    pair, _ = best_pair(a, c, torch.ones(1, 3, dtype=torch.bool))
    assert pair.tolist() == [[0, 2]]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    ("theta", "classes", "kind"), [(1.0, 3, "conv"), (-1.0, 2, "attention"), (0.3, 10, "mlp"), (-0.4, 5, "conv")]
)
def test_points_equal_the_formula(lively, kind, classes, theta, targeted):
    model, x, y = lively(kind, classes=classes)
    x[:, :, 0, :2], x[:, :, 1, :2] = 0.0, 1.0
    y = model(x).argmax(1)
    goals = (y + 1) % classes if targeted else None
    for eps, most in ((2, 2), (5, 5), (16, 8), (None, 8)):
        attack = JSMA(theta=theta, gamma=0.5)
        result = attack(model, x, y, l0(eps), target=goals)
        raw = attack.perturb(model, x, y, l0(eps), target=goals)
        for i, row in enumerate(x.numpy()):
            goal = int(goals[i]) if targeted else None
            point, success, taken = oracle.attack(model, row, int(y[i]), goal, theta, most)
            assert bool(result.success[i]) == success
            assert int(result.backwards[i]) == 2 * taken
            torch.testing.assert_close(result.inputs[i], torch.from_numpy(point) if success else x[i])
            if not success:
                torch.testing.assert_close(raw[i], torch.from_numpy(point))


def test_an_untargeted_attack_falls_on_digits_within_the_share(digits):
    model, x, y = digits
    result = JSMA()(model, x[:100], y[:100], l0())
    assert result.success.float().mean() > 0.6
    assert result.distance[result.success].max() <= 0.145 * 64
    more = JSMA(gamma=0.5)(model, x[:100], y[:100], l0())
    assert more.success.sum() > result.success.sum()
    assert (more.success | ~result.success).all()


@pytest.mark.parametrize("goal", range(10))
def test_any_target_is_reached_by_most(digits, goal):
    model, x, y = digits
    rows = (y != goal).nonzero().squeeze(1)[:20]
    result = JSMA(gamma=0.8)(model, x[rows], y[rows], l0(), target=torch.full((20,), goal))
    assert result.success.float().mean() > 0.6
    assert (model(result.inputs[result.success]).argmax(1) == goal).all()


def test_one_forward_and_two_backwards_per_step(digits):
    net, x, y = digits
    model = copy.deepcopy(net)
    result = JSMA()(model, x[:40], y[:40], l0())
    # The clean look, one per step, two by the judge for what is found.
    steps = result.forwards - 1 - 2 * result.success
    alright = (model(x[:40]).argmax(1) == y[:40]).nonzero().squeeze(1)
    assert torch.equal(result.backwards[alright], 2 * steps[alright])
    # The last of the steps sees the point that ends the search; each one before moved at most two entries.
    fell = alright[result.success[alright]]
    assert (result.distance[fell] <= 2 * (steps[fell] - 1)).all()
    with gates.counted(model) as passes:
        alone = JSMA()(model, x[fell[:1]], y[fell[:1]], l0())
    assert passes["backwards"] == int(alone.backwards)
    assert passes["forwards"] == int(alone.forwards) - 1  # the judge runs two samples in one call


class _Largest(TorchDispatchMode):
    """Sees the largest tensor made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.numel())
        return out


def test_memory_grows_with_the_entries_not_with_their_square():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4)), torch.rand(2, 3, 64, 64)
    with torch.no_grad(), _Largest() as seen:
        JSMA(gamma=0.0005).perturb(model, x, torch.tensor([0, 1]), l0())
    assert x.numel() <= seen.entries <= 4 * x.numel()


def test_even_if_every_entry_is_a_candidate_memory_is_bounded():
    a = torch.linspace(-1, 1, 3000)[None]
    with _Largest() as seen:
        _, found = best_pair(a, 1e-3 - a, torch.ones(1, 3000, dtype=torch.bool))
    assert found
    assert seen.entries <= max(jsma._BLOCK, 3000)


@pytest.mark.parametrize(("theta", "value"), [(1.0, 1.0), (-1.0, 0.0)])
def test_entries_at_their_bound_leave_the_search(digits, theta, value):
    model, x, y = digits
    free = torch.zeros_like(x[:20], dtype=torch.bool)
    free[:, :, 2:5] = True
    stuck = torch.where(free, x[:20], value)
    moved = JSMA(theta=theta, gamma=1.0).perturb(model, stuck, y[:20], l0()) != stuck
    assert moved.any()
    assert not (moved & ~free).any()


@pytest.mark.parametrize("theta", [1.0, -0.4])
def test_the_target_alone_moves_the_two_entries_that_raise_it_most(lively, theta):
    model, x, y = lively("conv", count=6, classes=5)
    goals = (y + 1) % 5
    points = JSMA(theta=theta, gamma=1.0, score="target").perturb(model, x, y, l0(2), target=goals)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf).gather(1, goals[:, None]).sum(), leaf)
    gain = (slope * ((x + theta).clamp(0, 1) - x)).flatten(1)
    best = gain.topk(2).indices
    assert (gain.gather(1, best) > 0).all()
    if theta == 1.0:  # one step uses the radius up
        changed = (points != x).flatten(1)
        assert torch.equal(changed, torch.zeros_like(changed).scatter(1, best, True))
    assert (model(points) - model(x)).gather(1, goals[:, None]).mean() > 0


@pytest.mark.parametrize("score", ["product", "target"])
def test_several_pairs_per_step_cost_fewer_passes(digits, score):
    model, x, y = digits
    one, three = (JSMA(gamma=1.0, score=score, pairs=p)(model, x[:50], y[:50], l0(24)) for p in (1, 3))
    assert one.success.float().mean() > 0.9
    assert three.success.float().mean() > 0.9
    assert three.backwards.sum() < 0.8 * one.backwards.sum()
    assert three.distance.median() <= one.distance.median() + 4
    per_step = 2 if score == "product" else 1
    with gates.counted(model) as passes:
        JSMA(gamma=1.0, score=score).perturb(model, x[:1], y[:1], l0(2), target=(y[:1] + 1) % 10)
    assert passes["backwards"] == per_step * (passes["forwards"] - 1)
    odd = JSMA(gamma=1.0, score=score, pairs=3).perturb(model, x[:50], y[:50], l0(9))
    assert ((odd != x[:50]).flatten(1).sum(1) <= 9).all()


def test_an_entry_beside_its_bound_is_not_chosen_for_its_slope():
    class Linear(nn.Module):
        def forward(self, x):
            flat = x.flatten(1)
            goal = 5 * flat[:, 0] + 5 * flat[:, 1] + flat[:, 2] + flat[:, 3]
            return torch.stack([torch.full_like(goal, 100.0), goal, -goal], 1)

    x = torch.tensor([[0.999, 0.999, 0.0, 0.0]], dtype=torch.float64).view(1, 1, 2, 2)
    for score in ("product", "target"):
        points = JSMA(gamma=1.0, score=score).perturb(Linear(), x, torch.tensor([0]), l0(2), target=torch.tensor([1]))
        assert points.flatten().tolist() == [0.999, 0.999, 1.0, 1.0]


def test_where_nothing_can_move_the_clean_input_comes_back(digits):
    model = digits[0]
    x = torch.ones(3, 1, 8, 8)
    y = model(x).argmax(1)
    result = JSMA()(model, x, y, l0())
    assert not result.success.any()
    assert torch.equal(result.inputs, x)
    assert torch.isinf(result.distance).all()
    assert torch.equal(result.backwards, torch.tensor([2, 2, 2]))


def test_a_radius_for_each_sample_and_odd_ones_are_used_up(digits):
    model, x, y = digits
    most = torch.arange(40) % 8
    points = JSMA(gamma=1.0).perturb(model, x[:40], y[:40], l0(most.double()))
    changed = (points != x[:40]).flatten(1).sum(1)
    assert (changed <= most).all()
    # Rarely is there no entry that both raises the goal and lowers the rest.
    assert (changed == most).float().mean() > 0.9
    whole = JSMA(gamma=1.0)(model, x[:40], y[:40], l0(most.double()))
    for eps in range(8):
        rows = most == eps
        alone = JSMA(gamma=1.0)(model, x[:40][rows], y[:40][rows], l0(eps))
        assert torch.equal(alone.success, whole.success[rows])
        assert torch.equal(alone.inputs, whole.inputs[rows])
        assert torch.equal(alone.backwards, whole.backwards[rows])


def test_two_classes_and_a_table(lively):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    x = torch.rand(30, 20, dtype=torch.float64)
    with torch.no_grad():
        model[2].bias -= model(x).mean(0)
    y = model(x).argmax(1)
    result = JSMA(gamma=0.5)(model, x, y, l0())
    assert result.success.float().mean() > 0.9
    assert (model(result.inputs[result.success]).argmax(1) != y[result.success]).all()


def test_constants_added_to_the_logits_change_nothing(digits):
    net, x, y = digits

    class Shifted(nn.Module):
        def forward(self, x):
            return net(x) - 100

    for target in (None, "least-likely"):
        a, b = (JSMA()(m, x[:30], y[:30], l0(), target=target) for m in (net, Shifted()))
        assert (a.success == b.success).float().mean() > 0.9
        assert (a.inputs == b.inputs).flatten(1).all(1).float().mean() > 0.9


def test_the_range_of_the_inputs_does_not_matter(lively):
    model, x, y = lively()

    class Wide(nn.Module):
        def forward(self, x):
            return model(x / 255)

    small = JSMA(theta=0.4, gamma=1.0)(model, x, y, l0())
    large = JSMA(theta=0.4, gamma=1.0)(Wide(), 255 * x, y, l0(None, bounds=(0.0, 255.0)))
    assert small.success.any()
    assert torch.equal(small.success, large.success)
    torch.testing.assert_close(255 * small.inputs, large.inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_and_double_find_as_many(digits, dtype):
    net, x, y = digits
    expected = JSMA()(net, x[:100], y[:100], l0())
    result = JSMA()(copy.deepcopy(net).to(dtype), x[:100].to(dtype), y[:100], l0())
    assert abs(float(result.success.float().mean() - expected.success.float().mean())) < 0.06
    assert torch.equal(result.zero_gradient, expected.zero_gradient)


def test_a_model_without_a_gradient_is_refused():
    class Detached(nn.Sequential):
        def forward(self, x):
            return super().forward(x.detach())

    model, x = Detached(nets.build("mlp")), nets.inputs(2)
    with pytest.raises(UsageError, match="carries no gradient"):
        JSMA()(model, x, model(x).argmax(1), l0())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"theta": 0.0}, r"theta must be within \[-1, 1\] .* not 0, got 0.0"),
        ({"theta": -1.5}, "got -1.5"),
        ({"gamma": 0.0}, "gamma must be a share"),
        ({"gamma": 1.5}, "gamma must be a share"),
        ({"score": "sum"}, "score"),
        ({"pairs": 0}, "pairs must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        JSMA(**settings)
