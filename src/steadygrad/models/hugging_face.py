"""Image classifiers of Hugging Face transformers: `hf:owner/name`, or a folder that `save_pretrained` wrote.

What their image processors do is not read from their settings, which mean different things in different classes, but
from what comes out: of black, white and red the normalization, of a picture how it was resized.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from steadygrad.data.form import INTERPOLATIONS, Form
from steadygrad.data.images import pixels
from steadygrad.errors import Failure, UsageError
from steadygrad.models.architectures import seeded
from steadygrad.models.sources import library, reason
from steadygrad.offline import unreachable

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic")
"""Names of Pillow's numbers."""
_CLOSE = 2 / 255


def from_transformers(name: str, *, pretrained: bool, classes: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """An image classifier of transformers, in float32, with class names, normalization, input shape and preparation.

    No code of a repository is run and nothing is unpickled. Without its weights the last layer gets `classes`.

    Raises:
        UsageError: not a name or folder, or a processor whose images no mean and std describe.
        Failure: transformers is missing, cannot load it, or would fill layers with random weights.
    """
    transformers = library("transformers")
    place, asked = _place(name)
    makers, found = transformers.AutoModelForImageClassification, {}
    try:
        with seeded(0):
            if pretrained:
                module, found = makers.from_pretrained(place, output_loading_info=True, weights_only=True, **asked)
            else:
                config = transformers.AutoConfig.from_pretrained(place, **asked)
                if classes is not None and classes != len(config.id2label):
                    config.num_labels = classes
                module = makers.from_config(config)
        processor = transformers.AutoImageProcessor.from_pretrained(place, **asked)
        module = module.float()
    except Exception as error:
        away = unreachable() if asked["local_files_only"] and not Path(place).is_dir() else None
        why = f"{away}, and it is not on this machine" if away else reason(error)
        raise Failure(f"transformers could not make {name!r} an image classifier: {why}") from error
    if missing := sorted(found.get("missing_keys", ())):
        raise Failure(
            f"hf:{name} has no weights for {', '.join(missing[:3])}{', ...' if missing[3:] else ''}, which would be "
            "random: take a model that was trained to classify, or give its weights (--weights)"
        )
    shape, mean, std, form = _prepared(processor, name)
    return module, {
        "mean": mean,
        "std": std,
        "input_shape": shape,
        "classes": _classes(module.config.id2label, name),
        "preparation": form.way(),
    }


def _place(name: str) -> tuple[str, dict[str, Any]]:
    """What transformers is asked for, and with which options."""
    folder = Path(name).expanduser()
    asked: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    if name and folder.is_dir():
        return str(folder), asked
    if name.startswith((".", "/", "~")):
        more = "; weights of one's own are given by --weights" if "@" in name else ""
        raise UsageError(f"hf:{name}: there is no folder {folder} (one that save_pretrained wrote){more}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", name):
        raise UsageError(
            f"a model of transformers is hf:owner/name, hf:owner/name@revision or hf:./folder, got hf:{name}"
        )
    repository, at, revision = name.partition("@")
    asked["local_files_only"] = unreachable() is not None
    return repository, {**asked, **({"revision": revision} if at else {})}


def _classes(id2label: dict[Any, Any], name: str) -> list[str] | int:
    labels = {int(place): str(label) for place, label in id2label.items()}
    if sorted(labels) != list(range(len(labels))):
        raise Failure(f"hf:{name}: the places of id2label in its configuration do not count from 0")
    names = [labels[place] for place in range(len(labels))]
    return len(names) if names == [f"LABEL_{place}" for place in range(len(names))] else names


def _prepared(processor: Any, name: str) -> tuple[list[int] | None, list[float], list[float], Form]:
    """What the processor does to images: which shape comes out, if one, mean and std, and how they are resized."""
    from PIL import Image

    def seen(image: Any) -> Tensor:
        try:
            values: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0].double()
        except Exception as error:
            raise Failure(f"the image processor of hf:{name} takes no photo: {reason(error)}") from error
        if values.ndim != 3 or len(values) not in (1, 3):
            raise UsageError(f"the image processor of hf:{name} gives {tuple(values.shape)}, not a gray or RGB image")
        return values

    sides = {"black": 256, "white": 320, "red": 256}
    black, white, red = (seen(Image.new("RGB", (side, side), color)) for color, side in sides.items())
    low, high = black.mean((1, 2)), white.mean((1, 2))
    even = all(bool((v.amax((1, 2)) - v.amin((1, 2)) < 1e-4).all()) for v in (black, white))
    turned = len(red) == 3 and not bool((red.mean((1, 2))[1:] - low[1:]).abs().max() < 1e-4)
    if not even or turned or not bool((high > low).all()):
        what = "in another order of colors" if turned else "that are no (x - mean) / std of the pixels"
        raise UsageError(
            f"the image processor of hf:{name} gives values {what}: take the model as module:callable, with a module "
            "that does what the processor does"
        )
    std = 1 / (high - low)
    mean = -low * std
    values = _plain(mean), _plain(std)
    if black.shape != white.shape:  # it leaves the size as it comes
        return None, *values, Form()

    coarse = np.random.default_rng(0).integers(0, 256, (24, 48, 3), dtype=np.uint8)
    # Twice as wide as what comes out, so that a cut differs from other proportions.
    wide = 2 * round(300 * black.shape[2] / black.shape[1])
    photo = Image.fromarray(coarse).resize((wide, 300), Image.Resampling.BICUBIC)
    wanted = seen(photo)
    shape = list(black.shape)
    color = "gray" if len(black) == 1 else "rgb"

    def off(form: Form) -> float:
        # In the shares of white that they are before the normalization.
        got = np.moveaxis(pixels(photo, form), -1, 0) / 255
        pure = (wanted * std.view(-1, 1, 1) + mean.view(-1, 1, 1)).numpy()
        return float(np.abs(got - pure).mean()) if got.shape == pure.shape else 1.0

    form = min(_forms(processor, (shape[1], shape[2]), color), key=off)
    if off(form) > _CLOSE:
        logging.getLogger("steadygrad").warning(
            f"hf:{name}: photos are {form.words(shape[0]).partition(': ')[2]}, which its own image processor does in "
            "another way (--resize chooses): accuracy may differ from what was published"
        )
    return shape, *values, form


def _plain(values: Tensor) -> list[float]:
    """As they were written before the rounding of float32."""
    return [float(f"{v:.6g}") + 0.0 for v in values.tolist()]


def _forms(processor: Any, size: tuple[int, int], color: str) -> list[Form]:
    """Ways in which images may get their size, those that the settings of the processor speak of."""
    resample = getattr(processor, "resample", None)
    number = int(resample) if resample is not None else 2
    interpolation = _RESAMPLE[number] if number < len(_RESAMPLE) else "bicubic"
    assert interpolation in INTERPOLATIONS
    said = getattr(processor, "size", None) or {}
    sides = [said.get(k) if isinstance(said, dict) else getattr(said, k, None) for k in ("shortest_edge", "height")]
    shares = [size[0] / side for side in sides if side] + [getattr(processor, "crop_pct", None), 224 / 256, 1.0]
    kept = dict.fromkeys(share for share in shares if share and 0 < share <= 1)
    return [Form(size, color, way, k, interpolation) for way in ("crop", "squash") for k in kept] + [
        Form(size, color, "pad", 1.0, interpolation)
    ]
