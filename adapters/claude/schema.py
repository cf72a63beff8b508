"""A client's JSON Schema for the answer, in the part of JSON Schema that Claude's structured outputs accept.

Every object must be closed, and limits on numbers, lengths and counts are refused: they are taken out and told to the
model in the description instead. A schema whose point is to be open (a map) cannot be said that way at all.
Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from typing import Any

from adapters.base import JSON
from adapters.exact import dumps_exact

_LIMITS = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "minContains",
        "maxContains",
    ]
)
_FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"])
_MAPS = ("properties", "$defs", "definitions")  # name -> schema
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_DEPTH_MAX = 100


def open_ended(schema: Any, depth: int = 0) -> bool:
    """Tell whether closing every object would change what the schema means."""
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return False
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) or extra is True or "patternProperties" in schema:
        return True
    return any(open_ended(child, depth + 1) for child in _children(schema))


def closed(schema: Any, depth: int = 0) -> Any:
    """Return the schema with its objects closed and its limits put into words; the order of keys is kept."""
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return schema
    result: JSON = {}
    limits: JSON = {}
    for key, value in schema.items():
        if _is_limit(key, value):
            limits[key] = value
        elif key in _MAPS and isinstance(value, dict):
            result[key] = {name: closed(child, depth + 1) for name, child in value.items()}
        elif key in _LISTS and isinstance(value, list):
            result[key] = [closed(child, depth + 1) for child in value]
        elif key == "items":
            result[key] = closed(value, depth + 1)
        else:
            result[key] = value
    if _is_object(schema) and "$ref" not in schema:
        result["additionalProperties"] = False
    if limits:
        told = "; ".join(f"{key}: {dumps_exact(value).decode()}" for key, value in limits.items())
        result["description"] = f"{result['description']} ({told})" if result.get("description") else told
    return result


def _is_limit(key: str, value: Any) -> bool:
    if key == "minItems":
        return value not in (0, 1)
    return key in _LIMITS or (key == "format" and value not in _FORMATS)


def _is_object(schema: JSON) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _children(schema: JSON) -> list[Any]:
    children: list[Any] = [schema.get("items")]
    for key in _MAPS:
        value = schema.get(key)
        children += value.values() if isinstance(value, dict) else []
    for key in _LISTS:
        value = schema.get(key)
        children += value if isinstance(value, list) else []
    return children
