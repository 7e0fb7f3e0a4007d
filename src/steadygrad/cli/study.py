"""`steadygrad study`: people as judges, from run folders to a page that asks them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steadygrad.cli.common import Debug, Json, Seed, emit, say
from steadygrad.errors import UsageError

app = typer.Typer(help="Ask people: which mistakes are plausible, and which maps explain.", no_args_is_help=True)

_Study = Annotated[Path, typer.Argument(help="Study folder.", metavar="STUDY", show_default=False)]
_Database = Annotated[
    str | None,
    typer.Option(help="sqlite:///PATH or postgresql://USER@HOST/NAME.", show_default="answers.sqlite in STUDY"),
]
_Answers = Annotated[
    Path, typer.Argument(help="Study folder, or a file of an export.", metavar="STUDY", show_default=False)
]


@app.command("make")
def make(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders of audits or reproductions.", metavar="RUN...", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Study folder.")] = Path("runs/study"),
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Adversarial images that a person judges.")] = 30,
    maps: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Pairs of maps that a person judges.", show_default="up to 6"),
    ] = None,
    clean: Annotated[int, typer.Option(min=0, metavar="N", help="Unchanged images among them, as controls.")] = 3,
    attention: Annotated[int, typer.Option(min=0, metavar="N", help="Trials whose answer is told.")] = 2,
    practice: Annotated[int, typer.Option(min=1, metavar="N", help="Trials for practice, before the others.")] = 3,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that is asked about; may be repeated.", show_default="all")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="An attack, by its label; may be repeated.", show_default="the one that most is kept of"),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a study from run folders: balanced blocks of pictures, whose names tell nothing.

    Examples:

      steadygrad study make runs/audit --out runs/study

      steadygrad study make runs/audit --trials 20 --model plain --model hardened
    """
    from steadygrad.study import stimuli

    design = stimuli.make(
        runs, out, trials=trials, maps=maps, clean=clean, attention=attention, practice=practice, models=model or (),
        attacks=attack or (), seed=seed,
    )  # fmt: skip
    found = {"study": str(out), **design.counted()}
    if json:
        emit(found)
        return
    say(f"study: {out}")
    say(f"{found['blocks']} blocks of {found['trials']} trials, after {found['practice']} for practice, of "
        f"{found['stimuli']} stimuli and {len(found['models'])} models")  # fmt: skip
    say(f"fill in {out / 'study.toml'}, then: steadygrad study serve {out}")


@app.command("plan")
def plan(
    study: Annotated[
        Path | None,
        typer.Argument(
            help="Study folder, for its images.", metavar="[STUDY]", show_default="3 models, 40 images of each"
        ),
    ] = None,
    persons: Annotated[int, typer.Option(min=1, metavar="N", help="Persons who finish.")] = 11,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images that a person judges.", show_default="30")
    ] = None,
    models: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Models among these.", show_default="3")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Different images of a model.", show_default="40")
    ] = None,
    share: Annotated[float, typer.Option(help="Share of judgements, such as fooled, of one model.")] = 0.3,
    difference: Annotated[float, typer.Option(help="By which the share of another differs.")] = 0.2,
    person_icc: Annotated[float, typer.Option(help="Part of the variance that persons explain.")] = 0.1,
    image_icc: Annotated[float, typer.Option(help="Part of the variance that images explain.")] = 0.1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which difference between two models so many people find, and how many would.

    Examples:

      steadygrad study plan --persons 11 --trials 30 --difference 0.2

      steadygrad study plan runs/study --persons 20
    """
    from steadygrad.study import folder, power

    each, there = (trials or 30) // (models or 3), 40
    if study is not None:
        if trials is not None or models is not None:
            raise UsageError("--trials and --models are those of the study: leave them out, or leave out STUDY")
        each, there = power.of_design(folder.read(study))
    if each < 1:
        raise UsageError(f"--trials must be at least one for each of the models, got {trials or 30} for {models or 3}")
    found = power.Power(persons, each, images or there, share, difference, person_icc, image_icc)
    if json:
        emit(found.plain())
        return
    say(f"{persons} persons who judge {found.each} images of each model, of {found.images}; persons explain "
        f"{person_icc:g} of the variance, images {image_icc:g}")  # fmt: skip
    say(f"a difference of {difference:g} from {share:g}: found with a power of {100 * found.power:.0f} %, standard "
        f"error {found.error:.3f}")  # fmt: skip
    for wanted in (0.8, 0.9):
        count = found.needed(wanted)
        needs = "more images: no number of persons does" if count is None else f"{count} persons"
        say(f"{100 * wanted:.0f} % needs {needs}")
    smallest = found.smallest()
    if smallest is not None:
        say(f"the smallest difference that {persons} persons find with 80 %: {smallest:g}")


@app.command("serve")
def serve(
    study: _Study,
    database: _Database = None,
    host: Annotated[str, typer.Option(help="Address of this machine to answer at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 for a free one.")] = 8000,
    rate: Annotated[
        float, typer.Option(min=0.1, metavar="N", help="Requests a second of one address, in the long run.")
    ] = 30.0,
    debug: Debug = False,
) -> None:
    """Serve a study to people's browsers until Ctrl-C; every answer is kept as it comes.

    Examples:

      steadygrad study serve runs/study

      steadygrad study serve runs/study --host 0.0.0.0 --database postgresql://me@localhost/study
    """
    from steadygrad.serving.extra import need

    need("study serve", "fastapi", "sqlmodel", "alembic", "uvicorn", "python_multipart")
    from steadygrad.study import server

    server.run(study, database, host, port, rate, lambda text: say(text, flush=True))


@app.command("export")
def export(
    study: _Answers,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", metavar="FOLDER", show_default="export in STUDY")
    ] = None,
    database: _Database = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the answers as Parquet and CSV, with a codebook.

    Examples:

      steadygrad study export runs/study

      steadygrad study export runs/study --database postgresql://me@localhost/study --out answers
    """
    from steadygrad.study import answers

    folder = out or (study if study.is_dir() else study.parent) / "export"
    paths = answers.export(study, folder, database)
    if json:
        emit({"files": [str(path) for path in paths]})
    else:
        say("\n".join(map(str, paths)))


@app.command("report")
def report(
    study: _Answers,
    out: Annotated[
        Path | None, typer.Option(help="The page to write.", metavar="FILE", show_default="report.html beside it")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Run folder of an audit, whose page gets a section.", metavar="RUN", show_default=False),
    ] = None,
    database: _Database = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what the answers show: every share with its interval, on a page.

    Examples:

      steadygrad study report runs/study

      steadygrad study report answers.parquet --out page.html

      steadygrad study report runs/study --into runs/audit
    """
    from steadygrad.report.people import sentence
    from steadygrad.study import answers

    if out is not None and (out.is_dir() or out.suffix != ".html"):
        raise UsageError(f"--out is the page to write, such as page.html, got {str(out)!r}")
    page = out or (study if study.is_dir() else study.parent) / "report.html"
    people = answers.report(study, page, database, into)
    if json:
        emit({"report": str(page), **people.plain()})
        return
    say(sentence(people))
    say(f"report: {page}")
    if into is not None:
        say(f"section: {into / 'report' / 'index.html'}")
