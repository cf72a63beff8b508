"""JSON as servers really send it: with NaN, control characters or half a surrogate pair; never an exception."""

import json
from typing import Any

import orjson


def parse(data: bytes) -> Any:
    """Return the value, None for what no JSON reader would take."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return parse_soundly(data)[0]


def parse_soundly(data: bytes) -> tuple[Any, bool]:
    """Return the value, and whether every JSON reader would take it."""
    try:
        return orjson.loads(data), True
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data.decode("utf-8-sig", "replace"), strict=False), False
    except (ValueError, RecursionError):
        return None, False


def dumps(value: Any) -> bytes:
    """Write JSON; also what `parse` read and orjson refuses (integers beyond 64 bits, lone surrogates, deep nesting)."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()
