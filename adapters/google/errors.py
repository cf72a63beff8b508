"""Google's errors in OpenAI's terms.

A wrong API key is not a 401 but a 400 INVALID_ARGUMENT whose ErrorInfo says API_KEY_INVALID, and an answer that would
have been a stream wraps its error in an array. The time to wait is in the body (RetryInfo), not in a header.
Source: https://google.aip.dev/193 and https://ai.google.dev/gemini-api/docs/troubleshooting
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

from adapters.base import JSON
from adapters.error_text import error_object, text_of
from adapters.errors import UpstreamAuthError, UpstreamError
from adapters.exact import dumps_exact
from adapters.lenient import items, string
from adapters.retrying import RETRY_HEADERS

TEXT_MAX = 1000  # characters kept of a body that is no error object
_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_STATUS_OURS = {402: 429, 408: 504, 424: 502}  # what an SDK would read wrongly under the provider's own number
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_OUR_CREDENTIALS = re.compile(
    r"API_?KEY|ACCESS_TOKEN|CREDENTIALS|SERVICE_DISABLED|BILLING_DISABLED|CONSUMER_|ACCOUNT_STATE"
)
_KEY_MESSAGE = re.compile(r"API key (not valid|not found|expired)|valid API key", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"(input|prompt)?.{0,40}token count.{0,60}exceeds|exceeds the maximum number of tokens", re.IGNORECASE
)
_MODEL_UNKNOWN = re.compile(r"\bmodels?/|Publisher Model", re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
_KEPT_HEADERS = frozenset({*RETRY_HEADERS, "x-request-id"})


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Translate an answer that is no success, whatever its body is: google.rpc.Status, an array of it, text, HTML, nothing."""
    return error_of(parsed(body), status=status, headers=headers)


def error_of(answer: Any, *, status: int | None = None, headers: Mapping[str, str] | None = None) -> UpstreamError:
    """Translate an error that was read from JSON; without `status` the one that it names itself, else 502."""
    error, _ = error_object(answer)
    name = string(error.get("status"))
    details = items(error.get("details"))
    message = _message(error, answer) or f"the provider answered with status {status or 'unknown'} and no message"
    number = _number(status, error, name)
    kept = {k: v for k, v in (headers or {}).items() if k in _KEPT_HEADERS}
    kept.update(_wait(details))
    if _is_ours(number, details, message):
        return UpstreamAuthError(message, headers=kept)
    kind, code = _TYPES.get(number, "invalid_request_error" if number < 500 else "server_error"), name or None  # noqa: PLR2004
    param = None
    if number == 429:  # noqa: PLR2004
        code = "rate_limit_exceeded"
        if _is_daily(details):
            kind, code = "insufficient_quota", "insufficient_quota"
            kept["x-should-retry"] = "false"  # a day's quota does not come back within an SDK's patience
    elif number == 404 and _MODEL_UNKNOWN.search(message):  # noqa: PLR2004
        code, param = "model_not_found", "model"
    elif number == 400 and _TOO_LONG.search(message):  # noqa: PLR2004
        code, param = "context_length_exceeded", "messages"
    extra: JSON = {"status": name} if name else {}
    return UpstreamError(message, status=number, type=kind, param=param, code=code, headers=kept, extra=extra)


def has_error(answer: Any) -> bool:
    """Tell whether an answer with a 2xx status is an error all the same."""
    if isinstance(answer, list):
        return any(has_error(item) for item in answer[:1])
    return isinstance(answer, dict) and bool(answer.get("error")) and "candidates" not in answer


def is_google(answer: Any) -> bool:
    """Tell whether an error has Google's form: a status in capitals beside its number, or an array of such."""
    return isinstance(error_object(answer)[0].get("status"), str)


def parsed(body: bytes) -> Any:
    """Return the JSON in `body`, else its text (None if there is none)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace").strip() or None


def _message(error: JSON, answer: Any) -> str:
    if isinstance(answer, str):
        return answer[:TEXT_MAX]
    return text_of(error) or (dumps_exact(answer).decode()[:TEXT_MAX] if answer else "")


def _number(status: int | None, error: JSON, name: str) -> int:
    number = status if status is not None and status >= 400 else None  # noqa: PLR2004
    code = error.get("code")
    if number is None and isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:  # noqa: PLR2004
        number = code
    if number is None:
        number = _STATUS.get(name, 502)
    return _STATUS_OURS.get(number, number)


def _is_ours(number: int, details: list[JSON], message: str) -> bool:
    """True where the provider refuses Bursar's own credentials, so that the operator must act and not the client."""
    if number == 401:  # noqa: PLR2004
        return True
    if number not in {400, 403}:
        return False
    reasons = [str(d.get("reason") or "") for d in details]
    return any(_OUR_CREDENTIALS.search(r) for r in reasons) or (number == 400 and bool(_KEY_MESSAGE.search(message)))  # noqa: PLR2004


def _wait(details: list[JSON]) -> dict[str, str]:
    for detail in details:
        delay = detail.get("retryDelay")
        match = _DURATION.fullmatch(delay) if isinstance(delay, str) else None
        if match:
            seconds = float(match[1])
            return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
    return {}


def _is_daily(details: list[JSON]) -> bool:
    for detail in details:
        for violation in items(detail.get("violations")):
            if re.search(r"per_?day", str(violation.get("quotaId")), re.IGNORECASE):
                return True
    return False
