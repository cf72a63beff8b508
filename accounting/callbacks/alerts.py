"""Alerts when a budget reaches one of its soft fractions: once per threshold and period, whichever sidecar sees it first.

Looking is arithmetic on what a settlement reports, so it costs a call nothing; claiming the mark and telling happen in a task.
A notice that no webhook took is claimed again, by whoever settles next, when its lease is over; the log has it once.
"""

import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from accounting.budgets import Budget
from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler
from accounting.callbacks.marks import FIRST, NO, Marks
from accounting.callbacks.webhook import LEASE_S, Webhook
from accounting.hold import HeldRow, Hold
from accounting.periods import Period, Window
from accounting.repository import cycle_of
from accounting.store.anywhere import StoreAnywhere
from accounting.store.errors import StoreError
from accounting.store.scripts import script

THRESHOLDS = (0.5, 0.8, 0.95)
_NANO = 1_000_000_000
_MILLION = 1_000_000
_KEPT_MS = 400 * 86_400_000  # of a mark whose period never ends
_SEEN_MAX = 50_000
_log = logging.getLogger("bursar.alerts")

__all__ = ["THRESHOLDS", "BudgetAlerts", "CostAlertCallbackHandler", "Crossing", "Marks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A threshold that a budget has reached in a period. `used` and `limit` are nano-USD or counts, by unit."""

    subject: str
    unit: str
    threshold: float
    used: int
    limit: int
    period: str
    window: str  # names the period's own window
    budget: str  # names its counter
    resets_ms: int | None
    ttl_ms: int

    @property
    def mark(self) -> str:
        """Names it in the store."""
        return f"{self.budget}:{self.window}:{_share(self.threshold)}"

    def notice(self) -> JSON:
        """Return it as a webhook gets it: money as USD numbers, times as RFC 3339."""
        return {
            "type": "budget.threshold", "subject": self.subject, "unit": self.unit, "threshold": self.threshold,
            "used": self._amount(self.used), "limit": self._amount(self.limit), "period": self.period,
            "resets_at": None if self.resets_ms is None else _rfc3339(self.resets_ms),
        }  # fmt: skip

    def _amount(self, value: int) -> float | int:
        return value / _NANO if self.unit == "usd" else value


class Teller:
    """Claims, logs, sends, confirms. `webhook` is asked each time; without one the log alone is told."""

    def __init__(self, marks: Marks, webhook: Callable[[], Webhook | None] = lambda: None) -> None:
        self._marks, self._webhook = marks, webhook

    async def tell(self, crossing: Crossing) -> bool:
        """Tell of it unless somebody has; True if nobody need tell again. Raises StoreError."""
        claimed = await self._marks.claim(crossing.mark, lease_s=LEASE_S, ttl_ms=crossing.ttl_ms)
        if claimed == NO:
            return True
        if claimed == FIRST:
            notice = crossing.notice()
            _log.warning(
                "budget %s (%s per %s) has reached %g %%: used %s of %s", crossing.subject, crossing.unit, crossing.period,
                crossing.threshold * 100, notice["used"], notice["limit"], extra={"alert": notice},
            )  # fmt: skip
        webhook = self._webhook()
        if webhook is not None and not await webhook.send(crossing.notice()):
            return False
        await self._marks.confirm(crossing.mark, ttl_ms=crossing.ttl_ms)
        return True


class BudgetAlerts:
    """Give `settled` to a ledger as its `on_settled`. `spawn` runs a task that outlives the call, `now_ms` is the ledger's clock.

    A budget of mode `soft` tells at its limit too. `used_now` reads what a rolling window has used, which a settlement does not say.
    """

    def __init__(
        self,
        teller: Teller,
        *,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        now_ms: Callable[[], int],
        used_now: Callable[[Budget], Coroutine[Any, Any, int]] | None = None,
    ) -> None:
        self._teller, self._spawn, self._now_ms, self._used_now = teller, spawn, now_ms, used_now
        self._seen: set[tuple[str, str, float]] = set()

    def settled(self, hold: Hold, counts: list[int]) -> None:
        """Look at what each budget of a settled call has used; `counts` are used and held of each, in the hold's order."""
        for row, used in zip(hold.rows, counts[::2], strict=False):
            if not (row.budget.soft or row.budget.mode == "soft") or row.limit <= 0:
                continue
            if row.field == "used":
                self._look(row, int(used))
            elif self._used_now is not None and self._reaches(row, row.used + row.amount):
                self._spawn(self._look_closely(row), "rolling budget")

    def _look(self, row: HeldRow, used: int) -> None:
        if not any(reached(used, row.limit, threshold) for threshold in thresholds_of(row.budget)):
            return  # as after nearly every call
        window = row.budget.period.window(self._now_ms())
        window_key, ttl_ms = self._window_of(row, window)
        for threshold in thresholds_of(row.budget):
            seen = (row.budget.id, window_key, threshold)
            if reached(used, row.limit, threshold) and seen not in self._seen:
                self._remember(seen)
                crossing = Crossing(
                    subject=row.budget.subject, unit=row.budget.unit, threshold=threshold, used=used, limit=row.limit,
                    period=row.budget.period.kind, window=window_key, budget=row.budget.id, resets_ms=row.resets_ms, ttl_ms=ttl_ms,
                )  # fmt: skip
                self._spawn(self._tell(crossing, seen), "budget alert")

    async def _look_closely(self, row: HeldRow) -> None:
        assert self._used_now is not None
        try:
            self._look(row, await self._used_now(row.budget))
        except StoreError as error:
            _log.debug("a rolling budget could not be read: %s", error)

    async def _tell(self, crossing: Crossing, seen: tuple[str, str, float]) -> None:
        told = False
        try:
            told = await self._teller.tell(crossing)
        except StoreError as error:
            _log.warning("an alert waits for the store: %s", error)
        finally:
            if not told:
                self._seen.discard(seen)  # the next settlement tries again

    def _reaches(self, row: HeldRow, used: int) -> bool:
        if not any(reached(used, row.limit, threshold) for threshold in thresholds_of(row.budget)):
            return False
        key, _ = self._window_of(row, row.budget.period.window(self._now_ms()))
        return any(
            reached(used, row.limit, threshold) and (row.budget.id, key, threshold) not in self._seen
            for threshold in thresholds_of(row.budget)
        )

    def _window_of(self, row: HeldRow, window: Window) -> tuple[str, int]:
        """Return a name for the period and how long its mark is to live; a call counts in the window it was admitted in."""
        now_ms = self._now_ms()
        if window.bucket_ms:  # a rolling window has no end: it tells anew when a whole length has passed
            length_ms = window.bucket_ms * 60
            return f"rolling-{now_ms // length_ms}", length_ms
        if row.resets_ms is None:
            return window.key, _KEPT_MS
        return str(row.resets_ms // 1000), max(60_000, row.resets_ms - now_ms + 60_000)

    def _remember(self, seen: tuple[str, str, float]) -> None:
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()  # the store knows what was told
        self._seen.add(seen)


class CostAlertCallbackHandler(CustomAsyncCallbackHandler):
    """Adds up what a user's calls cost in a billing cycle, over all processes, and tells at fractions of `budget_usd`.

    For services without the proxy, whose budgets tell by themselves. Raises ValueError for a budget that is not above 0.
    """

    def __init__(
        self,
        user_id: str,
        budget_usd: float | str | Decimal,
        *,
        store: StoreAnywhere,
        webhook: Callable[[], Webhook] | None = None,
        thresholds: tuple[float, ...] = THRESHOLDS,
        cycle_start_date: str | None = None,
    ) -> None:
        self._limit = int(Decimal(str(budget_usd)) * _NANO)
        if self._limit <= 0 or not user_id:
            raise ValueError("a cost alert wants a user and a budget above 0")
        if cycle_start_date is not None:
            cycle_of(cycle_start_date)
        self._user, self._cycle, self._thresholds = user_id, cycle_start_date, thresholds
        self._store, self._make_webhook = store, webhook
        self._teller: Teller | None = None
        self._done: set[tuple[str, float]] = set()
        self._budget = Budget(subject=f"user:{user_id}", unit="usd", limit=self._limit, period=Period(kind="month")).id

    async def on_llm_start(self, messages: list[JSON], **kwargs: Any) -> None:
        """Do nothing: the cost comes with the answer."""

    async def on_llm_end(self, response: JSON, **kwargs: Any) -> list[float]:
        """Return the thresholds that are reached and that this handler had not seen told."""
        cost = response.get("cost_estimate")
        nanousd = -int(-Decimal(str(cost)) * _NANO // 1) if isinstance(cost, int | float) and cost > 0 else 0
        if not nanousd:
            return []
        cycle = cycle_of(self._cycle)
        used = await self._add(cycle, nanousd)
        crossed = [t for t in self._thresholds if reached(used, self._limit, t) and (cycle, t) not in self._done]
        for threshold in crossed:
            if await self._told().tell(self._crossing(threshold, used, cycle)):
                self._done.add((cycle, threshold))
        return crossed

    async def on_llm_error(self, error: Exception, **kwargs: Any) -> None:
        if kwargs.get("cost_estimate"):
            await self.on_llm_end(kwargs)

    async def _add(self, cycle: str, nanousd: int) -> int:
        def keys(key: Callable[..., str]) -> list[str]:
            return [key("cost", self._budget, cycle), key("cost_op", os.urandom(12).hex())]

        args = [0, 0, nanousd, _KEPT_MS // 1000, 300]
        return int(await self._store.use(lambda s: s.run(script("usage_adjust"), keys(s.key), args, deadline_s=5.0)))

    def _told(self) -> Teller:
        """Made on the loop that the handler runs on, and its webhook with it."""
        if self._teller is None:
            hook = self._make_webhook() if self._make_webhook else None
            self._teller = Teller(Marks(self._store), lambda: hook)
        return self._teller

    def _crossing(self, threshold: float, used: int, cycle: str) -> Crossing:
        return Crossing(
            subject=f"user:{self._user}", unit="usd", threshold=threshold, used=used, limit=self._limit, period="cycle",
            window=cycle, budget=self._budget, resets_ms=None, ttl_ms=_KEPT_MS,
        )  # fmt: skip


def thresholds_of(budget: Budget) -> tuple[float, ...]:
    """Return the fractions that a budget tells at, rising; one of mode soft tells at its limit too."""
    own = {share for share in budget.soft if share > 0}
    return tuple(sorted(own | {1.0})) if budget.mode == "soft" else tuple(sorted(own))


def reached(used: int, limit: int, threshold: float) -> bool:
    """Tell whether `used` is at or above that fraction of the limit; in integers, to a millionth."""
    return used * _MILLION >= round(threshold * _MILLION) * limit


def _share(threshold: float) -> str:
    return str(round(threshold * _MILLION))


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
