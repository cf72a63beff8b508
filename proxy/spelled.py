"""Reads what people type for amounts, spans of time and moments. Pure; each function raises ValueError with what is wanted.

Money stays text until it is exact nano-USD: no float is ever made of it.
"""

import re
from datetime import UTC, date, datetime
from decimal import Decimal

from proxy.config import amounts

_COUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kKmMgG]?)\Z", re.ASCII)
_SPAN = re.compile(r"([1-9][0-9]{0,8})([smhdw])\Z", re.ASCII)
_TIMES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_SPAN_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_CHARS_MAX = 64
DAY_MS = 86_400_000


def count(text: str) -> int:
    """Return a whole number such as 1000, 200k or 1.5M (k, M, G are thousands)."""
    match = _COUNT.match(text) if len(text) <= _CHARS_MAX else None
    if not match:
        raise ValueError(f"{text[:_CHARS_MAX]!r} is not a count: write 1000, 200k or 1.5M")
    scaled = Decimal(match[1].replace("_", "")) * _TIMES[match[2].lower()]
    if scaled != int(scaled):
        raise ValueError(f"{text!r} is not a whole number")
    if scaled > amounts.AMOUNT_MAX:
        raise ValueError(f"{text!r} is too large: at most {amounts.AMOUNT_MAX}")
    return int(scaled)


def amount(unit: str, text: str) -> int:
    """Return an amount of a unit: exact nano-USD for `usd`, else a count."""
    if unit != "usd":
        return count(text)
    try:
        return amounts.money(text)
    except ValueError as error:
        raise ValueError(f"{text[:_CHARS_MAX]!r} {error}") from None


def change(unit: str, text: str) -> int:
    """Return an amount that may be negative, and is not 0."""
    sign, bare = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    value = sign * amount(unit, bare)
    if value == 0:
        raise ValueError("a change of 0 changes nothing")
    return value


def span_ms(text: str) -> int:
    """Return a span such as 30s, 15m, 24h, 30d or 2w in milliseconds."""
    match = _SPAN.match(text)
    if not match:
        raise ValueError(f"{text[:_CHARS_MAX]!r} is not a span of time: write 30s, 15m, 24h, 30d or 2w")
    return int(match[1]) * _SPAN_S[match[2]] * 1000


def day_ms(text: str) -> int:
    """Return the first instant of a day written YYYY-MM-DD, UTC, in epoch milliseconds."""
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError
        day = date.fromisoformat(text)
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        raise ValueError(f"{text[:_CHARS_MAX]!r} is not a day: write it as 2026-11-01") from None


def expiry_ms(text: str, now_ms: int) -> int | None:
    """Return when something expires: after a span (30d), on a day (2027-01-01, UTC), or `never` (None)."""
    if text == "never":
        return None
    moment = day_ms(text) if re.match(r"\d{4}-", text) else now_ms + span_ms(text)
    if moment <= now_ms:
        raise ValueError(f"{text} is over already")
    if moment - now_ms > 100 * 366 * DAY_MS:
        raise ValueError(f"{text} is more than a century away: write never")
    return moment


def since_ms(text: str, now_ms: int) -> int:
    """Return the moment that `--since` names: a day (2026-11-01, UTC), `today`, or a span before now (24h)."""
    if text == "today":
        return now_ms // DAY_MS * DAY_MS
    return day_ms(text) if re.match(r"\d{4}-", text) else max(0, now_ms - span_ms(text))


def per(text: str) -> tuple[str, str | None]:
    """Split `5/day` into the amount and its period; None where no period is named."""
    value, slash, period = text.partition("/")
    return value, period if slash else None
