"""Write docs/summary.md and docs/summary.schema.json from the schema: `python docs/make_summary.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steadygrad.audit.schema import HardenSummary, Summary
from steadygrad.audit.schema_people import People

INTRODUCTION = """\
# `summary.json`, `harden.json` and `people.json`, schema 1

Made from the schema by `python docs/make_summary.py`; a test keeps the two equal. For programs, the same is the JSON
Schema [summary.schema.json](summary.schema.json).

One file per audit with everything the report shows; after a hardening a second one, `harden.json`, and
where people judged its images a third one, `people.json`. `null` stands for
"not measured" or "nothing found"; there are no NaN and no infinities. No other keys than these are allowed. Read it
with `steadygrad.audit.schema.Summary.read(folder)`.
"""

PICTURES = """\
## The arrays beside it

Pictures and distributions, by model i and attribution a, which count along `models` and `gallery.attributions`:

| array | content |
|---|---|
| `clean_i`, `adversarial_i` (M, C, H, W) | the pictured samples of `gallery.models` |
| `map_clean_i_a`, `map_adversarial_i_a` (M, H, W) | their maps: absolute values, summed over channels |
| `along_i` (S, R, C, H, W), `along_map_i_a` (S, R, H, W) | the first S, and their maps, at the R radii of `steps` |
| `grid` (R, K, C, H, W) | original classes as rows, targets as columns; the diagonal holds the originals |
| `gradient_norms_i`, `next_gradient_norms_i` (N,) | per sample, for the class of the label and the class after it |
| `confidence_clean_i`, `confidence_adversarial_i` (N,) | per sample |
| `clean_explained` (M, C, H, W) | the pictured samples of `explained` |
| `adversarial_explained_i_a` (M, C, H, W) | the same with the change that moves the map |
| `map_clean_explained_i_a`, `map_adversarial_explained_i_a` (M, H, W) | their maps |
| `map_marks_explained_i_a` (M, H, W) | 4: certain to stay in the top, 3: stays, 2: leaves, 1: comes in, 0: all else |
| `map_salience_explained_i_a` (M, H, W) | for images: what blurring each place does to the logits |
"""


def render() -> str:
    """The whole page."""
    parts: dict[str, dict[str, Any]] = {}
    for document in (Summary, HardenSummary, People):
        schema = document.model_json_schema()
        parts.setdefault(document.__name__, schema)
        for name in _order(schema):
            parts.setdefault(name, schema["$defs"][name])
    return "\n".join([INTRODUCTION, *(_part(name, schema) for name, schema in parts.items()), PICTURES])


def _order(schema: dict[str, Any]) -> list[str]:
    """The parts of a document in the order in which a reader meets them."""
    found: dict[str, None] = {}

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            name = value.get("$ref", "").rpartition("/")[2]
            if name and name not in found:
                found[name] = None
                visit(schema["$defs"][name])
            for key, inner in value.items():
                if key != "$defs":
                    visit(inner)
        elif isinstance(value, list):
            for inner in value:
                visit(inner)

    visit(schema)
    return list(found)


def _part(name: str, schema: dict[str, Any]) -> str:
    rows = [
        f"| `{key}` | {_kind(value)} | {value['description'].replace('|', chr(92) + '|')} |\n"
        for key, value in schema["properties"].items()
    ]
    return f"## {name}\n\n{schema['description']}\n\n| key | type | content |\n|---|---|---|\n{''.join(rows)}"


def _kind(value: dict[str, Any]) -> str:
    """What may stand at a key, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if members := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(_kind(member) for member in members)
    if "const" in value or "enum" in value:
        return " or ".join(f"`{json.dumps(v)}`" for v in value.get("enum", [value.get("const")]))
    kind = value.get("type")
    if kind == "array":
        items = value.get("prefixItems")
        return f"[{', '.join(map(_kind, items))}]" if items else f"list of {_kind(value['items'])}"
    if kind == "object":
        inner = value.get("additionalProperties")
        names = ", ".join(f"`{name}`" for name in value.get("propertyNames", {}).get("enum", ())) or "name"
        return f"{{{names}: {_kind(inner)}}}" if isinstance(inner, dict) else "object"
    if kind == "number":
        return "share" if value.get("maximum") == 1 else "number"
    return {"integer": "whole number", "boolean": "true or false", "string": "text"}.get(kind, str(kind))


def json_schema() -> str:
    """The JSON Schema of `summary.json`."""
    return json.dumps(Summary.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    folder = Path(__file__).parent
    (folder / "summary.md").write_text(render(), encoding="utf-8")
    (folder / "summary.schema.json").write_text(json_schema(), encoding="utf-8")
