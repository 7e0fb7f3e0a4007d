"""Wrong calls of an attack are refused with what came, what was expected and the way out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nets
import steadygrad as sg
from steadygrad.attacks import ATTACKS, BIM, FGSM, PGD
from steadygrad.errors import Failure, UsageError
from steadygrad.threat import Threat, l0, linf

MODEL = nets.build("mlp")
X, Y = nets.inputs(3), torch.tensor([0, 1, 2])


class Output(nn.Module):
    """Returns what it is told to, with a graph to the input where that is a tensor."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Any:
        return self.value + 0 * x.sum() if isinstance(self.value, Tensor) else self.value


CALLS: list[tuple[dict[str, Any], str]] = [
    ({"x": X * 4 - 2}, r"inputs must lie within \[0, 1\], got \[-1\.\d+, 1\.\d+\]: did you normalize"),
    ({"x": X * 255}, r"got \[\d.*, 2\d\d.*\]: did you normalize"),
    (
        {"x": X.clone().index_fill(0, torch.tensor([1]), math.nan)},
        "inputs must be finite, got NaN .* in 1 of 3",
    ),
    ({"x": (X * 255).to(torch.uint8)}, "floating-point batch .* got torch.uint8"),
    ({"x": X[:0], "y": Y[:0]}, "batch of inputs is empty"),
    ({"y": torch.tensor([0, 1, 3])}, r"y must hold labels within 0\.\.2 \(the model has 3 classes\), got 0\.\.3"),
    ({"y": torch.tensor([0, -1, 2])}, r"got -1\.\.2"),
    ({"y": Y.float()}, r"y must hold integer labels of shape \(N,\), got torch.float32"),
    ({"y": Y > 0}, "got torch.bool"),
    ({"y": Y[:2]}, r"y must hold integer labels of shape \(3,\), got torch.int64 of shape \(2,\)"),
    ({"y": Y[:, None]}, r"of shape \(3, 1\)"),
    ({"threat": linf(torch.tensor([0.1, 0.2]))}, "eps has 2 entries for a batch of 3"),
    ({"threat": l0(2)}, "PGD works for linf, l2, l1, not for l0"),
    ({"target": torch.tensor([0, 1])}, r"target must hold integer labels of shape \(3,\), got .* \(2,\)"),
    ({"target": torch.tensor([0, 1]), "threat": linf()}, "target must hold integer labels"),
    ({"target": torch.tensor([0.0, 1.0, 2.0])}, "got torch.float32"),
    ({"target": Y > 0}, "got torch.bool"),
    ({"target": torch.tensor([0, 1, 7])}, r"target must hold labels 0\.\.2, got 0\.\.7"),
    ({"target": "least_likely"}, "no target 'least_likely'; did you mean 'least-likely'"),
    ({"target": 3}, r"target must hold labels 0\.\.2, got 3\.\.3"),
    ({"generator": torch.tensor([1, 2])}, r"generator must give seeds, integers of shape \(3,\)"),
    ({"attack": PGD(loss="kl"), "target": "random"}, "not to a target"),
]


@pytest.mark.parametrize("verb", ["call", "perturb"])
@pytest.mark.parametrize(("change", "message"), CALLS)
def test_wrong_calls_are_refused(change, message, verb):
    given = {"x": X, "y": Y, "threat": linf(0.1), "target": None, "generator": None, "attack": PGD(steps=2), **change}
    attack, threat = given["attack"], given["threat"]
    if verb == "perturb":  # which needs a radius
        threat = threat if threat.eps is not None else threat.at(0.1)
    run = attack if verb == "call" else attack.perturb
    with pytest.raises(UsageError, match=message):
        run(MODEL, given["x"], given["y"], threat, target=given["target"], generator=given["generator"])


OUTPUTS: list[tuple[Any, type[Exception], str]] = [
    (torch.full((3, 3), 1 / 3), UsageError, "probabilities .* remove its last softmax"),
    (torch.zeros(3, 1), UsageError, r"K of at least 2 for 3 inputs, got shape \(3, 1\)"),
    (torch.zeros(3), UsageError, r"got shape \(3,\)"),
    (torch.zeros(2, 3), UsageError, r"got shape \(2, 3\)"),
    (torch.zeros(3, 3, 2), UsageError, r"got shape \(3, 3, 2\)"),
    ((torch.zeros(3, 3), torch.zeros(3, 3)), UsageError, r"got tuple \(0: \(3, 3\), 1: \(3, 3\)\)"),
    (torch.full((3, 3), math.nan), Failure, "NaN or infinite logits for 3 of 3 inputs"),
    (torch.tensor([[0.0, math.inf, 1.0]] + [[0.0, 1.0, 2.0]] * 2), Failure, "for 1 of 3 inputs"),
]


@pytest.mark.parametrize("verb", ["call", "perturb", "smallest"])
@pytest.mark.parametrize(("output", "error", "message"), OUTPUTS)
def test_wrong_outputs_are_refused(output, error, message, verb):
    run = FGSM().perturb if verb == "perturb" else FGSM()
    with pytest.raises(error, match=message):
        run(Output(output), X, Y, linf(None if verb == "smallest" else 0.1))


def test_a_model_without_a_gradient_to_its_input_is_refused():
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)[:, :3] + torch.eye(3)

    for run in (BIM(), BIM().perturb):
        with pytest.raises(UsageError, match="carries no gradient to its input"):
            run(Detached(), X, Y, linf(0.1))
    # An attack without gradients needs none.
    ATTACKS["random_noise"].method()(Detached(), X, Y, linf(0.1))


def test_bounds_other_than_the_classifier_s_are_refused():
    model = sg.Classifier(MODEL, bounds=(-1.0, 1.0))
    for run in (FGSM(), FGSM().perturb):
        with pytest.raises(UsageError, match=r"bounds \(0.0, 1.0\) but the classifier \(-1.0, 1.0\): give bounds"):
            run(model, X, Y, linf(0.1))
    assert FGSM()(model, X * 2 - 1, Y, linf(0.1, bounds=(-1, 1))).inputs.min() >= -1


def test_raw_points_need_a_radius():
    with pytest.raises(UsageError, match="perturb needs a radius"):
        PGD().perturb(MODEL, X, Y, linf())


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="no loss 'cross'"):
        PGD(loss="cross")
    with pytest.raises(UsageError, match="no norm 'l7'"):
        Threat("l7", 0.1)
    with pytest.raises(UsageError, match="no attack 'pdg'; did you mean 'pgd'"):
        ATTACKS["pdg"]
