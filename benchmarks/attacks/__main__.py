"""`python -m benchmarks.attacks`: speed and strength of the attacks, next to other libraries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.attacks import Pace, bench_attacks, table
from steadygrad.cli import app
from steadygrad.cli.common import Debug, Device, Json, Seed, emit, pick_device
from steadygrad.errors import UsageError
from steadygrad.progress import shown
from steadygrad.registry import parse_value

__all__ = ["main"]


def bench(
    data: Annotated[
        str | None, typer.Option(help="Data by name or path.", show_default="mnist if it is there, else digits")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A trained model; by default one is trained.", show_default=False)
    ] = None,
    samples: Annotated[
        int, typer.Option(min=2, metavar="N", help="Images: the first ones that the model classifies correctly.")
    ] = 128,
    eps: Annotated[str, typer.Option(help="Radius (linf) of the attacks that take one, e.g. 0.1 or 8/255.")] = "0.1",
    libraries: Annotated[
        str | None, typer.Option(help="Other libraries, e.g. foolbox,art; none for no other.", show_default="all")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task by name, e.g. PGD; may be repeated.", show_default="all")
    ] = None,
    laps: Annotated[int, typer.Option(min=1, metavar="N", help="How often an attack is timed, if it is fast.")] = 5,
    limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Longest run of an attack.")] = 300,
    note: Annotated[str, typer.Option(help="Kept in the results, e.g. who else uses the machine.")] = "",
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run continues there.")] = Path("runs/bench"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare attacks with foolbox, torchattacks and ART where installed: passes, time, success, distance.

    Examples:

      python -m benchmarks.attacks

      python -m benchmarks.attacks --data digits --libraries foolbox,art

      python -m benchmarks.attacks --model runs/lenet --data mnist --task PGD
    """
    chosen = None if libraries is None else [name for name in libraries.split(",") if name not in ("", "none")]
    with shown():
        found = bench_attacks(
            data or _at_hand(),
            out=out,
            model=model,
            samples=samples,
            eps=_radius(eps),
            against=chosen,
            only=task or None,
            pace=Pace(laps),
            limit=limit,
            seed=seed,
            device=pick_device(device),
            note=note,
        )
    if json:
        emit({**found, "out": str(out)})
        return
    _print(found, out)


def _radius(text: str) -> float:
    value = parse_value(text)
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UsageError(f"--eps must be a positive number or a fraction such as 8/255, got {text!r}")
    return float(value)


def _at_hand() -> str:
    """MNIST if it lies in the folder of data sets: the default downloads nothing."""
    folder = os.environ.get("STEADYGRAD_DATA")
    return "mnist" if folder and (Path(folder) / "mnist").is_dir() else "digits"


def _print(found: dict[str, Any], out: Path) -> None:
    console = Console()
    console.print(table.view(found["rows"]))
    print(table.about(found))
    for row in found["rows"]:
        if row["error"]:
            print(f"failed: {row['library']} {row['attack']}: {row['error']}")
    for name, reason in found["absent"].items():
        print(f"not compared: {name} ({reason}; see docs/how-to/measure-speed.md)")
    console.print(table.verdicts(found["claims"]))
    print(f"results: {out / 'attacks.json'}\npage: {out / 'attacks.md'}\npicture: {out / 'attacks.png'}")


commands = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
commands.command()(bench)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark, with exit codes and errors as those of `steadygrad`."""
    app.main(arguments, commands=commands, name="python -m benchmarks.attacks")


if __name__ == "__main__":
    main()
