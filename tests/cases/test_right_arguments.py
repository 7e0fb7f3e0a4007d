"""What people bring is taken as it is: arrays, lists, integers of any type, numbers of any kind, on any device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import public
import steadygrad as sg
from steadygrad import registry
from steadygrad.arguments import Classes, Inputs, Labels
from steadygrad.arguments import public as boundary

X, Y, MODEL = public.X, public.Y, public.model()


def _inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def _reversed(x: Tensor) -> Any:
    return np.ascontiguousarray(x.numpy()[..., ::-1])[..., ::-1]  # of negative strides


INPUTS: dict[str, Callable[[Tensor], Any]] = {
    "an array": Tensor.numpy,
    "an array of float64": lambda x: x.double().numpy(),
    "an array of the other byte order": lambda x: x.numpy().astype(">f4"),
    "a read-only array": lambda x: np.frombuffer(x.numpy().tobytes(), np.float32).reshape(x.shape),
    "an array of negative strides": _reversed,
    "lists": Tensor.tolist,
    "a list of tensors": list,
    "made in inference mode": _inference,
    "requires a gradient": lambda x: x.clone().requires_grad_(),
    "not in order": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "float64": Tensor.double,
    "a parameter": torch.nn.Parameter,
}
LABELS: dict[str, Callable[[Tensor], Any]] = {
    "a list": Tensor.tolist,
    "a tuple": lambda y: tuple(y.tolist()),
    "an array": Tensor.numpy,
    "an array of uint16": lambda y: y.numpy().astype(np.uint16),
    **{str(kind): lambda y, kind=kind: y.to(kind) for kind in (torch.int8, torch.uint8, torch.int16, torch.int32)},
    "made in inference mode": _inference,
    "a list of tensors": list,
}
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "attack": lambda x, y: sg.attacks.FGSM()(MODEL, x, y, sg.linf(0.3)).inputs,
    "targeted": lambda x, y: sg.attacks.FGSM()(MODEL, x, Y.flip(0), sg.linf(0.3), target=y).inputs,
    "perturb": lambda x, y: sg.attacks.PGD(steps=2).perturb(MODEL, x, y, sg.linf(0.3)),
    "universal": lambda x, y: sg.attacks.Universal(steps=2).fit(MODEL, x, y, sg.linf(0.3)),
    "maps attacked": lambda x, y: sg.attacks.IFIA(steps=1, restarts=1)(MODEL, x, y, sg.linf(0.3)).inputs,
    "saliency": lambda x, y: sg.attributions.Saliency()(MODEL, x, y),
    "bound": lambda x, y: sg.bounds.LinearizedDeviation()(MODEL, x, y, sg.linf(0.01)).upper,
    "loss": lambda x, y: sg.defenses.InputGradientPenalty(0.1).loss(MODEL, x, y).total,
    "faithfulness": lambda x, y: sg.attributions.faithfulness.deletion(MODEL, x, X, y).scores,
    "stability": lambda x, y: (
        sg.attributions.stability.max_sensitivity(sg.attributions.Saliency(), MODEL, x, y, sg.linf(0.1)).value
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("form", INPUTS)
def test_inputs_are_taken_in_any_form(form: str, call: str) -> None:
    given = INPUTS[form](X.clone())
    found = CALLS[call](given, Y)
    torch.testing.assert_close(found.float(), CALLS[call](X, Y).float(), rtol=1e-4, atol=1e-5)
    if isinstance(given, Tensor) and given.requires_grad:
        assert given.grad is None


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("form", LABELS)
def test_labels_are_taken_in_any_form(form: str, call: str) -> None:
    assert torch.equal(CALLS[call](X, LABELS[form](Y)), CALLS[call](X, Y))


@pytest.mark.parametrize("call", CALLS)
def test_a_call_in_inference_mode_is_the_same(call: str) -> None:
    with torch.inference_mode():
        found = CALLS[call](X.clone(), Y.clone())
    assert torch.equal(found, CALLS[call](X, Y))


def test_one_class_stands_for_all_inputs() -> None:
    for call in ("saliency", "bound", "targeted", "faithfulness", "stability", "maps attacked"):
        for one in (1, np.int64(1), torch.tensor(1)):
            assert torch.equal(CALLS[call](X, one), CALLS[call](X, torch.tensor([1, 1])))
    # Labels are one per input, for a single input too.
    with pytest.raises(sg.UsageError, match=r"y must hold integer labels of shape \(2,\)"):
        CALLS["attack"](X, 1)
    assert torch.equal(CALLS["attack"](X[:1], 0), CALLS["attack"](X[:1], torch.tensor([0])))


EPS: list[Any] = [0.25, "1/4", "0.25", " 1 / 4 ", np.float32(0.25), np.float64(0.25), torch.tensor(0.25)]


@pytest.mark.parametrize("eps", EPS, ids=repr)
@pytest.mark.parametrize("norm", [sg.linf, sg.l2, sg.l1], ids=lambda norm: norm.__name__)
def test_a_radius_is_a_number_of_any_kind(norm: Callable[..., sg.Threat], eps: Any) -> None:
    assert norm(eps) == norm(0.25)
    assert norm(0.5).at(eps) == norm(0.25)


@pytest.mark.parametrize("bounds", [(-1, 1), [-1.0, 1.0], np.array([-1, 1]), torch.tensor([-1.0, 1.0]), ("-1", "1/1")])
def test_bounds_are_two_numbers_of_any_kind(bounds: Any) -> None:
    assert sg.linf(0.1, bounds).bounds == (-1.0, 1.0)
    assert sg.Classifier(MODEL, bounds=bounds).bounds == (-1.0, 1.0)


def test_a_radius_for_each_sample_is_a_list_of_any_kind() -> None:
    for eps in ([0.1, 0.3], np.array([0.1, 0.3]), torch.tensor([0.1, 0.3], dtype=torch.float64)):
        assert sg.linf(eps).radius(X).tolist() == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize("seed", [3, np.int64(3), torch.tensor(3), [5, 6], np.array([5, 6])], ids=repr)
def test_a_generator_is_a_seed_or_seeds(seed: Any) -> None:
    attack = sg.attacks.RandomNoise(draws=1)
    single = np.ndim(seed) == 0
    meant = torch.Generator().manual_seed(3) if single else torch.tensor([5, 6])
    found = attack.perturb(MODEL, X, Y, sg.linf(0.1), generator=seed)
    assert torch.equal(found, attack.perturb(MODEL, X, Y, sg.linf(0.1), generator=meant))


# Numbers of every setting, in Python, in flags and in files

FLOATS = [
    (kind, row, name)
    for kind, rows in registry.registries().items()
    for row in rows
    if kind != "measures"
    for name, hint in row.method.__annotations__.items()
    if any(word in str(hint) for word in ("float", "Positive", "NotNegative", "BelowOne", "Fraction", "Share", "Value"))
]


@pytest.mark.parametrize(("kind", "row", "name"), FLOATS, ids=lambda value: getattr(value, "name", str(value)))
def test_every_number_may_be_a_fraction(kind: str, row: Any, name: str) -> None:
    number = "8/7" if (row.name, name) == ("fab", "eta") else "8/255"
    value = 8 / int(number[2:])
    base = public.method(row.method)
    needed = {key: given for key, given in public.SETTINGS.items() if row.settings.get(key) == "required"}
    meant = row.method(**{**needed, name: value})
    assert row.method(**{**needed, name: number}) == meant
    plain = {k: v for k, v in registry.describe(meant).items() if k != "name"}
    assert registry.build(kind[:-1].replace("-", " "), row.name, {**plain, name: number}) == meant
    if row.name != "sum":
        text = ",".join([*(f"{k}={v}" for k, v in needed.items() if k != name), f"{name}={number}"])
        assert registry.parse(kind[:-1].replace("-", " "), f"{row.name}:{text}") == meant
    assert base is not None


def test_a_decorated_function_of_one_s_own_takes_the_same() -> None:
    @boundary
    def shapes(x: Inputs, y: Labels, target: Classes | None = None) -> list[Any]:
        return [x.dtype, tuple(x.shape), y.tolist(), None if target is None else target.tolist()]

    assert shapes([[0, 1], [1, 0]], np.array([1, 0], np.int8), 2) == [torch.float32, (2, 2), [1, 0], [2, 2]]
    with pytest.raises(sg.UsageError, match=r"there is no argument of .*shapes 'targte'; did you mean 'target'"):
        shapes([[0.0, 1.0]], [1], targte=2)  # type: ignore[call-arg,arg-type]
    with pytest.raises(sg.UsageError, match=r"missing a required argument: 'y'; its arguments are x, y, target"):
        shapes([[0.0, 1.0]])  # type: ignore[call-arg,arg-type]


def test_paths_are_texts_or_paths(tmp_path: Path) -> None:
    model = public.classifier()
    for path in (tmp_path / "a.safetensors", str(tmp_path / "b.safetensors")):
        model.save(path)
        assert model.load_weights(path) is model
