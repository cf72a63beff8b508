"""Reads the JSON that providers send, also where it is none: NaN and -Infinity in log probabilities, halves of emoji.

What comes out can be written again by orjson, but for integers beyond 64 bits, which are kept where calls have arguments.
"""

import json
import re
from typing import Any

import orjson

from adapters.exact import loads_exact

_LONG = re.compile(rb"\d{19}")  # digits: perhaps beyond 64 bits


def loads(body: bytes) -> Any:
    """Parse JSON; NaN and infinities become None, bytes that are no text U+FFFD. Raises ValueError."""
    try:
        value = orjson.loads(body)
        return loads_exact(body) if b'"functionCall"' in body and _LONG.search(body) else value
    except ValueError:
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
