"""Models that return an object, a dict or a tuple give the numbers of the logits in it, or are refused by name."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gates
import nets
import steadygrad as sg
from cases.all_calls import CALLS, CLASSES, Inside
from steadygrad.attacks import FGSM
from steadygrad.attributions import Saliency


@dataclasses.dataclass
class Output:
    loss: Tensor | None
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


class Ordered(collections.OrderedDict):  # such as Hugging Face returns
    @property
    def logits(self) -> Tensor:
        return self["logits"]


Named = collections.namedtuple("Named", "loss logits")
Unnamed = collections.namedtuple("Unnamed", "scores weights")
Wrong = collections.namedtuple("Wrong", "main auxiliary")


class Form(nn.Module):
    def __init__(self, net: nn.Module, form: Any) -> None:
        super().__init__()
        self.net, self.form = net, form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


class InAnObject(Inside):
    def forward(self, x: Tensor) -> Any:
        return Output(None, self.net(x))


TAKEN = {
    "object": lambda z: Output(None, z, (z,)),
    "named tuple": lambda z: Named(None, z),
    "ordered dict": lambda z: Ordered(logits=z, hidden=z),
    "dict": lambda z: {"logits": z, "features": z},
    "dict of one": lambda z: {"out": z},
    "tuple of one": lambda z: (z,),
    "list of one": lambda z: [z],
    "loss and logits": lambda z: (z.mean(), z),
    "logits and maps": lambda z: (z, z[:, :, None, None]),
    "logits and nothing": lambda z: (z, None),
    "logits and a number of each": lambda z: (z, z[:, 0]),
    "dict of logits and maps": lambda z: {"scores": z, "maps": z[:, :, None]},
    "tuple named otherwise": lambda z: Unnamed(z, z[0]),
    "logits inside a named tuple": lambda z: Named(z.mean(), z),
}
REFUSED = {
    "two tensors": (lambda z: (z, z), r"tuple \(0: \(6, 3\), 1: \(6, 3\)\) for 6 inputs: wrap the model"),
    "two named ones": (lambda z: Wrong(z, z), r"Wrong \(main: \(6, 3\), auxiliary: \(6, 3\)\)"),
    "a dict of two": (lambda z: {"a": z, "b": z}, r"dict \('a': \(6, 3\), 'b': \(6, 3\)\)"),
    "logits and features": (lambda z: (z, z.repeat(1, 2)), r"0: \(6, 3\), 1: \(6, 6\)"),
    "nothing": (lambda z: None, "got NoneType"),
    "a number": (lambda z: 1.0, "got float"),
    "an array": (lambda z: z.detach().numpy(), "got ndarray"),
    "an empty tuple": (lambda z: (), "got tuple for"),
    "an empty dict": (lambda z: {}, "got dict for"),
    "a tuple of one vector": (lambda z: (z[:, 0],), r"got shape \(6,\)"),
    "a tuple of maps": (lambda z: (z[:, :, None],), r"got shape \(6, 3, 1\)"),
    "logits without values": (lambda z: {"logits": None}, r"got dict \('logits': NoneType\)"),
}


@pytest.fixture(scope="module")
def batch() -> tuple[nn.Module, Tensor, Tensor]:
    net, x = nets.build("mlp", activation=nn.Softplus), nets.inputs(6)
    y = net(x).argmax(1)
    y[0] = (y[0] + 1) % CLASSES
    return net, x, y


@pytest.mark.parametrize("form", TAKEN)
@pytest.mark.parametrize("inside", ["plain", "classifier"])
def test_the_logits_are_taken_out(batch, form: str, inside: str) -> None:
    net, x, y = batch
    model = Form(net, TAKEN[form])
    wrapped = sg.Classifier(model, classes=CLASSES) if inside == "classifier" else model
    found, wanted = (FGSM()(m, x, y, sg.linf(0.1)).inputs for m in (wrapped, net))
    assert torch.equal(found, wanted)
    assert torch.equal(Saliency()(wrapped, x, y), Saliency()(net, x, y))


@pytest.mark.parametrize("form", REFUSED)
def test_what_may_be_something_else_is_refused(batch, form: str) -> None:
    net, x, y = batch
    make, message = REFUSED[form]
    for call in (
        lambda m: FGSM()(m, x, y, sg.linf(0.1)),
        lambda m: FGSM().perturb(m, x, y, sg.linf(0.1)),
        lambda m: Saliency()(m, x, y),
        lambda m: sg.attributions.faithfulness.deletion(m, x, x),
    ):
        with pytest.raises(sg.UsageError, match=message):
            call(Form(net, make))


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_every_method_gives_the_numbers_of_the_plain_model(batch, name: str) -> None:
    net, x, y = batch
    results = []
    for model in (Inside(net), InAnObject(net)):
        torch.manual_seed(0)
        results.append(gates.tensors_of(CALLS[name](model, x, y)))
    plain, found = results
    assert plain
    torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_training_and_auditing_give_the_numbers_of_the_plain_model(digits) -> None:
    data, found = digits.take(40), []
    for form in (lambda z: z, TAKEN["object"]):
        net = Form(nets.build("mlp", shape=data.shape, classes=10, activation=nn.Softplus), form)
        model = sg.Classifier(net, classes=10, input_shape=data.shape)
        settings = sg.FitSettings(epochs=2, batch_size=8)
        sg.fit(model, sg.defenses.AdversarialTraining(eps=0.1), data, settings=settings)
        audit = sg.audit({"m": model}, data, sg.linf(0.05), attacks=[FGSM()], gallery=2, checked=10)
        found.append((model.module.net.state_dict(), audit.records.frame, audit.summary["models"][0]["robust"]))
    assert gates.same(found[0][0], found[1][0])
    assert found[0][1].equals(found[1][1])
    assert found[0][2] == found[1][2]
