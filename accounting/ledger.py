"""The ledger: reserves a call's worst case before it is sent, and settles what it used, exactly once.

`reserve` is one round trip. `settle` and `release` return at once: the journal has them, then a supervised task delivers
them until the store has them too. Order is kept: a settlement leaves on the same connection before any later reserve, so
a caller's next call through the same sidecar sees it.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from accounting.ask import Ask
from accounting.hold import Hold, LearningError
from accounting.reserving import Windows, counter_keys, held, refusal, reserve_arguments, unreserved
from accounting.settlement import Settlement, Spent, open_note, overspent, settlement
from accounting.settling import Settler
from accounting.store.errors import StoreError, StoreUnavailableError
from accounting.store.scripts import script
from accounting.store.store import Store
from accounting.supervisor import Supervisor

TTL_MS = 30_000
HEARTBEAT_S = 5.0
LEARN_MS = 6_000
LIVE_MS = 15_000
EXTEND_HOLDS_MAX = 50
_TRIES_MAX = 4
_WHATEVER_WAS_HELD = -1
_log = logging.getLogger("bursar")


class Journal(Protocol):
    """What the ledger writes down before it acts. See `accounting.journal`."""

    def admitted(self, note: dict[str, Any]) -> None:
        """Note a hold before its call is sent."""

    def settled(self, data: bytes) -> None:
        """Note a settlement before the answer's last byte leaves."""

    def acknowledged(self, seq: int) -> None:
        """Note that the store has a settlement."""


class NoJournal:
    """For commands and tests that may lose what is in flight."""

    def admitted(self, note: dict[str, Any]) -> None:
        """Do nothing."""

    def settled(self, data: bytes) -> None:
        """Do nothing."""

    def acknowledged(self, seq: int) -> None:
        """Do nothing."""


class Ledger:
    """One sidecar's side of the ledger: one session (`sid`), one sequence of calls."""

    def __init__(
        self,
        store: Store,
        *,
        supervisor: Supervisor,
        journal: Journal | None = None,
        embedded: bool = False,
        sid: str | None = None,
    ) -> None:
        self.store, self.sid = store, sid or os.urandom(16).hex()
        self.config_version = "0"
        self.unreserved_total = 0
        self.on_overspent: Callable[[dict[str, int]], None] = lambda _: None
        self.on_settled: Callable[[Hold, list[int]], None] = lambda _hold, _counts: None
        self.recover: Callable[[], Awaitable[None]] | None = None  # replays the journal when the store lost writes
        self.open: dict[int, Hold] = {}
        self._supervisor, self._journal = supervisor, journal or NoJournal()
        self.settler = Settler(store, self.sid, supervisor, self._journal.acknowledged)
        self._learn_ms = 0 if embedded else LEARN_MS
        self._learning_until_s = 0.0
        self._seq = 0
        self._windows = Windows()
        self._offset_ms = 0.0  # the store's clock less the loop's
        self._giving_back = False

    @property
    def learning(self) -> bool:
        """Whether the store lost writes and is still being told what was held."""
        return asyncio.get_running_loop().time() < self._learning_until_s

    def now_ms(self) -> int:
        """The store's clock, as far as we know it, in epoch milliseconds."""
        if not self._offset_ms:
            return int(datetime.now(UTC).timestamp() * 1000)
        return int(asyncio.get_running_loop().time() * 1000 + self._offset_ms)

    async def start(self, timeout_s: float = 5.0) -> None:
        """Meet the store: learn its clock and its generation. Raises StoreError."""
        await self._meet(timeout_s)

    async def reserve(self, ask: Ask, *, request_id: str, notes: dict[str, Any] | None = None) -> Hold:
        """Hold the worst case on all budgets or on none.

        Raises BudgetRefusedError, RateRefusedError, ConfigChangedError, LearningError, and StoreUnavailableError when the
        store does not answer in time and the policy of a hard budget is not to allow that.
        """
        self._seq += 1
        seq, began_s = self._seq, asyncio.get_running_loop().time()
        try:
            if ask.draws or ask.rates:
                hold = await self._reserved(seq, ask, request_id, began_s + self.store.deadline_s)
            else:  # nobody limits this call: it is metered, and waits for no one
                hold = Hold(seq=seq, request_id=request_id, granted=ask.wanted)
        except StoreError as error:
            self._forget(seq, ask)
            if any(draw.budget.binds and draw.budget.outage != "allow" for draw in ask.draws):
                raise StoreUnavailableError(str(error)) from error
            hold = self._unreserved(ask, request_id)
        except asyncio.CancelledError:
            self._forget(seq, ask)
            raise
        hold.notes = notes or {}
        hold.until_s = began_s + TTL_MS * 0.99 / 1000 - 0.05
        self._journal.admitted(open_note(hold))
        self.open[hold.seq] = hold
        return hold

    def settle(self, hold: Hold, spent: Spent) -> None:
        """Charge what was used and give the rest back. The first call for a hold counts, others do nothing."""
        if self.open.pop(hold.seq, None) is None:
            return
        item = settlement(hold, spent)
        if over := overspent(item, hold):
            self.on_overspent(over)
        self._journal.settled(item.dump())
        self.settler.send(item, lambda counts: self.on_settled(hold, counts))

    def release(self, hold: Hold) -> None:
        """Give a hold back: nothing was spent."""
        self.settle(hold, Spent())

    async def heartbeat(self) -> None:
        """Extend all open holds, for ever. Run it in a supervised task."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                await self.extend()
            except StoreError as error:
                _log.debug("heartbeat failed: %s", error)

    async def extend(self, *, adopt: bool = False) -> None:
        """Give open holds another lease; mark those that the store no longer has. Raises StoreError."""
        holds = [hold for hold in self.open.values() if hold.reserved and hold.rows]
        for start in range(0, max(1, len(holds)), EXTEND_HOLDS_MAX):
            await self._extend(holds[start : start + EXTEND_HOLDS_MAX], adopt=adopt)

    async def _reserved(self, seq: int, ask: Ask, request_id: str, until_s: float) -> Hold:
        loop = asyncio.get_running_loop()
        for _ in range(_TRIES_MAX):
            now_ms = self.now_ms()
            windows = [self._windows.of(draw.budget, now_ms) for draw in ask.draws]
            head = (self.store.run_id, self.config_version, self.sid, seq, TTL_MS)
            keys, args = reserve_arguments(ask, windows, self.store.key, head, self.sid)
            reply = await self.store.run(script("reserve"), keys, args, deadline_s=max(0.001, until_s - loop.time()))
            self._offset_ms = int(reply[1]) - loop.time() * 1000
            verdict = reply[0]
            if verdict == b"OK":
                return held(seq, ask, windows, keys, reply, request_id)
            if verdict == b"GEN":
                await self._meet(max(0.001, until_s - loop.time()))
            elif verdict != b"CLOCK":  # a clock that we had wrong is right now
                self.settler.terminal(seq)
                error = refusal(verdict, ask, windows, reply)
                if isinstance(error, LearningError):
                    self._learning_until_s = loop.time() + error.wait_ms / 1000
                raise error
        msg = "the store's clock and generation would not settle"
        raise StoreUnavailableError(msg)

    def _unreserved(self, ask: Ask, request_id: str) -> Hold:
        self._seq += 1  # the one before may have reached the store
        self.unreserved_total += 1
        now_ms = self.now_ms()
        windows = [self._windows.of(draw.budget, now_ms) for draw in ask.draws]
        return unreserved(self._seq, ask, windows, self.store.key, now_ms, request_id)

    def _forget(self, seq: int, ask: Ask) -> None:
        """A reserve whose answer never came may yet arrive: settle it with nothing, so that it can hold nothing."""
        if self.settler.is_terminal(seq):
            return
        now_ms, rows = self.now_ms(), []
        for draw in ask.draws:
            keys = counter_keys(self.store.key, draw.budget, self._windows.of(draw.budget, now_ms))
            rows.append((*keys, "used", _WHATEVER_WAS_HELD, 0, 0))
        self.settler.send(Settlement(seq=seq, rows=tuple(rows), spent=Spent()))

    async def _meet(self, timeout_s: float) -> None:
        """Tell the store that we know its process; after lost writes, give back what we know."""
        await self.store.start(timeout_s)
        keys = [self.store.key("g"), self.store.key("sess")]
        args: list[str | bytes | int] = [self.store.run_id, self._learn_ms, LIVE_MS, os.urandom(8).hex()]
        now_ms, until_ms, _ = await self.store.run(script("generation"), keys, args, deadline_s=timeout_s)
        loop = asyncio.get_running_loop()
        self._offset_ms = int(now_ms) - loop.time() * 1000
        if until_ms and not self._giving_back:
            self._learning_until_s = loop.time() + (int(until_ms) - int(now_ms)) / 1000
            self._giving_back = True
            self._supervisor.spawn(self._give_back(), name="give back to the store")

    async def _give_back(self) -> None:
        try:
            if self.recover is not None:
                await self.recover()
            await self.extend(adopt=True)
        except StoreError as error:
            _log.warning("could not give back what was held: %s", error)
        finally:
            self._giving_back = False

    async def _extend(self, holds: Sequence[Hold], *, adopt: bool) -> None:
        began_s = asyncio.get_running_loop().time()
        keys = [self.store.key("g"), self.store.key("s", self.sid), self.store.key("sess")]
        args: list[str | bytes | int] = [self.store.run_id, self.sid, TTL_MS, int(adopt), len(holds)]
        for hold in holds:
            args += (hold.seq, hold.granted, len(hold.rows))
            for row in hold.rows:
                keys += (row.counters_key, row.holds_key)
                args += (row.amount, row.expiry_ms)
        reply = await self.store.run(script("extend"), keys, args, deadline_s=2.0)
        if reply[0] == b"GEN":
            await self._meet(2.0)
            return
        lost = {int(seq) for seq in reply[2:]}
        for hold in holds:
            hold.lost = hold.seq in lost
            if not hold.lost:
                hold.until_s = began_s + TTL_MS * 0.99 / 1000 - 0.05
