"""Claude's errors in OpenAI's terms, from a status with a body or from an event in a stream.

A refusal of our own key is the operator's trouble and not the client's, so it is a 502. 529 (overloaded) stays: the
clients retry it like any 5xx.
Source: https://platform.claude.com/docs/en/api/errors
"""

from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from adapters.error_text import ErrorText, error_text, error_value
from adapters.errors import UpstreamAuthError, UpstreamError
from adapters.retrying import RETRY_HEADERS

_KINDS: Mapping[str, tuple[int, str, str | None]] = {  # Claude's type -> status, OpenAI's type and code
    "invalid_request_error": (400, "invalid_request_error", None),
    "authentication_error": (401, "upstream_error", None),
    "billing_error": (402, "insufficient_quota", "insufficient_quota"),
    "permission_error": (403, "permission_error", None),
    "not_found_error": (404, "invalid_request_error", None),
    "request_too_large": (413, "invalid_request_error", "request_too_large"),
    "rate_limit_error": (429, "rate_limit_error", "rate_limit_exceeded"),
    "api_error": (500, "server_error", None),
    "timeout_error": (504, "server_error", None),
    "overloaded_error": (529, "server_error", "overloaded"),
}
_BY_STATUS = {kind[0]: name for name, kind in _KINDS.items()}
_TOO_LONG = ("prompt is too long", "exceed context limit", "exceeds the context", "input is too long")
_LIMITS = {"requests": "requests", "tokens": "tokens"}
_PREFIX = "anthropic-ratelimit-"


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Translate an answer with an error's status."""
    return _error(error_text(body, status), status, kept_headers(headers))


def error_from_event(value: Any, headers: Mapping[str, str] | None = None) -> UpstreamError:
    """Translate an error that came with status 200: its type decides the status."""
    text = error_value(value, "The provider reported an error.")
    status = _KINDS.get(text.type or "", (500,))[0]
    return _error(text, status, kept_headers(headers or {}))


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers worth handing on, rate limits under OpenAI's names too; names in lower case."""
    kept = {name: headers[name] for name in RETRY_HEADERS if name in headers}
    request_id = headers.get("request-id") or headers.get("x-request-id")
    if request_id:
        kept["x-request-id"] = request_id
    for name, value in headers.items():
        if not name.startswith(_PREFIX):
            continue
        kept[name] = value
        what, _, which = name.removeprefix(_PREFIX).rpartition("-")
        if what in _LIMITS and which in ("limit", "remaining"):
            kept[f"x-ratelimit-{which}-{what}"] = value
        elif what in _LIMITS and which == "reset":
            duration = _duration(value, headers.get("date"))
            kept |= {f"x-ratelimit-reset-{what}": duration} if duration else {}
    return kept


def _error(text: ErrorText, status: int, headers: dict[str, str]) -> UpstreamError:
    known = text.type if text.type is not None and text.type in _KINDS else _BY_STATUS.get(status, "")
    if status == 401 or known == "authentication_error":  # noqa: PLR2004 - the status is its own name
        return UpstreamAuthError(text.message, headers=headers)
    _, kind, code = _KINDS.get(known, (0, "server_error" if status >= 500 else "invalid_request_error", None))  # noqa: PLR2004
    lower, param = text.message.lower(), None
    if known == "invalid_request_error" and any(words in lower for words in _TOO_LONG):
        code, param = "context_length_exceeded", "messages"
    elif known == "not_found_error" and "model" in lower:
        code, param = "model_not_found", "model"
    elif "credit balance" in lower:
        kind = code = "insufficient_quota"
    return UpstreamError(text.message, status=_own_status(status), type=kind, param=param, code=code, headers=headers)


def _own_status(status: int) -> int:
    """Return a status that says an error: some relays put one into a redirect."""
    return status if 400 <= status <= 599 else 502  # noqa: PLR2004 - the classes of HTTP


def _duration(reset: str, date: str | None) -> str | None:
    """Return the time from the answer's own date to a reset, as OpenAI writes it: 6m0s."""
    try:
        now = parsedate_to_datetime(date or "")
        seconds = max(0, round((datetime.fromisoformat(reset) - now).total_seconds()))
    except (TypeError, ValueError, OverflowError):
        return None
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
