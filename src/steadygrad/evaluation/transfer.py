"""Adversarial inputs of one model tried on another: weak evidence, shown as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from steadygrad.attacks import Attack
from steadygrad.data import Dataset
from steadygrad.errors import UsageError
from steadygrad.evaluation.records import Cells
from steadygrad.evaluation.robustness import Bench, label_of
from steadygrad.measuring.statistics import Estimate
from steadygrad.threat import Threat

__all__ = ["NOTE", "TransferMatrix", "transfer_matrix"]

NOTE = (
    "Rows made the inputs, columns judged them. The diagonal is white-box; all other cells are weak evidence: "
    "resisting another model's examples says little about resisting one's own."
)


@dataclass(frozen=True)
class TransferMatrix:
    """Accuracy of `names[j]` on the inputs made on `names[i]`, as `accuracy[i][j]`."""

    names: tuple[str, ...]
    attack: str
    eps: float
    accuracy: tuple[tuple[Estimate, ...], ...]

    def plain(self) -> dict[str, Any]:
        """The matrix as plain data for `summary.json`."""
        rows = [[cell.plain() for cell in row] for row in self.accuracy]
        return {"attack": self.attack, "eps": self.eps, "names": list(self.names), "accuracy": rows, "note": NOTE}


def transfer_matrix(
    models: Mapping[str, nn.Module],
    data: Dataset,
    attack: Attack,
    threat: Threat,
    *,
    seed: int = 0,
    device: str = "cpu",
    cells: Cells | None = None,
) -> TransferMatrix:
    """Accuracy of every model on the raw points that the attack makes on every model.

    The points are not judged on their source: one that failed there may still transfer. The
    diagonal is the judged white-box attack.

    Raises:
        UsageError: fewer than one model, or no radius.
    """
    if not models:
        raise UsageError("models is empty: give a mapping of names to models")
    if not isinstance(threat.eps, float | int):
        raise UsageError("transfer needs a threat with one radius, e.g. sg.linf(0.1)")
    for model in models.values():
        model.to(device)
    bench = Bench(data, cells or Cells(), seed, device)
    rows: list[tuple[Estimate, ...]] = []
    for source, model in models.items():
        records = bench.run(model, source, attack, threat)
        if len(models) > 1:
            records += bench.run_transfer(models, source, attack, threat)
        rows.append(tuple(records.where(model=name).accuracy() for name in models))
    return TransferMatrix(tuple(models), label_of(attack), float(threat.eps), tuple(rows))
