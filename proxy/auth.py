"""From a request's Authorization header to a `Principal`. Decided on the header alone, never on a URL or a Host."""

from collections.abc import Mapping, Sequence

import orjson
from msgspec.structs import replace

from accounting.budgets import Caller
from adapters.base import JSON
from proxy.asked import Asked, spliced
from proxy.errors import ClientError, bad_body, unauthorised
from proxy.keyring import Keyring
from proxy.principal import Principal

USER_CHARS_MAX = 256


class Gate:
    """Checks keys. `open_to` is who everybody is where the configuration asks for no keys."""

    def __init__(self, keyring: Keyring, *, tenant: str, open_to_all: bool) -> None:
        self._keyring = keyring
        self._everyone = Principal(caller=Caller(tenant=tenant, user="default")) if open_to_all else None

    def admit(self, headers: Mapping[str, str], now_ms: int) -> Principal:
        """Return the caller. Raises ClientError 401."""
        if self._everyone is not None:
            return self._everyone
        secret = presented(headers)
        if not secret:
            raise unauthorised(
                "You didn't provide an API key. Put it in an Authorization header using Bearer auth (Authorization: Bearer YOUR_KEY)."
            )
        principal = self._keyring.find(secret, now_ms)
        if principal is None:
            raise unauthorised("Incorrect API key provided. Ask whoever runs this Bursar for a key of your own.")
        return principal


def presented(headers: Mapping[str, str]) -> str:
    """Return the key that a request presents: Bearer, or the header that Azure's SDK sends."""
    value = headers.get("Authorization", "")
    if value[:7].lower() == "bearer ":
        return value[7:].strip()
    return "" if value.lower() == "bearer" else headers.get("api-key", "").strip()


def without_user(principal: Principal, asked: Asked) -> Asked:
    """Return the request without the field in which a trusted key names its end user: it is between us and the key's owner."""
    source, _, name = (principal.user_from or "").partition(":")
    if source != "body" or _walk(asked.body, name) is None:
        return asked
    body = _without(asked.body, name.split("."))
    top = name.partition(".")[0]
    return replace(asked, body=body, raw=spliced(asked.raw, {top: orjson.dumps(body[top]) if top in body else None}))


def end_user(principal: Principal, headers: Mapping[str, str], body: JSON) -> Principal:
    """Return the principal for the end user that a trusted key names. Raises ClientError 400 for a name that is none."""
    if principal.user_from is None:
        return principal
    source, _, name = principal.user_from.partition(":")
    value = headers.get(name) if source == "header" else _walk(body, name)
    if value is None or value == "":
        if principal.caller.user is not None:
            return principal
        raise _missing(source, name)
    if not isinstance(value, str) or len(value) > USER_CHARS_MAX or not value.isprintable():
        raise bad_body(
            "The user must be named by at most 256 printable characters.", name if source == "body" else None
        )
    return principal.speaking_for(value)


def _missing(source: str, name: str) -> ClientError:
    place = f"the header {name}" if source == "header" else f"the field {name}"
    return bad_body(f"This key acts for end users: name one in {place}.", name if source == "body" else None)


def _without(body: JSON, path: Sequence[str]) -> JSON:
    """Return a copy without the value at `path`, which is there."""
    first, *rest = path
    if rest:
        return {**body, first: _without(body[first], rest)}
    return {key: value for key, value in body.items() if key != first}


def _walk(body: JSON, path: str) -> object:
    value: object = body
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
