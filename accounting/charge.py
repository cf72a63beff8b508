"""The one way to spend: `async with charged(...)` reserves on entry and settles on exit, whatever happens between.

There is no second path to forget. A call that is cancelled, fails or is cut settles for what was relayed; a call that no
provider began on is given back.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

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


class Priced(Protocol):
    """What a finished call costs."""

    @property
    def version(self) -> str:
        """Names the table or configuration that it comes from."""

    def cost_nanousd(self, usage: Usage) -> int:
        """Return integer nano-USD, rounded up."""


@dataclass(slots=True)
class Attempt:
    """One request to one provider. `billable` once it may have begun to work on it, until it says that it did not."""

    provider: str
    model: str
    price: Priced | None
    meter: Meter
    billable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Till:
    """Where all calls are charged; `on_receipt` hears of each call once, when it is settled."""

    ledger: Ledger
    supervisor: Supervisor
    on_receipt: Callable[[Receipt], None]


@dataclass(slots=True, kw_only=True)
class Charge:
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
    _attempts: list[Attempt] = field(default_factory=list)
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
            usages = [await self._usage(attempt) for attempt in self._attempts]
            if self.receipt is None:
                self._settle(usages)
        assert self.receipt is not None
        return self.receipt

    def close(self) -> None:
        """Finish without waiting: what must be counted first is counted by a task that outlives the request."""
        if self.receipt is not None or self._closing:
            return
        self._closing = True
        if all(not a.billable or a.meter.reported is not None for a in self._attempts):
            self._settle([a.meter.reported if a.billable and a.meter.reported else Usage() for a in self._attempts])
        else:
            self.till.supervisor.spawn(self.finish(self.outcome), name="finish")

    async def _usage(self, attempt: Attempt) -> Usage:
        if not attempt.billable:
            return Usage()
        if attempt.meter.reported is not None:
            return attempt.meter.reported
        return await asyncio.to_thread(attempt.meter.usage)

    def _settle(self, usages: list[Usage]) -> None:
        total, cost, version = _sum(self._attempts, usages)
        last = self._attempts[-1] if self._attempts else None
        now_s = asyncio.get_running_loop().time()
        billable = any(a.billable for a in self._attempts)
        self.receipt = receipt = Receipt(
            request_id=self.request_id, caller=self.caller, model=self.model, provider=last.provider if last else "",
            upstream_model=last.model if last else "", response_model=last.meter.response_model if last else None,
            usage=total, cost_nanousd=cost, price_version=version, outcome=self.outcome, hold=self.hold,
            duration_s=now_s - self.began_s, first_token_s=self.first_token_s, attempts=len(self._attempts),
        )  # fmt: skip
        spent = Spent(
            requests=int(billable), input_tokens=total.input, output_tokens=total.output, cost_nanousd=cost or 0,
            record=receipt.record(), totals_row=_row(self.caller, last), day=_day(self.till.ledger.now_ms()),
        )  # fmt: skip
        self.till.ledger.settle(self.hold, spent)
        self.till.on_receipt(receipt)


@asynccontextmanager
async def charged(
    till: Till, ask: Ask, *, request_id: str, caller: Caller, model: str, notes: dict[str, Any] | None = None
) -> AsyncIterator[Charge]:
    """Hold the worst case, yield the open call, settle it. Raises what `Ledger.reserve` raises, before anything is sent."""
    began_s = asyncio.get_running_loop().time()
    hold = await till.ledger.reserve(ask, request_id=request_id, notes=notes)
    charge = Charge(till=till, hold=hold, request_id=request_id, caller=caller, model=model, began_s=began_s)
    try:
        yield charge
    finally:
        charge.close()


def _json(record: dict[str, Any]) -> bytes:
    """Return JSON whatever a provider named its model: a record that cannot be written must not cost us the settlement."""
    try:
        return orjson.dumps(record)
    except TypeError:
        return json.dumps(record).encode()


def _sum(attempts: list[Attempt], usages: list[Usage]) -> tuple[Usage, int | None, str | None]:
    """Add up what all attempts used and cost; one without a price makes the cost unknown only if it used anything."""
    cost: int | None = 0
    version = None
    for attempt, usage in zip(attempts, usages, strict=True):
        if not attempt.billable:
            continue
        if attempt.price is None:
            cost = None
        elif cost is not None:
            cost += attempt.price.cost_nanousd(usage)
            version = attempt.price.version
    if len(usages) == 1:
        return usages[0], cost, version
    names = (
        "input",
        "cached",
        "cache_write",
        "cache_write_1h",
        "audio_input",
        "image_input",
        "output",
        "reasoning",
        "audio_output",
    )
    total = Usage(**{n: sum(getattr(u, n) for u in usages) for n in names}, estimated=any(u.estimated for u in usages))
    return total, cost, version


def _row(caller: Caller, attempt: Attempt | None) -> str:
    """Name the row of the day's totals: key|user|team|provider/model."""
    parts = (
        caller.key or "",
        caller.user or "",
        caller.team or "",
        f"{attempt.provider}/{attempt.model}" if attempt else "",
    )
    return "|".join(part.replace("|", "%7C") for part in parts)


def _day(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")
