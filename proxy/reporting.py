"""Asks the store what was spent. Whole days come from the totals, which are complete; anything else from the records."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from accounting.reading import Reader
from accounting.settlement import DAYS_KEPT_MS, RECORDS_MAX
from accounting.spending import By, Sum, chosen, of_records, of_totals, total, utc_days
from accounting.store.store import Store
from proxy.amounts import rfc3339, usd_text
from proxy.spelled import DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Sums by group. `source` is totals or records; `missing` says what could not be counted, if anything."""

    by: By
    since_ms: int
    groups: dict[str, Sum]
    source: str
    missing: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON shows it; money exact, as text and as an integer."""
        rows = [{self.by: name or None, **sum_json(each)} for name, each in self.groups.items()]
        whole = sum_json(total(self.groups.values()))
        return {
            "since": rfc3339(self.since_ms),
            "source": self.source,
            "missing": self.missing,
            "data": rows,
            "total": whole,
        }


def sum_json(each: Sum) -> dict[str, Any]:
    """Return one sum as JSON shows it."""
    row = {
        "calls": each.calls, "input_tokens": each.input_tokens, "output_tokens": each.output_tokens,
        "cost_usd": usd_text(each.cost_nanousd), "cost_nanousd": each.cost_nanousd,
    }  # fmt: skip
    return row if each.unpriced is None else row | {"unpriced_calls": each.unpriced}


async def report(store: Store, *, since_ms: int, now_ms: int, by: By, only: Mapping[str, str]) -> Report:
    """Return what was spent since then. Raises StoreError."""
    reader = Reader(store)
    if since_ms % DAY_MS == 0:
        oldest_ms = now_ms - DAYS_KEPT_MS
        begin_ms = max(since_ms, oldest_ms // DAY_MS * DAY_MS)
        days = {day: await reader.totals([day]) for day in utc_days(begin_ms, now_ms)}
        missing = None if since_ms >= oldest_ms else f"days before {rfc3339(begin_ms)} are no longer kept"
        return Report(by=by, since_ms=since_ms, groups=of_totals(days, by, only), source="totals", missing=missing)
    found = [record async for record in records(store, since_ms=since_ms, only=only)]
    missing = await records_missing(store, since_ms)
    return Report(by=by, since_ms=since_ms, groups=of_records(found, by), source="records", missing=missing)


async def records(store: Store, *, since_ms: int, only: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
    """Yield the usage records since then, oldest first. Raises StoreError."""
    async for record in Reader(store).records(since_ms=since_ms):
        if chosen(record, only):
            yield record


async def records_missing(store: Store, since_ms: int) -> str | None:
    """Say so where records since then may have been trimmed; None where the stream goes back that far. Raises StoreError."""
    oldest_ms = await oldest_record_ms(store)
    if oldest_ms is None or oldest_ms <= since_ms or int(await store.call("XLEN", store.key("u"))) < RECORDS_MAX:
        return None
    return f"records before {rfc3339(oldest_ms)} were trimmed; ask for whole days (--since 2026-11-01)"


async def oldest_record_ms(store: Store) -> int | None:
    """Return when the oldest record that is kept was settled, None where there is none. Raises StoreError."""
    first = await store.call("XRANGE", store.key("u"), "-", "+", "COUNT", 1)
    return int(first[0][0].partition(b"-")[0]) if first else None
