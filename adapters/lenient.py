"""Reads the JSON that providers send, also where it is none: NaN and -Infinity in log probabilities, halves of emoji.

What comes out can always be written again by orjson.
"""

import json
from typing import Any

import orjson


def loads(body: bytes) -> Any:
    """Parse JSON; NaN and infinities become None, bytes that are no text U+FFFD. Raises ValueError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        value = json.loads(body.decode("utf-8", "replace"), parse_constant=lambda _: None)
        return orjson.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def items(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def member(value: Any, key: str) -> dict[str, Any]:
    """Return the object under `key`; an empty one if there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def string(value: Any) -> str:
    """Return a string as it is, anything else as an empty one."""
    return value if isinstance(value, str) else ""
