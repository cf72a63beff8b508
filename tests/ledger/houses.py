"""Sidecars as far as the ledger goes: a store, a ledger, and what belongs to them, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from accounting.ask import Ask, Draw
from accounting.budgets import Budget, Outage
from accounting.ledger import Ledger
from accounting.periods import Period
from accounting.settlement import Spent
from accounting.store.resp import Address
from accounting.store.store import Store
from accounting.store.url import StoreUrl
from accounting.supervisor import Supervisor

TOTAL = Period(kind="total")


class Till:
    """One sidecar's ledger."""

    def __init__(self, address: Address, *, deadline_s: float = 5.0, tenant: str = "t", **more: Any) -> None:
        url = StoreUrl(kind="single", addresses=(address,))
        self.store = Store(url, prefix="b", tenant=tenant, deadline_s=deadline_s)
        self.supervisor = Supervisor()
        self.ledger = Ledger(self.store, supervisor=self.supervisor, **more)

    async def settled(self) -> None:
        """Wait until the store has every settlement."""
        async with asyncio.timeout(20):
            while self.ledger.settler.pending:
                await asyncio.sleep(0.005)

    async def counters(self, budget: Budget) -> dict[str, int]:
        window = budget.period.window(self.ledger.now_ms())
        found = await self.store.call("HGETALL", self.store.key("b", budget.id, window.key), deadline_s=5)
        return {k.decode(): int(v) for k, v in zip(found[::2], found[1::2], strict=True)}

    async def holds(self, budget: Budget) -> int:
        window = budget.period.window(self.ledger.now_ms())
        return await self.store.call("ZCARD", self.store.key("x", budget.id, window.key), deadline_s=5)

    async def close(self) -> None:
        await self.supervisor.drain(0.01)
        await self.store.close()


@asynccontextmanager
async def till(address: Address, **more: Any) -> AsyncIterator[Till]:
    one = Till(address, **more)
    await one.ledger.start()
    try:
        yield one
    finally:
        await one.close()


def store_on(*addresses: Address, **more) -> Store:
    return Store(
        StoreUrl(kind="single", addresses=addresses),
        prefix="b",
        tenant="t",
        deadline_s=more.pop("deadline_s", 2.0),
        **more,
    )


def tokens(limit: int, subject: str = "user:a", outage: Outage = "refuse", **more: Any) -> Budget:
    return Budget(subject=subject, unit="tokens", limit=limit, period=more.pop("period", TOTAL), outage=outage, **more)


def ask(*budgets: Budget, fixed: int = 0, wanted: int = 0, least: int = 0, share: int = 0) -> Ask:
    return Ask(draws=tuple(Draw(b, fixed, 1) for b in budgets), wanted=wanted, least=least, share_permille=share)


def spent(output: int, cost: int = 0) -> Spent:
    return Spent(output_tokens=output, cost_nanousd=cost, record=b"{}", totals_row="k|u|t|m", day="20260101")
