"""Bedrock's errors in OpenAI's terms, whether they come as a response or as a frame of a stream.

The kind of an error is only in a header (`x-amzn-errortype: ValidationException:http://…`), the body holds a message
under `message` or `Message`; behind a load balancer neither need be there. Frames name the kind in lower camel case.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from adapters.base import JSON
from adapters.error_text import plain
from adapters.errors import UpstreamAuthError, UpstreamError
from adapters.retrying import RETRY_HEADERS

MESSAGE_CHARS_MAX = 2000

_INVALID, _RATE, _SERVER = "invalid_request_error", "rate_limit_error", "server_error"

# kind without "Exception", in lower case -> status, type, code
_KINDS: Mapping[str, tuple[int, str, str | None]] = {
    "validation": (400, _INVALID, None),
    "conflict": (400, _INVALID, None),
    "accessdenied": (403, _INVALID, "model_access_denied"),
    "resourcenotfound": (404, _INVALID, "model_not_found"),
    "unknownoperation": (404, _INVALID, "unknown_url"),
    "modeltimeout": (504, "upstream_error", "upstream_timeout"),
    "modelerror": (502, _SERVER, "model_error"),
    "modelstreamerror": (502, _SERVER, "model_error"),
    "modelnotready": (429, _RATE, "model_not_ready"),
    "throttling": (429, _RATE, "rate_limit_exceeded"),
    "toomanyrequests": (429, _RATE, "rate_limit_exceeded"),
    "servicequotaexceeded": (429, _RATE, "rate_limit_exceeded"),
    "internalserver": (500, _SERVER, "server_error"),
    "internalfailure": (500, _SERVER, "server_error"),
    "serviceunavailable": (503, _SERVER, "overloaded"),
}
_STATUSES: Mapping[int, tuple[int, str, str | None]] = {
    404: (404, _INVALID, "model_not_found"),
    408: _KINDS["modeltimeout"],
    413: (413, _INVALID, "request_too_large"),
    424: _KINDS["modelerror"],
    429: _KINDS["throttling"],
    503: _KINDS["serviceunavailable"],
    504: _KINDS["modeltimeout"],
}
_AUTH_KINDS = frozenset(
    {
        "unrecognizedclient", "expiredtoken", "invalidsignature", "signaturedoesnotmatch", "incompletesignature",
        "missingauthenticationtoken", "invalidclienttokenid", "notauthorized", "unauthorized",
    }
)  # fmt: skip
_AUTH_WORDS = re.compile(
    r"security token|request signature|signature (has )?expired|signature not yet current|authentication (token|failed)"
    r"|api key|not authorized to perform|bearer token|authorization header|credential should be scoped",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"input is too long|prompt is too long|too many (input )?tokens|maximum context|context (length|window)"
    r"|exceed.{0,40}(token limit|max(imum)?[ _]?(input|length|tokens|model))|input length and .max_tokens.",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model identifier is invalid|on-demand throughput isn|end of its life|could not find the model|model .{0,80}not found"
    r"|not support(ed)? .{0,40}on-demand",
    re.IGNORECASE,
)
_ERROR_STATUS_MIN = 400


def error_of_response(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Translate an answer with an error status; `headers` have names in lower case, the body may be anything."""
    parsed = _object(body)
    kind = headers.get("x-amzn-errortype") or _text(parsed, "__type", "code") or _text(parsed.get("Output"), "__type")
    message = message_of(parsed) or ("" if parsed else plain(body)[:MESSAGE_CHARS_MAX])
    return _error(kind, status, message, passed_on(headers))


def error_of_body(parsed: JSON, headers: Mapping[str, str]) -> UpstreamError | None:
    """Return the error that a body with status 200 holds, None when it holds none."""
    kind = _text(parsed, "__type") or _text(parsed.get("Output"), "__type")
    message = message_of(parsed)
    if not kind and not message:
        return None
    return _error(kind or headers.get("x-amzn-errortype", ""), 502, message, passed_on(headers))


def error_of_frame(kind: str, payload: bytes, fallback: str = "") -> UpstreamError:
    """Translate an exception or error frame of a stream; the status is what it would have been as a response."""
    parsed = _object(payload)
    message = message_of(parsed) or fallback
    original = _text(parsed, "originalMessage")
    if original and original not in message:
        message = f"{message}: {original}" if message else original
    return _error(kind, 502, message, {})


def message_of(parsed: JSON) -> str:
    """Return the text of an error's body, "" when it has none."""
    inner = parsed.get("error")
    return (
        _text(parsed, "message", "Message", "errorMessage", "detail", "error")
        or _text(inner, "message", "Message")
        or _text(parsed.get("Output"), "message", "__type")
    )[:MESSAGE_CHARS_MAX]


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers worth handing on, Amazon's request id under OpenAI's name."""
    kept = {name: headers[name] for name in RETRY_HEADERS if name in headers}
    if "x-amzn-requestid" in headers:
        kept["x-request-id"] = headers["x-amzn-requestid"]
    return kept


def _error(kind: str, status: int, message: str, headers: dict[str, str]) -> UpstreamError:
    name = _short(kind)
    if name in _AUTH_KINDS or status == 401 or (_is_refusal(name, status) and _AUTH_WORDS.search(message)):  # noqa: PLR2004
        return UpstreamAuthError(message or "the provider rejects Bursar's credentials", headers=headers)
    row = _KINDS.get(name) or _STATUSES.get(status) or _by_class(status)
    status, type_, code = row
    if type_ == _INVALID and _TOO_LONG.search(message):
        return UpstreamError(
            message, status=status, type=type_, param="messages", code="context_length_exceeded", headers=headers
        )
    if type_ == _INVALID and _NO_MODEL.search(message):
        code = "model_not_found"
    text = message or f"the provider answered with {kind or f'status {status}'}"
    param = "model" if code == "model_not_found" else None
    return UpstreamError(text, status=status, type=type_, param=param, code=code, headers=headers)


def _is_refusal(name: str, status: int) -> bool:
    return name == "accessdenied" or (not name and status == 403)  # noqa: PLR2004


def _by_class(status: int) -> tuple[int, str, str | None]:
    if status < _ERROR_STATUS_MIN:
        return 502, "upstream_error", "upstream_protocol_error"
    return status, _INVALID if status < 500 else _SERVER, None  # noqa: PLR2004


def _short(kind: str) -> str:
    name = kind.split(":", 1)[0].rsplit("#", 1)[-1].strip().lower().removesuffix("exception")
    return name if name in _KINDS else name.removesuffix("error")


def _object(body: bytes) -> JSON:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _text(parsed: Any, *keys: str) -> str:
    if isinstance(parsed, dict):
        for key in keys:
            value = parsed.get(key)
            if isinstance(value, str) and value:
                return value
    return ""
