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

ByName = Mapping[bytes, bytes]  # headers by their names in lower case; of a name that was sent twice the first
Again = Sequence[tuple[bytes, bytes]]  # the headers whose name had come before


def fault(method: str, target: str, version: tuple[int, int], headers: ByName, again: Again) -> tuple[int, str] | None:
    """Return status and sentence of what is wrong with a head, None if nothing is. The sentence quotes nothing of it."""
    found, count = headers, len(headers) + len(again)
    if again:
        if twice := [name for name, _ in again if name in _ONCE]:
            return 400, f"The header {twice[0].decode('latin-1')} was sent twice."
        found = _joined(headers, again)
    size_bytes = 4 * count + len(b"".join(found)) + len(b"".join(found.values()))
    if count > HEADERS_MAX or size_bytes > HEAD_BYTES_MAX:
        return 431, f"The request has more than {HEADERS_MAX} headers, or they are larger than {HEAD_BYTES_MAX} bytes."
    # what goes into a cache holds no key; and of the length only that there is one, since the parser has judged the number
    said, has_length = found.get, b"content-length" in found
    framing = said(b"transfer-encoding"), has_length
    offers = said(b"connection", b""), said(b"upgrade"), said(b"expect")
    return _head_fault(method, target, version, said(b"host", b""), framing, offers)


def foreign(headers: ByName, again: Again) -> bool:
    """Tell whether a request that needs no key comes from a page of another site: by name rebinding, or by its own word."""
    found = _joined(headers, again) if again else headers
    if not _is_loopback(found.get(b"host", b"")):
        return True
    origin = found.get(b"origin")
    return origin is not None and not _is_loopback(origin.partition(b"://")[2])


def _joined(headers: ByName, again: Again) -> dict[bytes, bytes]:
    """Return the headers by name, those sent in parts as one."""
    found = dict(headers)
    for name, value in again:
        found[name] += b"," + value
    return found


def _is_loopback(host: bytes) -> bool:
    return _LOOPBACK.fullmatch(host.decode("latin-1")) is not None


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
