"""What a provider's error body says, in whichever of the known forms it comes.

There is no standard: servers, and the proxies before them, send `{"error": {…}}`, `{"error": "text"}`, a flat object, a list,
FastAPI's `{"detail"}`, prose as a code, JSON followed by a line of help, plain text, HTML, or nothing. OpenAI's clients read one
form only, so every text must find its way into it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.base import JSON

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
    value, text = first_value(body)
    if value is None and text:
        return ErrorText(message=plain(body) or default)
    return error_value(value, default)


def error_value(value: Any, default: str) -> ErrorText:
    """Read an error that is already parsed; `default` is the message where there is none."""
    error, outer = error_object(value)
    return ErrorText(
        message=_clip(text_of(error) or text_of(outer)) or default,
        type=_word(error.get("type")),
        code=_word(error.get("code")),
        param=_word(error.get("param")),
    )


def first_value(body: bytes) -> tuple[object, str]:
    """Return the first JSON value and the text behind it; of no JSON None and all the text."""
    try:
        return orjson.loads(body), ""
    except orjson.JSONDecodeError:
        text = body.decode("utf-8", "replace").strip().lstrip("\ufeff")
    if not text.startswith(("{", "[")):
        return None, text
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return None, text
    return value, text[end:].strip()


def error_object(value: object) -> tuple[JSON, JSON]:
    """Return the object that describes the error, and the one around it (each perhaps empty)."""
    for _ in range(4):
        if isinstance(value, list):
            value = next((v for v in value if isinstance(v, dict)), {"message": value[0]} if value else {})
        if not isinstance(value, dict):
            return ({"message": value} if isinstance(value, str) else {}), {}
        inner = value.get("error", value.get("errors"))
        if isinstance(inner, dict) and inner:
            return inner, {k: v for k, v in value.items() if k not in ("error", "errors")}
        if isinstance(inner, str) and inner:
            return {**value, "message": inner, "error": None}, {}
        if not (isinstance(inner, list) and inner):
            return value, {}
        value = inner
    return {}, {}


def text_of(error: JSON) -> str:
    """Return what an error's object says, "" where it has no words."""
    for key in (
        "message",
        "msg",
        "detail",
        "Message",
        "error_description",
        "error_message",
        "title",
        "reason",
        "error",
    ):
        value = error.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list) and value:
            return "; ".join(_complaint(v) for v in value[:8])
        if isinstance(value, dict) and value:
            return text_of(value) or json.dumps(value, ensure_ascii=False)
    return ""


def location(value: Mapping[str, Any]) -> list[object]:
    """Return the path of the field that one entry of FastAPI's list names, without `body`."""
    place = value.get("loc")
    return [part for part in place if part != "body"] if isinstance(place, list) else []


def plain(body: bytes) -> str:
    """Return the words of a body that is no JSON, without a page's markup."""
    text = body[:_HTML_CHARS_MAX].decode("utf-8", "replace")
    if "<" in text:
        text = _TAGS.sub(" ", text)
    return _clip(" ".join(text.split()))


def _complaint(value: object) -> str:
    """Say one entry of FastAPI's list: `{"loc": ["body", "messages"], "msg": "Field required"}`."""
    if not isinstance(value, dict):
        return str(value)
    where = ".".join(str(part) for part in location(value))
    what = str(value.get("msg") or value.get("message") or json.dumps(value, ensure_ascii=False))
    return f"{where}: {what}" if where else what


def _word(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)[:200]


def _clip(text: str) -> str:
    return text.strip()[:MESSAGE_CHARS_MAX]
