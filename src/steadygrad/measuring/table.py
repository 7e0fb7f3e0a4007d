"""Per-sample columns of one measure: what every figure is computed from."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from steadygrad import provenance
from steadygrad.arguments import arithmetic
from steadygrad.errors import Failure, UsageError, one_of, reading
from steadygrad.files import atomic

if TYPE_CHECKING:
    import pandas as pd

Array: TypeAlias = NDArray[Any]
REFUSED = "refused"
"""The column that says why a measure has nothing for a model; it then is the only one beside `sample` and `label`."""


@dataclass(frozen=True)
class Kept:
    """A column that holds large values, such as adversarial inputs, for some of the samples only.

    Attributes:
        count: how many samples the table has.
        rows: places (k,) of the samples that have a value, rising.
        values: (k, *).
    """

    count: int
    rows: Array
    values: Array

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: Any) -> Kept:
        chosen = np.arange(self.count)[places]
        at = np.full(self.count, -1)
        at[self.rows] = np.arange(len(self.rows))
        have = at[chosen] >= 0
        return Kept(len(chosen), np.flatnonzero(have), self.values[at[chosen][have]])

    @staticmethod
    def join(parts: Sequence[Kept]) -> Kept:
        """Columns below each other."""
        starts = np.cumsum([0, *(p.count for p in parts)])
        filled = [p.values for p in parts if len(p.rows)] or [parts[0].values]
        rows = np.concatenate([p.rows + start for p, start in zip(parts, starts)])
        return Kept(int(starts[-1]), rows.astype(np.int64), np.concatenate(filled))


@dataclass(frozen=True)
class Table:
    """Columns by name, the first axis of each being the sample; `about` says how they were made.

    >>> table = Table({"sample": np.array(["a", "b"]), "success": np.array([True, False])})
    >>> len(table), table.where(success=True)["sample"].tolist()
    (2, ['a'])
    """

    columns: Mapping[str, Array | Kept]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    @arithmetic
    def __getitem__(self, name: str) -> Array:
        one_of("column", name, self.columns)
        found = self.columns[name]
        if isinstance(found, Kept):
            raise UsageError(f"column {name!r} holds some samples only: take table.kept({name!r})")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    @arithmetic
    def kept(self, name: str) -> Kept:
        """A column that holds some samples only."""
        one_of("column", name, self.columns)
        found = self.columns[name]
        return found if isinstance(found, Kept) else Kept(len(found), np.arange(len(found)), found)

    @property
    def refused(self) -> str | None:
        """Why there is nothing but this sentence, if that is so."""
        return str(self[REFUSED][0]) if REFUSED in self.columns and len(self) else None

    @property
    def frame(self) -> pd.DataFrame:
        """The columns with one value per sample as a pandas data frame."""
        import pandas as pd

        flat = {n: c for n, c in self.columns.items() if not isinstance(c, Kept) and c.ndim == 1}
        return pd.DataFrame(flat)

    @staticmethod
    @arithmetic
    def join(parts: Iterable[Table]) -> Table:
        """Tables below each other; where one was refused, that is all that is left."""
        parts = list(parts)
        if not parts:
            raise UsageError("parts is empty: there are no tables to join, give at least one")
        refused = next((p.refused for p in parts if p.refused is not None), None)
        if refused is not None:
            columns = {n: np.concatenate([p[n] for p in parts]) for n in ("sample", "label") if n in parts[0]}
            why = np.array([refused] * sum(map(len, parts)))
            return Table({**columns, REFUSED: why}, parts[0].about)
        names = list(parts[0].columns)
        if any(set(p.columns) != set(names) for p in parts):
            different = sorted({n for p in parts for n in {*names} ^ {*p.columns}})
            raise UsageError(
                f"tables can be joined if their columns are the same; these differ: {', '.join(different)}"
            )
        kept = {name for name in names if isinstance(parts[0].columns[name], Kept)}
        joined: dict[str, Array | Kept] = {
            n: Kept.join([p.kept(n) for p in parts]) if n in kept else np.concatenate([p[n] for p in parts])
            for n in names
        }
        return Table(joined, _spent([p.about for p in parts]))

    @arithmetic
    def select(self, places: Any) -> Table:
        """The rows at these places, or where a mask (N,) is True."""
        return Table({n: c[places] for n, c in self.columns.items()}, self.about)

    def where(self, **values: Any) -> Table:
        """The rows in which each named column has the given value."""
        mask = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            mask &= self[name] == value
        return self.select(mask)

    @arithmetic
    def at(self, samples: Sequence[str]) -> Table:
        """The rows of these samples, in this order."""
        places = {str(s): i for i, s in enumerate(self["sample"].tolist())}
        missing = [s for s in samples if s not in places]
        if missing:
            raise UsageError(f"the table has no sample {missing[0]!r} ({len(missing)} of {len(samples)} are missing)")
        return self.select(np.array([places[s] for s in samples], dtype=np.int64))

    def assign(self, **values: Any) -> Table:
        """The same with further columns; one value stands for all samples."""
        count = len(self)
        new = {n: np.array([v] * count) if np.ndim(v) == 0 else np.asarray(v) for n, v in values.items()}
        return Table({**self.columns, **new}, self.about)

    @arithmetic
    def write(self, path: str | Path) -> None:
        """Write a Parquet file with checksums, whole or not at all."""
        with atomic(path) as temporary:
            temporary.write_bytes(self.encoded())

    def encoded(self) -> bytes:
        """The table as the bytes of a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays, fields = [], []
        for name, column in self.columns.items():
            array, shape = _to_arrow(column)
            arrays.append(array)
            fields.append(pa.field(name, array.type, metadata={b"shape": json.dumps(shape).encode()}))
        about = {b"steadygrad": json.dumps(dict(self.about), default=str).encode()}
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=about))
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        return buffer.getvalue()

    @staticmethod
    @arithmetic
    def read(path: str | Path) -> Table:
        """Read a Parquet file that `write` has written.

        Raises:
            UsageError: there is no such file.
            Failure: it is damaged, or none of this library.
        """
        if not Path(path).is_file():
            raise UsageError(f"there is no table {path}")
        try:
            # Without memory mapping: a mapped file cannot be replaced everywhere.
            return Table.decoded(Path(path).read_bytes())
        except (OSError, Failure) as error:
            raise Failure(f"cannot read the table {path}: {error}; run the same command again") from error

    @staticmethod
    def decoded(data: bytes) -> Table:
        """The table in the bytes of a Parquet file; a Failure where there is none."""
        import pyarrow.parquet as pq

        if not isinstance(data, bytes):
            raise UsageError(f"data must be the bytes of a Parquet file, got {type(data).__name__}")
        with reading("it is no table"):
            table = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()
            about = json.loads((table.schema.metadata or {}).get(b"steadygrad", b"{}"))
            columns = {
                name: _from_arrow(column.combine_chunks(), table.schema.field(name).metadata or {})
                for name, column in zip(table.column_names, table.columns)
            }
        return Table(columns, about)


def _spent(about: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of the parts together: the time adds up, the last one dates the whole, machines differ."""
    latest = max(about, key=lambda a: str(a.get("created", "")))
    if not latest:
        return {}
    machines = provenance.kinds(machine for a in about for machine in a.get("machines") or [a.get("machine") or {}])
    several = {"machines": machines} if len(machines) > 1 else {}
    return {**latest, "seconds": sum(float(a.get("seconds", 0.0)) for a in about), **several}


def _to_arrow(column: Array | Kept) -> tuple[Any, list[Any]]:
    """An Arrow array, and the shape of one sample; the shape of a column that is kept in part begins with "kept"."""
    import pyarrow as pa

    if isinstance(column, Kept):
        shape = column.values.shape[1:]
        size = int(np.prod(shape))
        starts: list[int | None] = [None] * column.count
        for place, row in enumerate(column.rows.tolist()):
            starts[row] = place * size
        offsets = pa.array([*starts, len(column.rows) * size], pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(column.values.reshape(-1))), ["kept", *shape]
    if column.ndim == 1:
        return pa.array(column.tolist() if column.dtype.kind in "OU" else column), []
    flat = pa.array(np.ascontiguousarray(column).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(column.shape[1:]))), list(column.shape[1:])


def _from_arrow(array: Any, metadata: Mapping[bytes, bytes]) -> Array | Kept:
    shape = json.loads(metadata.get(b"shape", b"[]"))
    if shape and shape[0] == "kept":
        have = np.flatnonzero(np.asarray(array.is_valid()))
        values = array.flatten().to_numpy(zero_copy_only=False)
        return Kept(len(array), have, values.reshape(len(have), *shape[1:]))
    if shape:
        return np.asarray(array.flatten().to_numpy(zero_copy_only=False)).reshape(len(array), *shape)
    values = array.to_numpy(zero_copy_only=False)
    return np.array(values.tolist(), dtype=str) if values.dtype == object else values
