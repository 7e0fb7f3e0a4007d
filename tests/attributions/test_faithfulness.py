"""Measures of faithfulness against loops; a map of what the model uses beats one that is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
from oracles import faithfulness as oracle
from oracles.perturbation import blurred
from steadygrad.attributions import BlurSaliency, InputXGradient, Saliency
from steadygrad.attributions.faithfulness import (
    MEASURES,
    deletion,
    deletion_gain,
    energy_inside,
    faithfulness,
    gini,
    insertion,
    pointing,
)
from steadygrad.attributions.sanity import parameter_randomization
from steadygrad.classifier import Classifier
from steadygrad.errors import UsageError

SHAPE = (2, 4, 5)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.last = nn.Linear(40, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.last(x.flatten(1))


def _setup() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    x = nets.inputs(3, shape=SHAPE, dtype=torch.float64)
    maps = nets.inputs(3, shape=SHAPE, dtype=torch.float64, seed=4) - 0.5
    maps[0] = maps[0].round()  # with ties
    return _Net(), x, maps, torch.tensor([0, 2, 1])


@pytest.mark.parametrize("steps", [1, 6, 20, 33])
def test_the_curves_are_those_of_loops(steps: int) -> None:
    model, x, maps, target = _setup()
    empty, soft = torch.full_like(x, 0.2), blurred(x, 1.5)
    gone = deletion(model, x, maps, target, steps=steps, fill=0.2)
    back = insertion(model, x, maps, target, steps=steps, sigma=1.5)
    for curve, first, last in ((gone, x, empty), (back, soft, x)):
        scores, areas = oracle.replaced(model, first, last, maps, target, steps)
        torch.testing.assert_close(curve.scores, torch.tensor(scores, dtype=torch.float64))
        torch.testing.assert_close(curve.area, torch.tensor(areas, dtype=torch.float64))
    # Both begin or end with the image itself, and with nothing of it.
    clean = model(x).softmax(1).gather(1, target[:, None])[:, 0].detach()
    torch.testing.assert_close(gone.scores[:, 0], clean)
    torch.testing.assert_close(back.scores[:, -1], clean)


@pytest.mark.parametrize("steps", [1, 6, 33])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("order", ["most", "least"])
def test_both_orders_with_and_without_signs_are_those_of_loops(steps: int, order: Any, signed: bool) -> None:
    model, x, maps, target = _setup()
    empty, soft = torch.full_like(x, 0.2), blurred(x, 1.5)
    how: dict[str, Any] = {"steps": steps, "order": order, "signed": signed}
    gone = deletion(model, x, maps, target, fill=0.2, **how)
    back = insertion(model, x, maps, target, sigma=1.5, **how)
    for curve, first, last in ((gone, x, empty), (back, soft, x)):
        scores, areas = oracle.replaced(model, first, last, maps, target, steps, least=order == "least", signed=signed)
        torch.testing.assert_close(curve.scores, torch.tensor(scores, dtype=torch.float64))
        torch.testing.assert_close(curve.area, torch.tensor(areas, dtype=torch.float64))


@pytest.mark.parametrize("signed", [False, True])
def test_the_gain_is_the_difference_of_both_orders_in_loops(signed: bool) -> None:
    model, x, maps, target = _setup()
    least, most = (
        oracle.replaced(model, x, torch.zeros_like(x), maps, target, 8, least=least, signed=signed)[1]
        for least in (True, False)
    )
    want = torch.tensor(least, dtype=torch.float64) - torch.tensor(most, dtype=torch.float64)
    torch.testing.assert_close(deletion_gain(model, x, maps, target, steps=8, signed=signed), want)


def test_the_gain_of_a_right_map_is_large_of_its_opposite_negative_and_of_chance_none() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).double()
    with torch.no_grad():
        net[1].weight[0] = torch.linspace(-0.2, 0.8, 64)
        net[1].weight[1] = 0
    x, target = torch.ones(40, 1, 8, 8, dtype=torch.float64), torch.zeros(40, dtype=torch.int64)
    weights = net[1].weight[0].detach().view(1, 1, 8, 8).expand_as(x)
    right, wrong = (deletion_gain(net, x, sign * weights, target, signed=True)[0] for sign in (1, -1))
    assert float(right) > 0.1
    assert float(wrong) == pytest.approx(-float(right), abs=1e-9)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(float(deletion_gain(net, x, noise, target).mean())) < 0.1 * float(right)


def test_an_unknown_order_is_refused() -> None:
    model, x, maps, target = _setup()
    with pytest.raises(UsageError, match="order"):
        deletion(model, x, maps, target, order="last")  # type: ignore[arg-type]


def test_shares_of_energy_and_sparsity_are_those_of_loops() -> None:
    _, _, maps, _ = _setup()
    region = torch.rand(3, *SHAPE[1:]) < 0.4
    maps[2] = 0
    want = oracle.energy(maps, region)
    torch.testing.assert_close(energy_inside(maps, region), torch.tensor(want, dtype=torch.float64))
    assert float(energy_inside(1e-30 * maps.float(), region)[0]) == pytest.approx(want[0], rel=1e-5)
    even = [oracle.gini(values) for values in oracle.values_of(maps)]
    torch.testing.assert_close(gini(maps), torch.tensor(even, dtype=torch.float64))
    assert even[2] == 0 < even[1] < 1


def test_the_pointing_game_by_hand() -> None:
    maps = torch.zeros(3, 1, 6, 6)
    maps[0, 0, 2, 3] = maps[1, 0, 5, 5] = -1.0
    maps[2, 0, 0, 0] = 1.0
    boxes = [
        torch.tensor([[0, 0, 1, 1], [2, 3, 3, 4]]),  # the second holds the pixel and no other
        torch.tensor([[2, 2, 5, 5]]),  # ends one pixel before it
        torch.tensor([[2, 2, 4, 4]]),
    ]
    assert pointing(maps, boxes).tolist() == [True, False, False]
    assert pointing(maps, boxes, tolerance=1).tolist() == [True, True, False]
    assert pointing(maps, boxes, tolerance=2).tolist() == [True, True, True]
    # A map of zeros does not point at the first pixel.
    assert not pointing(0 * maps, [torch.tensor([[0, 0, 4, 5]])] * 3).any()


def test_all_measures_together_do_not_depend_on_the_batch_and_leave_no_trace() -> None:
    net, x, target = nets.build("conv"), nets.inputs(4), torch.tensor([0, 2, 1, 1])
    reference = BlurSaliency(grid=3)

    def call(p: Tensor, t: Tensor, model: nn.Module = net) -> dict[str, Tensor]:
        return faithfulness(model, p, InputXGradient(), reference, target=t, steps=5)

    found = call(x, target)
    assert list(found) == list(MEASURES)
    gates.assert_batch_invariant(call, x, target, rtol=1e-4)
    model = nn.Sequential(nn.Dropout(0.5), net)
    gates.assert_leaves_no_trace(model, lambda: call(x, target, model), inputs=[x, target], failing_at=(0, 2, 5, 12))
    # Without a target it is the predicted class.
    own = net(x).argmax(1)
    for name, values in faithfulness(net, x, InputXGradient(), reference, steps=5).items():
        torch.testing.assert_close(values, call(x, own)[name])


def test_the_map_of_what_the_model_uses_wins() -> None:
    # Only the upper left quarter counts. The true map points there, the wrong one elsewhere.
    class Quarter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([8 * x[:, 0, :4, :4].mean((1, 2)) - 3, torch.zeros(len(x))], 1)

    model, x = Quarter(), 0.5 + nets.inputs(6, shape=(1, 8, 8)) / 2
    target = torch.zeros(6, dtype=torch.long)
    true = Saliency()(model, x, target)
    wrong = true.flip(2, 3)
    assert bool((deletion(model, x, true, target).area < deletion(model, x, wrong, target).area).all())
    gained = [insertion(model, x, maps, target, fill=0.0).area for maps in (true, wrong)]
    assert bool((gained[0] > gained[1]).all())


def test_randomizing_a_layer_changes_the_map_of_the_model_and_not_that_of_the_input() -> None:
    class Edges(Saliency):
        """A map that looks at the input alone."""

        def maps(self, forward: Any, x: Tensor, target: Tensor, *, create_graph: bool) -> Tensor:
            return x - x.mean()

    net = nets.build("residual", activation=nn.Tanh)
    model = Classifier(net, classes=3)
    x = nets.inputs(6)
    gates.unsettle(model)
    before = gates.state_of(model, [x])
    found = parameter_randomization(Saliency(), model, x)
    after = gates.state_of(model, [x])
    assert all(gates.same(before[part], after[part]) for part in before)
    assert found.layers == ("module.head", "module.inner", "module.norm", "module.stem")
    assert found.similarity.shape == (4, 6)
    assert float(found.similarity[-1].mean()) < 0.7
    again = parameter_randomization(Saliency(), model, x[:2], seed=0)
    torch.testing.assert_close(again.similarity, found.similarity[:, :2])
    assert not torch.equal(parameter_randomization(Saliency(), model, x, seed=1).similarity, found.similarity)
    assert torch.equal(parameter_randomization(Edges(), model, x).similarity, torch.ones(4, 6))


def test_a_layer_that_cannot_be_reset_is_shuffled() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(16.0).view(1, 4, 4) ** 2)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    model = nn.Sequential(Scale(), nn.Flatten(), nn.Linear(16, 2))
    found = parameter_randomization(Saliency(), model, nets.inputs(3))
    assert found.layers == ("2", "0")
    assert float((found.similarity[1] - found.similarity[0]).abs().min()) > 0.01


def test_weights_that_are_used_without_a_call_are_randomized_too() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.among = nn.MultiheadAttention(4, 2, batch_first=True)
            self.last = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            rows = x[:, 0]
            mixed: Tensor = self.among(rows, rows, rows, need_weights=False)[0]
            logits: Tensor = self.last(mixed.mean(1))
            return logits

    seen: list[Tensor] = []

    class Watching(Saliency):
        def __call__(self, model: nn.Module, *given: Any, **more: Any) -> Tensor:
            seen.append(model.get_parameter("among.out_proj.weight").detach().clone())
            return super().__call__(model, *given, **more)

    found = parameter_randomization(Watching(), Attends(), nets.inputs(3))
    assert found.layers == ("last", "among")
    assert [torch.equal(weight, seen[0]) for weight in seen] == [True, True, False]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x, maps: deletion(m, x, maps.transpose(2, 3)), "maps must have the shape of x"),
        (lambda m, x, maps: deletion(m, x, maps[:, :, :2]), "maps must have the shape of x"),
        (lambda m, x, maps: deletion(m, x, maps, steps=0), "steps must be at least 1"),
        (lambda m, x, maps: insertion(nn.Linear(3, 2), torch.rand(2, 3), torch.rand(2, 3)), "give a value instead"),
        (lambda m, x, maps: energy_inside(maps, maps[:, 0]), "region must be bool"),
        (lambda m, x, maps: pointing(maps, [torch.zeros(1, 4)]), r"boxes must be 3 tensors \(B, 4\)"),
        (lambda m, x, maps: parameter_randomization(Saliency(), nn.Flatten(), x), "no layer with weights"),
    ],
)
def test_bad_input_is_refused(call: Any, words: str) -> None:
    model, x, maps, _ = _setup()
    with pytest.raises(UsageError, match=words):
        call(model, x, maps)
