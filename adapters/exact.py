"""JSON in and out without loss, for what orjson would round or refuse.

orjson reads an integer beyond 64 bits as a float and will not write one; tool arguments hold such numbers (ids, hashes).
So arguments are read here, and bodies that hold them are written here. Both keep the order of keys.
"""

import json
import math
from typing import Any, NoReturn

import orjson

from adapters.errors import InvalidRequestError


def loads_exact(text: str | bytes) -> Any:
    """Parse JSON, integers of any size kept. Raises ValueError for anything else, NaN and 1e999 included."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def dumps_exact(value: Any) -> bytes:
    """Write JSON in the same bytes each time; NaN and infinity as null. Raises InvalidRequestError for what is nested too deeply."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits, half of a surrogate pair, or nesting beyond orjson's 254
        pass
    try:
        return _dumps(value)
    except ValueError:
        pass
    except RecursionError as error:
        raise InvalidRequestError(_UNWRITABLE) from error
    try:
        return _dumps(_with_null(value))
    except (RecursionError, ValueError) as error:
        raise InvalidRequestError(_UNWRITABLE) from error


def _dumps(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _with_null(value: Any) -> Any:
    """Return the value with null in place of each number that JSON does not have, as orjson writes them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _with_null(inner) for key, inner in value.items()}
    return [_with_null(inner) for inner in value] if isinstance(value, list) else value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond a float's range")
    return number


_UNWRITABLE = "The request holds a value that cannot be written as JSON."
