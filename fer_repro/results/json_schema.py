"""The JSON Schema of ``result.json``, made of the shapes in `fer_repro.results.schema`, for readers in any language.

The file ``result.schema.json`` beside this module is what `document` returns; a test compares them.
``python -m fer_repro.results.json_schema`` writes it again after a change of the shapes. What the keywords of JSON
Schema cannot say, such as that the digests, scores and folder agree, only `fer-repro verify` checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_repro.data import LABELS
from fer_repro.files import atomic_write
from fer_repro.results import schema
from fer_repro.results.schema import EVIDENCE, FULL
from fer_repro.results.shapes import Both, Rule, Shape

FILE = Path(__file__).with_name("result.schema.json")
TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    type(None): "null",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
}
# Shapes that many fields share, by the name under which the document holds them once.
NAMED: dict[str, Shape] = {
    "metrics": schema.METRICS,
    "of_a_class": schema.METRICS["per_class"][LABELS[0]],
    "recipe": schema.RECIPE,
    "views": schema.VIEWS,
}


def document() -> dict[str, Any]:
    """The schema, of draft 2020-12. A result of any kind of evidence validates, by the shape of its ``kind``."""
    kinds = {name: _object(kind.shape, _Names()) for name, kind in EVIDENCE.items()}
    shared = {name: _schema(shape, _Names(without=name)) for name, shape in NAMED.items()}
    chosen = [
        {"if": {"required": ["kind"], "properties": {"kind": {"const": name}}}, "then": {"$ref": f"#/$defs/{name}"}}
        for name in EVIDENCE
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:fer-repro:result:{schema.SCHEMA}",
        "title": f"result.json of fer-repro, schema version {schema.SCHEMA}",
        "description": "One stored result: a full run, released weights, an unfinished run, an "
        "installable package, or a full run on a copy that was modified on purpose. "
        "Accuracies are fractions from 0 to 1. A record without a kind is of a full run.",
        "type": "object",
        "properties": {"kind": {"enum": [*EVIDENCE]}},
        "if": {"not": {"required": ["kind"]}},
        "then": {"$ref": f"#/$defs/{FULL}"},
        "allOf": chosen,
        "$defs": kinds | shared,
    }


class _Names:
    """The reference that stands for a shape that has a name; ``without``: but not for this one, which is defined."""

    def __init__(self, without: str = "") -> None:
        self.of = {id(shape): name for name, shape in NAMED.items() if name != without}

    def reference(self, shape: Shape) -> dict[str, Any] | None:
        name = self.of.get(id(shape))
        return None if name is None else {"$ref": f"#/$defs/{name}"}


def _schema(shape: Shape, names: _Names) -> dict[str, Any]:
    if known := names.reference(shape):
        return known
    if isinstance(shape, Both):
        own = {name: value for name, value in _rule(shape.rule).items() if name != "type"}
        inner = _schema(shape.shape, names)
        return inner | own if "$ref" not in inner else {"allOf": [inner], **own}
    if isinstance(shape, Rule):
        return _rule(shape)
    if isinstance(shape, tuple):
        return {"anyOf": [_schema(one, names) for one in shape]}
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0], names)}
    return _object(shape, names)


def _rule(rule: Rule) -> dict[str, Any]:
    if object in rule.types:
        return {}
    types = [TYPES[one] for one in rule.types if not (one is int and float in rule.types)]
    return {"description": rule.words, "type": types[0] if len(types) == 1 else types} | dict(rule.json)


def _object(shape: Mapping[Any, Shape], names: _Names) -> dict[str, Any]:
    fields = {name: one for name, one in shape.items() if name is not ...}
    found: dict[str, Any] = {"type": "object"}
    if fields:
        found["properties"] = {name.removesuffix("?"): _schema(one, names) for name, one in fields.items()}
        found["required"] = [name for name in fields if not name.endswith("?")]
    found["additionalProperties"] = _schema(shape[...], names) or True if ... in shape else False
    return found


def write(path: Path = FILE) -> Path:
    """Write the document, whole or not at all; the file's path."""
    with atomic_write(path) as file:
        file.write((json.dumps(document(), indent=1) + "\n").encode())
    return path


if __name__ == "__main__":
    print(f"written: {write().name}")
