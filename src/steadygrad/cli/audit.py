"""`steadygrad audit`: attack, check, explain, and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steadygrad.cli.common import (
    Classes,
    Data,
    Debug,
    Device,
    Json,
    Trust,
    Weights,
    command_line,
    emit,
    in_folder,
    out_option,
    pick_device,
)
from steadygrad.cli.flags import plan_flags
from steadygrad.cli.named_models import load_named
from steadygrad.errors import Failure, UsageError
from steadygrad.progress import shown

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 500
"""How many are audited where nothing else is said."""
_MEAN_OF = 10_000


@plan_flags("audit", without=("bounds", "device", "grid"), samples=SAMPLES)
def audit(
    models: Annotated[
        list[str],
        typer.Argument(
            help="A model file or run folder, module:callable, timm:NAME, torchvision:NAME or hub:owner/name; "
            "MODEL@WEIGHTS with its weights, NAME=MODEL to name it.",
            show_default=False,
        ),
    ],
    flags: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings as in a run's config.toml; flags win.")
    ] = None,
    data: Data = "digits",
    split: Annotated[str, typer.Option(help="Split of the data.")] = "test",
    weights: Weights = None,
    trust: Trust = False,
    classes: Classes = None,
    size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Side to which images are resized.")] = None,
    out: Annotated[Path | None, out_option("runs/audit")] = None,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Audit one or several models: robust accuracy with checks, curves, transfer, explanations, pictures.

    Examples:

      steadygrad audit runs/lenet --data mnist --norm linf --eps 0.1

      steadygrad audit plain=runs/a hard=runs/b --suite standard --out runs/ab

      steadygrad audit nets:make@my.safetensors --data ./images

      steadygrad audit nets:make@my.safetensors runs/harden --data ./images

      steadygrad audit runs/lenet --data mnist --eps 1/255 --explanations --neurons
    """
    from steadygrad.audit import audit
    from steadygrad.audit.audit_plan import AuditPlan
    from steadygrad.data import load
    from steadygrad.files import read_toml

    file = {} if config is None else read_toml(config)
    file = {name: value for name, value in file.items() if name not in ("models", "data", "center")}
    plan = AuditPlan.read({"samples": SAMPLES, **file, **flags})
    where = pick_device(device)
    dataset = load(data, split, size=size)
    center = mean_training_image(data, size)
    named, files = load_named(models, weights, dataset, classes, trust=trust)
    with shown():
        found, folder = in_folder(
            out,
            "runs/audit",
            lambda folder: audit(
                named,
                dataset,
                plan.threat,
                center=center if center is not None and center.shape == dataset.shape else None,
                out=folder,
                files=files,
                command=command_line(),
                **{**plan.given(), "device": where},
            ),
        )
    show(found.summary, folder, json)


def show(summary: dict[str, Any], out: Path, json: bool) -> None:
    """Write the page and print the headline, or the whole summary as JSON."""
    from rich.console import Console

    from steadygrad import report
    from steadygrad.audit.schema import Summary

    page = report.write(out)
    if json:
        emit({**summary, "report": str(page)})
        return
    Console().print(*report.tables(Summary.model_validate(summary)), sep="\n")
    print(f"report: {page}\nsummary: {out / 'summary.json'}")


def mean_training_image(data: str, size: int | None) -> Tensor | None:
    """The mean training image of data by name, of at most 10,000 images; None where there is no training split.

    Repositories on the Hub are not asked for it: their training split may be many times the test split.
    """
    from steadygrad.data import load
    from steadygrad.measuring.measures.rho2 import mean_image

    if data.startswith("hub:"):
        return None
    try:
        return mean_image(load(data, "train", size=size).take(_MEAN_OF, seed=0))
    except (UsageError, Failure):
        return None
