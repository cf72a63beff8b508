"""A hold: what the ledger has set aside for one call, and what it said when it did."""

from typing import Any

import msgspec

from accounting.budgets import Budget


class HeldRow(msgspec.Struct, frozen=True):
    """One budget's part of a hold. `limit`, `used`, `held` are as they stood after this hold was added."""

    budget: Budget
    counters_key: str
    holds_key: str
    field: str  # of the counters: what a settlement adds to
    amount: int
    expiry_ms: int  # of the counters; 0: never
    resets_ms: int | None
    limit: int
    used: int
    held: int
    cover_seq: int = 0  # of the escrow that `amount` is taken from; 0: it is held for this call alone

    @property
    def remaining(self) -> int:
        """What is left for others; never negative."""
        return max(0, self.limit - self.used - self.held)


class RateRow(msgspec.Struct, frozen=True):
    """A rate limit as it stood after this call; `reset_ms` until it is whole again."""

    subject: str
    what: str
    limit: int
    remaining: int
    reset_ms: int


class Hold(msgspec.Struct):
    """Held amounts of one call. `granted` output tokens per choice. `reserved` is False where an outage policy let it pass."""

    seq: int
    request_id: str
    granted: int
    rows: tuple[HeldRow, ...] = ()
    rates: tuple[RateRow, ...] = ()
    reserved: bool = True
    escrow: bool = False  # not reserved, but covered by what was held ahead of time: see `accounting.escrow`
    lost: bool = False  # the store no longer has it: the call must end, or be held anew
    until_s: float = 0.0  # on the loop's clock; always earlier than the store's own idea of it
    notes: dict[str, Any] = {}  # for the journal: who called what


class RefusedError(Exception):
    """The ledger says no; nothing is held anywhere."""


class BudgetRefusedError(RefusedError):
    """A budget has no room. `held_only`: it would have, were other calls' holds released."""

    def __init__(self, row: HeldRow, *, requested: int, held_only: bool, now_ms: int) -> None:
        super().__init__(f"budget {row.budget.id} refuses")
        self.row, self.requested, self.held_only, self.now_ms = row, requested, held_only, now_ms


class RateRefusedError(RefusedError):
    """A rate or concurrency limit is reached; `wait_ms` until a call of this size fits."""

    def __init__(self, row: RateRow, *, wait_ms: int) -> None:
        super().__init__(f"{row.what} limit of {row.subject} is reached")
        self.row, self.wait_ms = row, wait_ms


class ConfigChangedError(RefusedError):
    """Stored keys or budgets changed since this call was looked at: look again, with this version."""

    def __init__(self, version: str) -> None:
        super().__init__(f"stored configuration is at version {version}")
        self.version = version


class LearningError(RefusedError):
    """The store lost writes and learns from the living sidecars; `wait_ms` until it knows."""

    def __init__(self, wait_ms: int) -> None:
        super().__init__("the store is learning what was held")
        self.wait_ms = wait_ms
