"""No wrong argument of any public callable gives a raw error: each is taken, or refused by name with what came.

The callables are found by looking (`public.names`), so that a new one is walked without being added.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import public
import steadygrad as sg
from steadygrad.errors import Failure, UsageError

NAN, INF = float("nan"), float("inf")

WRONG: dict[str, Any] = {
    "None": None,
    "a text": "nonsense",
    "no text": "",
    "bytes": b"x",
    "a truth": True,
    "minus one": -1,
    "zero": 0,
    "half": 1.5,
    "huge": 10**30,
    "nan": NAN,
    "inf": INF,
    "complex": 1j,
    "an empty list": [],
    "a ragged list": [1, [2, 3]],
    "a list of texts": ["a", "b"],
    "an empty dict": {},
    "a dict": {"a": None},
    "an object": object(),
    "a type": int,
    "a class of modules": nn.Linear,
    "a class of attacks": sg.attacks.PGD,
    "a function": lambda: None,
    "another threat": sg.linf(0.1),
    "a path": Path("nowhere/at/all"),
    "a number in a tensor": torch.tensor(0.5),
    "no entries": torch.zeros(0),
    "a tensor of nan": torch.full((2, 1, 4, 4), NAN),
    "a tensor of inf": torch.full((2, 1, 4, 4), INF),
    "complex inputs": torch.zeros(2, 1, 4, 4, dtype=torch.complex64),
    "whole inputs": torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
    "true inputs": torch.zeros(2, 1, 4, 4, dtype=torch.bool),
    "another shape": torch.full((2, 5), 0.5),
    "another count": torch.full((3, 1, 4, 4), 0.5),
    "one image": torch.full((1, 4, 4), 0.5),
    "classes out of range": torch.tensor([7, -1]),
    "a class out of range": torch.tensor([0, 7]),
    "three classes": torch.tensor([0, 1, 2]),
    "a sparse tensor": torch.zeros(2, 3).to_sparse(),
    "an array of texts": np.array(["a", "b"]),
    "an array of objects": np.array([None, None]),
}

TRIED: Counter[str] = Counter()


def words_of(name: str, value: Any) -> list[str]:
    """What an error may say so that a reader knows which argument it is about: its name, or what came."""
    found = [name, repr(value), str(value), type(value).__name__]
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim:
        count = len(value)
        found += [
            str(value.dtype),
            str(tuple(value.shape)),
            "finite",
            "NaN",
            "empty",
            "inf",
            f"({count},",
            f"({count})",
        ]
        found += [f"{count} samples", "layout" if isinstance(value, np.ndarray) or value.is_sparse else "sparse"]
        found += [] if isinstance(value, torch.Tensor) and value.is_sparse else [str(tuple(value.flatten().tolist()))]
    if isinstance(value, list | tuple | dict):
        found += ["empty", "(0,)", str(tuple(value))] if not value else [str(tuple(value))]
    if isinstance(value, list | tuple | np.ndarray):
        found += [repr(item) for item in np.asarray(value, dtype=object).flatten().tolist()]
    if isinstance(value, type):
        found.append(value.__name__)
    return [word for word in found if word]


def offence(called: public.Call, name: str, value: Any) -> str | None:
    """What is wrong with what happens, if anything is."""
    try:
        public.run(called, **{name: value})
    except (UsageError, Failure) as error:
        text = str(error).casefold()
        if not any(word.casefold() in text for word in words_of(name, value)):
            return f"does not say what came: {text}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return None


HEAVY = ("audit", "evaluate", "fit", "harden", "report.", "validity")
WALKED = [pytest.param(name, marks=[pytest.mark.slow] if name.startswith(HEAVY) else []) for name in public.names()]


@pytest.mark.parametrize("callable_", WALKED)
def test_no_wrong_argument_gives_a_raw_error(callable_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    called = public.call(callable_, tmp_path)
    public.run(called)  # the valid call, or the walk would prove nothing
    offences = []
    for name in called.arguments:
        for kind, value in WRONG.items():
            TRIED[callable_] += 1
            found = offence(called, name, value)
            if found is not None:
                offences.append(f"{name} = {kind}: {found}")
    assert not offences, "\n" + "\n".join(offences)


def test_the_walk_reaches_the_face_and_its_rooms() -> None:
    """As many callables, arguments and wrong values as when this was written; a walk of nothing would pass as well."""
    found = public.names()
    assert {"audit", "linf", "attacks.PGD", "attacks.PGD.__call__", "neurons.movers", "data.Dataset.take"} <= {*found}
    assert len(found) >= 240
    assert sum(len(public.parameters(name)) for name in found) * len(WRONG) >= 30_000


CLASSES = [name for name in public.names() if {p.name for p in public.parameters(name)} & {"y", "target"}]
OUT = {"too large": [0, 3], "negative": [0, -1], "of both kinds": [7, -2]}


@pytest.mark.parametrize("callable_", [name for name in CLASSES if name not in ("data.from_arrays", "fit")])
def test_classes_that_the_model_does_not_have_are_refused(callable_: str, tmp_path: Path) -> None:
    called = public.call(callable_, tmp_path)
    for name in {"y", "target"} & called.arguments.keys():
        for values in OUT.values():
            with pytest.raises(UsageError, match=r"0\.\.2.*got|do not fit each other"):
                public.run(called, **{name: torch.tensor(values)})


MODELS = [name for name in public.names() if any(p.name in ("model", "models") for p in public.parameters(name))]


@pytest.mark.parametrize("callable_", [name for name in MODELS if not name.startswith(HEAVY)])
def test_what_is_no_model_is_refused_with_what_came(callable_: str, tmp_path: Path) -> None:
    called = public.call(callable_, tmp_path)
    name = next(name for name in called.arguments if name in ("model", "models"))
    for value in (None, "model.pt", nn.Linear, 3, [1.0], {"a": 1}):
        with pytest.raises(UsageError, match="model"):
            public.run(called, **{name: value})


INPUTS = [name for name in public.names() if any(p.name == "x" for p in public.parameters(name))]
BAD = ("a tensor of nan", "a tensor of inf", "no entries", "complex inputs", "whole inputs", "None", "a text")


@pytest.mark.parametrize("callable_", [name for name in INPUTS if "model" in {p.name for p in public.parameters(name)}])
def test_inputs_that_are_none_are_refused(callable_: str, tmp_path: Path) -> None:
    called = public.call(callable_, tmp_path)
    for kind in BAD:
        with pytest.raises(UsageError):
            public.run(called, x=WRONG[kind])
