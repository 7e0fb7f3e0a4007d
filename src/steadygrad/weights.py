"""Weights as people have them: safetensors files and PyTorch checkpoints, nested and with prefixes, for a module."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.calling import unwrap
from steadygrad.errors import UsageError, reading
from steadygrad.files import read_tensors
from steadygrad.readable import readable
from steadygrad.turns import TURN

State = Mapping[str, Tensor]

_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PARTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
"""Under which names checkpoints keep the weights, the likeliest first; averages (ema) come last."""
_DEPTH = 3


@dataclass(frozen=True)
class Weights:
    """The weights in a file: by the name of the part that holds them, "" for the whole file.

    Attributes:
        path: the file.
        parts: the likeliest first.
        settings: those of the classifier that `Classifier.save` wrote, if it wrote the file.
    """

    path: Path
    parts: Mapping[str, State]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def of(self, module: nn.Module, name: str = "the model") -> dict[str, Tensor]:
        """The weights under the names that a module has for them; where several parts fit, the first, which is told.

        Raises:
            UsageError: weights of another architecture, with the first keys that differ.
        """
        wanted = dict(unwrap(module).state_dict())
        fitting = {part: found for part, state in self.parts.items() if (found := _renamed(state, wanted)) is not None}
        if not fitting:
            raise UsageError(self._differing(wanted, name))
        part, *others = fitting
        if others:
            logging.getLogger("steadygrad").warning(
                "%s holds several weights that fit: those of %r are taken; for others give %s",
                readable(str(self.path)), part, " or ".join(readable(f"{self.path}#{other}") for other in others),
            )  # fmt: skip
        return fitting[part]

    def _differing(self, wanted: State, name: str) -> str:
        part, state = next(iter(self.parts.items()))
        mine, theirs = _shapes(_plain(wanted)), _shapes(_plain(state))
        if len(set(mine) & set(theirs)) == 0:
            mine, theirs = _shapes(wanted), _shapes(state)  # what was taken off may be what differs
        differing = [k for k in dict.fromkeys((*mine, *theirs)) if mine.get(k) != theirs.get(k)]
        differing = sorted(differing) or sorted({*mine, *theirs})
        rows = [f"{k}: model {mine.get(k, 'has none')}, file {theirs.get(k, 'has none')}" for k in differing[:3]]
        where = f"{self.path} ({part!r})" if part else f"{self.path}"
        return f"{where} holds weights of another architecture than {name}; {len(differing)} keys differ: " + "; ".join(
            rows
        )


def read_weights(path: str | Path) -> Weights:
    """The weights in a safetensors file or a PyTorch checkpoint, of which tensors are read and nothing else is run.

    `file.pt#ema` stands for one part of a checkpoint.

    Raises:
        UsageError: no such file or part; a file that holds other objects than tensors, such as a whole module.
        Failure: a file that is truncated or damaged.
    """
    name, _, part = str(path).rpartition("#")
    if name and not Path(path).is_file():
        whole = read_weights(name)
        if part not in whole.parts:
            raise UsageError(f"{name} has no part {part!r} that holds weights (known: {', '.join(whole.parts)})")
        return Weights(whole.path, {part: whole.parts[part]}, whole.settings)
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no weights file {path}")
    with path.open("rb") as opened:
        head = opened.read(9)
    # A safetensors file is the length of its header (8 bytes, which may look like a pickle's), then "{".
    if head[8:] != b"{" and (head[:2] in _PICKLES or not (head or path.suffix == ".safetensors")):
        return Weights(path, _parts_of(path, _tensors_of(path)))
    tensors, settings = read_tensors(path)
    return Weights(path, {"": tensors}, settings)


def _tensors_of(path: Path) -> Any:
    """What `torch.load` gives of a checkpoint when it may make tensors and plain containers only."""
    with reading(f"{path} is not a readable checkpoint (truncated?)"):
        try:
            with TURN, warnings.catch_warnings():  # warnings have one list of filters for all threads
                warnings.simplefilter("ignore")
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UsageError(
                f"{path} holds {_others(path)} beside tensors, and reading them could run any code: write its weights "
                "alone, once, where you trust it: for a whole module torch.save(torch.load(path, weights_only=False)"
                ".state_dict(), 'weights.pt'), for a checkpoint torch.save(torch.load(path, weights_only=False)"
                "['state_dict'], 'weights.pt')"
            ) from error
        except RuntimeError as error:
            if "TorchScript" not in str(error):
                raise
            raise UsageError(
                f"{path} is a TorchScript module, which is code: load it in a function of yours that returns "
                "torch.jit.load(path), and give that as module:callable"
            ) from error


def _others(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(os.fspath(path))
    except Exception:  # it reads the newer of the two formats only
        names = []
    return f"other objects ({', '.join(names[:3])})" if names else "other objects"


def _parts_of(path: Path, content: Any) -> dict[str, State]:
    found: dict[str, State] = {}

    def look(value: Any, name: str, depth: int) -> None:
        if not isinstance(value, Mapping):
            return
        if value and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
            found[name] = value
        elif depth:
            for key, inner in value.items():
                if isinstance(key, str):
                    look(inner, f"{name}.{key}" if name else key, depth - 1)

    look(content, "", _DEPTH)
    if not found:
        inside = [str(name) for name in list(content)[:5]] if isinstance(content, Mapping) else [type(content).__name__]
        got = ", ".join(inside) or "nothing"
        raise UsageError(f"{path} holds no weights: a mapping of names to tensors is expected, got {got}")
    return {name: found[name] for name in sorted(found, key=_likelihood)}


def _likelihood(name: str) -> tuple[bool, int]:
    words = name.split(".")
    average = any(word in ("ema", "swa", "average", "teacher") for word in name.replace(".", "_").split("_"))
    return average, min((_PARTS.index(word) for word in words if word in _PARTS), default=len(_PARTS))


def _renamed(state: State, wanted: State) -> dict[str, Tensor] | None:
    """The weights under the wanted names, if they are the same but for what wrappers put before all of them."""
    for form in (lambda names: {name: name for name in names}, _plain_names):
        theirs, mine = ({short: name for name, short in form(names).items()} for names in (state, wanted))
        if any(theirs.get(k) is None and not k.endswith("num_batches_tracked") for k in mine) or set(theirs) - set(
            mine
        ):
            continue
        # Counts of batches, which old checkpoints lack, stay as they are.
        found = {name: state[theirs[short]] if short in theirs else wanted[name] for short, name in mine.items()}
        if _shapes(found) == _shapes(wanted):
            return found
    return None


def _plain_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Names by themselves, without the part that is before all of them, and without what compilation puts in."""
    plain = {name: name.replace("_orig_mod.", "") for name in names}
    while len(heads := {short.partition(".")[0] for short in plain.values()}) == 1 and all(
        "." in short for short in plain.values()
    ):
        plain = {name: short[len(next(iter(heads))) + 1 :] for name, short in plain.items()}
    return plain


def _plain(state: State) -> State:
    return {short: state[name] for name, short in _plain_names(state).items()}


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}
