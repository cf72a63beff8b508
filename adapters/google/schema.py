"""Tool and answer schemas for Google: JSON Schema as it came wherever that is taken, else made into OpenAPI's subset.

`parametersJsonSchema` takes JSON Schema; `parameters` takes only a subset of OpenAPI 3.0 and refuses any other key. A
schema whose types are in capitals is already of that subset, and no JSON Schema.
Source: https://ai.google.dev/api/caching#Schema
"""

from typing import Any

from adapters.base import JSON

DEPTH_MAX = 32  # a schema that refers to itself is cut here
_TYPES = ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")
_COPIED = (
    "title",
    "description",
    "nullable",
    "format",
    "default",
    "maxItems",
    "minItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "minProperties",
    "maxProperties",
    "required",
    "propertyOrdering",
)
_FORMATS = ("enum", "date-time", "int32", "int64", "float", "double")


def parameters_of(schema: JSON, *, openapi: bool) -> JSON:
    """Return the field of a functionDeclaration that holds its schema; `{}` for no parameters in the subset."""
    if is_openapi(schema):
        return {"parameters": schema}
    if not openapi:
        return {"parametersJsonSchema": schema}
    converted = to_openapi(schema)
    return {"parameters": converted} if converted.get("properties") else {}


def answer_schema(schema: JSON, *, openapi: bool) -> JSON:
    """Return the field of generationConfig that holds the schema of an answer."""
    if is_openapi(schema):
        return {"responseSchema": schema}
    return {"responseSchema": to_openapi(schema)} if openapi else {"responseJsonSchema": schema}


def is_openapi(schema: Any) -> bool:
    """Tell whether a schema speaks Google's own subset: its root type is in capitals."""
    return isinstance(schema, dict) and schema.get("type") in _TYPES


def to_openapi(schema: JSON) -> JSON:
    """Return the schema in the subset: references resolved, const as enum, lists of types as anyOf, the rest left out."""
    definitions = {}
    for key in ("definitions", "$defs"):
        found = schema.get(key)
        if isinstance(found, dict):
            definitions.update({f"#/{key}/{name}": value for name, value in found.items()})
    return _Converter({"#": schema, **definitions}).convert(schema, 0)


class _Converter:
    def __init__(self, definitions: JSON) -> None:
        self._definitions = definitions

    def convert(self, schema: Any, depth: int) -> JSON:
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return {"type": "object"}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            target = self._definitions.get(reference)
            return self.convert({**(target if isinstance(target, dict) else {"type": "object"}), **beside}, depth + 1)
        out = {key: schema[key] for key in _COPIED if schema.get(key) is not None}
        if out.get("format") not in _FORMATS:
            out.pop("format", None)
        self._type(schema, out, depth)
        self._enum(schema, out)
        self._children(schema, out, depth)
        return out

    def _type(self, schema: JSON, out: JSON, depth: int) -> None:
        kind = schema.get("type")
        if isinstance(kind, list):
            some = [name for name in kind if name != "null"]
            if len(some) < len(kind):
                out["nullable"] = True
            if len(some) == 1:
                out["type"] = some[0]
            elif some:
                rest = {k: v for k, v in schema.items() if k != "type"}
                out["anyOf"] = [self.convert({**rest, "type": name}, depth + 1) for name in some]
        elif isinstance(kind, str):
            out["type"] = kind
        elif isinstance(schema.get("properties"), dict):
            out["type"] = "object"

    def _enum(self, schema: JSON, out: JSON) -> None:
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list):
            if None in values:
                out["nullable"] = True
            out["enum"] = [value if isinstance(value, str) else _text(value) for value in values if value is not None]
            out["type"] = "string"  # an enum of anything else is refused
            out.pop("anyOf", None)

    def _children(self, schema: JSON, out: JSON, depth: int) -> None:
        properties = schema.get("properties")
        if isinstance(properties, dict) and properties and "anyOf" not in out:
            out["properties"] = {name: self.convert(child, depth + 1) for name, child in properties.items()}
        items = schema.get("items")
        if items is None and isinstance(schema.get("prefixItems"), list):
            items = {"anyOf": schema["prefixItems"]}
        if items is not None:
            out["items"] = self.convert(items, depth + 1)
        elif out.get("type") == "array":
            out["items"] = {"type": "string"}  # an array has to say what it holds
        self._choices(schema, out, depth)

    def _choices(self, schema: JSON, out: JSON, depth: int) -> None:
        for key in ("anyOf", "oneOf", "allOf"):
            choices = schema.get(key)
            if not isinstance(choices, list) or not choices:
                continue
            some = [c for c in choices if not (isinstance(c, dict) and c.get("type") == "null")]
            if len(some) < len(choices):
                out["nullable"] = True
            if key == "allOf" or len(some) == 1:
                for choice in some:
                    out.update({k: v for k, v in self.convert(choice, depth + 1).items() if k not in out})
            elif some:
                out["anyOf"] = [self.convert(choice, depth + 1) for choice in some]


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
