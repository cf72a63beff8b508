"""Writes a request as bytes, and refuses what could be read as more than one.

Framing is Bursar's alone: one content-length, never a transfer-encoding, host from the URL. Whatever the caller says on
those is left out, not merged.
"""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from adapters.errors import InvalidRequestError

_URL = re.compile(r"https?://[\x21-\x7e]+", re.IGNORECASE)  # urlsplit would drop CR, LF and TAB without a word
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NAMES_KNOWN_MAX = 256
_OURS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "accept-encoding", "keep-alive", "te", "trailer",
        "upgrade", "expect", "proxy-connection", "proxy-authorization",
    }
)  # fmt: skip


class Origin(NamedTuple):
    """Where a connection leads; connections are shared by all calls to one origin."""

    scheme: str
    host: str  # lower case, an IPv6 address without its brackets
    port: int


class Target(NamedTuple):
    """A URL, taken apart: `path` with its query, and the value of the host header."""

    origin: Origin
    path: str
    authority: str


def parse_url(url: str) -> Target:
    """Take a URL apart. Raises InvalidRequestError on anything but a plain absolute http or https URL in ASCII."""
    try:
        if _URL.fullmatch(url) is None:
            raise ValueError
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        if "@" in parts.netloc or _HOST.fullmatch(host) is None or port == 0:
            raise ValueError
    except ValueError as error:
        raise InvalidRequestError("the URL of the provider is not a plain http or https URL") from error
    default = 443 if scheme == "https" else 80
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != default:
        authority += f":{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(Origin(scheme, host, port or default), path, authority)


def checked_method(method: str) -> bytes:
    """Return the method as it goes out. Raises InvalidRequestError."""
    if _TOKEN.fullmatch(method) is None:
        raise InvalidRequestError("the method of the request to the provider is not allowed")
    return method.encode("ascii")


def checked_line(name: str, value: str) -> bytes:
    """Return a header's line as the caller gave it, b"" for one that is Bursar's. Raises InvalidRequestError."""
    if not is_sendable(name, value):
        return b""
    return f"{name}: {value}\r\n".encode("ascii")


def is_sendable(name: str, value: str) -> bool:
    """Tell whether a header goes out as the caller gave it. Raises InvalidRequestError, naming the header only."""
    ours = _is_ours(name)
    if not (value.isascii() and (value.isprintable() or value.replace("\t", "").isprintable())):
        # of ASCII, what is not printable is a control character; TAB alone is allowed in a value (RFC 9110, 5.5)
        raise InvalidRequestError(f"the header {name.lower()} to the provider has a value that is not allowed")
    return not ours


@lru_cache(_NAMES_KNOWN_MAX)
def _is_ours(name: str) -> bool:
    """Tell whether a header is Bursar's to write. Raises InvalidRequestError for what is no name."""
    if _TOKEN.fullmatch(name) is None:
        raise InvalidRequestError("a header to the provider has a name that is not allowed")
    return name.lower() in _OURS
