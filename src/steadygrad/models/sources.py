"""Modules and files from elsewhere: the user's code, timm, torchvision, the Hub.

Nothing is imported before it is asked for, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from steadygrad.data.form import INTERPOLATIONS, Form
from steadygrad.errors import Failure, UsageError
from steadygrad.models.architectures import seeded
from steadygrad.offline import as_reachable


def _near(name: str, known: Iterable[str]) -> str:
    lower: dict[str, list[str]] = {}
    for one in known:
        lower.setdefault(one.lower(), []).append(one)
    near = [one for n in difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.4) for one in lower[n]]
    return f"; near names: {', '.join(near)}" if near else ""


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()
        yield
    finally:
        # The user's module may have changed the path itself: take away our entry only.
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def from_callable(spec: str) -> nn.Module:
    """The module (or Classifier) that `module:callable` returns; imports the user's module.

    The current folder is importable meanwhile; initial weights follow from seed 0.

    Raises:
        UsageError: no such module or callable, or it returns something else.
        Failure: the user's code raises; its message is shown.
    """
    path, _, name = spec.partition(":")
    if path.endswith(".py"):
        raise UsageError(f"{spec!r}: give the import path, without .py: {path[:-3].replace('/', '.')}:{name}")
    with _current_folder_importable():
        with seeded(0):
            target: Any = _imported(path)
        for part in name.split("."):
            if not hasattr(target, part):
                callables = [k for k, v in vars(target).items() if callable(v) and not k.startswith("_")]
                raise UsageError(f"{path} has no {name!r}{_near(part, callables)} (expected module:callable)")
            target = getattr(target, part)
        if isinstance(target, nn.Module):
            return target
        if not callable(target):
            raise UsageError(f"{spec} is a {type(target).__name__}, not a callable that returns a torch.nn.Module")
        try:
            # Seeded again: the import draws numbers the first time only.
            with seeded(0):
                module = target()
        except Exception as error:
            raise Failure(f"{spec} failed: {reason(error)}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{spec} returned a {type(module).__name__}; expected a torch.nn.Module from inputs (N, *) to logits (N, K)"
        )
    return module


def _imported(path: str) -> ModuleType:
    if not path or not all(part.isidentifier() for part in path.split(".")):
        raise UsageError(f"{path!r} is not an import path (expected module:callable, e.g. nets:build)")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise Failure(f"importing {path} failed: {reason(error)}; install what it needs") from error
        near = _near(path, [file.stem for file in Path.cwd().glob("*.py")])
        raise UsageError(f"there is no module {error.name!r} in {Path.cwd()} or on the Python path{near}") from error
    except Exception as error:
        raise Failure(f"importing {path} failed: {reason(error)}") from error


def library(name: str) -> Any:
    """A library that is imported when it is asked for.

    Raises:
        Failure: it is missing or broken; the command that installs it is given.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise Failure(f"{name} is installed but needs {error.name!r}: pip install {error.name}") from error
        raise Failure(f"{name} is not installed: pip install {name}") from error
    except Exception as error:
        others = "" if name == "torchvision" else f" {name}"
        raise Failure(
            f"{name} is installed but does not import ({reason(error)}); its version must match torch's: "
            f"pip install --upgrade torch torchvision{others}"
        ) from error


def from_timm(name: str, *, pretrained: bool, classes: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """A timm model with its normalization and input shape.

    Pretrained weights come with their own classes; without them the last layer gets `classes`.
    """
    timm = library("timm")
    size = {} if pretrained or classes is None else {"num_classes": classes}
    try:
        # Only pretrained weights are asked of the Hub.
        with as_reachable() if pretrained else contextlib.nullcontext(), seeded(0):
            module: nn.Module = timm.create_model(name, pretrained=pretrained, **size)
        config = timm.data.resolve_model_data_config(module)
    except Exception as error:
        known = timm.list_models()
        if name.partition(".")[0] in known or "/" in name:
            raise Failure(f"timm could not make {name!r}: {reason(error)}") from error
        raise UsageError(f"there is no timm model {name!r}{_near(name, known)} (all: timm.list_models())") from error
    return module, {
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "input_shape": list(config["input_size"]),
        "classes": getattr(module, "num_classes", None),
        "preparation": _preparation(
            {"center": "crop", "squash": "squash"}.get(config.get("crop_mode", "center"), "crop"),
            config.get("crop_pct", 1.0),
            config.get("interpolation", "bilinear"),
        ),
    }


def from_torchvision(name: str, *, pretrained: bool, classes: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """A torchvision classification model with the normalization, input shape and classes of its weights."""
    models = library("torchvision").models
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"there is no torchvision model {name!r}{_near(name, known)} (all: models.list_models())")
    published = models.get_model_weights(name).DEFAULT  # the best weights that torchvision offers
    size = {} if pretrained or classes is None else {"num_classes": classes}
    try:
        with seeded(0):
            module: nn.Module = models.get_model(name, weights=None, **size)
        if pretrained:
            # Tensors only: torchvision itself would unpickle whatever the download holds.
            module.load_state_dict(published.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:
        raise Failure(f"torchvision could not make {name!r}: {reason(error)}") from error
    transforms = published.transforms()
    crop = transforms.crop_size
    side, resized = (v[0] if isinstance(v, list | tuple) else v for v in (crop, transforms.resize_size))
    return module, {
        "mean": list(transforms.mean),
        "std": list(transforms.std),
        "input_shape": [3, side, side],
        "classes": list(published.meta["categories"]) if pretrained else classes,
        "preparation": _preparation("crop", side / resized, getattr(transforms.interpolation, "value", "bilinear")),
    }


def _preparation(resize: str, kept: float, interpolation: str) -> dict[str, Any] | None:
    """What a library does to images before its model sees them, as `Form.way` says it."""
    known = interpolation if interpolation in INTERPOLATIONS else "bicubic"  # such as random ones of a training
    return Form(None, None, resize, min(float(kept), 1.0), known).way()


def from_hub(name: str) -> Path:
    """Download `model.safetensors` of a Hub model, `owner/name` or `owner/name@revision`; its path."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        raise UsageError(f"a Hub model is hub:owner/name or hub:owner/name@revision, got hub:{name}")
    hub = library("huggingface_hub")
    repository, _, revision = name.partition("@")
    with as_reachable() as away:
        try:
            return Path(hub.hf_hub_download(repository, "model.safetensors", revision=revision or None))
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            why = f"{away}, and it is not on this machine" if away else first
            raise Failure(
                f"cannot fetch model.safetensors of {repository} from the Hub: {why} "
                "(check the name, the network, and HF_TOKEN for private models)"
            ) from error
