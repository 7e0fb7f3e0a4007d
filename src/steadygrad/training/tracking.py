"""The history of a run as a table and, if asked for, as TensorBoard files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steadygrad.errors import UsageError
from steadygrad.files import write_text


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `history.csv`, one row per epoch, whole or not at all."""
    import pandas as pd

    write_text(folder / "history.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def require_tensorboard() -> Any:
    """TensorBoard's writer class; a UsageError where the package is not installed."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise UsageError("tensorboard=True needs the package: pip install 'steadygrad[tensorboard]'") from None
    return SummaryWriter


@contextlib.contextmanager
def tracker(folder: Path | None, epochs_done: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that takes the row of an epoch to TensorBoard files in the folder; None for no files."""
    if folder is None:
        yield lambda row: None
        return
    # Epochs that a killed run wrote after its last checkpoint are hidden.
    with require_tensorboard()(str(folder / "tensorboard"), purge_step=epochs_done + 1) as writer:

        def track(row: Mapping[str, Any]) -> None:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(name, value, row["epoch"])

        yield track
