"""One row per model, sample and attack: what every robust accuracy is counted from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor, nn

from steadygrad.arguments import public
from steadygrad.attacks import Attack
from steadygrad.audit.answers import unanswered
from steadygrad.audit.audited_models import agreeing, named
from steadygrad.data.python_data import Samples
from steadygrad.errors import UsageError
from steadygrad.kinds import Device
from steadygrad.measuring.measures.attacked import RECORDS, Attacked, Transferred
from steadygrad.measuring.measures.curve import Curve
from steadygrad.measuring.runner import Runner
from steadygrad.measuring.statistics import Estimate, wilson
from steadygrad.measuring.table import Table
from steadygrad.registry import label_of
from steadygrad.threat import Threat, check_radius
from steadygrad.values import Count, Seed


@public
def evaluate(
    model: nn.Module,
    data: Samples,
    attacks: Attack | Sequence[Attack],
    threat: Threat,
    *,
    seed: Seed = 0,
    device: Device | None = None,
    batch_size: Count = 200,
) -> Table:
    """Attack a data set and return one record per sample and attack: a table with the columns of `RECORDS`.

    Args:
        threat: with one radius, one for each sample (N,), or none, for the smallest change.
        device: where to compute; None for where the model is. The model is left where it was.

    >>> import steadygrad as sg
    >>> data = sg.data.load("digits", "test").take(20)
    >>> model = sg.models.build("mlp", data.shape, data.classes)
    >>> sg.robust_accuracy(sg.evaluate(model, data, sg.attacks.FGSM(), sg.linf(0.1))).count
    20
    """
    attacks = [attacks] if isinstance(attacks, Attack) else list(attacks)
    if not attacks:
        raise UsageError("attacks is empty: give at least one, e.g. sg.attacks.PGD()")
    check_radius(threat)
    name = named(model)
    fitted = agreeing(model, data, threat, device).told()
    data = dataclasses.replace(data, classes=fitted.classes)
    runner = Runner({name: fitted.model}, data, seed=seed, device=device, batch_size=batch_size, may_fail=True)
    if failed := unanswered(runner, name):
        logging.getLogger("steadygrad").warning("%s; they count as wrong", failed.text)
    radii = threat.eps.cpu().double().numpy() if isinstance(threat.eps, Tensor) and threat.eps.ndim else None
    if radii is not None and len(radii) != len(data):
        raise UsageError(f"eps has {len(radii)} entries for {len(data)} samples: give one number, or one each")
    found = []
    for attack in attacks:
        measure = Attacked(attack, threat if radii is None else threat.at(None))
        given = {} if radii is None else {"eps": radii}
        found.append(records(runner.run(measure, name, given=given), measure, name))
    return Table.join(found)


def records(table: Table, measure: Attacked | Transferred, model: str, source: str = "") -> Table:
    """The table of an attack as records."""
    about = {"model": model, "source": source or model, "attack": label_of(measure.attack)}
    named = table.assign(**about, norm=measure.threat.norm)
    return Table({name: named[name] for name in RECORDS}, table.about)


def records_of_curve(table: Table, measure: Curve, model: str, eps: float) -> Table:
    """What the search of a curve found within a radius, as records of an attack of its own."""
    name = f"{label_of(measure.attack)} (curve)"
    fell = table["radius"] <= eps * (1 + 1e-9)
    named = table.assign(
        model=model,
        source=model,
        attack=name,
        norm=measure.threat.norm,
        eps=eps,
        success=fell,
        broken_by=np.where(fell & (table["radius"] > 0), name, ""),
        prediction=table["clean_prediction"],
        confidence=table["clean_confidence"],
        distance=np.where(fell, table["radius"], np.inf),
        zero_gradient=False,
        rounded_success=False,
    )
    return Table({column: named[column] for column in RECORDS}, table.about)


def accuracy(table: Table, column: str = "success") -> Estimate:
    """The share of rows in which nothing was found, with its interval."""
    return wilson(int((~table[column]).sum()), len(table))


def success_rate(table: Table) -> Estimate | None:
    """The share of successes among rows whose clean prediction is right; None if there are none."""
    right = table.select(table["clean_prediction"] == table["label"])
    return wilson(int(right["success"].sum()), len(right)) if len(right) else None


@public
def robust_accuracy(table: Table) -> Estimate:
    """The share of samples that no attack changed: the worst case per sample, then the mean.

    Raises:
        UsageError: the records hold several models or radii, or none, or attacks on different samples.
    """
    for column in ("model", "norm", "eps"):
        different = np.unique(table[column])
        # A search for the smallest change has no radius: its NaN equals nothing.
        if len(different) != 1 or different[0] != different[0]:
            raise UsageError(
                f"robust accuracy needs records of one {column}, got {sorted(map(str, different))}: "
                f"select with records.where({column}=...)"
            )
    frame = table.frame
    counts = frame.groupby("sample")["attack"].nunique()
    if (counts != frame["attack"].nunique()).any():
        raise UsageError("robust accuracy needs every attack on every sample; some samples lack an attack")
    broken = frame.groupby("sample")["success"].any()
    return wilson(int((~broken).sum()), len(broken))


def fallen(tables: Iterable[Table]) -> set[str]:
    """The samples that any of the attacks changed, or that were wrong before."""
    return {str(sample) for table in tables for sample in table["sample"][table["success"]]}
