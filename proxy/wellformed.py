"""What a request's head must be before anybody looks at what it asks: whatever two servers could read differently is refused.

Pure, over what the parser has let pass (it refuses most of these shapes itself). A refusal closes the connection, since
where the next request begins is just what is in doubt.
Source: https://www.rfc-editor.org/rfc/rfc9112 (3.2, 6.1, 6.3), https://www.rfc-editor.org/rfc/rfc9110 (7.2, 7.6.1, 10.1.1)
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

HEAD_BYTES_MAX = 32 * 1024
HEADERS_MAX = 100
LINE_BYTES_MAX = 8190

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN_FORM = re.compile(r"/[!-~]*")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(?:[/?].*)?", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ONCE = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"api-key", b"expect"}
)
_NOT_HOP_BY_HOP = frozenset(
    {"host", "content-length", "transfer-encoding", "content-type", "authorization", "api-key", "expect"}
)

RawHeaders = Sequence[tuple[bytes, bytes]]


def folded(headers: RawHeaders) -> dict[bytes, bytes]:
    """Return the headers by name in lower case; of a name that was sent twice the first."""
    by_name = {name.lower(): value for name, value in headers}
    if len(by_name) < len(headers):
        by_name = {name.lower(): value for name, value in reversed(headers)}
    return by_name


def fault(
    method: str,
    target: str,
    version: tuple[int, int],
    headers: RawHeaders,
    by_name: Mapping[bytes, bytes] | None = None,
) -> tuple[int, str] | None:
    """Return status and sentence of what is wrong with a head, None if nothing is. The sentence quotes nothing of it.

    `by_name` are the same headers `folded`, where the caller has them.
    """
    found = folded(headers) if by_name is None else by_name
    if len(found) < len(headers):
        found, twice = _joined(headers)
        if twice:
            return 400, f"The header {twice} was sent twice."
    size_bytes = 4 * len(headers) + len(b"".join(found)) + len(b"".join(found.values()))
    if len(headers) > HEADERS_MAX or size_bytes > HEAD_BYTES_MAX:
        return 431, f"The request has more than {HEADERS_MAX} headers, or they are larger than {HEAD_BYTES_MAX} bytes."
    # what goes into a cache holds no key; and of the length only that there is one, since the parser has judged the number
    said, has_length = found.get, b"content-length" in found
    framing = said(b"transfer-encoding"), has_length
    offers = said(b"connection", b""), said(b"upgrade"), said(b"expect")
    return _head_fault(method, target, version, said(b"host", b""), framing, offers)


def _joined(headers: RawHeaders) -> tuple[dict[bytes, bytes], str]:
    """Return the headers by name, those sent in parts as one; and the name of one that was sent twice and must not be."""
    found: dict[bytes, bytes] = {}
    for raw_name, value in headers:
        name = raw_name.lower()
        if name in found and name in _ONCE:
            return found, name.decode("latin-1")
        found[name] = found[name] + b"," + value if name in found else value
    return found, ""


def foreign(headers: RawHeaders) -> bool:
    """Tell whether a request that needs no key comes from a page of another site: by name rebinding, or by its own word."""
    by_name = {name.lower(): value.decode("latin-1") for name, value in headers}
    if _LOOPBACK.fullmatch(by_name.get(b"host", "")) is None:
        return True
    origin = by_name.get(b"origin")
    return origin is not None and _LOOPBACK.fullmatch(origin.partition("://")[2]) is None


@lru_cache(maxsize=64)
def _head_fault(
    method: str,
    target: str,
    version: tuple[int, int],
    host: bytes,
    framing: tuple[bytes | None, bool],  # transfer-encoding, and whether there is a content-length
    offers: tuple[bytes, bytes | None, bytes | None],  # connection, upgrade, expect
) -> tuple[int, str] | None:
    """Judge what the heads of a client's calls have in common; remembered, since it is the same each time."""
    if version not in ((1, 1), (1, 0)):
        return 505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."
    named = host.decode("latin-1")
    return (
        _framing_fault(version, *framing)
        or _host_fault(named, version)
        or _target_fault(method, target, named)
        or _connection_fault(version, *offers)
    )


def _framing_fault(version: tuple[int, int], encoding: bytes | None, has_length: bool) -> tuple[int, str] | None:
    if encoding is None:
        return None
    if version == (1, 0) or has_length:
        return 400, "The length of the body was given in two ways."
    if encoding.lower() != b"chunked":
        return 400, "A body comes as it is, or chunked; no other transfer-encoding is known here."
    return None


def _host_fault(host: str, version: tuple[int, int]) -> tuple[int, str] | None:
    if not host and version == (1, 0):
        return None
    if _HOST.fullmatch(host) is None:
        return 400, "The Host header is not the name of a host."
    return None


def _target_fault(method: str, target: str, host: str) -> tuple[int, str] | None:
    if method == "CONNECT" or _TOKEN.fullmatch(method) is None:
        return 400, "The method is not known here."
    if _ORIGIN_FORM.fullmatch(target) is not None:
        return None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or "#" in target or not target.isascii():
        return 400, "The request target is not a path."
    if absolute[1].lower() != host.lower():
        return 400, "The request target and the Host header name different hosts."
    return None


def _connection_fault(
    version: tuple[int, int], connection: bytes, upgrade: bytes | None, expect: bytes | None
) -> tuple[int, str] | None:
    listed = {word.strip().lower() for word in connection.decode("latin-1").split(",")}
    if listed & _NOT_HOP_BY_HOP:
        return 400, "The Connection header lists a header that is not the connection's."
    if upgrade is not None and "upgrade" in listed and not _harmless(upgrade):
        return 400, "No other protocol is spoken here."
    if expect is not None and (expect.lower() != b"100-continue" or version == (1, 0)):
        return 417, "Nothing but 100-continue can be expected here."
    return None


def _harmless(upgrade: bytes) -> bool:
    """An offer of HTTP/2, which may be ignored."""
    return upgrade.strip().lower() == b"h2c"
