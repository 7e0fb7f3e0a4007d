"""Models that lose a batch of one among axes of length one, and models that write into what they are given."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.fx.experimental.proxy_tensor
import torch.nn.functional as F
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from cases.all_calls import CALLS, CLASSES, READ_LAYERS, Inside
from steadygrad.attacks import FGSM, PGD
from steadygrad.attributions import Saliency

SIDE = 4


class Pooled(nn.Module):
    """Convolution, normalization and global pooling; `drop` takes the axes of length one away."""

    def __init__(self, drop: Callable[[Tensor], Tensor], head: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.drop = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1)), drop
        self.head = head() if head else nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.net(x)))


class Tokens(nn.Module):
    """One row has other axes: its features are averaged where tokens should be, and nothing raises."""

    def __init__(self, drop: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.drop = nn.Sequential(nn.Linear(SIDE, SIDE), nn.Softplus()), drop
        self.head = nn.Linear(SIDE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(self.drop(x)).mean(1))


def _keep(x: Tensor) -> Tensor:
    return x.flatten(1) if x.shape[2:] == (1, 1) else x.squeeze(1)


def _pair(kind: str) -> tuple[nn.Module, nn.Module]:
    """A model that squeezes, and the same as it was meant."""
    return tuple(
        {
            "dies": lambda drop: Pooled(drop),
            "flat": lambda drop: Pooled(drop, lambda: nn.Linear(6, CLASSES)),
            "other axes": Tokens,
            "binary": lambda drop: sg.Classifier(Pooled(drop, _Binary), classes=2, binary=True),
            "binary, dies": lambda drop: sg.Classifier(
                Pooled(drop, functools.partial(_Binary, dies=True)), classes=2, binary=True
            ),
        }[kind](drop).eval()
        for drop in (torch.squeeze, _keep)
    )


class _Binary(nn.Module):
    def __init__(self, dies: bool = False) -> None:
        super().__init__()
        self.line = nn.Sequential(*[nn.BatchNorm1d(6)] * dies, nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x).squeeze()


def _alike(calls: Any, models: tuple[nn.Module, nn.Module], *given: Tensor) -> None:
    found = []
    for model in models:
        torch.manual_seed(0)
        found.append(gates.tensors_of(calls(model, *given)))
    assert found[1]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("kind", ["dies", "flat", "other axes", "binary", "binary, dies"])
@pytest.mark.parametrize("count", [1, 3])
def test_one_row_gives_what_it_gives_among_others(kind: str, count: int) -> None:
    x, models = nets.inputs(count), _pair(kind)
    y = models[1](nets.inputs(4)).argmax(1)[:count]
    _alike(lambda m: PGD(steps=3)(m, x, y, sg.linf(0.3)), models)
    _alike(lambda m: Saliency(of="loss")(m, x, y), models)
    _alike(lambda m: sg.derivatives.hvp(lambda p: sg.calling.logits_of(m, p)[:, 0], x, x), models)
    labels = models[1](nets.inputs(4)).argmax(1)
    labels[0] = (labels[0] + 1) % 2
    data = sg.data.from_arrays(nets.inputs(4), labels, 2 if "binary" in kind else CLASSES)
    attacked = functools.partial(sg.evaluate, data=data, attacks=PGD(steps=3), threat=sg.linf(0.3), batch_size=count)
    _alike(lambda m: torch.from_numpy(attacked(m)["distance"]), models)


# Of the layers in these tests there are no certified bounds.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CALLS if name not in READ_LAYERS])
def test_every_method_takes_one_row_of_a_model_that_squeezes(name: str) -> None:
    # The runner of a measure makes batches of three, so that one of four is left.
    x = nets.inputs(4 if name.startswith(("measure", "defense", "universal")) else 1)
    squeezing, meant = (Inside(nn.Sequential(*nets.build("mlp"), end)).eval() for end in (_Squeeze(), nn.LogSoftmax(1)))
    y = meant(x).argmax(1)
    y[0] = (y[0] + 1) % CLASSES
    _alike(CALLS[name], (squeezing, meant), x, y)


def test_a_squeeze_has_certified_bounds() -> None:
    x, end = nets.inputs(3), lambda: nn.Linear(6, CLASSES)
    squeezing, meant = (Pooled(drop, end).eval() for drop in (torch.squeeze, nn.Flatten()))
    found, wanted = (CALLS["bound certified"](m, x, torch.zeros(3, dtype=torch.int64)) for m in (squeezing, meant))
    torch.testing.assert_close(gates.tensors_of(found), gates.tensors_of(wanted))


class _Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(x.squeeze(), 1)  # raises where one row has lost its axis


class Writing(nn.Module):
    """Writes into its input before the network sees it, in one way or another."""

    def __init__(self, net: nn.Module, first: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.first = net, first

    def forward(self, x: Tensor) -> Tensor:
        found = self.first(x)
        return self.net(x if found is None else found)


def _into_data(x: Tensor) -> None:
    x.data.mul_(0.7)


def _into_array(x: Tensor) -> None:
    x.detach().numpy()[...] *= 0.7


class _Straight(torch.autograd.Function):
    """Times 0.7, with the gradient of the identity: what writing past autograd comes to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 0.7

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


def _graph(x: Tensor) -> None:
    x.sub_(0.3).mul_(2)


WAYS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Tensor]]] = {
    "in the graph": (_graph, lambda x: (x - 0.3) * 2),
    "first layer": (nn.Hardswish(inplace=True), nn.Hardswish()),
    "data": (_into_data, _Straight.apply),
    "array": (_into_array, _Straight.apply),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_caller_s_inputs_are_left_alone(way: str, wrapped: bool) -> None:
    writing, plain = (Writing(nets.build("mlp"), first).eval() for first in WAYS[way])
    if wrapped:
        writing, plain = (sg.Classifier(m, classes=CLASSES) for m in (writing, plain))
    x = nets.inputs(6)
    before, y = x.clone(), plain(x).argmax(1)
    y[0] = (y[0] + 1) % CLASSES
    _alike(lambda m: FGSM()(m, x, y, sg.linf(0.1)), (writing, plain))
    _alike(lambda m: Saliency()(m, x, y), (writing, plain))
    data = sg.data.from_arrays(x, y, CLASSES)
    _alike(lambda m: torch.from_numpy(sg.evaluate(m, data, FGSM(), sg.linf(0.1))["distance"]), (writing, plain))
    assert torch.equal(x, before)
    assert torch.equal(data.tensors()[0], before)


def test_a_subclass_that_writes_gets_a_copy() -> None:
    class Mine(sg.Classifier):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.1))

    model, x = Mine(nets.build("mlp"), classes=CLASSES), nets.inputs(4)
    before, y = x.clone(), torch.zeros(4, dtype=torch.int64)
    plain = sg.Classifier(model.module, mean=0.1, classes=CLASSES)
    _alike(lambda m: PGD(steps=2)(m, x, y, sg.linf(0.1)), (model, plain))
    assert torch.equal(x, before)


def test_a_batch_of_data_is_free_to_be_written_into() -> None:
    x = nets.inputs(4)
    data, before = sg.data.from_arrays(x, torch.tensor([0, 1, 0, 1])), x.clone()
    for index in (slice(None), slice(1, 3), [0, 1]):
        inputs, labels = data.batch(index)
        inputs.zero_()
        labels.zero_()
    assert torch.equal(x, before)
    assert data.labels.tolist() == [0, 1, 0, 1]


# Of the layers in these tests there are no certified bounds.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CALLS if name not in READ_LAYERS])
def test_every_method_gives_the_numbers_of_the_model_written_out_of_place(name: str) -> None:
    x = nets.inputs(4)
    writing, plain = (
        Inside(nn.Sequential(first, *nets.build("mlp"))).eval() for first in (nn.SiLU(inplace=True), nn.SiLU())
    )
    y = plain(x).argmax(1)
    y[0] = (y[0] + 1) % CLASSES
    _alike(CALLS[name], (writing, plain), x, y)


TRANSFORMED: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "exported": lambda m, x: torch.export.export(m, (x,)).module()(x),
    "traced": lambda m, x: torch.jit.trace(m, x)(x),
    "mapped": lambda m, x: torch.func.vmap(lambda row: m(row[None])[0])(x),
    "compiled whole": lambda m, x: torch.compile(m, backend="aot_eager", fullgraph=True)(x),
    "made a graph": lambda m, x: torch.fx.experimental.proxy_tensor.make_fx(m)(x)(x),
    "without values": lambda m, x: copy.deepcopy(m).to("meta")(x.to("meta")),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", TRANSFORMED)
def test_a_classifier_is_transformed_as_any_module_before_it_was_called(way: str) -> None:
    model, x = sg.Classifier(nets.build("mlp"), classes=CLASSES).eval(), nets.inputs(4)
    found = TRANSFORMED[way](model, x)
    assert found.shape == (4, CLASSES)
    if not found.is_meta:
        torch.testing.assert_close(found, model(x))


def test_a_model_that_writes_is_trained_as_one_that_does_not() -> None:
    data = sg.data.from_arrays(nets.inputs(12), torch.arange(12) % CLASSES, CLASSES)
    weights = []
    for first in (_graph, lambda x: (x - 0.3) * 2):
        model = sg.Classifier(Writing(nets.build("conv"), first), classes=CLASSES, input_shape=data.shape)
        how = {"settings": sg.FitSettings(epochs=2, batch_size=4)}
        weights.append(sg.fit(model, sg.defenses.AdversarialTraining(eps=0.1), data, **how).classifier.state_dict())
    assert gates.same(*weights)


def test_data_of_one_row_more_than_batches_have_are_trained_on_with_batch_norm() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    data = sg.data.from_arrays(nets.inputs(5), torch.arange(5) % CLASSES, CLASSES)
    model = sg.Classifier(net, classes=CLASSES, input_shape=data.shape)
    sg.fit(model, sg.defenses.Plain(), data, settings=sg.FitSettings(epochs=1, batch_size=2))
