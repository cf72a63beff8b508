"""A daily budget for the clients of one process: a call is let through only if its worst case still fits.

What a stranger would get wrong: this counts in one process and forgets at its end. Budgets over processes are the proxy's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from adapters.clients.errors import BudgetExceededError

_NANO = 1_000_000_000


@dataclass(slots=True)
class Held:
    """A call's worst case, set aside; settle it once."""

    day: date
    nanousd: int
    open: bool = True


class CostController:
    """`hold` and `settle` never wait, so calls that run at once cannot pass the budget together. Money is integer nano-USD."""

    def __init__(
        self, daily_budget_usd: float | str | Decimal, *, today: Callable[[], date] = lambda: datetime.now(UTC).date()
    ) -> None:
        self._limit = int(Decimal(str(daily_budget_usd)) * _NANO)
        if self._limit < 0:
            raise ValueError("a daily budget cannot be negative")
        self._today = today
        self._day = today()
        self._used = self._held = 0

    @property
    def spent_usd(self) -> Decimal:
        """What today's settled calls cost."""
        self._roll()
        return Decimal(self._used) / _NANO

    @property
    def remaining_usd(self) -> Decimal:
        """What is left today, after what calls in flight hold."""
        self._roll()
        return Decimal(max(0, self._limit - self._used - self._held)) / _NANO

    def hold(self, worst_nanousd: int | None) -> Held:
        """Set a call's worst case aside. Raises BudgetExceededError: no room, or no price (None), which nothing could bound."""
        self._roll()
        if worst_nanousd is None:
            raise BudgetExceededError(
                "the model has no known price, so its cost cannot be kept within the daily budget", code="unknown_price"
            )
        if self._used + self._held + worst_nanousd > self._limit:
            raise BudgetExceededError(
                f"the call may cost {worst_nanousd / _NANO:.6f} USD, but of the daily budget of {self._limit / _NANO:.6f} USD"
                f" {max(0, self._limit - self._used - self._held) / _NANO:.6f} USD are left",
                code="insufficient_quota",
            )
        self._held += worst_nanousd
        return Held(self._day, worst_nanousd)

    def settle(self, held: Held, cost_nanousd: int) -> None:
        """Charge what the call cost and give the rest back; only the first time counts."""
        if not held.open:
            return
        held.open = False
        self._roll()
        if held.day == self._day:  # yesterday's calls are yesterday's
            self._held -= held.nanousd
            self._used += max(0, cost_nanousd)

    def _roll(self) -> None:
        today = self._today()
        if today != self._day:
            self._day, self._used, self._held = today, 0, 0
