"""Files that people bring, each small, and what reads them: images, arrays, tables, weights, settings, masks."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import steadygrad as sg
from campaigns.mutations import odd
from campaigns.watched import Target
from steadygrad import masks
from steadygrad.attributions import IntegratedGradients
from steadygrad.files import parse_toml, read_toml
from steadygrad.recipes import RECIPES
from steadygrad.training.train_plan import TrainPlan

IMAGES: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "palette.png": {"format": "PNG", "mode": "P"},
    "deep.png": {"format": "PNG", "mode": "I;16"},
    "clear.png": {"format": "PNG", "mode": "RGBA"},
    "jpg": {"format": "JPEG", "exif": True},
    "progressive.jpg": {"format": "JPEG", "progressive": True},
    "gif": {"format": "GIF", "mode": "P"},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "deflate.tif": {"format": "TIFF", "compression": "tiff_adobe_deflate", "mode": "L"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP"},
}
MODEL = "mlp:hidden=[6]"


def image(format: str, mode: str = "RGB", exif: bool = False, **how: Any) -> bytes:
    """A small picture as a file of a format."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    made = Image.fromarray(pixels)
    made = Image.fromarray(pixels[..., 0].astype(np.uint16) * 250) if mode == "I;16" else made.convert(mode)
    if exif:
        noted = Image.Exif()
        noted[0x0112], noted[0x010F] = 6, "maker"
        how["exif"] = noted
    out = io.BytesIO()
    made.save(out, format, **how)
    return out.getvalue()


def data(path: Path) -> Any:
    """All that a data set holds."""
    found = sg.data.load(path, "all" if path.is_dir() else None)
    x, y = found.batch(range(len(found)))
    return [tuple(x.shape), x.tolist(), y.tolist(), found.classes, found.ids, found.bounds]


def weights(path: Path) -> Any:
    """All that a model holds, and what it answers."""
    model = sg.models.load(MODEL, weights=path, input_shape=(1, 4, 4), classes=3)
    return [{k: v.tolist() for k, v in model.state_dict().items()}, model.settings]


def saved(path: Path) -> Any:
    """All that a model of ours holds, built from what its file says."""
    model = sg.models.load(path)
    return [{k: v.tolist() for k, v in model.state_dict().items()}, model.settings]


def plan(path: Path) -> Any:
    """The training that a file configures."""
    found = TrainPlan.resolve(path, {})
    return [repr(found.objective()), repr(found.fitting()), str(found)]


def audit_plan(path: Path) -> Any:
    """The audit that a file configures."""
    from steadygrad.audit.audit_plan import AuditPlan

    return AuditPlan.read(read_toml(path), str(path)).plain()


def mask(path: Path) -> Any:
    """A mask by its file."""
    return masks.read(path).tolist()


def mask_text(path: Path) -> Any:
    """A mask as it stands in a configuration."""
    return masks.parsed(path.read_text(encoding="utf-8", errors="replace").strip()).tolist()


def baseline(path: Path) -> Any:
    """A baseline by its file, or as it stands in a configuration."""
    given = path if path.suffix == ".npy" else path.read_text(encoding="utf-8", errors="replace").strip()
    method = IntegratedGradients(steps=2, baseline=str(given))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    for weight in model.parameters():
        torch.nn.init.constant_(weight, 0.1)
    return method(model, torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])).tolist()


def of_json(change: Callable[[Any, random.Random], tuple[str, Any]]) -> Any:
    """Damage to what a JSON text says, rather than to its bytes."""

    def changed(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
        how, value = change(json.loads(content), drawn)
        return how, json.dumps(value).encode()

    return changed


def of_settings(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """Damage to what a weights file says about its model, in a file that is sound."""
    from safetensors import safe_open
    from safetensors.torch import save

    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"campaign-{drawn.getrandbits(60)}.safetensors"
    path.write_bytes(content)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["steadygrad"])
    path.unlink()
    about.pop("sha256", None)
    how, about = odd(about, drawn)
    return how, save(tensors, {"steadygrad": json.dumps(about)})


def of_toml(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """Damage to what a TOML text says, as far as TOML can say it."""
    import tomli_w

    how, value = odd(parse_toml(content.decode()), drawn)
    try:
        return how, tomli_w.dumps(_without_none(value)).encode()
    except (TypeError, ValueError, AttributeError):
        return "nothing", content


def of_arrays(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """An array of an archive is of another shape, type or content."""
    with np.load(io.BytesIO(content)) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    name = drawn.choice(sorted(arrays))
    value = arrays[name]
    ways: dict[str, Callable[[], Any]] = {
        "complex": lambda: value.astype(np.complex64) if value.dtype.kind in "iuf" else np.array(1j),
        "none": lambda: value[:0],
        "scalar": lambda: value.ravel()[0],
        "dates": lambda: np.zeros(value.shape, "datetime64[s]"),
        "texts": lambda: value.astype(str),
        "bytes": lambda: value.astype("S4"),
        "records": lambda: np.zeros(value.shape, [("a", "i4"), ("b", "f8")]),
        "half": lambda: value.astype(np.float16) if value.dtype.kind in "iuf" else value,
        "long": lambda: value.astype(np.longdouble) if value.dtype.kind in "iuf" else value,
        "turned": lambda: value.T,
        "swapped bytes": lambda: value.astype(value.dtype.newbyteorder()),
        "one axis more": lambda: value[None],
        "six axes": lambda: value.reshape(*value.shape, *[1] * (6 - value.ndim)),
        "huge": lambda: value * 10**9 if value.dtype.kind in "iuf" else value,
        "negative": lambda: -value.astype(float) if value.dtype.kind in "iuf" else value,
        "unsigned 64": lambda: np.full(value.shape, 2**64 - 1, np.uint64),
        "nan": lambda: np.full(value.shape, np.nan),
        "unicode": lambda: np.full(value.shape, "\x1b[31m\u202e"),
        "fewer": lambda: value[:-1],
    }
    way = drawn.choice(sorted(ways))
    arrays[name] = ways[way]()
    if drawn.random() < 0.1:
        del arrays[name]
    out = io.BytesIO()
    np.savez(out, **arrays)
    return f"{name}: {way}", out.getvalue()


def of_cells(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """A cell of a table is an odd one."""
    rows = [row.split(",") for row in content.decode().splitlines()]
    row = drawn.choice(rows)
    word = drawn.choice(
        ("", "nan", "inf", "-inf", "1e400", "x", "1,2", '"', "\x00", "é", "0x10", "True", str(10**30), "1_0", " ")
    )
    place = drawn.randrange(len(row))
    row[place] = word
    return f"{place}: {word!r}", "\n".join(",".join(row) for row in rows).encode()


def of_columns(content: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """A column of a Parquet table has other values than images and labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    count = len(table)
    values: dict[str, Any] = {
        "texts": pa.array(["a"] * count),
        "nothing": pa.nulls(count),
        "lists": pa.array([[1, 2]] * count),
        "structs": pa.array([{"a": 1}] * count),
        "unsigned": pa.array([2**64 - 1] * count, pa.uint64()),
        "negative": pa.array([-1] * count),
        "wild": pa.array([10**12] * count),
        "fractions": pa.array([0.5] * count),
        "some null": pa.array([None, *[1] * (count - 1)], pa.int64()),
        "bytes": pa.array([b"abc"] * count),
        "paths": pa.array([{"bytes": None, "path": "a.png"}] * count),
        "no images": pa.array([{"bytes": b"abc", "path": "a.png"}] * count),
        "words": pa.array(["a"] * count).dictionary_encode(),
        "times": pa.array([0] * count, pa.timestamp("s")),
        "bools": pa.array([True] * count),
    }
    name, way = drawn.choice(table.column_names), drawn.choice(sorted(values))
    about = {
        b"huggingface": json.dumps(odd({"info": {"features": {"label": {"names": ["a", "b"]}}}}, drawn)[1]).encode()
    }
    table = table.set_column(table.column_names.index(name), name, values[way]).replace_schema_metadata(about)
    out = io.BytesIO()
    pq.write_table(table.slice(0, drawn.choice((count, count, count, 0))), out)
    return f"{name}: {way}", out.getvalue()


def targets(root: Path) -> list[Target]:
    """All of them, in folders below the root."""
    made = [*_images(root), *_tables(root), *_weights(root), *_settings(root)]
    assert len({target.name for target in made}) == len(made)
    return made


def _written(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _images(root: Path) -> list[Target]:
    found = []
    for name, how in IMAGES.items():
        other = image("PNG", mode="L" if how.get("mode") in ("L", "I;16") else "RGB")
        files = {f"a/1.{name}": image(**how), "a/2.png": other, "b/1.png": other, "b/2.png": other}
        found.append(
            Target(f"image {name}", _written(root / f"image {name}", **files), (f"a/1.{name}",), data, share=0.5)
        )
    return found


def _tables(root: Path) -> list[Target]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    drawn = np.random.default_rng(0)
    x, y = drawn.random((8, 1, 4, 4), dtype=np.float32), np.arange(8) % 2
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, x=x, y=y, classes=np.array(["a", "b"]), bounds=np.array([0.0, 1.0]))
    np.savez_compressed(packed, x_train=x, y_train=y, x_test=x, y_test=y)
    arrays = _written(root / "npz", **{"a.npz": plain.getvalue(), "b.npz": packed.getvalue()})
    names = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    rows = {
        "image": [{"bytes": image("PNG"), "path": f"{i}.png"} for i in range(6)],
        "label": [i % 2 for i in range(6)],
    }
    out = io.BytesIO()
    pq.write_table(pa.table(rows).replace_schema_metadata({b"huggingface": json.dumps(names).encode()}), out)
    parquet = _written(root / "parquet", **{"a.parquet": out.getvalue()})
    text = "a,b,label\n" + "\n".join(f"{i / 7:.3f},{i},{'xy'[i % 2]}" for i in range(8)) + "\n"
    csv = _written(root / "csv", **{"a.csv": text.encode()})

    def read(folder: Path) -> Any:
        return [data(path) for path in sorted(folder.iterdir())]

    return [
        Target("npz", arrays, ("a.npz", "b.npz"), read, share=2),
        Target("npz, arrays", arrays, ("a.npz", "b.npz"), read, change=of_arrays),
        Target("Parquet", parquet, ("a.parquet",), read, share=2),
        Target("Parquet, columns", parquet, ("a.parquet",), read, change=of_columns),
        Target("CSV", csv, ("a.csv",), read, share=2),
        Target("CSV, cells", csv, ("a.csv",), read, change=of_cells),
    ]


def _weights(root: Path) -> list[Target]:
    from safetensors.torch import save

    model = sg.models.build("mlp", (1, 4, 4), 3, hidden=(6,))
    states = {name: value.clone() for name, value in model.module.state_dict().items()}
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"epoch": 3, "state_dict": states}, new)
    torch.save(states, old, _use_new_zipfile_serialization=False)
    files = {"a.pt": new.getvalue(), "b.pt": old.getvalue()}
    theirs = _written(root / "checkpoints", **files)
    plain = _written(root / "safetensors", **{"a.safetensors": save(states)})
    ours = root / "ours"
    ours.mkdir()
    model.save(ours / "a.safetensors")

    def each(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda folder: [read(path) for path in sorted(folder.iterdir())]

    return [
        Target("checkpoints of PyTorch", theirs, ("a.pt", "b.pt"), each(weights), share=2),
        Target("safetensors of others", plain, ("a.safetensors",), each(weights)),
        Target("safetensors of ours", ours, ("a.safetensors",), each(saved), kept=True, share=2),
        Target("safetensors, settings", ours, ("a.safetensors",), each(saved), change=of_settings),
    ]


def _settings(root: Path) -> list[Target]:
    recipes = _written(root / "recipes", **{recipe.path.name: recipe.path.read_bytes() for recipe in RECIPES})
    text = 'eps = 0.1\nnorm = "linf"\nsamples = 20\nattacks = ["fgsm", {name = "pgd", steps = 3}]\ngallery = 2\n'
    audits = _written(root / "audits", **{"audit.toml": text.encode()})
    square = np.zeros((1, 4, 4), bool)
    square[0, 1:3, 1:3] = True
    array, picture, values = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, square)
    np.save(values, np.arange(16, dtype=np.float32).reshape(1, 4, 4) / 16)
    Image.fromarray((square[0] * 255).astype(np.uint8)).save(picture, "PNG")
    from steadygrad.attributions.baselines import _read as as_text

    words = {"mask.txt": masks.text(torch.from_numpy(square)).encode()}
    image_text = str(as_text("baseline", np.arange(16).reshape(1, 4, 4) / 16)).encode()
    masked = _written(root / "masks", **{"a.npy": array.getvalue(), "b.png": picture.getvalue(), **words})
    filled = _written(root / "baselines", **{"a.npy": values.getvalue(), "b.txt": image_text})

    def plans(folder: Path) -> Any:
        return [plan(path) for path in sorted(folder.iterdir())]

    def read_masks(folder: Path) -> Any:
        return [mask(folder / "a.npy"), mask(folder / "b.png"), mask_text(folder / "mask.txt")]

    return [
        Target("TOML, recipes", recipes, tuple(p.name for p in sorted(recipes.iterdir())), plans),
        Target(
            "TOML, values", recipes, tuple(p.name for p in sorted(recipes.iterdir())), plans, change=of_toml, share=2
        ),
        Target("TOML, audits", audits, ("audit.toml",), lambda f: audit_plan(f / "audit.toml")),
        Target(
            "TOML, values of audits", audits, ("audit.toml",), lambda f: audit_plan(f / "audit.toml"), change=of_toml
        ),
        Target("masks", masked, ("a.npy", "b.png", "mask.txt"), read_masks),
        Target("baselines", filled, ("a.npy", "b.txt"), lambda f: [baseline(p) for p in sorted(f.iterdir())]),
    ]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value if v is not None] if isinstance(value, list) else value
