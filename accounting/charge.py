"""The one way to spend: `async with charged(...)` reserves on entry and settles on exit, whatever happens between.

There is no second path to forget. A call that is cancelled, fails or is cut settles for what was relayed; a call that no
provider began on is given back.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any, Protocol

import msgspec
import orjson

from accounting.ask import Ask
from accounting.budgets import Caller
from accounting.hold import Hold
from accounting.journal.format import Progress
from accounting.ledger import Ledger
from accounting.meter import Meter
from accounting.settlement import Spent
from accounting.supervisor import Supervisor
from accounting.usage import Usage

ROWS_KNOWN_MAX = 4096


class Priced(Protocol):
    """What a finished call costs."""

    @property
    def version(self) -> str:
        """Names the table or configuration that it comes from."""

    def cost_nanousd(self, usage: Usage) -> int:
        """Return integer nano-USD, rounded up."""


class Attempt(msgspec.Struct):
    """One request to one provider. `billable` once it may have begun to work on it, until it says that it did not."""

    provider: str
    model: str
    price: Priced | None
    meter: Meter
    billable: bool = False


class Receipt(msgspec.Struct, frozen=True):
    """What a call came to: for its log line, metrics, callbacks and usage record."""

    request_id: str
    caller: Caller
    model: str  # as the client sent it
    provider: str
    upstream_model: str
    response_model: str | None
    usage: Usage
    cost_nanousd: int | None  # None: no price is known
    price_version: str | None
    outcome: str
    hold: Hold
    duration_s: float
    first_token_s: float | None
    attempts: int

    def record(self) -> bytes:
        """Return the usage record, as JSON."""
        usage = self.usage
        return _json({
            "id": self.request_id, "key": self.caller.key, "user": self.caller.user, "team": self.caller.team,
            "org": self.caller.org, "tags": self.caller.tags, "model": self.model, "provider": self.provider,
            "upstream_model": self.upstream_model, "response_model": self.response_model,
            "input": usage.input, "cached": usage.cached, "cache_write": usage.cache_write + usage.cache_write_1h,
            "output": usage.output, "reasoning": usage.reasoning, "cost_nanousd": self.cost_nanousd,
            "price": self.price_version, "estimated": usage.estimated, "outcome": self.outcome,
            "ms": int(self.duration_s * 1000), "reserved": self.hold.reserved,
        })  # fmt: skip


class Till(msgspec.Struct, frozen=True):
    """Where all calls are charged; `on_receipt` hears of each call once, when it is settled."""

    ledger: Ledger
    supervisor: Supervisor
    on_receipt: Callable[[Receipt], None]


class Charge(msgspec.Struct):
    """An open call. `begin` each attempt, then `finish`; what is left open is finished when the context ends."""

    till: Till
    hold: Hold
    request_id: str
    caller: Caller
    model: str
    began_s: float
    outcome: str = "error"
    first_token_s: float | None = None
    receipt: Receipt | None = None
    _attempts: list[Attempt] = []
    _closing: bool = False

    def begin(self, attempt: Attempt) -> Attempt:
        """Start an attempt, before it is sent; earlier ones stay accounted for if they may be billed."""
        if not self._attempts and attempt.billable:  # from here on a crash is charged
            notes = self.hold.notes
            input_tokens, cost_nanousd = notes.get("input", 0), notes.get("input_nanousd", 0)
            sent = Progress(
                seq=self.hold.seq, input_tokens=input_tokens, output_tokens=0, cost_nanousd=cost_nanousd
            )  # fmt: skip
            self.till.ledger.progress(self.hold, sent.dump())
        self._attempts.append(attempt)
        return attempt

    async def finish(self, outcome: str) -> Receipt:
        """Settle now; counts in a thread where the provider did not. Only the first call has an effect."""
        self.outcome = outcome
        if self.receipt is None:
            usages = []
            for attempt in self._attempts:
                usage = _known(attempt)
                usages.append(await asyncio.to_thread(attempt.meter.usage) if usage is None else usage)
            if self.receipt is None:
                self._settle(usages)
        assert self.receipt is not None
        return self.receipt

    def close(self) -> None:
        """Finish without waiting: what must be counted first is counted by a task that outlives the request."""
        if self.receipt is not None or self._closing:
            return
        self._closing = True
        usages = [usage for attempt in self._attempts if (usage := _known(attempt)) is not None]
        if len(usages) < len(self._attempts):
            self.till.supervisor.spawn(self.finish(self.outcome), name="finish")
        else:
            self._settle(usages)

    def _settle(self, usages: list[Usage]) -> None:
        total, cost, version, billable = _sum(self._attempts, usages)
        last, caller = self._attempts[-1] if self._attempts else None, self.caller
        provider, upstream_model = (last.provider, last.model) if last else ("", "")
        route, now_s = f"{provider}/{upstream_model}" if last else "", self.till.ledger.store.now_s()
        self.receipt = receipt = Receipt(
            self.request_id, caller, self.model, provider, upstream_model, last.meter.response_model if last else None,
            total, cost, version, self.outcome, self.hold, now_s - self.began_s, self.first_token_s, len(self._attempts),
        )  # fmt: skip
        spent = Spent(
            int(billable), total.input, total.output, cost or 0, receipt.record(),
            _row(caller.key, caller.user, caller.team, route), _day(self.till.ledger.now_ms() // _DAY_MS),
        )  # fmt: skip
        self.till.ledger.settle(self.hold, spent)
        self.till.on_receipt(receipt)


class charged:  # noqa: N801 - reads as the verb that it is: async with charged(...) as charge
    """Hold the worst case, yield the open call, settle it. Entering raises what `Ledger.reserve` raises, before anything is sent."""

    __slots__ = ("_ask", "_caller", "_charge", "_model", "_notes", "_request_id", "_till")

    def __init__(
        self, till: Till, ask: Ask, *, request_id: str, caller: Caller, model: str, notes: dict[str, Any] | None = None
    ) -> None:
        self._till, self._ask, self._request_id, self._caller = till, ask, request_id, caller
        self._model, self._notes = model, notes
        self._charge: Charge | None = None

    async def __aenter__(self) -> Charge:
        began_s = self._till.ledger.store.now_s()
        hold = await self._till.ledger.reserve(self._ask, request_id=self._request_id, notes=self._notes)
        self._charge = Charge(self._till, hold, self._request_id, self._caller, self._model, began_s)
        return self._charge

    async def __aexit__(self, *_: object) -> None:
        assert self._charge is not None
        self._charge.close()


def _known(attempt: Attempt) -> Usage | None:
    """Return what an attempt used; None if that has to be counted."""
    return attempt.meter.reported if attempt.billable else _NOTHING


def _json(record: dict[str, Any]) -> bytes:
    """Return JSON whatever a provider named its model: a record that cannot be written must not cost us the settlement."""
    try:
        return orjson.dumps(record)
    except TypeError:
        return json.dumps(record).encode()


def _sum(attempts: list[Attempt], usages: list[Usage]) -> tuple[Usage, int | None, str | None, bool]:
    """Add up what all attempts used and cost, by which prices, and tell whether any may be billed.

    One without a price makes the cost unknown only if it used anything.
    """
    cost: int | None = 0
    version, billable = None, False
    for attempt, usage in zip(attempts, usages, strict=True):
        if not attempt.billable:
            continue
        billable = True
        if attempt.price is None:
            cost = None
        elif cost is not None:
            cost += attempt.price.cost_nanousd(usage)
            version = attempt.price.version
    if len(usages) == 1:
        return usages[0], cost, version, billable
    total = Usage(
        **{n: sum(getattr(u, n) for u in usages) for n in _COUNTS}, estimated=any(u.estimated for u in usages)
    )
    return total, cost, version, billable


@lru_cache(ROWS_KNOWN_MAX)
def _row(key: str | None, user: str | None, team: str | None, route: str) -> str:
    """Name the row of the day's totals: key|user|team|provider/model."""
    return "|".join(part.replace("|", "%7C") for part in (key or "", user or "", team or "", route))


@lru_cache(2)
def _day(days: int) -> str:
    """Name a day by its number since 1970-01-01."""
    return date.fromordinal(_EPOCH + days).strftime("%Y%m%d")


_COUNTS = (
    "input", "cached", "cache_write", "cache_write_1h", "audio_input", "image_input", "output", "reasoning", "audio_output",
)  # fmt: skip
_NOTHING = Usage()
_EPOCH = date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000
