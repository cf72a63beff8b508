"""Reads whatever a server calls an error and says it in OpenAI's four keys.

What forms there are is in `adapters.error_text`. What a stranger would get wrong: a refused key is
the operator's matter, never the client's (502, `upstream_auth_error`), and some servers say it with 400 or 403; and
`code` must be a string or null, since SDKs compare it with strings.
Source: https://platform.openai.com/docs/guides/error-codes
"""

import re
from collections.abc import Mapping

from adapters.base import JSON
from adapters.error_text import error_object, first_value, location, text_of
from adapters.errors import UpstreamAuthError, UpstreamError
from adapters.retrying import RETRY_HEADERS

TEXT_MAX = 8_192  # characters of a provider's own words that are passed on
BODY_MAX = 256 * 1024  # bytes of an error body that are looked at

_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid")
_HEADERS = frozenset({
    *RETRY_HEADERS, "openai-processing-ms", "openai-version", "openai-organization", "openai-project",
})  # fmt: skip
_STATUS = {408: 504, 424: 502, 498: 503, 499: 502}  # those that would tell a client something untrue of its own request
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_SLUG = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,79}")
_OWN_TYPE = re.compile(r"[a-z][a-z_]{1,59}")
_CODES = {
    "deploymentnotfound": "model_not_found",
    "model_not_exist": "model_not_found",
    "not_found_error": "model_not_found",
    "responsibleaipolicyviolation": "content_filter",
    "context_length_exceeded": "context_length_exceeded",
    "contextwindowexceeded": "context_length_exceeded",
    "toomanyrequests": "rate_limit_exceeded",
}
_TOO_LONG = re.compile(
    r"maximum context length|context (?:length|window) (?:exceeded|is)|(?:prompt|input) is too long|exceeds? the (?:model's )?(?:maximum )?context",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"\bmodel\b.{0,200}(?:not exist|not found|not supported|unknown)|unknown model", re.IGNORECASE | re.DOTALL
)
_KEY_CODES = frozenset(
    {"invalid_api_key", "invalid_authentication_error", "authentication_error", "invalid_key", "missing_api_key"}
)
_KEY_TEXT = re.compile(
    r"(?:incorrect|invalid|missing|expired|revoked|wrong|bad|no|disabled|blocked)\b[^.\n]{0,40}\b(?:api|access|subscription)[ _-]?(?:key|token)"
    r"|(?:api|access)[ _-]?(?:key|token)\b[^.\n]{0,60}\b(?:incorrect|invalid|missing|expired|revoked|not valid|not found|disabled|blocked|leaked)",
    re.IGNORECASE,
)
_SECRET = re.compile(r"[\w\-]*\*{2,}[\w\-*]*|(?<![\w/.])(?=[\w\-]*\d)[A-Za-z0-9_\-]{16,}(?![\w/])")


def read_problem(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Return the error that an answer with a non-2xx `status` stands for; takes any body, also none, and never raises."""
    value, tail = first_value(body[:BODY_MAX])
    return _as_error(status, _kept_headers(headers), value, tail)


def problem_in_success(body: object, headers: Mapping[str, str] | None = None) -> UpstreamError | None:
    """Return the error hidden in a 2xx answer or in an event of a stream, None if `body` is no error.

    Its status is the error's own `code` or `status` where that is 400 to 599, else 502. An error beside `choices` counts
    (a provider that broke off says it so); the `error` of a Response object does not, it is part of that object.
    """
    if not isinstance(body, dict) or body.get("object") == "response":
        return None
    if not body.get("error"):
        answer = any(key in body for key in ("choices", "data", "output", "object", "type", "usage", "id"))
        flat = body.get("object") == "error" or (
            not answer and any(key in body for key in ("detail", "message", "msg"))
        )
        if not flat:
            return None
    return _as_error(_status_inside(body), _kept_headers(headers or {}), body, "")


def _as_error(status: int, headers: dict[str, str], value: object, tail: str) -> UpstreamError:
    error, outer = error_object(value)
    text = text_of(error) or text_of(outer) or tail
    if tail and tail not in text:
        text = f"{text} {tail}"
    text = text.strip()[:TEXT_MAX] or f"The provider answered with HTTP {status} and no message."
    code, prose = _code(error, outer, status)
    if _about_our_key(status, code, text):
        message = f"The provider rejects Bursar's own credentials: {_SECRET.sub('…', text)}"
        return UpstreamAuthError(message, headers={k: v for k, v in headers.items() if k == "x-request-id"})
    extra = {
        k: v for k, v in error.items() if k not in ("message", "type", "param", "code", "budget") and v is not None
    }
    if prose:
        extra["upstream_code"] = prose
    return UpstreamError(
        text,
        status=_STATUS.get(status, status if 400 <= status <= 599 else 502),  # noqa: PLR2004 - HTTP's error classes
        type=_type(error, outer, status),
        param=_param(error, outer),
        code=code or _code_of_text(status, text),
        headers=headers,
        extra=extra if len(str(extra)) <= TEXT_MAX * 4 else {},
    )


def _param(error: JSON, outer: JSON) -> str | None:
    for source in (error, outer):
        if isinstance(source.get("param"), str) and source["param"]:
            return str(source["param"])
        details = source.get("detail")
        if isinstance(details, list) and details and isinstance(details[0], dict):
            return ".".join(str(part) for part in location(details[0])) or None
    return None


def _code(error: JSON, outer: JSON, status: int) -> tuple[str | None, str | None]:
    """Return a code in OpenAI's manner, and what a provider put there in its place (prose)."""
    del status
    for source in (error, outer):
        code = source.get("code")
        if isinstance(code, str) and code.strip() and not code.strip().isdigit():
            if _SLUG.fullmatch(code):
                return _CODES.get(code.lower(), code), None
            return None, code[:200]
    return None, None


def _code_of_text(status: int, text: str) -> str | None:
    if status in (400, 413, 422) and _TOO_LONG.search(text):
        return "context_length_exceeded"
    if status in (400, 404) and _NO_MODEL.search(text[:2_000]):
        return "model_not_found"
    return {402: "insufficient_quota", 429: "rate_limit_exceeded"}.get(status)


def _type(error: JSON, outer: JSON, status: int) -> str:
    for source in (error, outer):
        own = source.get("type")
        if isinstance(own, str) and _OWN_TYPE.fullmatch(own) and own != "error":
            return own
    if status >= 500:  # noqa: PLR2004 - the class of the server's faults
        return "server_error"
    return _TYPES.get(status, "invalid_request_error")


def _about_our_key(status: int, code: str | None, text: str) -> bool:
    if status == 401:  # noqa: PLR2004 - Unauthorized
        return True
    return status in (400, 403) and (code in _KEY_CODES or _KEY_TEXT.search(text[:2_000]) is not None)


def _status_inside(body: JSON) -> int:
    error = body["error"] if isinstance(body.get("error"), dict) else body
    for key in ("status_code", "code", "status", "http_status"):
        for source in (error, body):
            value = source.get(key)
            if isinstance(value, str) and value.isascii() and value.isdigit():
                value = int(value[:4])
            if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:  # noqa: PLR2004
                return value
    return 502


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in headers.items() if k in _HEADERS or k.startswith("x-ratelimit-")}
    request_id = next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)
    if request_id:
        kept["x-request-id"] = request_id
    return kept
