"""What a request's target says: path and query, as sent and decoded.

Escapes that are no UTF-8 stay as they were sent. A fragment has no business in a target, and is taken for a part of the path: nobody's.
Source: https://www.rfc-editor.org/rfc/rfc9112#section-3.2
"""

import re
from functools import lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


@lru_cache(maxsize=64)
def parts(target: str) -> tuple[str, str, str]:
    """Return path and query as sent, and the path without its escapes; remembered, since most calls go to the same few."""
    path, query = split(target)
    return path, query, decoded(path)


def split(target: str) -> tuple[str, str]:
    """Return path and query of an origin-form or absolute-form target, as sent."""
    if not target.startswith("/"):
        _, _, rest = target.partition("://")
        slash = len(rest) if "/" not in rest else rest.index("/")
        at = min(slash, len(rest) if "?" not in rest else rest.index("?"))
        target = rest[at:] if at == slash and at < len(rest) else "/" + rest[at:]
    path, _, query = target.partition("?")
    return path, query


def decoded(path: str) -> str:
    """Return a path without its escapes."""
    if "%" not in path:
        return path
    return _ESCAPES.sub(_decoded_run, path)


def fields(query: str) -> dict[str, str]:
    """Return a query's fields; of one that is there twice the first counts."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, value)
    return found


def _decoded_run(run: re.Match[str]) -> str:
    try:
        return unquote_to_bytes(run[0]).decode()
    except UnicodeDecodeError:
        return run[0]
