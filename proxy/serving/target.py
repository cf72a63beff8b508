"""What a request's target says: path and query, as sent and decoded.

A path whose escapes are no UTF-8 stays as it was sent: it is nobody's route, and is not to look like another.
Source: https://www.rfc-editor.org/rfc/rfc9112#section-3.2
"""

from urllib.parse import parse_qsl, unquote


def split(target: str) -> tuple[str, str]:
    """Return path and query of an origin-form or absolute-form target, as sent."""
    if not target.startswith("/"):
        _, _, rest = target.partition("://")
        slash = len(rest) if "/" not in rest else rest.index("/")
        at = min(slash, len(rest) if "?" not in rest else rest.index("?"))
        target = rest[at:] if at == slash and at < len(rest) else "/" + rest[at:]
    path, _, query = target.partition("#")[0].partition("?")
    return path, query


def decoded(path: str) -> str:
    """Return a path without its escapes."""
    if "%" not in path:
        return path
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path


def fields(query: str) -> dict[str, str]:
    """Return a query's fields; of one that is there twice the first counts."""
    return dict(reversed(parse_qsl(query, keep_blank_values=True, max_num_fields=None)))
