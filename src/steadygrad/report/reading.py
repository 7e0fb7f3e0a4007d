"""Reading a run folder: the summary and the gallery, checked before anything is drawn from them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from steadygrad.errors import Failure, UsageError

__all__ = ["SCHEMA", "Array", "Arrays", "Audit", "Summary", "check", "read"]

SCHEMA = 1

Summary: TypeAlias = dict[str, Any]
Array: TypeAlias = npt.NDArray[np.float64]
Arrays: TypeAlias = dict[str, Array]

_TOP = "version created machine seconds command config data threat models transfer gallery"
_DATA = "name split samples classes shape fingerprint"
_MODEL = (
    "name file architecture draws parameters weights clean robust verdict eligibility attacks broken_by curve "
    "distances rho2 gradient_norm confidence explanations"
)
_ATTACK = (
    "name label settings accuracy success_rate after_rounding zero_gradient forwards backwards median_distance verdict"
)
_EXPLAINED = "similarity moved surrogate points deviation why certain faithful passes"
_PUSHED = "index id label prediction clean_confidence adversarial_confidence certain goal"
_ENTRY = (
    "index id label clean_prediction adversarial_prediction clean_confidence adversarial_confidence distance attack"
)


@dataclass(frozen=True)
class Audit:
    """What a run folder says: the summary (schema 1) and the arrays of its gallery."""

    summary: Summary
    arrays: Arrays


def read(folder: str | Path) -> Audit:
    """Read `summary.json` and the gallery of a run folder.

    Raises:
        UsageError: the folder or its summary does not exist.
        Failure: a file is damaged, incomplete or of another schema.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no run folder {folder}: give the --out folder of an audit")
    path = folder / "summary.json"
    if not path.is_file():
        raise UsageError(f"there is no summary.json in {folder}: run `steadygrad audit` with --out {folder} first")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (ValueError, OSError) as error:
        raise Failure(f"cannot read {path}: {error}; run the audit again to replace it") from error
    try:
        check(summary)
        return Audit(summary, _gallery(folder, summary))
    except Failure as error:
        raise Failure(f"{path}: {error}") from error


def check(summary: Any) -> None:
    """Refuse a summary of another schema, or one in which a key is missing.

    Raises:
        Failure: names the first key that is wrong.
    """
    if not isinstance(summary, dict):
        raise Failure(f"the summary is a {type(summary).__name__}, not an object; run the audit again")
    found = summary.get("schema")
    if found != SCHEMA:
        raise Failure(
            f"the summary has schema {found!r}, this version reads {SCHEMA}: run the audit again with this version"
        )
    _need(summary, _TOP, "the summary")
    _need(summary["data"], _DATA, "data")
    _need(summary["threat"], "norm eps bounds", "threat")
    if not isinstance(summary["models"], list) or not summary["models"]:
        raise Failure("models: expected a list of at least one model; run the audit again")
    for index, model in enumerate(summary["models"]):
        _check_model(model, f"models[{index}]")
    if summary["transfer"] is not None:
        _check_transfer(summary["transfer"])
    if summary.get("explained") is not None:
        _check_explained(summary["explained"], [model["name"] for model in summary["models"]])
    if summary.get("neurons") is not None:
        _check_neurons(summary["neurons"], [model["name"] for model in summary["models"]])
    if summary["gallery"] is not None:
        _need(summary["gallery"], "file models attributions grid", "gallery")
        for name, entries in summary["gallery"]["models"].items():
            for index, entry in enumerate(entries):
                _need(entry, _ENTRY, f"gallery.models[{name!r}][{index}]")


def _check_model(model: Any, where: str) -> None:
    _need(model, _MODEL, where)
    for name in ("clean", "robust"):
        _need_estimate(model[name], f"{where}.{name}")
    _need(model["verdict"], "trustworthy text checks", f"{where}.verdict")
    for index, row in enumerate(model["verdict"]["checks"]):
        _need(row, "name passed value limit text", f"{where}.verdict.checks[{index}]")
    for index, attack in enumerate(model["attacks"]):
        _need(attack, _ATTACK, f"{where}.attacks[{index}]")
        _need(attack["verdict"], "trustworthy text", f"{where}.attacks[{index}].verdict")
        for name in ("accuracy", "success_rate", "after_rounding"):
            _need_estimate(attack[name], f"{where}.attacks[{index}].{name}")
    for index, row in enumerate(model["broken_by"]):
        _need(row, "attack member samples alone", f"{where}.broken_by[{index}]")
    if model["distances"] is not None:
        _check_distances(model["distances"], f"{where}.distances")
    if model["rho2"] is not None:
        _need(model["rho2"], "attack pixels centered turned", f"{where}.rho2")
        for name in ("pixels", "centered"):
            if model["rho2"][name] is not None:
                _need(model["rho2"][name], "value low high count", f"{where}.rho2.{name}")
    if model["curve"] is not None:
        _need(model["curve"], "attack points", f"{where}.curve")
        for index, point in enumerate(model["curve"]["points"]):
            _need(point, "eps accuracy", f"{where}.curve.points[{index}]")
            _need_estimate(point["accuracy"], f"{where}.curve.points[{index}].accuracy")
    for index, row in enumerate(model["explanations"]):
        _need(row, "attribution under measure mean low high count", f"{where}.explanations[{index}]")


def _check_explained(explained: Any, names: list[str]) -> None:
    _need(explained, "threat samples pixels goals steps restarts draws similarities models", "explained")
    _need(explained["threat"], "norm eps bounds", "explained.threat")
    if list(explained["models"]) != names:
        raise Failure(f"explained.models: expected {', '.join(names)}; run the audit again")
    for name, model in explained["models"].items():
        _need(model, "beta attributions", f"explained.models[{name!r}]")
        for index, row in enumerate(model["attributions"]):
            where = f"explained.models[{name!r}].attributions[{index}]"
            _need(row, "name refused samples", where)
            if row["refused"] is None:
                _need(row, _EXPLAINED, where)
                for distance in ("euclidean", "cosine"):
                    _need(row["deviation"].get(distance), "attack linearized certified values", f"{where}.{distance}")
            for place, caption in enumerate(row["samples"]):
                _need(caption, _PUSHED, f"{where}.samples[{place}]")


def _check_neurons(neurons: Any, names: list[str]) -> None:
    _need(neurons, "attack threat samples share draws models", "neurons")
    _need(neurons["threat"], "norm eps bounds", "neurons.threat")
    if list(neurons["models"]) != names:
        raise Failure(f"neurons.models: expected {', '.join(names)}; run the audit again")
    for name, row in neurons["models"].items():
        where = f"neurons.models[{name!r}]"
        _need(row, "refused fooled judged layers", where)
        for index, layer in enumerate(row["layers"]):
            _need(layer, "name neurons held change relative most restored gain", f"{where}.layers[{index}]")
            for choice in ("most", "random", "least") if layer["restored"] is not None else ():
                _need_estimate(layer["restored"].get(choice), f"{where}.layers[{index}].restored.{choice}")


def _check_distances(distances: Any, where: str) -> None:
    _need(distances, "attack count censored limit quantiles", where)
    for level, row in distances["quantiles"].items():
        _need(row, "value low high", f"{where}.quantiles[{level}]")


def _check_transfer(transfer: Any) -> None:
    _need(transfer, "attack eps names accuracy note", "transfer")
    size = len(transfer["names"])
    if [len(row) for row in transfer["accuracy"]] != [size] * size:
        raise Failure(f"transfer.accuracy: expected {size} rows of {size} estimates; run the audit again")
    for i, row in enumerate(transfer["accuracy"]):
        for j, cell in enumerate(row):
            _need_estimate(cell, f"transfer.accuracy[{i}][{j}]")


def _need(value: Any, keys: str, where: str) -> None:
    if not isinstance(value, dict):
        raise Failure(f"{where}: expected an object, found {type(value).__name__}; run the audit again")
    missing = [key for key in keys.split() if key not in value]
    if missing:
        raise Failure(f"{where}: missing {', '.join(missing)}; run the audit again")


def _need_estimate(value: Any, where: str) -> None:
    if value is None:
        return
    _need(value, "value low high count", where)
    for key in ("value", "low", "high"):
        if not isinstance(value[key], (int, float)) or not -1e-6 <= value[key] <= 1 + 1e-6:
            raise Failure(f"{where}.{key}: expected a share in [0, 1], found {value[key]!r}; run the audit again")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of this schema (null stands for what was not found)")


def _gallery(folder: Path, summary: Summary) -> Arrays:
    gallery = summary["gallery"]
    if gallery is None:
        return {}
    # The name comes from a file: it may not lead out of the folder.
    path = folder / Path(str(gallery["file"])).name
    if not path.is_file():
        raise Failure(f"gallery.file: there is no {path.name} beside the summary; run the audit again")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.nan_to_num(file[name].astype(np.float64)) for name in file.files}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Failure(f"cannot read {path}: {error}; run the audit again to replace it") from error
    _check_arrays(summary, arrays, path.name)
    return arrays


def _check_arrays(summary: Summary, arrays: Arrays, file: str) -> None:
    gallery = summary["gallery"]
    for i, model in enumerate(summary["models"]):
        entries = gallery["models"].get(model["name"], [])
        if not entries:
            continue
        maps = (
            f"map_{state}_{i}_{a}" for a in range(len(gallery["attributions"])) for state in ("clean", "adversarial")
        )
        for name in (f"clean_{i}", f"adversarial_{i}", *maps):
            _need_array(arrays, name, len(entries), file)
        if arrays[f"clean_{i}"].shape != arrays[f"adversarial_{i}"].shape:
            raise Failure(f"{file}: clean_{i} and adversarial_{i} differ in shape; run the audit again")
    for i, model in enumerate((summary.get("explained") or {"models": {}})["models"].values()):
        for a, row in enumerate(model["attributions"]):
            for kind in ("adversarial", "map_clean", "map_adversarial", "map_marks") if row["samples"] else ():
                _need_array(arrays, f"{kind}_explained_{i}_{a}", len(row["samples"]), file)
                _need_array(arrays, "clean_explained", len(row["samples"]), file)
    if gallery["grid"] is not None:
        _check_grid(gallery["grid"], arrays, file)


def _check_grid(grid: Any, arrays: Arrays, file: str) -> None:
    _need(grid, "model attack classes success", "gallery.grid")
    rows = grid["success"]
    _need_array(arrays, "grid", len(rows), file)
    columns = arrays["grid"].shape[1]
    if any(len(row) != columns for row in rows) or len(grid["classes"]) < max(len(rows), columns):
        raise Failure(
            f"gallery.grid: success and classes do not fit {file}'s {len(rows)} x {columns}; run the audit again"
        )


def _need_array(arrays: Arrays, name: str, length: int, file: str) -> None:
    if name not in arrays:
        raise Failure(f"{file}: missing the array {name}; run the audit again")
    if len(arrays[name]) != length:
        raise Failure(f"{file}: {name} holds {len(arrays[name])} rows, the summary has {length}; run the audit again")
