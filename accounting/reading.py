"""Reads the ledger without changing it: balances of budgets, usage records, totals by day. No reading counts an expired hold."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from accounting.budgets import Budget
from accounting.hold import HeldRow
from accounting.reserving import counter_keys
from accounting.store.scripts import script
from accounting.store.store import Store

PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """One budget's current window. `over` was used beyond holds, `late` settled after its hold had expired."""

    row: HeldRow
    calls: int
    over: int
    late: int
    expired: int


class Reader:
    """All methods raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def balances(self, budgets: Sequence[Budget], now_ms: int) -> list[Balance]:
        """Return the balance of each budget, in order."""
        if not budgets:
            return []
        key = self._store.key
        windows = [budget.period.window(now_ms) for budget in budgets]
        keys, args = [key("g"), key("lim")], []
        for budget, window in zip(budgets, windows, strict=True):
            keys += counter_keys(key, budget, window)
            args += [budget.id, str(window.bucket_ms)]
        reply = await self._store.run(script("read"), keys, args, deadline_s=2.0)
        found = []
        for i, (budget, window) in enumerate(zip(budgets, windows, strict=True)):
            stored, used, held, calls, over, late, expired = reply[1 + 7 * i : 8 + 7 * i]
            row = HeldRow(
                budget=budget, counters_key=keys[2 + 2 * i], holds_key=keys[3 + 2 * i], field="used", amount=0, expiry_ms=0,
                resets_ms=window.end_ms, limit=_limit(budget, stored.decode()), used=used, held=held,
            )  # fmt: skip
            found.append(Balance(row=row, calls=calls, over=over, late=late, expired=expired))
        return found

    async def records(self, *, since_ms: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Yield usage records, oldest first, each with `at_ms`, the store's time when it was settled."""
        start = str(since_ms)
        while True:
            page = await self._store.call("XRANGE", self._store.key("u"), start, "+", "COUNT", PAGE, deadline_s=5.0)
            for entry_id, fields in page:
                named = dict(zip(fields[::2], fields[1::2], strict=True))
                yield {**orjson.loads(named[b"r"]), "at_ms": int(entry_id.partition(b"-")[0])}
            if len(page) < PAGE:
                return
            start = "(" + page[-1][0].decode()

    async def totals(self, days: Sequence[str]) -> dict[tuple[str, str, str, str], dict[str, int]]:
        """Return totals over days (YYYYMMDD) by (key, user, team, provider/model): n, input, output, cost."""
        totals: dict[tuple[str, str, str, str], dict[str, int]] = {}
        for day in days:
            reply = await self._store.call("HGETALL", self._store.key("day", day), deadline_s=5.0)
            for field, value in zip(reply[::2], reply[1::2], strict=True):
                *names, what = field.decode().split("|")
                key, user, team, model = (name.replace("%7C", "|") for name in names)
                row = totals.setdefault((key, user, team, model), {"n": 0, "input": 0, "output": 0, "cost": 0})
                row[what] += int(value)
        return totals


def _limit(budget: Budget, stored: str) -> int:
    """The limit that the store enforces: the one with the higher version."""
    version, _, limit = stored.partition("|")
    return int(limit) if version and int(version) > budget.version else budget.limit
