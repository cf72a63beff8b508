"""The ledger: reserves a call's worst case before it is sent, and settles what it used, exactly once.

`reserve` is one round trip. `settle` and `release` return at once: the journal has them, then a supervised task delivers
them until the store has them too. Order is kept: a settlement leaves on the same connection before any later reserve, so
a caller's next call through the same sidecar sees it.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from accounting.acquaintance import Acquaintance
from accounting.ask import Ask
from accounting.escrow import ESCROW_ID, Escrows
from accounting.growing import grow_arguments, grown
from accounting.heartbeat import beat
from accounting.hold import BudgetRefusedError, Hold, LearningError, RefusedError
from accounting.lease import lease_until_s
from accounting.noting import Journal, NoJournal
from accounting.reserving import (
    Counted,
    Reservations,
    Windows,
    extend_arguments,
    held,
    refusal,
    unreserved,
)
from accounting.settlement import Settlement, Spent, open_note, overspent, settlement
from accounting.settling import Settler
from accounting.store.errors import StoreChangedError, StoreError, StoreNotAskedError, StoreUnavailableError
from accounting.store.scripts import script
from accounting.store.store import Store
from accounting.supervisor import Supervisor

TTL_MS = 30_000
HEARTBEAT_S = 5.0
EXTEND_HOLDS_MAX = 50
EXTEND_S = 2.0
_TRIES_MAX = 4
_WHATEVER_WAS_HELD = -1


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
        self.unreserved_total = self.escrow_total = 0  # calls that were let pass without asking the store
        self.on_overspent: Callable[[dict[str, int]], None] = lambda _: None
        self.on_settled: Callable[[Hold, list[int]], None] = lambda _hold, _counts: None
        self.recover: Callable[[], Awaitable[None]] | None = None  # replays the journal when the store lost writes
        self.open: dict[int, Hold] = {}
        self.escrows = Escrows()
        self._supervisor, self._journal = supervisor, journal or NoJournal()
        self.settler = Settler(store, self.sid, supervisor, self._journal.acknowledged)
        self._known = Acquaintance(
            store, self.settler, supervisor, self._give_back, sid=self.sid, ttl_ms=TTL_MS, embedded=embedded
        )
        self._seq = 0
        self._windows = Windows(store.key)
        self._reservations = Reservations(store.key, self.sid, TTL_MS)
        self._offset_ms = 0.0  # the store's clock less the loop's

    @property
    def learning(self) -> bool:
        """Whether the store lost writes and is still being told what was held."""
        return self._known.learning

    def now_ms(self) -> int:
        """The store's clock, as far as we know it, in epoch milliseconds."""
        if not self._offset_ms:
            return int(datetime.now(UTC).timestamp() * 1000)
        return int(self.store.now_s() * 1000 + self._offset_ms)

    async def start(self, timeout_s: float = 5.0) -> None:
        """Meet the store: learn its clock and its generation. Raises StoreError."""
        await self._meet(timeout_s)

    async def reserve(self, ask: Ask, *, request_id: str, notes: dict[str, Any] | None = None) -> Hold:
        """Hold the worst case on all budgets or on none.

        Raises BudgetRefusedError, RateRefusedError, ConfigChangedError, LearningError, StoreUnavailableError when the
        store does not answer in time and the policy of a hard budget is not to allow that, and JournalError.
        """
        if self.settler.unsent:
            await asyncio.sleep(0)  # what was settled before leaves before
        self._seq += 1
        seq, began_s = self._seq, self.store.now_s()
        tried: list[Counted] = []
        try:
            if ask.draws or ask.rates:
                hold = await self._reserved(seq, ask, request_id, tried, began_s + self.store.deadline_s)
            else:  # nobody limits this call: it is metered, and waits for no one
                hold = Hold(seq=seq, request_id=request_id, granted=ask.wanted)
        except LearningError as error:
            hold = self._without_store(ask, request_id, error)
        except StoreError as error:
            if isinstance(error, StoreNotAskedError):
                self.settler.terminal(seq)  # a long outage must not pile up what nobody needs to be told
            else:
                self._forget(seq, tried)
            hold = self._without_store(ask, request_id, StoreUnavailableError(str(error)))
        except asyncio.CancelledError:
            self._forget(seq, tried)
            raise
        hold.notes = notes or {}
        hold.until_s = lease_until_s(began_s, TTL_MS)
        try:
            self._journal.admitted(open_note(hold))
        except StoreError:  # what cannot be written down is not begun
            self.settler.send(settlement(hold, Spent()))
            raise
        self.open[hold.seq] = hold
        if hold.reserved and hold.rows and self.escrows.noticed(ask, hold, began_s):
            self._supervisor.spawn(self.keep_escrows(), name="escrow")
        return hold

    def progress(self, hold: Hold, payload: bytes) -> None:
        """Write down how far a call has come. See `accounting.journal.format.Progress`."""
        if hold.seq in self.open:
            self._journal.progress(hold.seq, payload)

    def settle(self, hold: Hold, spent: Spent) -> None:
        """Charge what was used and give the rest back. The first call for a hold counts, others do nothing."""
        if self.open.pop(hold.seq, None) is None:
            return
        item = settlement(hold, spent)
        if hold.escrow:
            self.escrows.settled(hold, (row[4] for row in item.rows))
        if over := overspent(item, hold):
            self.on_overspent(over)
        try:
            self._journal.settled(item.dump())
        finally:
            self.settler.send(item, lambda counts: self.on_settled(hold, counts))

    def release(self, hold: Hold) -> None:
        """Give a hold back: nothing was spent."""
        self.settle(hold, Spent())

    async def heartbeat(self) -> None:
        """Extend all open holds, for ever. Run it in a supervised task."""
        await beat(lambda: HEARTBEAT_S, self.store.lost, lambda: bool(self.open), self._beat)

    async def extend(self, only: Sequence[Hold] | None = None) -> None:
        """Give open holds (or `only` some) another lease; mark those that the store no longer has. Raises StoreError.

        A store that is learning takes back those that it lost.
        """
        holds = only or [h for h in self.open.values() if h.reserved and h.rows] + self.escrows.holds()
        for start in range(0, max(1, len(holds)), EXTEND_HOLDS_MAX):
            await self._extend(holds[start : start + EXTEND_HOLDS_MAX])

    def give_up_escrows(self) -> None:
        """Let others have what is held ahead of time: this sidecar stops."""
        for hold in self.escrows.give_up():
            self.settler.send(settlement(hold, Spent()))

    async def grow(self, hold: Hold, ask: Ask, wanted: int, least: int = 0) -> bool:
        """Let a hold grow towards `wanted` output tokens; False if not even `least` fits, or the store no longer has it.

        `ask` is what it was reserved with; `hold.granted` tells how far it came. Asking twice grows once. Raises StoreError.
        """
        began_s = asyncio.get_running_loop().time()
        if hold.seq not in self.open or not hold.reserved:
            return False
        if self._known.changed:
            await self._meet(self.store.deadline_s)
        keys, args = grow_arguments(hold, ask, self.store.key, (self.store.run_id, self.sid, TTL_MS), wanted, least)
        reply = await self.store.run(script("grow"), keys, args, only_run_id=self.store.run_id)
        if reply[0] == b"LOST":
            hold.lost = hold.seq in self.open
        if reply[0] == b"GEN":
            await self._meet(self.store.deadline_s)
        if reply[0] != b"OK":
            return False
        if hold.seq in self.open:
            grown(hold, reply)
            hold.until_s = lease_until_s(began_s, TTL_MS)
            self._journal.grown(open_note(hold))
        return True

    async def keep_escrows(self) -> None:
        """Take and give back allowances for the time when the store is away, as they are due; what fails is due again."""
        loop = asyncio.get_running_loop()
        for hold in self.escrows.given_back(loop.time(), self.now_ms(), (self.open, self.settler.pending)):
            self.settler.send(settlement(hold, Spent()))
        for ask in self.escrows.wanted(loop.time()):
            self._seq += 1
            seq, began_s, tried = self._seq, loop.time(), list[Counted]()
            try:
                hold = await self._reserved(seq, ask, ESCROW_ID, tried, began_s + self.store.deadline_s)
            except RefusedError:
                continue
            except StoreError:
                self._forget(seq, tried)
                return
            hold.until_s = lease_until_s(began_s, TTL_MS)
            self.escrows.took(ask, hold)

    async def _reserved(self, seq: int, ask: Ask, request_id: str, tried: list[Counted], until_s: float) -> Hold:
        """`tried` is made to hold the windows that were last asked for: there, and nowhere else, something may be held."""
        now_s = self.store.now_s
        for _ in range(_TRIES_MAX):
            if self._known.changed:
                await self._meet(max(0.001, until_s - now_s()))
            now_ms = self.now_ms()
            tried[:] = counted = [self._windows.of(draw.budget, now_ms) for draw in ask.draws]
            run_id, left_s = self.store.run_id, max(0.001, until_s - now_s())
            packed = self._reservations.packed(ask, counted, run_id, self.config_version, seq)
            try:
                reply = await self.store.run_packed(script("reserve"), packed, deadline_s=left_s, only_run_id=run_id)
            except StoreChangedError:  # one that lost writes may believe that it still is the process we know
                continue
            self._offset_ms = int(reply[1]) - now_s() * 1000
            verdict = reply[0]
            if verdict == b"OK":
                return held(seq, ask, counted, reply, request_id)
            if verdict == b"GEN":
                await self._meet(max(0.001, until_s - now_s()))
            elif verdict != b"CLOCK":  # a clock that we had wrong is right now
                error = refusal(verdict, ask, counted, reply)
                if not isinstance(error, StoreError):
                    self.settler.terminal(seq)
                if isinstance(error, BudgetRefusedError) and self.escrows.scarce(error.row.budget):
                    self._supervisor.spawn(self.keep_escrows(), name="escrow")  # what they hold may be what is missing
                if isinstance(error, LearningError):
                    self._known.learns(int(reply[1]) + error.wait_ms, int(reply[1]))
                raise error
        msg = "the store's clock and generation would not settle"
        raise StoreUnavailableError(msg)

    def _without_store(self, ask: Ask, request_id: str, error: Exception) -> Hold:
        """Return the hold of a call that all of its budgets let pass while the store is away. Raises `error` if they do not."""
        now_ms = self.now_ms()
        counted = [self._windows.of(draw.budget, now_ms) for draw in ask.draws]
        counters = [one.counters_key for one in counted]
        allowance = self.escrows.admit(ask, counters, asyncio.get_running_loop().time())
        if allowance is None:
            raise error
        self._seq += 1  # the one before may have reached the store
        hold = unreserved(self._seq, counted, ask, now_ms, request_id, allowance=allowance)
        self.escrows.opened(hold, allowance)
        self.escrow_total += hold.escrow
        self.unreserved_total += not hold.escrow
        return hold

    def _forget(self, seq: int, tried: Sequence[Counted]) -> None:
        """A reserve whose answer never came may yet arrive: settle it with nothing, so that it can hold nothing."""
        rows = tuple(
            (one.counters_key, one.holds_key, "used", _WHATEVER_WAS_HELD, 0, 0) for one in tried
        )  # none, where it was never asked
        tombstone = Settlement(seq=seq, rows=rows, spent=Spent())
        if rows:  # who finds our journal must tell a store that lost this, but not the reserve
            self._journal.settled(tombstone.dump())
        self.settler.send(tombstone)

    async def _meet(self, timeout_s: float) -> None:
        now_ms = await self._known.meet(timeout_s)
        self._offset_ms = now_ms - asyncio.get_running_loop().time() * 1000

    async def _beat(self) -> None:
        await self.extend()
        await self.keep_escrows()

    async def _give_back(self) -> None:
        """Tell the store what it may have lost: first what is held, since that expires."""
        await self.extend()
        if self.recover is not None:
            await self.recover()
        await self.settler.again()

    async def _extend(self, holds: Sequence[Hold]) -> None:
        began_s = asyncio.get_running_loop().time()
        if self._known.changed:
            await self._meet(EXTEND_S)
        keys, rest = extend_arguments(holds, self.store.key, self.sid, TTL_MS)
        for _ in range(_TRIES_MAX):
            run_id = self.store.run_id
            with contextlib.suppress(StoreChangedError):
                reply = await self.store.run(
                    script("extend"), keys, [run_id, *rest], deadline_s=EXTEND_S, only_run_id=run_id
                )
                if reply[0] != b"GEN":
                    break
            await self._meet(EXTEND_S)
        else:
            return
        if int(reply[2]):
            self._known.learns(int(reply[2]), int(reply[1]))
        lost = {int(seq) for seq in reply[4:]}
        self._known.arrivals = int(reply[3])
        for hold in holds:
            hold.lost = hold.seq in lost
            if not hold.lost:
                hold.until_s = lease_until_s(began_s, TTL_MS)
