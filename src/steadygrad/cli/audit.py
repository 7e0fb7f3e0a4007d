"""`steadygrad audit`: attack, check, explain, and write the report."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steadygrad.cli.common import (
    Debug,
    Device,
    Json,
    Quiet,
    Trust,
    Weights,
    alone,
    command_line,
    emit,
    in_folder,
    out_option,
    pick_device,
    progress,
    rank_and_size,
    say,
)
from steadygrad.cli.demands import FailUnder, Junit, demands_of, judge
from steadygrad.cli.flags import plan_flags
from steadygrad.cli.named_models import load_named
from steadygrad.errors import UsageError
from steadygrad.files import read_toml
from steadygrad.named_data import check_reachable
from steadygrad.progress import whole

if TYPE_CHECKING:
    from torch import Tensor

    from steadygrad.audit.cost import AuditCost
    from steadygrad.classifier import Classifier
    from steadygrad.data.data_plan import DataPlan
    from steadygrad.randomized_smoothing import RandomizedSmoothing

SAMPLES = 500
"""How many are audited where nothing else is said."""
_MEAN_OF = 10_000
_TOLD = 300
"""Samples from which on it is tried beforehand how long the whole audit takes, to be shown on a terminal."""


@plan_flags("audit", without=("bounds", "device", "grid"), samples=SAMPLES)
@plan_flags("data", into="source", without=("train_split",))
@plan_flags("model", into="module")
def audit(
    models: Annotated[
        list[str],
        typer.Argument(
            help="A model file or run folder, module:callable, timm:NAME, torchvision:NAME, hf:owner/name or "
            "hub:owner/name; MODEL@WEIGHTS with its weights, NAME=MODEL to name it.",
            show_default=False,
        ),
    ],
    flags: dict[str, Any],
    source: dict[str, Any],
    module: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings as in a run's config.toml; flags win.")
    ] = None,
    weights: Weights = None,
    trust: Trust = False,
    out: Annotated[Path | None, out_option("runs/audit")] = None,
    device: Device = "auto",
    centered: Annotated[
        bool,
        typer.Option(
            "--centered",
            metavar="",
            help="Give rho2 about the mean training image too, for which 10,000 training images are read.",
        ),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", metavar="", help="Print what it will cost, from a trial on a few samples, and end."),
    ] = False,
    smoothed: Annotated[
        str | None,
        typer.Option(
            help="Audit each model under Gaussian noise, and certify it: its sigma, or sigma=0.25,n=1000,alpha=0.01."
        ),
    ] = None,
    fail_under: FailUnder = None,
    junit: Junit = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Audit one or several models: robust accuracy with checks, curves, transfer, explanations, pictures.

    Examples:

      steadygrad audit runs/lenet --data mnist --norm linf --eps 0.1

      steadygrad audit plain=runs/a hard=runs/b --suite standard --out runs/ab

      steadygrad audit nets:make@my.safetensors --data ./images

      steadygrad audit nets:make@my.safetensors runs/harden --data ./images

      steadygrad audit runs/lenet --data mnist --eps 1/255 --explanations --neurons

      steadygrad audit runs/lenet --data mnist --fail-under robust=0.4

      steadygrad audit runs/lenet --data mnist --suite standard --plan

      steadygrad audit runs/lenet --data mnist --norm l2 --eps 0.5 --smoothed 0.25
    """
    file = {} if config is None else read_toml(config)
    # A run's own file says in tables what its models and data were, and not where they lie.
    centered = centered or "center" in file
    file = {name: value for name, value in file.items() if name not in ("models", "center")}
    file = file if isinstance(file.get("data"), str) else {n: v for n, v in file.items() if n != "data"}
    check_reachable(str(source.get("data") or file.get("data", "")))

    from steadygrad.audit import audit, audit_cost
    from steadygrad.audit.audit_plan import AuditPlan
    from steadygrad.audit.cost import shares_of_slow
    from steadygrad.data.data_plan import DataPlan
    from steadygrad.engines import Local
    from steadygrad.models.model_plan import ModelPlan

    demands, smoothing = demands_of(fail_under, junit), None if smoothed is None else smoothing_of(smoothed)
    if plan and demands:
        raise UsageError("--plan makes no audit: leave out --fail-under and --junit, or --plan")
    of_data = {name: file.pop(name) for name in DataPlan.model_fields if name in file}
    # Under torchrun the processes share the work, if nothing else is said.
    usual = {"samples": SAMPLES} | ({"engine": "shared"} if rank_and_size()[1] > 1 and not plan else {})
    settings, where_from = AuditPlan.read({**usual, **file, **flags}), DataPlan.read({**of_data, **source})
    if not settings.engine.joined or plan:
        alone("audit")
    where = pick_device(device)
    with progress(quiet):
        named, files, dataset = load_named(models, weights, where_from, ModelPlan.read(module), trust=trust)
        center = mean_training_image(where_from, next(iter(named.values()))) if centered and not plan else None
        if smoothing is not None:
            named = {f"{name} (smoothed)": smoothing(model) for name, model in named.items()}
            files = {f"{name} (smoothed)": file for name, file in files.items()}
        how: dict[str, Any] = {"center": center, **settings.given(), "device": where}
        threat = replace(settings.threat, bounds=dataset.bounds)
        if plan:
            show_cost(audit_cost(named, dataset, threat, **how), json)
            return
        large = min(settings.samples or len(dataset), len(dataset)) >= _TOLD
        told = large and not quiet and sys.stderr.isatty() and isinstance(settings.engine, Local)
        with whole("the audit, in seconds of work", shares_of_slow(named, dataset, threat, **how) if told else {}):
            found, folder = in_folder(
                out,
                "runs/audit",
                lambda folder: audit(named, dataset, threat, out=folder, files=files, command=command_line(), **how),
            )
    if rank_and_size()[0] > 0:
        return  # the first process says what all have found
    show(found.summary, folder, json)
    judge(demands, found.summary["models"], junit, "steadygrad audit")


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
    say(f"report: {page}\nsummary: {out / 'summary.json'}")


def show_cost(cost: AuditCost, json: bool) -> None:
    """Print what each table of an audit costs, the longest first."""
    from rich.console import Console

    from steadygrad.memory import written
    from steadygrad.report.terminal import listed
    from steadygrad.report.wording import duration

    if json:
        emit(cost.plain())
        return
    console = Console()
    for model in dict.fromkeys(table.model for table in cost.tables):
        rows = [
            [t.table, f"{t.samples:,}", f"{t.shards:,}", f"{'> ' * t.at_least}{t.forwards + t.backwards:,.0f}",
             f"{'> ' * t.at_least}{duration(t.seconds)}", f"{100 * cost.share(t):.1f} %"]
            for t in sorted(cost.tables, key=lambda t: -t.seconds) if t.model == model
        ]  # fmt: skip
        columns = ["table", "samples", "pieces", "passes", "time", "share"]
        console.print(listed(columns, rows, model, words=(0,)))
        held = cost.memory[model]
        about = "" if held is None else f", which hold {written(held)} in a pass"
        say(f"{model}: at most {cost.at_once[model]:,} samples at once{about}\n")
    longer = any(table.at_least for table in cost.tables)
    if longer:
        say("> where the trial was stopped after a minute: how much more that takes is not known\n")
    time = f"{'more than' if longer else 'about'} {duration(cost.seconds)}"
    say(
        f"{time} in one process of this machine, told from a trial on {cost.tried} of "
        f"{cost.samples:,} samples; leave out what is not needed (steadygrad audit --help)"
    )


def smoothing_of(text: str) -> RandomizedSmoothing:
    """What `--smoothed` says: the sigma of the noise, or several settings.

    >>> smoothing_of("1/4").sigma, smoothing_of("sigma=0.5,n=1000").n
    (0.25, 1000)
    """
    from steadygrad.randomized_smoothing import RandomizedSmoothing
    from steadygrad.registry import configure, parse_settings

    example = "sigma=0.25,n=1000,alpha=0.01"
    settings = parse_settings(text if "=" in text else f"sigma={text}", f"--smoothed {text}", example)
    return configure(RandomizedSmoothing, "smoothed", settings)


def mean_training_image(source: DataPlan, like: Classifier) -> Tensor:
    """The mean training image, of at most 10,000 images, which alone are read."""
    from steadygrad.data.mean_image import mean_image

    return mean_image(source.fitted(training=True, like=like).take(_MEAN_OF, seed=0))
