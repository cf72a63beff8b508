"""What may be done with stored budgets: set, remove, adjust, look at. Commands and the admin listener do it through here.

A budget is read and checked exactly as one of the file is. A stored one wins over the file's for its subject and unit, whatever
the file's period, until it is removed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as with_fields

from accounting.adjusting import adjust
from accounting.budgets import STORED_VERSION, SUBJECTS, Budget, BudgetBook
from accounting.reading import Balance, Reader
from accounting.store.store import Store
from accounting.stored import Stored, StoredConfig
from proxy.amounts import budget_row
from proxy.building import file_budgets
from proxy.config import policy
from proxy.config.check_spending import check_spending
from proxy.config.model import Config
from proxy.config.problem import dotted
from proxy.stored_keys import UnfitError, decoded

UNITS = policy.AMOUNT_UNITS
REASON_CHARS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetDesk:
    """Changes budgets in the name of `by`."""

    store: Store
    config: Config
    by: str

    @property
    def stored(self) -> StoredConfig:
        """What is stored."""
        return StoredConfig(self.store)

    def book(self, stored: Stored) -> BudgetBook:
        """Return all budgets in force."""
        return BudgetBook(file_budgets(self.config.budgets), stored.budgets)

    async def put(self, budgets: Iterable[Budget], now_ms: int) -> list[Budget]:
        """Store budgets as they are. Raises StoreError."""
        written = []
        for budget in budgets:
            note = self._note("budget.set", now_ms, budget=budget.id, limit=budget.limit)
            written.append(replace(budget, version=STORED_VERSION))
            await self.stored.put_budget(written[-1], note)
        return written

    async def remove(self, subject: str, units: Sequence[str], period: str | None, now_ms: int) -> list[Budget]:
        """Forget the stored budgets of a subject; what the file says of it counts again. Raises UnfitError and StoreError."""
        stored = await self.stored.read()
        gone = [
            budget for budget in stored.budgets
            if budget.subject == subject and (not units or budget.unit in units) and period in (None, budget.period.kind)
        ]  # fmt: skip
        if not gone:
            filed = any(each.subject == subject for each in self.config.budgets)
            where = ": it is in the file, change it there" if filed else ": `bursar budget list` names all"
            raise UnfitError(f"no such budget of {subject} is stored{where}", there=True)
        for budget in gone:
            await self.stored.remove_budget(budget, self._note("budget.remove", now_ms, budget=budget.id))
        return gone

    async def adjust(
        self, subject: str, unit: str, change: int, *, reason: str, period: str | None, now_ms: int
    ) -> dict[str, Any]:
        """Change what a budget counts as used, for a reason. Raises UnfitError and StoreError."""
        reason = reason.strip()
        if not reason or len(reason) > REASON_CHARS_MAX or not reason.isprintable():
            raise UnfitError(f"say why, in one line of at most {REASON_CHARS_MAX} characters: the reason is kept")
        found = [
            budget for budget in self.book(await self.stored.read()).for_subjects([subject])
            if budget.unit == unit and period in (None, budget.period.kind)
        ]  # fmt: skip
        if not found:
            raise UnfitError(f"{subject} has no {unit} budget{f' per {period}' if period else ''}", there=True)
        if len(found) > 1:
            periods = ", ".join(budget.period.kind for budget in found)
            raise UnfitError(f"{subject} has several {unit} budgets ({periods}): name one period")
        note = self._note("budget.adjust", now_ms, subject=subject, unit=unit, reason=reason)
        before, after = await adjust(self.store, found[0], change, note, now_ms)
        return {"budget": found[0], "before": before, "after": after}

    async def rows(self, subject: str | None, now_ms: int) -> list[dict[str, Any]]:
        """Return a row for each budget in force, of one subject or of all, with what is used and where it comes from. Raises StoreError."""
        book = self.book(await self.stored.read())
        budgets = book.all() if subject is None else book.for_subjects([subject])
        own = {budget.subject for budget in book.all()}
        balances = await Reader(self.store).balances(budgets, now_ms)
        return [row_of(balance, default=subject is not None and subject not in own) for balance in balances]

    def _note(self, what: str, now_ms: int, **more: Any) -> dict[str, Any]:
        return {"what": what, "by": self.by, "at_ms": now_ms, **more}


def row_of(balance: Balance, *, default: bool = False) -> dict[str, Any]:
    """Return a row as `/v1/budget` has it, and `source`; a default (`user:*`) itself is drawn on by nobody."""
    budget = balance.row.budget
    source = "stored" if budget.version == STORED_VERSION else "file"
    kind = budget.subject.partition(":")[0]
    terms = {"hold": budget.hold, "outage": budget.outage, "soft": list(budget.soft), "tz": budget.period.tz}
    row = balance.row
    exact = (
        {f"{name}_nanousd": getattr(row, name) for name in ("limit", "used", "held", "remaining")}
        if budget.unit == "usd"
        else {}
    )
    return budget_row(row) | {"source": f"{source} ({kind}:*)" if default else source} | terms | exact


def subject_of(text: str) -> str:
    """Return a whole subject: without a kind it is a user."""
    return text if text.partition(":")[0] in SUBJECTS and ":" in text else f"user:{text}"


def budgets_of(fields: Mapping[str, Any] | str, config: Config) -> list[Budget]:
    """Return the ledger's budgets, one for each unit, of a budget as the file spells one; text is JSON. Raises UnfitError."""
    text = fields if isinstance(fields, str) else json.dumps(fields, ensure_ascii=False)
    budget: policy.Budget = decoded(text.replace("$", "$$"), policy.Budget)
    alone = with_fields(config, budgets=(budget,), limits=(), prices={}, passthrough=())
    wrong = list(check_spending(alone))
    if wrong:
        raise UnfitError("; ".join(f"{dotted(each.path[2:])}: {each.message}".removeprefix(": ") for each in wrong))
    return file_budgets([budget])
