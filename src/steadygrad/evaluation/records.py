"""One row per model, sample, attack and threat: what every figure is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadygrad.errors import Failure, UsageError
from steadygrad.files import atomic
from steadygrad.measuring.statistics import Estimate, wilson

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Cells", "Records", "robust_accuracy"]

COLUMNS: dict[str, str] = {
    "model": "name of the model under attack",
    "source": "name of the model on which the inputs were made; the same for a white-box attack",
    "sample": "stable id of the sample",
    "label": "true class",
    "clean_prediction": "class predicted for the clean input",
    "clean_confidence": "its probability",
    "attack": "label of the attack",
    "norm": "norm of the threat",
    "eps": "radius of the threat",
    "success": "the engine found an allowed wrong input (a clean mistake is one)",
    "broken_by": "attack, or member of a suite, that found it; empty for clean mistakes and where nothing was found",
    "prediction": "class predicted for what was found, or for the clean input",
    "confidence": "its probability",
    "distance": "size of the change in the norm; infinite if nothing was found",
    "forwards": "forward passes spent",
    "backwards": "backward passes spent",
    "zero_gradient": "the loss had no gradient at some point of the search",
    "rounded_success": "still wrong when the input is rounded to 8 bits",
    "seed": "seed of the run",
}


class Records:
    """A table with the columns of `COLUMNS`; `frame` is a pandas data frame."""

    def __init__(self, frame: pd.DataFrame) -> None:
        missing = [c for c in COLUMNS if c not in frame.columns]
        if missing:
            raise UsageError(
                f"records lack the columns {', '.join(missing)}; found {', '.join(map(str, frame.columns))}"
            )
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    def __add__(self, other: Records) -> Records:
        return Records.join([self, other])

    @staticmethod
    def join(parts: Iterable[Records]) -> Records:
        """Put tables below each other."""
        import pandas as pd

        frames = [p.frame for p in parts]
        if not frames:
            raise UsageError("there are no records to join: give at least one table")
        return Records(pd.concat(frames, ignore_index=True))

    def where(self, **values: Any) -> Records:
        """The rows in which each named column has the given value."""
        frame = self.frame
        for column, value in values.items():
            frame = frame[frame[column] == value]
        return Records(frame)

    def accuracy(self, column: str = "success") -> Estimate:
        """Share of rows in which nothing was found, with its interval."""
        return wilson(int((~self.frame[column]).sum()), len(self.frame))

    def success_rate(self) -> Estimate | None:
        """Share of successes among rows whose clean prediction is right; None if there are none."""
        right = self.frame[self.frame["clean_prediction"] == self.frame["label"]]
        return wilson(int(right["success"].sum()), len(right)) if len(right) else None

    def write(self, path: str | Path) -> None:
        """Write a Parquet file, whole or not at all."""
        with atomic(path) as temporary:
            self.frame.to_parquet(temporary, index=False)

    @staticmethod
    def read(path: str | Path) -> Records:
        """Read a Parquet file of records, or all files of a folder of them."""
        path = Path(path)
        # A killed run may leave a temporary file, whose name begins with a dot.
        files = sorted(f for f in path.glob("*.parquet") if f.name[0] != ".") if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise UsageError(f"there are no records at {path}")
        return Records.join(_read(f) for f in files)


def _read(file: Path) -> Records:
    import pandas as pd
    import pyarrow

    try:
        return Records(pd.read_parquet(file))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Failure(f"cannot read the records at {file}: {error}; delete the file to have it made again") from error


def robust_accuracy(records: Records) -> Estimate:
    """Share of samples that no attack changed: the worst case per sample, then the mean.

    Raises:
        UsageError: the records hold several models or radii, or attacks on different samples.
    """
    frame = records.frame
    for column in ("model", "norm", "eps"):
        if frame[column].nunique() != 1:
            raise UsageError(
                f"robust accuracy needs records of one {column}, got {sorted(map(str, frame[column].unique()))}: "
                f"select with records.where({column}=...)"
            )
    counts = frame.groupby("sample")["attack"].nunique()
    if (counts != frame["attack"].nunique()).any():
        raise UsageError("robust accuracy needs every attack on every sample; some samples lack an attack")
    broken = frame.groupby("sample")["success"].any()
    return wilson(int((~broken).sum()), len(broken))


class Cells:
    """Finished pieces of work by key: a run that was killed continues where it stopped.

    Without a folder they are kept in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._memory: dict[str, Records] = {}
        self.computed = 0

    def get(self, name: str, compute: Callable[[], Records]) -> Records:
        """The records under this key, computed and kept if they are not there yet."""
        if name in self._memory:
            return self._memory[name]
        path = self.folder / f"{name}.parquet" if self.folder is not None else None
        if path is not None and path.exists():
            records = Records.read(path)
        else:
            records = compute()
            self.computed += 1
            if path is not None:
                records.write(path)
        self._memory[name] = records
        return records
