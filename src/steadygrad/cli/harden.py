"""`steadygrad harden`: fine-tune a trained model, audit before and after, say what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from steadygrad.cli.audit import number
from steadygrad.cli.common import Debug, Device, Json, command_line, emit, pick_device, shown, within_seeds
from steadygrad.cli.models import load_named
from steadygrad.cli.train import defense_of, pairs, resolve, training_data
from steadygrad.errors import UsageError

__all__ = ["harden", "plan_of"]


def harden(
    model: Annotated[
        str,
        typer.Argument(
            help="A trained model: its file or run folder, module:callable, timm:NAME, torchvision:NAME or "
            "hub:owner/name.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data by name, hub:owner/name or path: trained on its split train, audited on test.",
            show_default="digits",
        ),
    ] = None,
    defense: Annotated[
        str | None, typer.Option(help="Way of training, e.g. trades:eps=0.1; a+b for a sum.", show_default=False)
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A recipe by name, aimed at --norm and --eps, or a TOML file as it is; flags win.", show_default=False
        ),
    ] = None,
    norm: Annotated[str, typer.Option(help="Size of a change in the audits: linf, l2 or l1.")] = "linf",
    eps: Annotated[str, typer.Option(help="Radius of the audits, in units of the data, e.g. 0.1 or 8/255.")] = "8/255",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the training, e.g. lr=1e-4; may be repeated."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Short for --set epochs=N.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the training data that chooses the epoch.", show_default="0.1")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Safetensors file for module:callable.")] = None,
    size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Side to which images are resized.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Train on so many samples only.")] = None,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Test samples to audit, the first ones.")] = 500,
    suite: Annotated[str, typer.Option(help="Attacks of the audits, by the name of their suite.")] = "fast",
    attack: Annotated[
        list[str] | None, typer.Option(help="An attack instead of the suite, e.g. pgd:steps=100; may be repeated.")
    ] = None,
    checked: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples for the validity checks and smallest changes.")
    ] = 300,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples per batch of the audits; does not change the result.")
    ] = 200,
    out: Annotated[Path, typer.Option(help="Folder; an interrupted run continues there.")] = Path("runs/harden"),
    seed: Annotated[
        int | None,
        typer.Option(callback=within_seeds, metavar="N", help="Seed of everything random.", show_default="0"),
    ] = None,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a trained model with a defense, and say what the same images show it to be worth.

    Examples:

      steadygrad harden runs/plain --recipe pgd --eps 0.1 --out runs/hard

      steadygrad harden runs/plain --defense input_gradient:weight=3

      steadygrad harden nets:make --weights my.safetensors --data ./images
    """
    from steadygrad import hardening, registry
    from steadygrad.data import load
    from steadygrad.threat import Threat
    from steadygrad.training import FitSettings

    where = pick_device(device)
    threat = Threat(norm, number("--eps", eps))  # type: ignore[arg-type]
    attacks: Any = [registry.parse("attack", text) for text in attack] if attack else suite
    flags = {
        "data": data, "defense": defense, "validation": validation, "size": size, "seed": seed, "limit": limit,
        "settings": {**pairs(set_ or []), **({"epochs": epochs} if epochs is not None else {})},
    }  # fmt: skip
    plan = plan_of(recipe, flags, threat)
    objective = defense_of(plan["defense"])
    settings = registry.configure(FitSettings, "the training", {**hardening.usual_values(threat), **plan["settings"]})
    test = load(plan["data"], "test", size=plan["size"])
    named, files = load_named([model], weights, test)
    [(name, classifier)] = named.items()
    classifier.name = name
    with shown():
        found = hardening.harden(
            classifier, training_data(plan), objective, threat, test=test, validation=plan["validation"],
            settings=settings, attacks=attacks, samples=samples, checked=checked, out=out, seed=plan["seed"],
            device=where, batch_size=batch_size, files=files[name], command=command_line(),
        )  # fmt: skip
    if json:
        emit({**found.summary, "report": str(found.page)})
        return
    from rich.console import Console

    from steadygrad.audit.schema import HardenSummary
    from steadygrad.report.sections.hardened_section import changes_table

    Console().print(changes_table(HardenSummary.model_validate(found.summary)))
    print(f"{found.comparison.text}\nmodel: {out / 'model.safetensors'}\nreport: {found.page}")
    print(f"summary: {out / 'harden.json'}")


def plan_of(recipe: str | None, flags: dict[str, Any], threat: Any) -> dict[str, Any]:
    """What to train on and how: the recipe or file, with the threat where a recipe has a radius, then flags."""
    from steadygrad import recipes
    from steadygrad.files import read_toml

    if recipe is None:
        if flags["defense"] is None:
            raise UsageError(
                "say how to harden: --defense input_gradient:weight=3, or --recipe pgd "
                "(steadygrad list defenses, steadygrad list recipes)"
            )
        return resolve(None, flags)
    path, shipped = recipes.find(recipe)
    given = read_toml(path)
    for key in ("model", "normalize", "name"):
        if key in given:
            raise UsageError(f"{path} sets {key}, which belongs to the model that is there already: leave it out")
    plan = resolve(path, flags)
    if plan["defense"] == "plain" and "defense" not in given:
        raise UsageError(f"{path} names no defense: add one, such as defense = 'input_gradient:weight=3'")
    if shipped and flags["defense"] is None:
        plan["defense"] = recipes.retarget(plan["defense"], threat.norm, float(threat.eps))
    return plan
