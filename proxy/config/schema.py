"""The JSON Schema of the file, generated from the structs; `python -m proxy.config.schema` writes the committed copy.

It is for editors: `${VAR}` is allowed wherever a number or a word of a closed set is. What the schema cannot say, `check`
says. Source: https://json-schema.org/draft/2020-12
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from proxy.config.leaves import TYPES
from proxy.config.model import Config

FILE_NAME = "bursar.schema.json"
COPY = Path("deploy") / FILE_NAME  # from the root of the project

_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "A value with ${VAR} or ${VAR:-default} in it."}
_VARIABLE_REF = {"$ref": "#/$defs/Variable"}
_OUTER = ("title", "description", "default", "examples")
_SEVERAL = ("anyOf", "oneOf")


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the whole file."""
    made = json.loads(json.dumps(msgspec.json.schema(Config, schema_hook=lambda _: {"type": "string"})))
    definitions = {name: _with_variables(each) for name, each in made["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:bursar:configuration",
        "title": "Bursar",
        "$ref": made["$ref"],
        "$defs": {**definitions, "Variable": _VARIABLE},
    }


def schema_text() -> str:
    """Return the schema as the text of the committed copy."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _with_variables(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_variables(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    kept = {
        key: value if key in {"default", "examples", "enum"} else _with_variables(value) for key, value in node.items()
    }
    if any(key in kept for key in _SEVERAL):
        return kept
    if TYPES in kept:
        kinds = kept.pop(TYPES)
        return {**kept, "type": kinds}
    closed = "enum" in kept or "pattern" in kept or kept.get("type") in {"integer", "number", "boolean"}
    if not closed:
        return kept
    outer = {key: kept.pop(key) for key in _OUTER if key in kept}
    return {**outer, "anyOf": [kept, _VARIABLE_REF]}


def main() -> int:
    """Write the committed copy, or the file named on the command line."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else COPY
    path.write_text(schema_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
