"""`steadygrad explore`: a run in the browser, where the radius of an attack is dragged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steadygrad.cli.common import Debug, Device, Trust, pick_device, say
from steadygrad.cli.flags import plan_flags
from steadygrad.errors import UsageError
from steadygrad.named_data import DATASETS, check_reachable, is_path
from steadygrad.run_folders import audit_in

if TYPE_CHECKING:
    from torch import nn

    from steadygrad.data import Dataset
    from steadygrad.explore.opened import Opened, Source


@plan_flags("data", into="source", without=("train_split",))
@plan_flags("model", into="module")
def explore(
    run: Annotated[
        Path, typer.Argument(help="Run folder of audit, harden or demo.", metavar="RUN", show_default=False)
    ],
    source: dict[str, Any],
    module: dict[str, Any],
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Its models, as for audit, where they are not where they were.", show_default=False),
    ] = None,
    trust: Trust = False,
    host: Annotated[str, typer.Option(help="Address of this machine to answer at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 for a free one.")] = 8000,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Look at a run in the browser: choose a picture or drop one in, drag the radius, see what models and maps do.

    Examples:

      steadygrad explore runs/audit

      steadygrad explore runs/audit plain=old/model.safetensors --data mnist --port 0
    """
    from steadygrad.serving.extra import need

    need("explore", "fastapi", "uvicorn")
    from steadygrad.explore import server
    from steadygrad.explore.opened import Source, open_run

    run = audit_in(run)
    said, where = Source.of(run), pick_device(device)

    def opened() -> Opened:
        return open_run(run, *_loaded(run, said, models or [], source, module, trust), where)

    server.run(opened, host, port, where, lambda text: say(text, flush=True))


def _loaded(
    run: Path, said: Source, models: list[str], source: dict[str, Any], module: dict[str, Any], trust: bool
) -> tuple[dict[str, nn.Module], Dataset]:
    """The models of a run by its names for them, and its data."""
    from steadygrad.cli.named_models import load_named
    from steadygrad.data.data_plan import DataPlan
    from steadygrad.models.model_plan import ModelPlan
    from steadygrad.randomized_smoothing import RandomizedSmoothing

    if "data" not in source and said.data not in {known.name for known in DATASETS} and not is_path(said.data):
        raise UsageError(f"the run says that its data are {said.data!r}, and not where they lie: give them by --data")
    where_from = DataPlan.read({"data": said.data, "split": said.split} | source)
    check_reachable(where_from.data)
    specs = models or _files(run, said, trust)
    if len(specs) != len(said.files):
        raise UsageError(f"{len(specs)} models were given, and the run has {', '.join(said.files)}: give each")
    loaded, _, data = load_named(specs, None, where_from, ModelPlan.read(module), trust=trust)
    named = loaded if set(loaded) == set(said.files) else dict(zip(said.files, loaded.values(), strict=True))
    noise = {name: RandomizedSmoothing(**how) for name, how in said.smoothed.items() if how}
    return {name: noise[name](named[name]) if name in noise else named[name] for name in said.files}, data


def _files(run: Path, said: Source, trust: bool) -> list[str]:
    """The models as the run says them; a file may not choose code that is imported."""
    found = []
    for place, (name, file) in enumerate(said.files.items()):
        again = f"steadygrad explore {run} {' '.join(f'{n}=MODEL' for n in said.files)}"
        if file is None:
            raise UsageError(f"the model {name!r} was audited from Python: give the models, as in {again}")
        if ":" in file and not trust:
            raise UsageError(
                f"the run says that {name!r} is made by {file}, whose code is imported only if you say so: give the "
                f"models, as in {again}, or add --trust"
            )
        if ":" not in file and not Path(file.partition("@")[0]).expanduser().exists():
            raise UsageError(f"the model {name!r} is not at {file} any more: give the models, as in {again}")
        found.append(f"model-{place}={file}")
    return found
