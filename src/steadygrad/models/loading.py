"""`load`: from a string that names a model, of whatever kind, to a classifier that is ready to be audited."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from steadygrad import readable
from steadygrad.arguments import public
from steadygrad.classifier import Classifier
from steadygrad.data import Dataset
from steadygrad.data.python_data import Samples
from steadygrad.errors import Failure, UsageError, unknown_name
from steadygrad.kinds import ClassNames
from steadygrad.models import sources
from steadygrad.models.architectures import ARCHITECTURES, build
from steadygrad.models.class_names import match_classes
from steadygrad.models.hugging_face import from_transformers
from steadygrad.models.saved import saved, sketch
from steadygrad.models.units import normalized
from steadygrad.registry import parse_settings
from steadygrad.weights import read_weights

_FORMS = (
    "a model is a .safetensors file, a run folder, an architecture name, module:callable, "
    "timm:NAME, torchvision:NAME, hf:owner/name (of transformers) or hub:owner/name"
)
_REPOSITORIES = ("hub", "hf")  # there @ is followed by a revision
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl")
_LIBRARIES: dict[str, Callable[..., tuple[nn.Module, dict[str, Any]]]] = {
    "timm": sources.from_timm,
    "torchvision": sources.from_torchvision,
    "hf": from_transformers,
}


@dataclass(frozen=True)
class _Given:
    """What the caller says beside the model itself."""

    weights: str | Path | None
    shape: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    named: bool
    """Whether the classes are names of the model's outputs that the caller gives."""
    data: Dataset | None
    binary: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the inputs of a model that says no other."""
        return (0.0, 1.0) if self.data is None else self.data.bounds

    @property
    def usual_shape(self) -> tuple[int, ...] | None:
        """Of the data: for a model that says no other."""
        return None if self.data is None else self.data.shape


@public
def load(
    spec: str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: Sequence[int] | None = None,
    classes: ClassNames | None = None,
    mean: float | str | Sequence[float] | None = None,
    std: float | str | Sequence[float] | None = None,
    data: Samples | None = None,
    binary: bool = False,
) -> Classifier:
    """A classifier in evaluation mode from what the user has.

    Args:
        spec: a safetensors file written by `Classifier.save`, or a run folder with one model; an
            architecture name, also with settings (`mlp:hidden=[50]`); `module:callable`, which
            returns a module or Classifier; `timm:NAME`; `torchvision:NAME`; `hf:owner/name` or `hf:./folder` of
            transformers; `hub:owner/name`. With `@FILE` at its end (`nets:make@my.safetensors`) it names its weights
            too.
        weights: a safetensors file or run folder, where `spec` brings no weights; what it says of normalization,
            input shape and classes is used too.
        input_shape: of one sample: used where the model does not say its own, and must equal it elsewhere.
        classes: names of its outputs in their order, or their number, which must be the model's.
        mean, std: for a model that does not say its own: a number, one per channel (also as text, "0.5,0.4,0.4"), or
            "imagenet".
        data: a data set to take input shape and classes from where the model does not say them; its classes must match.
        binary: a module gives one logit z, of the second of two classes: taken as (-z/2, z/2).

    Raises:
        UsageError: nothing of that name, weights of another architecture, a pickle, other shapes.
        Failure: a truncated file, a missing library, a download or the user's code that fails.

    >>> load("mlp:hidden=[20]", input_shape=(1, 8, 8)).architecture
    {'name': 'mlp', 'hidden': [20]}
    """
    named = classes is not None and not isinstance(classes, int)
    if data is not None:
        classes = data.classes if classes is None else classes
    names = range(classes) if isinstance(classes, int) else classes
    spec, weights = _with_its_weights(str(spec), weights)
    given = _Given(
        _only_model(Path(weights)) if weights is not None and Path(weights).is_dir() else weights,
        None if input_shape is None else tuple(input_shape),
        None if names is None else readable.names(map(str, names)),
        named,
        data,
        binary,
    )
    try:
        found = _binary(normalized(_resolve(spec, given), mean, std, spec), binary, spec)
    except OSError as error:  # of a file that may not be read, or a name that no file can have
        raise Failure(f"cannot read {error.filename or spec}: {error.strerror or error}") from error
    found.name = readable.name(found.name)
    found.classes = None if found.classes is None else readable.names(found.classes)
    return _agree(found, spec, given).eval()


def _with_its_weights(spec: str, weights: str | Path | None) -> tuple[str, str | Path | None]:
    """A model and its weights, apart where they are given as `MODEL@WEIGHTS`."""
    model, at, file = spec.rpartition("@")
    if not at or spec.partition(":")[0] in _REPOSITORIES or Path(spec).expanduser().exists():
        return spec, weights
    if not model or not file:
        raise UsageError(f"{spec!r} is not MODEL@WEIGHTS, such as nets:make@my.safetensors")
    if weights is not None:
        raise UsageError(f"{spec} names its weights: leave out the weights {weights}")
    return model, file


def _resolve(spec: str, given: _Given) -> Classifier:
    head, colon, rest = spec.partition(":")
    if head == "hub" and colon:
        return _from_file(sources.from_hub(rest), given)
    if head in _LIBRARIES and colon:
        said = {} if given.weights is None else saved(given.weights)
        names, binary = said.get("classes") or given.classes, given.binary or bool(said.get("binary"))
        count = 1 if binary else None if names is None else len(names)
        module, settings = _LIBRARIES[head](rest, pretrained=given.weights is None, classes=count)
        # The size the library names is the one of its weights; with other weights most of its models take others.
        usual = None if given.weights is None else given.usual_shape
        settings["input_shape"] = given.shape or usual or settings["input_shape"]
        if given.weights is not None and names is not None:
            settings["classes"] = names
        elif settings["classes"] == 1 or (isinstance(settings["classes"], list) and len(settings["classes"]) == 1):
            if not binary:
                raise UsageError(f"{spec} gives one logit: if it is of two classes, say so: binary=True (--binary)")
            settings["classes"] = None
        return _with_weights(module, spec, given.weights, settings)
    path = Path(spec).expanduser()
    if path.is_dir() and not (spec in ARCHITECTURES and not _models_in(path)):
        if spec in ARCHITECTURES:
            raise UsageError(f"{spec!r} is a run folder and an architecture: write ./{spec}, or {spec}: with a colon")
        return _from_file(_only_model(path), given)
    if path.is_file() or (not colon and (path.suffix in _SUFFIXES or len(path.parts) > 1)):
        if not path.exists() and path.suffix not in _SUFFIXES:
            raise UsageError(f"there is no file or folder {spec} (for a Hub model write hub:{spec}; {_FORMS})")
        return _from_file(path, given)
    if head in ARCHITECTURES:
        return _from_name(head, parse_settings(rest, repr(spec), "mlp:hidden=[500,150]"), given)
    if colon:
        return _with_weights(sources.from_callable(spec), spec, given.weights, {"bounds": given.bounds})
    raise UsageError(f"{unknown_name('model', spec, ARCHITECTURES)}; {_FORMS}")


def _models_in(folder: Path) -> list[Path]:
    # Names that begin with a dot are of files being written; checkpoints are states of a training.
    files = [*folder.glob("models/*.safetensors"), *folder.glob("*.safetensors")]
    return sorted(file for file in files if not file.name.startswith((".", "checkpoint")))


def _only_model(folder: Path) -> Path:
    files = _models_in(folder)
    if not files:
        raise UsageError(f"the folder {folder} holds no models/*.safetensors: has its training finished?")
    if len(files) > 1:
        raise UsageError(f"the folder {folder} holds {len(files)} models, give one: {', '.join(map(str, files))}")
    return files[0]


def _from_file(path: Path, given: _Given) -> Classifier:
    if given.weights is not None:
        raise UsageError(
            f"{path} holds its own weights: leave out the weights {given.weights}, or give an architecture"
        )
    settings = saved(path)
    name = (settings.get("architecture") or {}).get("name")
    if isinstance(name, str) and name in ARCHITECTURES:
        return _rebuilt(path, settings, given)
    # A weights file must not make us import code: only the user names what is imported.
    if not settings:
        theirs = "hf:owner/name or hf:./folder for an image classifier of transformers, or " * (
            path.name == "model.safetensors"
        )
        raise UsageError(
            f"{path} does not say its architecture (it was not saved by steadygrad): give {theirs}an architecture name "
            f"or module:callable, with these as weights (--weights {path})"
        )
    maker = repr(name) if name else "a module of its own"
    again = name if isinstance(name, str) and ":" in name else "module:callable"
    raise UsageError(
        f"{path} holds the weights of {maker}, which is not a registered architecture: "
        f"load {again} with these as weights (--weights {path})"
    )


def _rebuilt(path: str | Path, settings: Mapping[str, Any], given: _Given) -> Classifier:
    values = dict(settings["architecture"])
    name = values.pop("name")
    shape = settings.get("input_shape") or given.shape or given.usual_shape
    classes = settings.get("classes") or given.classes
    if shape is None or classes is None:
        raise UsageError(f"{path} does not say its input shape and classes: give input_shape and classes, or the data")
    with _told_of(path):
        sizes = sketch(name, shape, classes if isinstance(classes, int) else len(classes), values)
    read_weights(path).of(sizes, name)  # before there is memory for what the file says
    with _told_of(path):
        classifier = build(name, shape, classes, **_normalization(settings), **values)
        classifier.name = str(settings.get("name") or name)
        classifier.preparation = settings.get("preparation")
    return classifier.load_weights(path)


@contextlib.contextmanager
def _told_of(path: str | Path) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise Failure(f"{path} has damaged metadata: {error}") from error


def _normalization(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("mean", "std", "bounds") if settings.get(key) is not None}


def _from_name(name: str, values: dict[str, Any], given: _Given) -> Classifier:
    weights = given.weights
    said = saved(weights) if weights is not None else {}
    if weights is not None and not values and (said.get("architecture") or {}).get("name") == name:
        return _rebuilt(weights, said, given)
    shape = given.shape or said.get("input_shape") or given.usual_shape or ARCHITECTURES[name].input_shape
    settings = {"bounds": given.bounds, **_normalization(said), **values}
    classifier = build(name, shape, given.classes or said.get("classes") or 10, **settings)
    return classifier if weights is None else classifier.load_weights(weights)


def _with_weights(module: nn.Module, spec: str, weights: str | Path | None, settings: Mapping[str, Any]) -> Classifier:
    """Wrap a module with what is known of it and, above that, of its weights file."""
    said = saved(weights) if weights is not None else {}
    known = {**settings, **{k: v for k, v in said.items() if v is not None}}
    if isinstance(module, Classifier):
        classifier = module
        theirs, mine = _normalization(said), _normalization(classifier.settings)
        differing = [key for key in theirs if theirs[key] != mine.get(key)]
        if differing:
            rows = "; ".join(f"{key}: model {mine.get(key)}, file {theirs[key]}" for key in differing)
            raise UsageError(f"{weights} was saved with other settings than {spec} has: {rows}")
        classifier.architecture = classifier.architecture or {"name": spec}
        classifier = _binary(classifier, bool(said.get("binary")), spec)
    else:
        known.update(architecture={"name": spec})
        try:
            classifier = Classifier(module, **known)
        except (TypeError, ValueError) as error:
            raise Failure(f"{weights} has damaged metadata: {error}") from error
    return classifier if weights is None else classifier.load_weights(weights)


def _binary(classifier: Classifier, binary: bool, spec: str) -> Classifier:
    """The classifier of two classes, where its module gives one logit and the caller or a file says so."""
    if not binary or classifier.binary:
        return classifier
    if (classifier.architecture or {}).get("name") in ARCHITECTURES:
        raise UsageError(f"{spec} gives a logit for each class: leave out binary (--binary)")
    if type(classifier) is not Classifier:
        raise UsageError(f"{spec} is a classifier of its own kind: leave out binary, and let it give two logits")
    return Classifier(classifier.module, **{**classifier.settings, "binary": True})


def _agree(classifier: Classifier, spec: str, given: _Given) -> Classifier:
    """Fill in what the model does not say; refuse what contradicts it."""
    if given.shape is not None:
        if classifier.input_shape not in (None, given.shape):
            raise UsageError(f"{spec} takes inputs of shape {classifier.input_shape}, got data of shape {given.shape}")
        classifier.input_shape = given.shape
    classifier.input_shape = classifier.input_shape or given.usual_shape
    known, names, data = classifier.classes, given.classes, given.data
    stated = given.named or data is None
    if stated and names is not None and known is not None and len(known) != len(names):
        raise UsageError(f"{spec} has {len(known)} classes, got {len(names)}")
    if given.named or known is None:
        classifier.classes = names
    if classifier.binary and names is not None and len(names) != 2:
        raise UsageError(f"{spec} gives one logit (binary), which takes two classes, got {len(names)}")
    if data is not None:
        # Names that are filled in from the data say nothing of the model's own order.
        mine = classifier.classes if given.named else known
        count = len(mine if mine is not None else data.classes)
        match = match_classes(mine, count, data.classes, who=spec, where=data.name)
        if match.how == "by position" and match.text:
            logging.getLogger("steadygrad").warning(match.text)
    return classifier
