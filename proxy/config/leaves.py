"""The types of single values, each with its spelling in the file and its form in the JSON Schema.

`extra["parse"]` turns the text of a YAML scalar into the value; `extra["quoted"]` says that quotes are fine around a number.
Secrets are `adapters.credentials.base.Secret`: they show themselves only to the line that sends them.
"""

import datetime as dt
import re
import zoneinfo
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from adapters.credentials.base import Secret
from proxy.config import address, amounts

TYPES = "x-types"  # in a Meta: the types in the file; msgspec would put the value's own over `type`
SUBJECT_KINDS = ("key", "user", "team", "org", "model", "provider", "tag", "tenant")
_PERIOD = re.compile(r"(?:minute|hour|day|week|month|cycle|total|rolling:([1-9][0-9]{0,3})([mhd]))\Z", re.ASCII)
_PERIOD_UNITS_S = {"m": 60, "h": 3600, "d": 86400}
_ROLLING_S_MAX = 400 * 86400
_NAME_CHARS_MAX = 256
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}\Z", re.ASCII)
_HEADER = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}"
_USER_FROM = re.compile(rf"(?:header:{_HEADER}|body:[A-Za-z_][A-Za-z0-9_.]{{0,63}})\Z", re.ASCII)
_SECRET_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z", re.ASCII)
_STORE_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
_ROUTE = re.compile(r"/v1/[A-Za-z0-9_./*-]{1,200}\Z", re.ASCII)
_ENTRY_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}\Z", re.ASCII)


class StoreURL(Secret):
    """The store's URL, which may hold a password: its repr and str show all but that."""

    __slots__ = ()

    def __repr__(self) -> str:
        scheme, mark, rest = self.reveal().partition("://")
        userinfo, at, place = rest.rpartition("@")
        return f"{scheme}{mark}{'***' if userinfo else ''}{at}{place.partition('?')[0]}"

    __str__ = __repr__


def subject(text: str) -> str:
    """Return a subject such as `user:alice` or `user:*`."""
    kind, colon, value = text.partition(":")
    if not colon or kind not in SUBJECT_KINDS:
        raise ValueError(
            f"wants a subject such as user:alice, team:* or model:gpt-5 (one of {', '.join(SUBJECT_KINDS)})"
        )
    if not value or ("*" in value and value != "*"):
        raise ValueError(f"wants a name after {kind}: or * alone for each {kind} without one of its own")
    return f"{kind}:{name(value)}"


def period(text: str) -> str:
    """Return a period such as `month` or `rolling:30d`; a rolling one is at most 400 days."""
    match = _PERIOD.match(text)
    if not match:
        raise ValueError("wants minute, hour, day, week, month, cycle, total or rolling:30d (units m, h, d)")
    if match[1] and int(match[1]) * _PERIOD_UNITS_S[match[2]] > _ROLLING_S_MAX:
        raise ValueError("is too long: a rolling period is at most 400 days")
    return text


def timezone(text: str) -> str:
    """Return the name of a time zone that the tz database knows."""
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone; wants a name of the tz database such as UTC or Europe/Berlin") from None
    return text


def date(text: str) -> dt.date:
    """Return a date written YYYY-MM-DD."""
    wanted = "wants a date such as 2026-11-05"
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
        raise ValueError(wanted)
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ValueError(wanted) from None


def store_url(text: str) -> StoreURL:
    """Return the store's URL: `embedded`, or one of the schemes that the store speaks."""
    wanted = "wants embedded, or redis://host:6379/0, rediss://, unix:///path, redis+cluster:// or redis+sentinel://"
    if text == "embedded":
        return StoreURL(text)
    try:
        parts = urlsplit(text)
        _ = parts.port if "," not in parts.netloc else None
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in _STORE_SCHEMES or not (parts.path if parts.scheme == "unix" else parts.netloc):
        raise ValueError(wanted)
    return StoreURL(text)


def name(text: str) -> str:
    """Return a name of 1 to 256 printable characters without spaces at its ends."""
    if not text or len(text) > _NAME_CHARS_MAX or not text.isprintable() or text != text.strip():
        raise ValueError("wants a name of 1 to 256 printable characters")
    return text


def identifier(text: str) -> str:
    """Return an id that is safe in logs, metrics, paths and store keys."""
    if not _ID.match(text):
        raise ValueError("wants letters, digits and . _ @ + - (at most 128, beginning with a letter or digit)")
    return text


def provider_name(text: str) -> str:
    """Return a provider's name: an id, so that the first `/` of a target ends it."""
    return identifier(text)


def user_from(text: str) -> str:
    """Return where a trusted key's user is read from: `header:NAME` or `body:FIELD`."""
    if not _USER_FROM.match(text):
        raise ValueError("wants header:x-bursar-user or body:user")
    return text


def sha256_hex(text: str) -> str:
    """Return 64 hexadecimal digits in lower case."""
    if not _SECRET_SHA256.match(text):
        raise ValueError("wants the SHA-256 of the secret as 64 hexadecimal digits")
    return text.lower()


def route(text: str) -> str:
    """Return a path below /v1/ that may be relayed; a `*` stands for one segment or, at the end, for the rest."""
    if not _ROUTE.match(text) or any(part in {"", ".", ".."} for part in text.split("/")[2:]):
        raise ValueError("wants a path below /v1/ such as /v1/moderations or /v1/files/*")
    return text


def entry_point(text: str) -> str:
    """Return the name of an entry point."""
    if not _ENTRY_POINT.match(text):
        raise ValueError("wants the name of an entry point of the group bursar.callbacks")
    return text


def text_of(parse: Any, **schema: Any) -> Meta:
    """Return the Meta of a value that is text in the file."""
    return Meta(extra={"parse": parse, "quoted": True}, extra_json_schema=schema or None)


def number_of(parse: Any, **schema: Any) -> Meta:
    """Return the Meta of a value that is a number in the file."""
    return Meta(extra={"parse": parse}, extra_json_schema=schema or None)


def _anchored(pattern: re.Pattern[str]) -> str:
    return "^" + pattern.pattern.replace(r"\Z", "$")


_AMOUNT = {"minimum": 0, "maximum": amounts.AMOUNT_MAX}
_MONEY_SCHEMA = {TYPES: ["number", "string"], "minimum": 0, "maximum": 9007199.254740991, "examples": [5.00, "0.05"]}

Nanousd = Annotated[int, text_of(amounts.money, **_MONEY_SCHEMA)]
Count = Annotated[int, number_of(amounts.count, **_AMOUNT)]
Positive = Annotated[int, number_of(amounts.positive, **{**_AMOUNT, "minimum": 1})]
SizeBytes = Annotated[int, text_of(amounts.size, **{TYPES: ["integer", "string"]}, examples=["32MiB"])]
Seconds = Annotated[float, number_of(amounts.seconds, exclusiveMinimum=0, maximum=604800)]
SecondsOrZero = Annotated[float, number_of(amounts.seconds_or_zero, minimum=0, maximum=604800)]
Share = Annotated[float, number_of(amounts.share, minimum=0, maximum=1)]
Listen = Annotated[str, text_of(address.listen_address, examples=["127.0.0.1:8080"])]
URL = Annotated[str, text_of(address.url, format="uri")]
Name = Annotated[str, text_of(name, minLength=1, maxLength=_NAME_CHARS_MAX)]
Identifier = Annotated[str, text_of(identifier, pattern=_anchored(_ID))]
Subject = Annotated[
    str, text_of(subject, pattern=f"^({'|'.join(SUBJECT_KINDS)}):.+$", examples=["user:alice", "user:*"])
]
Period = Annotated[str, text_of(period, pattern=_anchored(_PERIOD), examples=["month", "rolling:30d"])]
Timezone = Annotated[str, text_of(timezone, examples=["UTC", "Europe/Berlin"])]
Date = Annotated[dt.date, text_of(date)]
UserFrom = Annotated[
    str, text_of(user_from, pattern="^(header|body):.+$", examples=["header:x-bursar-user", "body:user"])
]
Sha256 = Annotated[str, text_of(sha256_hex, pattern="^[0-9a-fA-F]{64}$")]
Route = Annotated[str, text_of(route, pattern="^/v1/.+$")]
EntryPoint = Annotated[str, text_of(entry_point)]
Store = Annotated[StoreURL, text_of(store_url, examples=["embedded", "redis://localhost:6379/0"])]
Hidden = Annotated[Secret, text_of(Secret)]
