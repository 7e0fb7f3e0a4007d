"""Makers of tiny image files, folders and Parquet files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Maker = Callable[..., Any]


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(array: np.ndarray, kind: str = "PNG") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the Hub here is played by stand-ins."""

    from steadygrad import offline

    monkeypatch.setattr(offline, "unreachable", lambda: None)


@pytest.fixture
def make_png() -> Maker:
    """(seed, *shape) -> (pixels, PNG bytes)."""

    def make(seed: int, *shape: int) -> tuple[np.ndarray, bytes]:
        array = pixels(seed, *shape)
        return array, encode(array)

    return make


@pytest.fixture
def make_folder() -> Maker:
    """(root, classes, count, shape): root/<class>/<i>.png for every class."""

    def make(root: Path, classes: Sequence[str], count: int, shape: tuple[int, ...] = (6, 5)) -> Path:
        for k, title in enumerate(classes):
            (root / title).mkdir(parents=True)
            for i in range(count):
                (root / title / f"{i}.png").write_bytes(encode(pixels(100 * k + i, *shape)))
        return root

    return make


@pytest.fixture
def make_parquet() -> Maker:
    """(path, labels, ...): a Parquet file in the layout of the Hub; the pixels follow from `seed` and the row."""

    def make(
        path: Path,
        labels: Sequence[int | None],
        classes: Sequence[str] | None = ("cat", "dog"),
        *,
        images: Sequence[bytes | None] | None = None,
        shape: tuple[int, ...] = (6, 5),
        names: tuple[str, str] = ("image", "label"),
        seed: int = 0,
    ) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        contents = images or [encode(pixels(seed + i, *shape)) for i in range(len(labels))]
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table(
            {
                names[0]: pa.array([{"bytes": c, "path": None} for c in contents], struct),
                names[1]: pa.array(list(labels)) if len(labels) else pa.array([], pa.int64()),
            }
        )
        if classes is not None:
            features = {names[0]: {"_type": "Image"}, names[1]: {"names": list(classes), "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return path

    return make
