"""What a provider's error body says, in whichever of the known forms it comes.

Providers and the proxies before them answer with `{"error": {…}}`, `{"error": "text"}`, flat objects, lists, `{"detail":
…}`, plain text, HTML or nothing. OpenAI's clients read one form only, so every text must find its way into it.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.exact import dumps_exact

MESSAGE_CHARS_MAX = 4000
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^<>]*>", re.DOTALL | re.IGNORECASE)
_HTML_CHARS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorText:
    """An error as told: `message` is never empty; the rest as strings where they were given."""

    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None


def error_text(body: bytes, status: int) -> ErrorText:
    """Read an error body of any form. Never raises."""
    default = f"The provider answered with status {status}."
    try:
        value = orjson.loads(body)
    except ValueError:
        return ErrorText(message=_plain(body) or default)
    return error_value(value, default)


def error_value(value: Any, default: str) -> ErrorText:
    """Read an error that is already parsed; `default` is the message where there is none."""
    if isinstance(value, list):
        value = value[0] if value else {}
    if isinstance(value, str):
        return ErrorText(message=_clip(value) or default)
    if not isinstance(value, dict):
        return ErrorText(message=default)
    inner = value.get("error", value.get("errors"))
    if isinstance(inner, list):
        inner = inner[0] if inner else None
    if isinstance(inner, str) and inner:
        return ErrorText(message=_clip(_message(value) or inner), code=_word(value.get("code")))
    fields = inner if isinstance(inner, dict) else value
    return ErrorText(
        message=_clip(_message(fields)) or default,
        type=_word(fields.get("type")),
        code=_word(fields.get("code")),
        param=_word(fields.get("param")),
    )


def _message(fields: dict[str, Any]) -> str:
    for key in ("message", "detail", "Message", "error_message", "msg", "error_description", "title"):
        value = fields.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, dict | list) and value:
            return dumps_exact(value).decode()
    return ""


def _word(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)[:200]


def _plain(body: bytes) -> str:
    text = body[:_HTML_CHARS_MAX].decode("utf-8", "replace")
    if "<" in text:
        text = _TAGS.sub(" ", text)
    return _clip(" ".join(text.split()))


def _clip(text: str) -> str:
    return text.strip()[:MESSAGE_CHARS_MAX]
