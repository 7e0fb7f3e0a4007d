"""`steadygrad harden`: fine-tune a trained model, audit before and after, say what is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steadygrad.cli import known
from steadygrad.cli.audit import SAMPLES
from steadygrad.cli.common import (
    Debug,
    Device,
    Json,
    Quiet,
    Trust,
    Weights,
    command_line,
    emit,
    in_folder,
    out_option,
    pick_device,
    progress,
    say,
)
from steadygrad.cli.demands import FailUnder, Junit, demands_of, judge
from steadygrad.cli.flags import plan_flags
from steadygrad.cli.named_models import load_named
from steadygrad.cli.train import Epochs, Set, settings_of
from steadygrad.errors import UsageError
from steadygrad.files import read_toml
from steadygrad.named_data import check_reachable

if TYPE_CHECKING:
    from steadygrad.training.train_plan import TrainPlan


@plan_flags("audit", without=("bounds", "device", "grid", "transfer", "checks", "distances"), samples=SAMPLES)
@plan_flags("train", into="training", only=("limit", "validation", "classes", "mean", "std", "binary"))
@plan_flags("data", into="source")
def harden(
    model: Annotated[
        str,
        typer.Argument(
            help="A trained model: its file or run folder, module:callable, timm:NAME, torchvision:NAME, hf:owner/name "
            "or hub:owner/name; MODEL@WEIGHTS with its weights.",
            show_default=False,
        ),
    ],
    flags: dict[str, Any],
    training: dict[str, Any],
    source: dict[str, Any],
    defense: Annotated[
        str | None,
        typer.Option(
            help="Way of training, e.g. trades:eps=0.1; a+b for a sum.",
            show_default=False,
            autocompletion=known.completing("defenses"),
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A recipe by name, aimed at --norm and --eps, or a TOML file as it is; flags win.",
            show_default=False,
            autocompletion=known.completing("recipes"),
        ),
    ] = None,
    set_: Set = None,
    epochs: Epochs = None,
    weights: Weights = None,
    trust: Trust = False,
    out: Annotated[Path | None, out_option("runs/harden")] = None,
    device: Device = "auto",
    fail_under: FailUnder = None,
    junit: Junit = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a trained model with a defense, and say what the same images show it to be worth.

    It is trained on the split train of the data, and audited on test (--train-split, --split).

    Examples:

      steadygrad harden runs/plain --recipe pgd --eps 0.1 --out runs/hard

      steadygrad harden runs/plain --defense input_gradient:weight=3

      steadygrad harden nets:make@my.safetensors --data ./images --recipe pgd
    """
    file = Path(recipe or "")
    check_reachable(str(source.get("data") or (read_toml(file) if file.is_file() else {}).get("data", "")))

    from rich.console import Console

    from steadygrad import report
    from steadygrad.audit import harden
    from steadygrad.audit.audit_plan import AuditPlan
    from steadygrad.audit.harden import AFTER, usual_values
    from steadygrad.audit.schema import HardenSummary
    from steadygrad.report.sections.hardened_section import changes_table

    demands = demands_of(fail_under, junit)
    where = pick_device(device)
    audit = AuditPlan.read({"samples": SAMPLES, **flags})
    given = {**source, **training, "defense": defense, "seed": flags.get("seed"), "settings": settings_of(set_, epochs)}
    plan = plan_of(recipe, given, audit.threat)
    objective, settings = plan.objective(), plan.fitting(**usual_values(audit.threat))
    with progress(quiet):
        named, files, test = load_named([model], weights, plan, plan, trust=trust)
        [(name, classifier)] = named.items()
        classifier.name, threat = name, replace(audit.threat, bounds=test.bounds)
        found, folder = in_folder(out, "runs/harden", lambda folder: harden(
            classifier, plan.samples(like=classifier), objective, threat, test=test, validation=plan.validation,
            settings=settings, out=folder, device=where, files=files[name], command=command_line(),
            **{**audit.given(), "seed": plan.seed},
        ))  # fmt: skip
        page = report.write(folder)
    if json:
        emit({**found.summary, "report": str(page)})
    else:
        Console().print(changes_table(HardenSummary.model_validate(found.summary)))
        say(f"{found.comparison.text}\nmodel: {folder / 'model.safetensors'}\nreport: {page}")
        say(f"summary: {folder / 'harden.json'}")
    models = [row for row in found.audit.summary["models"] if row["name"] == AFTER]
    judge(demands, models, junit, "steadygrad harden")


def plan_of(recipe: str | None, flags: dict[str, Any], threat: Any) -> TrainPlan:
    """What to train on and how: the recipe or file, with the threat where a recipe has a radius, then flags."""
    from steadygrad import recipes
    from steadygrad.training.train_plan import TrainPlan

    if recipe is None:
        if flags["defense"] is None:
            raise UsageError(
                "say how to harden: --defense input_gradient:weight=3, or --recipe pgd "
                "(steadygrad list defenses, steadygrad list recipes)"
            )
        return TrainPlan.resolve(None, flags)
    path, shipped = recipes.find(recipe)
    given = read_toml(path)
    for key in ("model", "normalize", "name"):
        if key in given:
            raise UsageError(f"{path} sets {key}, which belongs to the model that is there already: leave it out")
    plan = TrainPlan.resolve(path, flags)
    if plan.defense == "plain" and "defense" not in given:
        raise UsageError(f"{path} names no defense: add one, such as defense = 'input_gradient:weight=3'")
    if shipped and flags["defense"] is None:
        aimed = recipes.retarget(plan.defense, threat.norm, float(threat.eps))
        return plan.model_copy(update={"defense": aimed})
    return plan
