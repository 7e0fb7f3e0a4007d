"""Write what the commands say of themselves without loading PyTorch: `python docs/make_known.py`.

`src/steadygrad/cli/known.json` holds the flags that the fields of the plans become, and the rows of `steadygrad list`.
"""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

import steadygrad
from steadygrad import data, models, papers, recipes
from steadygrad.audit.audit_plan import AuditPlan
from steadygrad.data.data_plan import DataPlan
from steadygrad.models.model_plan import ModelPlan
from steadygrad.plans import Plan
from steadygrad.registry import Method, describe, registries
from steadygrad.training.train_plan import TrainPlan

FILE = Path(steadygrad.__file__).parent / "cli" / "known.json"
PLANS: dict[str, type[Plan]] = {"audit": AuditPlan, "data": DataPlan, "model": ModelPlan, "train": TrainPlan}
_METHODS = ("name", "summary", "cost", "norms", "order", "soundness", "reference")


def render() -> str:
    """The file: a line for each flag and for each row."""
    flags = {name: [flag(*field) for field in plan.model_fields.items()] for name, plan in PLANS.items()}
    parts = {"flags": flags, "list": listed()}
    blocks = (f'"{name}": {{\n{_lines(tables)}\n}}' for name, tables in parts.items())
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _lines(tables: dict[str, list[dict[str, Any]]]) -> str:
    rows = {name: ",\n".join(json.dumps(row, ensure_ascii=False) for row in table) for name, table in tables.items()}
    return ",\n".join(f'"{name}": [\n{text}\n]' for name, text in rows.items())


def flag(name: str, field: FieldInfo) -> dict[str, Any]:
    """What a flag is made from: the field's name, type, choices, default and help."""
    kind, choices = _kind(field.annotation)
    shown = {"choices": choices} if choices else {}
    return {"field": name, "kind": kind, **shown, "default": default(field.default), "help": field.description}


def _kind(hint: Any) -> tuple[str, list[str]]:
    """How the command line reads a field of this type, and the only words that it takes."""
    if get_origin(hint) in (Union, types.UnionType):
        return _kind(next(part for part in get_args(hint) if part is not type(None)))
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return "text", list(get_args(hint))
    if get_origin(hint) is tuple:  # of any number: a flag that may be repeated; of a fixed one: 0,1 in one flag
        return "texts" if Ellipsis in get_args(hint) else "text", []
    return {bool: "switch", int: "whole"}.get(hint, "text"), []


def default(value: Any) -> Any:
    """A default as one would type it; None for none, true and false for switches."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, tuple):
        return ", ".join(map(default, value)) or None
    if isinstance(value, Method):
        name, *settings = describe(value).items()
        changed = [f"{key}={given}" for key, given in settings if given != describe(type(value)())[key]]
        return f"{name[1]}:{','.join(changed)}" if changed else name[1]
    if isinstance(value, float):
        parts = value * 255
        return f"{round(parts)}/255" if 0 < value < 0.1 and abs(parts - round(parts)) < 1e-9 else f"{value:g}"
    return str(value) or None


def listed() -> dict[str, list[dict[str, Any]]]:
    """The rows of `steadygrad list`, by what there is."""
    steadygrad.__all__  # noqa: B018  # loads whatever registers methods
    methods = {
        kind: [
            {**{c: _text(getattr(row, c)) for c in _METHODS if row.norms or c != "norms"},
             "settings": _text(row.settings)}
            for row in rows
        ]
        for kind, rows in sorted(registries().items())
    }  # fmt: skip
    columns = ("name", "summary", "reference", "input_shape", "settings")
    plans = [(row, TrainPlan.read(row.plan)) for row in recipes.RECIPES]
    return {
        **methods,
        "models": [{c: _text(getattr(row, c)) for c in columns} for row in models.ARCHITECTURES.values()],
        "data": [{"name": row.name, "hub": row.hub or "not needed", "summary": row.summary} for row in data.DATASETS],
        "recipes": [
            {"name": row.name, "summary": row.summary, "defense": str(plan.objective()), "settings": plan.settings}
            for row, plan in plans
        ],
        "papers": [
            {
                "name": row.name,
                "summary": row.says,
                "reference": row.reference,
                "data": _text(row.data),
                "models": _text(row.models),
            }
            for row in papers.PAPERS.values()
        ],
    }


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v if isinstance(v, str | int | float | bool | None) else str(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
