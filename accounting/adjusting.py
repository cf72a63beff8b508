"""Corrects what a budget counts as used, once, for a reason that the audit stream keeps.

A correction belongs to the budget's current window. It takes away at most what is used there: nothing falls below 0.
"""

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from accounting.budgets import Budget
from accounting.reserving import EXPIRY_AFTER_END_MS, counter_keys
from accounting.store.scripts import script
from accounting.store.store import Store

_PAGE = 1000


async def adjust(store: Store, budget: Budget, change: int, audit: Mapping[str, Any], now_ms: int) -> tuple[int, int]:
    """Add `change` (nano-USD or a count, may be negative) to what is used; return used before and after. Raises StoreError."""
    window = budget.period.window(now_ms)
    counters, _ = counter_keys(store.key, budget, window)
    adjustment = os.urandom(12).hex()
    entry = orjson.dumps({**audit, "budget": budget.id, "window": window.key, "change": change, "id": adjustment})
    expiry_ms = window.end_ms + EXPIRY_AFTER_END_MS if window.end_ms is not None else 0
    keys = [counters, store.key("audit"), store.key("adj", adjustment), store.key("g")]
    before, after = await store.run(
        script("adjust"), keys, [window.bucket_ms, str(change), entry, expiry_ms], deadline_s=2.0
    )
    return int(before), int(after)


async def audit_entries(store: Store, *, since_ms: int = 0) -> AsyncIterator[dict[str, Any]]:
    """Yield the audit stream, oldest first; `applied` is what an adjustment really changed. Raises StoreError."""
    start = str(since_ms)
    while True:
        page = await store.call("XRANGE", store.key("audit"), start, "+", "COUNT", _PAGE, deadline_s=5.0)
        for entry_id, fields in page:
            named = dict(zip(fields[::2], fields[1::2], strict=True))
            entry = {**orjson.loads(named[b"e"]), "stored_ms": int(entry_id.partition(b"-")[0])}
            if b"applied" in named:
                entry["applied"] = int(named[b"applied"])
            yield entry
        if len(page) < _PAGE:
            return
        start = "(" + page[-1][0].decode()
