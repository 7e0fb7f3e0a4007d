"""Scripted, traced and compiled models, models of one batch size, and models in wrappers: the numbers of the module."""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from cases.all_calls import CALLS, CLASSES, READ_LAYERS, Inside
from steadygrad.attacks import FGSM, PGD, Square
from steadygrad.attributions import IntegratedGradients, Saliency


class OfSize(nn.Module):
    """Takes batches of one size only, as a graph that was exported does."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.view(self.size, 1, 4, 4))


class AtLeast(OfSize):
    def forward(self, x: Tensor) -> Tensor:
        assert len(x) >= self.size, f"give at least {self.size}"
        return self.net(x)


class Squeezed(OfSize):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze()


def _traced(net: nn.Module, x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls TorchScript deprecated
        return torch.jit.trace(net, x)


def _scripted(net: nn.Module, x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(net.net)


def _frozen(net: nn.Module, x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.freeze(torch.jit.script(copy.deepcopy(net.net).eval()))


def _compiled(net: nn.Module) -> Any:
    return torch.compile(net, backend="aot_eager")


KINDS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "scripted": _scripted,
    "scripted and frozen": _frozen,
    "traced": _traced,
    "exported": lambda net, x: torch.export.export(net, (x,)).module(),
    "of size 1": lambda net, x: OfSize(net.net, 1),
    "of size 4": lambda net, x: OfSize(net.net, 4),
    "of size 6": lambda net, x: OfSize(net.net, 6),
    "of size 9": lambda net, x: OfSize(net.net, 9),
    "of size 100": lambda net, x: OfSize(net.net, 100),
    "of at least 3": lambda net, x: AtLeast(net.net, 3),
    "squeezed": lambda net, x: Squeezed(net.net, 0),
    "compiled": lambda net, x: _compiled(net),
    "compiled in part": lambda net, x: Inside(_compiled(net.net)),
    "in a classifier": lambda net, x: sg.Classifier(_compiled(net), classes=CLASSES),
    "data parallel": lambda net, x: nn.DataParallel(net),
    "parallel and compiled": lambda net, x: nn.DataParallel(_compiled(net)),
}
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # that is what compilation looks at
WALKED = ("traced", "scripted", "of size 4", "compiled", "data parallel")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def batch() -> tuple[nn.Module, Tensor, Tensor]:
    net, x = nets.build("mlp", activation=nn.Softplus), nets.inputs(6)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % CLASSES
    return Inside(net).eval(), x, y


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_maps_and_audits_give_the_numbers_of_the_module(batch, kind: str) -> None:
    net, x, y = batch
    model = KINDS[kind](net, x)
    model = model if kind == "exported" else model.eval()
    data = sg.data.from_arrays(x, y, CLASSES)
    for call in (
        lambda m: PGD(steps=4, restarts=2)(m, x, y, sg.linf(0.2)),
        lambda m: Square(queries=8)(m, x, y, sg.linf(0.2)),
        lambda m: Saliency()(m, x[:1], y[:1]),
        lambda m: IntegratedGradients(steps=3, chunk=4)(m, x, y),
        lambda m: torch.from_numpy(sg.evaluate(m, data, FGSM(), sg.linf(0.2))["distance"]),
    ):
        wanted, found = gates.tensors_of(call(net)), gates.tensors_of(call(model))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def refused(name: str, kind: str) -> str:
    """What a method says that needs to look inside, or nothing."""
    if name.startswith("measure") and kind == "of size 4" and name not in READ_LAYERS:
        return ""  # the runner's batches of three are filled up to that
    layers = name in ("neurons", "movers") or any(word in name for word in ("neuron", "moved_boxes"))
    if name in READ_LAYERS and kind in ("traced", "scripted", "of size 4"):
        return "no certified bound for|cannot be read as a fixed row of layers"
    if layers and kind in ("traced", "scripted", "of size 4"):
        return "is TorchScript|there is no layer|must put out a tensor|before the logits|no call|cannot take"
    if kind in ("traced", "scripted"):
        return {"measure randomized_layers": "TorchScript", "defense parseval": "parseval needs"}.get(name, "")
    return ""


# All pairs take ten minutes: the kinds go round, so that each meets methods of all sorts.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), list(zip(CALLS, itertools.cycle(WALKED), strict=False)))
def test_every_method_gives_the_numbers_of_the_module_or_says_why_not(batch, name: str, kind: str) -> None:
    net, x, y = batch
    model = KINDS[kind](net, x).eval()
    torch.manual_seed(0)
    wanted = gates.tensors_of(CALLS[name](net, x, y))
    torch.manual_seed(0)
    if refused(name, kind):
        # The table of a measure that may refuse holds the error.
        with pytest.raises((sg.UsageError, AssertionError), match=refused(name, kind)):
            CALLS[name](model, x, y)
        return
    found = gates.tensors_of(CALLS[name](model, x, y))
    for part, value in wanted.items():
        torch.testing.assert_close(found[part], value, rtol=2e-3, atol=1e-5, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["traced", "of size 4", "compiled", "exported"])
def test_an_audit_gives_the_numbers_of_the_module(batch, kind: str) -> None:
    net, x, y = batch
    model, data = KINDS[kind](net, x), sg.data.from_arrays(x, y, CLASSES)
    wanted, found = (
        sg.audit({"m": m}, data, sg.linf(0.1), attacks=[FGSM()], gallery=0).summary["models"][0] for m in (net, model)
    )
    for number in ("clean", "robust"):
        assert found[number] == wanted[number]


def test_what_a_model_says_about_a_batch_is_told_when_no_size_fits(batch) -> None:
    net, _, y = batch
    for wrong in (nets.inputs(6, shape=(1, 5, 5)), nets.inputs(5, shape=(2, 4, 4))):
        for model in (net, OfSize(net.net, 6), sg.Classifier(net, classes=CLASSES)):
            with pytest.raises(sg.UsageError, match=r"cannot take samples of shape .* RuntimeError: .* give data of"):
                FGSM()(model, wrong, y[: len(wrong)], sg.linf(0.1))


def test_no_sample_is_there_twice_in_training() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    classifier = sg.Classifier(net, classes=3).train()
    with pytest.raises(sg.UsageError, match="Expected more than 1 value per channel"):
        classifier(nets.inputs(1))


@pytest.mark.parametrize("normed", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weight_norm_old_and_new(normed: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = nn.Sequential(nn.Flatten(), normed(nn.Linear(16, 8)), nn.Softplus(), nn.Linear(8, 3)).eval()
    plain = copy.deepcopy(nets.build("mlp"))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 3)).eval()
    x, y = nets.inputs(6), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        plain[1].weight.copy_(net[1].weight)
        plain[1].bias.copy_(net[1].bias)
    plain[3].load_state_dict(net[3].state_dict())
    for call in (
        lambda m: PGD(steps=3)(m, x, y, sg.linf(0.1)).inputs,
        lambda m: Saliency()(m, x, y),
        lambda m: sg.bounds.LinearizedDeviation(Saliency(of="loss"))(m, x, y, sg.linf(0.01)).upper,
    ):
        torch.testing.assert_close(call(net), call(plain), rtol=1e-4, atol=1e-5)
    settings = sg.FitSettings(epochs=1, batch_size=3)
    model = sg.Classifier(net, classes=3)
    sg.fit(model, sg.defenses.InputGradientPenalty(0.1), sg.data.from_arrays(x, y, 3), settings=settings)
    assert sg.audit(model, sg.data.from_arrays(x, y, 3), sg.linf(0.1), gallery=0).summary["models"]


def test_tied_weights_are_saved_and_loaded(tmp_path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x.flatten(1)).relu()).relu())

    model, x = sg.Classifier(Tied(), classes=3), nets.inputs(3)
    model.save(tmp_path / "tied.safetensors")
    again = sg.Classifier(Tied(), classes=3).load_weights(tmp_path / "tied.safetensors")
    assert torch.equal(again(x), model(x))
    assert again.module.first.weight is again.module.second.weight


@pytest.mark.parametrize("form", ["compiled", "data parallel", "parallel and compiled"])
def test_wrapped_models_are_saved_under_the_names_of_the_module(batch, tmp_path, form: str) -> None:
    net, x, _ = batch
    sg.Classifier(KINDS[form](net, x), classes=CLASSES).save(tmp_path / "m.safetensors")
    fresh = sg.Classifier(Inside(nets.build("mlp", activation=nn.Softplus, seed=1)), classes=CLASSES)
    assert torch.equal(fresh.load_weights(tmp_path / "m.safetensors")(x), net(x))
    wrapped = sg.Classifier(KINDS[form](copy.deepcopy(fresh.module), x), classes=CLASSES)
    assert torch.equal(wrapped.load_weights(tmp_path / "m.safetensors")(x), net(x))


class Counting(nn.Module):
    """Keeps what it has seen: in buffers that it writes and replaces."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("written", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.written += len(x)
        self.replaced = self.replaced + len(x)
        return self.net(x)


def test_what_a_model_keeps_of_its_forwards_is_as_before(batch) -> None:
    net, x, y = batch
    model = Counting(net.net)
    before = model.replaced
    for call in (
        lambda: FGSM()(model, x, y, sg.linf(0.1)),
        lambda: Saliency()(model, x, y),
        lambda: sg.evaluate(model, sg.data.from_arrays(x, y, CLASSES), FGSM(), sg.linf(0.1)),
    ):
        call()
        assert model.replaced is before
        assert model.written == model.replaced == 0


@pytest.mark.parametrize("training", [False, True])
def test_spectral_norm_in_both_modes(training: bool) -> None:
    net = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(16, 3))).train(training)
    x, y = nets.inputs(4), torch.tensor([0, 1, 2, 0])
    before = copy.deepcopy(net.state_dict())
    weight = copy.deepcopy(net).eval()[1].weight.detach()
    torch.testing.assert_close(Saliency()(net, x, y), weight[y].view_as(x))
    FGSM()(net, x, y, sg.linf(0.1))
    assert gates.same(net.state_dict(), before)
    assert net.training is training
