"""Gauges that are read only when somebody scrapes: balances of configured subjects, the store, the journal, callbacks."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from accounting.budgets import Budget
from accounting.journal.writer import FileJournal
from accounting.ledger import Ledger
from accounting.reading import Reader
from accounting.store.errors import StoreError
from accounting.store.store import Store
from proxy.amounts import shown


class Gauges:
    """`budgets` returns those in force; defaults (`user:*`) have no balance of their own and are left out."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        store: Store,
        ledger: Ledger,
        reader: Reader,
        budgets: Callable[[], Sequence[Budget]],
        journal: FileJournal,
    ) -> None:
        self._store, self._ledger, self._reader, self._budgets = store, ledger, reader, budgets
        self._journal = journal
        labels = ("subject", "unit")
        self._limit = Gauge("bursar_budget_limit", "Limit, in USD or counts.", labels, registry=registry)
        self._used = Gauge("bursar_budget_used", "Used in the current period.", labels, registry=registry)
        self._held = Gauge("bursar_budget_held", "Held by calls in flight.", labels, registry=registry)
        self._up = Gauge("bursar_store_up", "1 if the store answers.", registry=registry)
        self._errors = Counter("bursar_store_errors", "Failed round trips to the store.", registry=registry)
        self._pending = Gauge(
            "bursar_settlements_pending", "Settlements that the store does not have yet.", registry=registry
        )
        self._journal_pending = Gauge(
            "bursar_journal_pending", "Settlements on disk that the store is not known to have.", registry=registry
        )
        self._journal_bytes = Gauge("bursar_journal_bytes", "Size of the journal.", registry=registry)
        self._unreserved = Counter("bursar_unreserved", "Calls that an outage policy let pass.", registry=registry)
        self._escrow = Counter(
            "bursar_escrow_admissions", "Calls on what was held ahead, while the store was away.", registry=registry
        )
        self._seen_errors = self._seen_unreserved = self._seen_escrow = 0

    async def collect(self) -> None:
        """Refresh all gauges; without the store the balances stay as they were."""
        self._up.set(self._store.up)
        self._errors.inc(self._store.errors_total - self._seen_errors)
        self._unreserved.inc(self._ledger.unreserved_total - self._seen_unreserved)
        self._escrow.inc(self._ledger.escrow_total - self._seen_escrow)
        self._seen_escrow = self._ledger.escrow_total
        self._seen_errors, self._seen_unreserved = self._store.errors_total, self._ledger.unreserved_total
        self._pending.set(len(self._ledger.settler.pending))
        self._journal_pending.set(self._journal.pending)
        self._journal_bytes.set(self._journal.size_bytes)
        budgets = [budget for budget in self._budgets() if not budget.subject.endswith(":*")]
        try:
            balances = await self._reader.balances(budgets, self._ledger.now_ms())
        except StoreError:
            return
        for balance in balances:
            row = balance.row
            labels = (row.budget.subject, row.budget.unit)
            self._limit.labels(*labels).set(shown(row.budget.unit, row.limit))
            self._used.labels(*labels).set(shown(row.budget.unit, row.used))
            self._held.labels(*labels).set(shown(row.budget.unit, row.held))
