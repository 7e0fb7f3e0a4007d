"""Walks a summary along `docs/summary.md`: keys, types, estimates, no NaN, the same after JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

TOP = "schema version created machine seconds command code config data threat models transfer explained neurons gallery"
MODEL = (
    "name file architecture draws parameters weights clean robust verdict eligibility attacks broken_by curve "
    "distances rho2 gradient_norm confidence explanations"
)
ATTACK = (
    "name label settings accuracy success_rate after_rounding zero_gradient forwards backwards median_distance verdict"
)
CAPTION = (
    "index id label clean_prediction adversarial_prediction clean_confidence adversarial_confidence distance attack"
)
BROKEN = "attack member samples alone"
DISTANCES = "attack count censored limit quantiles"
RHO2 = "attack pixels centered turned"
ELIGIBILITY = "deterministic gradients no_optimization"
EXPLAINED = "threat samples pixels goals steps restarts draws similarities models"
PUSHED = "name refused similarity moved surrogate points deviation why certain faithful passes samples"
CAPTIONS = "index id label prediction clean_confidence adversarial_confidence certain goal"
BOUND = "bound count ratio largest points over"
LEVELS = "0.05 0.25 0.5 0.75 0.95"


def check(summary: Mapping[str, Any]) -> None:
    """Raise AssertionError, naming the place, where a summary is not as documented."""
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary, "the summary changes in JSON"
    _keys(summary, TOP, "summary")
    assert summary["schema"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", summary["created"]), summary["created"]
    _keys(summary["machine"], "platform python torch device threads", "machine")
    _number(summary["seconds"], "seconds", low=0)
    _texts(summary, "version command code", "summary")
    _data(summary["data"])
    _keys(summary["threat"], "norm eps bounds", "threat")
    assert summary["threat"]["norm"] in ("linf", "l2", "l1", "l0")
    _number(summary["threat"]["eps"], "threat.eps", low=0)
    assert len(summary["threat"]["bounds"]) == 2
    assert summary["models"]
    for i, model in enumerate(summary["models"]):
        _model(model, f"models[{i}]", summary["data"]["samples"])
    _transfer(summary["transfer"], [m["name"] for m in summary["models"]], summary["data"]["samples"])
    _explained(summary["explained"], summary)
    _neurons(summary["neurons"], summary)
    _gallery(summary["gallery"], summary)


def _neurons(neurons: Mapping[str, Any] | None, summary: Mapping[str, Any]) -> None:
    if neurons is None:
        return
    _keys(neurons, "attack threat samples share draws models", "neurons")
    _keys(neurons["threat"], "norm eps bounds", "neurons.threat")
    assert list(neurons["models"]) == [m["name"] for m in summary["models"]]
    for name, row in neurons["models"].items():
        where = f"neurons.{name}"
        _keys(row, "refused fooled judged layers", where)
        assert (row["refused"] is None) == (row["fooled"] is not None) == bool(row["layers"]), where
        for layer in row["layers"]:
            place = f"{where}.{layer['name']}"
            _keys(layer, "name neurons held change relative most restored gain", place)
            assert layer["change"]["count"] == neurons["samples"], place
            assert 0 < len(layer["most"]) <= layer["neurons"], place
            assert 0 < layer["held"] <= layer["neurons"], place
            assert (layer["restored"] is None) == (layer["gain"] is None) == (row["judged"] == 0), place
            for choice, value in (layer["restored"] or {}).items():
                assert choice in ("most", "random", "least"), place
                assert _estimate(value, f"{place}.{choice}") == row["judged"], place


def _data(data: Mapping[str, Any]) -> None:
    _keys(data, "name split samples classes shape fingerprint", "data")
    _texts(data, "name split fingerprint", "data")
    assert isinstance(data["samples"], int)
    assert all(isinstance(c, str) for c in data["classes"])
    assert all(isinstance(s, int) for s in data["shape"])


def _model(model: Mapping[str, Any], where: str, samples: int) -> None:
    _keys(model, MODEL, where)
    _texts(model, "name weights", where)
    assert model["file"] is None or isinstance(model["file"], str)
    assert model["architecture"] is None or "name" in model["architecture"]
    assert isinstance(model["parameters"], int)
    for key in ("clean", "robust"):
        assert _estimate(model[key], f"{where}.{key}") == samples
    assert model["robust"]["value"] <= model["clean"]["value"]
    _verdict(model["verdict"], f"{where}.verdict")
    assert model["attacks"]
    for i, attack in enumerate(model["attacks"]):
        _attack(attack, f"{where}.attacks[{i}]", samples)
    _broken_by(model, where, samples)
    _distances(model["distances"], f"{where}.distances", samples)
    _rho2(model["rho2"], f"{where}.rho2", samples)
    _keys(model["eligibility"], ELIGIBILITY, f"{where}.eligibility")
    assert all(value in (True, False, None) for value in model["eligibility"].values()), where
    assert isinstance(model["draws"], int)
    assert model["draws"] >= 1
    _keys(model["curve"], "attack points", f"{where}.curve")
    radii = []
    for i, point in enumerate(model["curve"]["points"]):
        _keys(point, "eps accuracy", f"{where}.curve.points[{i}]")
        _estimate(point["accuracy"], f"{where}.curve.points[{i}].accuracy")
        radii.append(point["eps"])
    assert radii[0] == 0
    assert radii == sorted(set(radii))
    _keys(model["gradient_norm"], "quantiles next_class", f"{where}.gradient_norm")
    _keys(model["confidence"], "clean adversarial", f"{where}.confidence")
    for key in ("gradient_norm", "confidence"):
        for name, levels in model[key].items():
            _quantiles(levels, f"{where}.{key}.{name}")
    for i, row in enumerate(model["explanations"]):
        place = f"{where}.explanations[{i}]"
        _keys(row, "attribution under measure mean low high count", place)
        assert row["under"] in ("attack on the prediction", "random noise"), place
        assert row["low"] <= row["mean"] <= row["high"], place


def _attack(attack: Mapping[str, Any], where: str, samples: int) -> None:
    _keys(attack, ATTACK, where)
    _texts(attack, "name label", where)
    assert isinstance(attack["settings"], dict)
    for key in ("accuracy", "after_rounding"):
        assert _estimate(attack[key], f"{where}.{key}") == samples
    if attack["success_rate"] is not None:
        assert _estimate(attack["success_rate"], f"{where}.success_rate") <= samples
    _number(attack["zero_gradient"], f"{where}.zero_gradient", low=0, high=1)
    for key in ("forwards", "backwards"):
        _number(attack[key], f"{where}.{key}", low=0)
    if attack["median_distance"] is not None:
        _number(attack["median_distance"], f"{where}.median_distance", low=0)
    _keys(attack["verdict"], "trustworthy text", f"{where}.verdict")


def _broken_by(model: Mapping[str, Any], where: str, samples: int) -> None:
    assert {row["attack"] for row in model["broken_by"]} == {attack["label"] for attack in model["attacks"]}, where
    for i, row in enumerate(model["broken_by"]):
        _keys(row, BROKEN, f"{where}.broken_by[{i}]")
        assert row["member"] is None or isinstance(row["member"], str), where
        assert 0 <= row["alone"] <= row["samples"] <= samples, f"{where}.broken_by[{i}]"


def _distances(value: Mapping[str, Any], where: str, samples: int) -> None:
    _keys(value, DISTANCES, where)
    assert 0 <= value["censored"] <= value["count"] <= samples, where
    _number(value["limit"], f"{where}.limit", low=0)
    _keys(value["quantiles"], LEVELS, f"{where}.quantiles")
    for level, row in value["quantiles"].items():
        place = f"{where}.quantiles[{level}]"
        _keys(row, "value low high", place)
        ends = [math.inf if row[key] is None else row[key] for key in ("low", "value", "high")]
        assert ends == sorted(ends), place
        assert row["low"] is None or row["low"] >= 0, place


def _rho2(value: Mapping[str, Any], where: str, samples: int) -> None:
    _keys(value, RHO2, where)
    _texts(value, "attack", where)
    assert _estimate(value["turned"], f"{where}.turned") == samples
    for key in ("pixels", "centered"):
        if value[key] is not None:
            _keys(value[key], "value low high count", f"{where}.{key}")
            assert value[key]["low"] <= value[key]["value"] <= value[key]["high"], f"{where}.{key}"
            assert value[key]["count"] <= samples, f"{where}.{key}"


def _verdict(verdict: Mapping[str, Any], where: str) -> None:
    _keys(verdict, "trustworthy text checks", where)
    for i, row in enumerate(verdict["checks"]):
        place = f"{where}.checks[{i}]"
        _keys(row, "name passed value limit text", place)
        _texts(row, "name limit text", place)
        assert row["passed"] in (True, False, None), place
        if row["value"] is not None:
            _number(row["value"], f"{place}.value")
    trusted = all(row["passed"] is not False for row in verdict["checks"])
    assert verdict["trustworthy"] is trusted, where
    assert verdict["text"] == "trustworthy" if trusted else verdict["text"].startswith("not trustworthy, because ")


def _transfer(transfer: Mapping[str, Any] | None, names: Sequence[str], samples: int) -> None:
    if transfer is None:
        return
    _keys(transfer, "attack eps names accuracy note", "transfer")
    assert transfer["names"] == names
    assert [len(row) for row in transfer["accuracy"]] == [len(names)] * len(names)
    for i, row in enumerate(transfer["accuracy"]):
        for j, cell in enumerate(row):
            assert _estimate(cell, f"transfer.accuracy[{i}][{j}]") == samples


def _explained(explained: Mapping[str, Any] | None, summary: Mapping[str, Any]) -> None:
    if explained is None:
        return
    _keys(explained, EXPLAINED, "explained")
    _keys(explained["threat"], "norm eps bounds", "explained.threat")
    _keys(explained["pixels"], "all top", "explained.pixels")
    assert set(explained["models"]) == {m["name"] for m in summary["models"]}
    for name, model in explained["models"].items():
        _keys(model, "beta attributions", name)
        for row in model["attributions"]:
            where = f"explained.{name}.{row['name']}"
            if row["refused"] is not None:
                _keys(row, "name refused samples", where)
                continue
            _keys(row, PUSHED, where)
            assert set(row["similarity"]) == set(explained["similarities"]), where
            ways = "attack noise" if model["beta"] is None else "attack noise own_attack own_noise"
            for similarity, found in row["similarity"].items():
                _keys(found, ways, f"{where}.{similarity}")
                for value in found.values():
                    _keys(value, "value low high count", where)
                    assert value["low"] <= value["value"] <= value["high"], where
                    assert value["count"] == explained["samples"], where
            for value in row["moved"].values():
                assert _estimate(value, f"{where}.moved") == explained["samples"]
            assert (row["surrogate"] is None) == (model["beta"] is None), where
            _keys(row["deviation"], "euclidean cosine", where)
            for distance, found in row["deviation"].items():
                place = f"{where}.{distance}"
                _keys(found, "attack linearized certified values", place)
                _keys(found["attack"], "value low high", place)
                for kind in ("linearized", "certified"):
                    assert (found[kind] is None) == (row["why"][kind] is not None), place
                    if found[kind] is not None:
                        _keys(found[kind], BOUND, place)
                        assert len(found["values"][kind]) == explained["samples"], place
                        assert 0 <= found[kind]["over"] <= row["points"], place
                assert found["certified"] is None or found["certified"]["over"] == 0, place
            for measure, pair in (row["faithful"] or {}).items():
                _keys(pair, "map chance", f"{where}.{measure}")
                for value in pair.values():
                    assert -1 <= value["low"] <= value["value"] <= value["high"] <= 1, f"{where}.{measure}"
                    assert value["count"] == explained["samples"], f"{where}.{measure}"
            for caption in row["samples"]:
                _keys(caption, CAPTIONS, where)


def _gallery(gallery: Mapping[str, Any] | None, summary: Mapping[str, Any]) -> None:
    if gallery is None:
        return
    _keys(gallery, "file models attributions grid", "gallery")
    assert set(gallery["models"]) == {m["name"] for m in summary["models"]}
    for name, captions in gallery["models"].items():
        for i, caption in enumerate(captions):
            where = f"gallery.models[{name!r}][{i}]"
            _keys(caption, CAPTION, where)
            for key in ("label", "clean_prediction", "adversarial_prediction"):
                assert caption[key] in summary["data"]["classes"], where
            for key in ("clean_confidence", "adversarial_confidence"):
                _number(caption[key], f"{where}.{key}", low=0, high=1)
    grid = gallery["grid"]
    if grid is not None:
        _keys(grid, "model attack classes success", "gallery.grid")
        size = len(grid["classes"])
        assert [len(row) for row in grid["success"]] == [size] * size
        for r, row in enumerate(grid["success"]):
            for c, flag in enumerate(row):
                assert (flag is None) == (r == c), f"gallery.grid.success[{r}][{c}]"


def _keys(value: Mapping[str, Any], keys: str, where: str) -> None:
    assert isinstance(value, dict), where
    assert set(value) == set(keys.split()), f"{where}: {sorted(set(value) ^ set(keys.split()))}"


def _texts(value: Mapping[str, Any], keys: str, where: str) -> None:
    for key in keys.split():
        assert isinstance(value[key], str), f"{where}.{key}"


def _number(value: Any, where: str, low: float = -math.inf, high: float = math.inf) -> None:
    assert isinstance(value, int | float), where
    assert not isinstance(value, bool), where
    assert math.isfinite(value), where
    assert low <= value <= high, f"{where}: {value}"


def _estimate(value: Any, where: str) -> int:
    _keys(value, "value low high count", where)
    assert 0 <= value["low"] <= value["value"] <= value["high"] <= 1, where
    assert value["low"] < value["high"], where
    assert isinstance(value["count"], int), where
    assert value["count"] > 0, where
    return value["count"]


def _quantiles(value: Any, where: str) -> None:
    _keys(value, LEVELS, where)
    numbers = [value[level] for level in LEVELS.split() if value[level] is not None]
    assert numbers == sorted(numbers), where
