"""`steadygrad train`: train or harden a model from flags or a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from steadygrad.cli import known
from steadygrad.cli.common import (
    Debug,
    Device,
    Json,
    Quiet,
    emit,
    in_folder,
    out_option,
    pick_device,
    progress,
    rank_and_size,
    say,
)
from steadygrad.cli.flags import plan_flags
from steadygrad.files import read_toml
from steadygrad.named_data import check_reachable

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the training, e.g. epochs=5 or lr=1e-3; may be repeated."
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Short for --set epochs=N.")]


@plan_flags("train", without=("settings",))
def train(
    flags: dict[str, Any],
    config: Annotated[
        Path | None,
        typer.Argument(
            help="TOML file, or a recipe by name; flags given beside it win.",
            autocompletion=known.completing("recipes"),
        ),
    ] = None,
    set_: Set = None,
    epochs: Epochs = None,
    out: Annotated[Path | None, out_option("runs/train")] = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model, plain or with a defense; killed or interrupted, the same command continues.

    Examples:

      steadygrad train --model lenet --data mnist --epochs 3 --out runs/lenet

      steadygrad train --defense input_gradient:weight=10 --out runs/hard

      steadygrad train --defense adversarial:eps=0.1,attack=fgsm --out runs/fgsm

      steadygrad train pgd --model lenet --data mnist --out runs/pgd

      steadygrad train recipe.toml --set lr=5e-4
    """
    given = read_toml(config) if config is not None and config.is_file() else {}
    check_reachable(str(flags.get("data") or given.get("data", "")))

    from steadygrad.audit.audited_models import agreeing
    from steadygrad.measuring.measures.predicted import Predicted
    from steadygrad.measuring.runner import Runner
    from steadygrad.measuring.statistics import share_of
    from steadygrad.threat import linf
    from steadygrad.training.train_plan import TrainPlan

    where = pick_device(device)
    plan = TrainPlan.resolve(config, {**flags, "settings": settings_of(set_, epochs)})
    with progress(quiet):
        plan.check_apart()  # before the training, so that it is not found out after it
        result, folder = in_folder(out, "runs/train", lambda folder: plan.train(folder, where))
        if rank_and_size()[0] > 0:
            return  # the first process says what all have trained
        test = plan.load(like=result.classifier)
        # In the order of the classes of the data, which the model may have otherwise.
        judged = agreeing(result.classifier, test, linf(bounds=test.bounds), where).model
        runner = Runner({"model": judged}, test, device=where, batch_size=500)
        table = runner.run(Predicted(), "model")
    accuracy = share_of(table["prediction"] == table["label"])
    found = {
        "out": str(folder),
        "model": str(folder / "model.safetensors"),
        "epochs": result.epochs_done,
        "best_epoch": result.best_epoch,
        "test_accuracy": accuracy.plain(),
        "history": result.history,
    }
    if json:
        emit(found)
        return
    say(f"test accuracy {accuracy} on {accuracy.count} samples\nmodel: {found['model']}")


def settings_of(items: list[str] | None, epochs: int | None) -> dict[str, Any]:
    """Settings as they are written after --set and --epochs."""
    from steadygrad.registry import parse_settings

    given = [parse_settings(item, "--set takes key=value", "lr=1e-3") for item in items or []]
    settings = {k: v for part in given for k, v in part.items()}
    return settings if epochs is None else {**settings, "epochs": epochs}
