"""Amounts as people and clients read them: money as USD, counts as they are, times as RFC 3339 in UTC."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from accounting.hold import HeldRow

NANO = 1_000_000_000


def usd(nanousd: int) -> float:
    """Return USD as a JSON number; exact to the nano for all amounts that fit a double."""
    return nanousd / NANO


def usd_text(nanousd: int) -> str:
    """Return USD as a plain decimal, exact, without trailing zeros: 1230000 -> 0.00123."""
    sign, value = ("-", -nanousd) if nanousd < 0 else ("", nanousd)
    whole, fraction = divmod(value, NANO)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def shown(unit: str, amount: int) -> int | float:
    """Return an amount of a budget's unit as JSON shows it."""
    return usd(amount) if unit == "usd" else amount


def said(unit: str, amount: int) -> str:
    """Return an amount as a sentence says it: $0.05, 1,200 tokens."""
    if unit == "usd":
        return f"${usd_text(amount)}"
    return f"{amount:,} {unit.replace('_', ' ')}"


@lru_cache(maxsize=1024)  # the ends of periods: the same few in every answer
def rfc3339(ms: int | None) -> str | None:
    """Return epoch milliseconds as 2026-11-20T00:00:00Z."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def budget_row(row: HeldRow) -> dict[str, Any]:
    """Return one row of `/v1/budget`."""
    unit = row.budget.unit
    return {
        "subject": row.budget.subject,
        "unit": unit,
        "limit": shown(unit, row.limit),
        "used": shown(unit, row.used),
        "held": shown(unit, row.held),
        "remaining": shown(unit, row.remaining),
        "period": row.budget.period.kind,
        "resets_at": rfc3339(row.resets_ms),
        "mode": row.budget.mode,
    }
