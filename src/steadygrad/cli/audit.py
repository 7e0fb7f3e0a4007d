"""`steadygrad audit`: attack, check, explain, and write the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steadygrad.cli.common import Debug, Device, Json, Seed, command_line, emit, pick_device, shown
from steadygrad.cli.models import load_named
from steadygrad.errors import Failure, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from steadygrad.evaluation import Explaining

__all__ = ["audit", "show"]


def audit(
    models: Annotated[
        list[str],
        typer.Argument(
            help="A model file or run folder, module:callable, timm:NAME, torchvision:NAME or hub:owner/name; "
            "NAME=MODEL to name it.",
            show_default=False,
        ),
    ],
    data: Annotated[str, typer.Option(help="Data by name, hub:owner/name or path.")] = "digits",
    split: Annotated[str, typer.Option(help="Split of the data.")] = "test",
    norm: Annotated[str, typer.Option(help="Size of a change: linf, l2 or l1.")] = "linf",
    eps: Annotated[str, typer.Option(help="Radius in units of the data (0 to 1), e.g. 0.1 or 8/255.")] = "8/255",
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples to attack, the first ones of the split.")
    ] = 500,
    suite: Annotated[str, typer.Option(help="Attacks by the name of their suite: fast, or standard.")] = "fast",
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="An attack instead of the suite, e.g. pgd:steps=100; may be repeated, the leading one first."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Safetensors file for an architecture or module:callable.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Side to which images are resized.")] = None,
    checked: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples for the validity checks and the smallest changes.")
    ] = 300,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples per batch; does not change the result.")
    ] = 200,
    explanations: Annotated[
        bool, typer.Option("--explanations", metavar="", help="Push the saliency maps too, and bound it; takes long.")
    ] = False,
    explained: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Samples whose maps are pushed, 20 if not given.")
    ] = None,
    explanation_eps: Annotated[
        str | None, typer.Option(help="Radius for the maps, if it is not that of the audit.")
    ] = None,
    neurons: Annotated[
        bool, typer.Option("--neurons", metavar="", help="Measure which neurons the attack moves, layer by layer.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run continues there.")] = Path("runs/audit"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Audit one or several models: robust accuracy with checks, curves, transfer, explanations, pictures.

    Examples:

      steadygrad audit runs/lenet --data mnist --norm linf --eps 0.1

      steadygrad audit plain=runs/a hard=runs/b --suite standard --out runs/ab

      steadygrad audit nets:make --weights my.safetensors --data ./images

      steadygrad audit runs/lenet --data mnist --eps 1/255 --explanations --neurons
    """
    from steadygrad import evaluation, registry
    from steadygrad.data import load
    from steadygrad.threat import Threat

    where = pick_device(device)
    threat = Threat(norm, number("--eps", eps))  # type: ignore[arg-type]
    attacks: Any = [registry.parse("attack", text) for text in attack] if attack else suite
    _suited(attacks, norm)
    pushed = _explaining(explanations, explained, explanation_eps, norm)
    dataset = load(data, split, size=size)
    center = mean_training_image(data, size)
    named, files = load_named(models, weights, dataset)
    with shown():
        found = evaluation.audit(
            named,
            dataset,
            threat,
            attacks=attacks,
            samples=samples,
            checked=checked,
            explanations=pushed,
            neurons=evaluation.Probing() if neurons else None,
            center=center if center is not None and center.shape == dataset.shape else None,
            out=out,
            seed=seed,
            device=where,
            batch_size=batch_size,
            files=files,
            command=command_line(),
        )
    show(found.summary, out, json)


def show(summary: dict[str, Any], out: Path, json: bool) -> None:
    """Write the page and print the headline, or the whole summary as JSON."""
    from rich.console import Console

    from steadygrad import report

    page = report.write(out)
    if json:
        emit({**summary, "report": str(page)})
        return
    Console().print(*report.tables(summary), sep="\n")
    print(f"report: {page}\nsummary: {out / 'summary.json'}")


def mean_training_image(data: str, size: int | None) -> Tensor | None:
    """The mean training image of data by name, for the centered rho2; None where there is no training split.

    Repositories on the Hub are not asked for it: their training split may be many times the test split.
    """
    from steadygrad.data import load
    from steadygrad.evaluation import mean_image

    if data.startswith("hub:"):
        return None
    try:
        return mean_image(load(data, "train", size=size))
    except (UsageError, Failure):
        return None


def number(name: str, text: str) -> float:
    """A positive number or a fraction such as 8/255."""
    from steadygrad.registry import parse_value

    value = parse_value(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} must be a number or a fraction such as 8/255, got {text!r}")
    if not 0 < value < math.inf:
        raise UsageError(f"{name} must be positive and finite, got {text!r}")
    return float(value)


def _explaining(wanted: bool, samples: int | None, eps: str | None, norm: str) -> Explaining | None:
    """How explanations are to be audited; None where that was not asked for."""
    from steadygrad.evaluation import Explaining

    if not wanted:
        for name, value in (("--explained", samples), ("--explanation-eps", eps)):
            if value is not None:
                raise UsageError(f"{name} is about the audit of explanations: add --explanations, or leave {name} out")
        return None
    if norm not in ("linf", "l2"):
        raise UsageError(
            f"--explanations needs --norm linf or l2, for which maps have attacks and bounds, got {norm!r}"
        )
    given = {} if samples is None else {"samples": samples}
    return Explaining(eps=None if eps is None else number("--explanation-eps", eps), **given)


def _suited(attacks: Any, norm: str) -> None:
    """Refuse attacks that do not work in the norm, before a folder is made for them."""
    from steadygrad.attacks import ATTACKS
    from steadygrad.evaluation import SUITES

    for attack in SUITES.get(attacks, ()) if isinstance(attacks, str) else attacks:
        row = ATTACKS[ATTACKS.name_of(attack)]
        if norm not in row.norms:
            others = ", ".join(r.name for r in ATTACKS if norm in r.norms)
            raise UsageError(
                f"the attack {row.name} works for --norm {', '.join(row.norms)}, not for {norm}; "
                f"attacks for {norm}: {others}"
            )
