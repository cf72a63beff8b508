"""Asks a token server through the upstream transport, and hands back its JSON, or an error that is safe to show.

Only a token server's short error code is passed on: its descriptions may quote what it was sent.
"""

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from adapters.base import JSON, UpstreamRequest
from adapters.credentials.base import Secret
from adapters.credentials.files import parse_object
from adapters.credentials.renew import Lease
from adapters.errors import AdapterError, UpstreamAuthError
from adapters.transport.base import Timeouts, Transport

FETCH = Timeouts(connect=2, tls=3, first_token=5, idle=5, total=10)
METADATA = Timeouts(connect=1, tls=1, first_token=3, idle=3, total=5)  # link-local: it is there or it is not
_BYTES_MAX = 256 * 1024
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DEFAULT_LIFETIME_S = 300  # where a server says nothing


async def fetch(transport: Transport, request: UpstreamRequest, *, source: str, timeouts: Timeouts = FETCH) -> bytes:
    """Return the body of a 2xx answer. Raises UpstreamAuthError, which names `source`."""
    status, body, failure = 0, b"", ""
    try:
        response = await transport.send(request, timeouts)
        try:
            status, body = response.status, await response.read(_BYTES_MAX)
        finally:
            response.close()
    except AdapterError as error:
        failure = error.message  # raised below: a header that cannot be sent is no fault of the client's
    if failure:
        raise UpstreamAuthError(f"{source}: {failure}")
    if not 200 <= status < 300:  # noqa: PLR2004 - the class of successes
        raise UpstreamAuthError(f"{source}: the token server answered {status}{_code(body)}")
    return body


async def fetch_json(
    transport: Transport, request: UpstreamRequest, *, source: str, timeouts: Timeouts = FETCH
) -> JSON:
    """Return the JSON object of a 2xx answer. Raises UpstreamAuthError, which names `source`."""
    parsed = parse_object(await fetch(transport, request, source=source, timeouts=timeouts))
    if parsed is None:
        raise UpstreamAuthError(f"{source}: the token server answered with no JSON object")
    return parsed


def form(url: str, fields: Mapping[str, str]) -> UpstreamRequest:
    """Return a POST of a form, as OAuth's token endpoints take it."""
    headers = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
    return UpstreamRequest(url=url, headers=headers, body=urlencode(fields).encode())


def token_lease(answer: JSON, clock: Callable[[], float], *, source: str) -> Lease[Secret]:
    """Read OAuth's `access_token` and `expires_in` (or Azure's `expires_on`). Raises UpstreamAuthError.

    Source: https://www.rfc-editor.org/rfc/rfc6749#section-5.1
    """
    token = sendable(answer.get("access_token"))
    if not token:
        raise UpstreamAuthError(f"{source}: the token server answered without an access_token")
    lifetime_s = number(answer.get("expires_in"))
    expires_at_s = number(answer.get("expires_on"))
    if lifetime_s is not None or expires_at_s is None:
        expires_at_s = clock() + (_DEFAULT_LIFETIME_S if lifetime_s is None else lifetime_s)
    return Lease(Secret(token), expires_at_s)


def sendable(value: object) -> str:
    """Return a text that a header can carry, empty for anything else."""
    return value if isinstance(value, str) and value.isascii() and value.isprintable() else ""


def number(value: object) -> float | None:
    """Return a non-negative number that came as a number or as text, else None."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:15])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**50:
        return None
    return float(value)


def _code(body: bytes) -> str:
    parsed = parse_object(body) or {}
    error = parsed.get("error")
    code = error.get("status") if isinstance(error, dict) else error or parsed.get("code")
    if code is None:
        found = re.search(rb"<Code>([^<]{1,64})</Code>", body)
        code = found[1].decode("latin-1") if found else None
    return f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""
