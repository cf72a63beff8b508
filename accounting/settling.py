"""Delivers settlements until the store has them. Off the hot path; the journal has each of them first.

Each is sent at once, and almost always that is all: its reply is heard without a task. One that is not answered is sent again
by a task, until the store has it.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from accounting.settlement import Settlement
from accounting.store.errors import StoreError, StoreReplyError
from accounting.store.packing import Packed, piece
from accounting.store.scripts import script
from accounting.store.store import Store
from accounting.supervisor import Supervisor

RETRY_S_MAX = 2.0
DEADLINE_S = 2.0
RELEASED_MAX = 2000
RELEASED_S = 35.0  # a lease, and what a release may take to arrive
AT_ONCE = 32
_Told: TypeAlias = Callable[[list[int]], None]
_log = logging.getLogger("bursar")


@dataclass(slots=True)
class Tally:
    """Counts that metrics show."""

    settled_total: int = 0
    duplicate_total: int = 0
    mismatch_total: int = 0
    rejected_total: int = 0


class Settler:
    """One session's settlements. `low`: every seq up to it is settled, and we know that the store knows.

    `low` is told only to the server process that is `trusted_run_id`: one that lost writes would take what it lost, when it
    is told it again, for something that it has.
    """

    def __init__(self, store: Store, sid: str, supervisor: Supervisor, acknowledged: Callable[[int], None]) -> None:
        self._store, self._sid, self._supervisor, self._acknowledged = store, sid, supervisor, acknowledged
        self._known: set[int] = set()
        self.low = 0
        self.trusted_run_id = ""  # the server process that has all that we know to be settled
        self.unsent = 0  # handed to `send`, but not yet on the wire
        self._keys_of: tuple[str, str] | None = None  # session and day
        self._keys = b""
        self._posted: set[int] = set()  # seqs that were sent at once and not answered yet
        self._all_heard: asyncio.Future[None] | None = None
        self.pending: dict[int, Settlement] = {}
        self._released: deque[tuple[float, Settlement]] = deque(
            maxlen=RELEASED_MAX
        )  # when, what: some are in no journal
        self.tally = Tally()

    def send(self, item: Settlement, told: _Told | None = None) -> None:
        """Deliver in the background; `told` gets used and held of each budget afterwards, if this was the first time."""
        self.pending[item.seq] = item
        if not item.spent.record:
            self._released.append((asyncio.get_running_loop().time(), item))
        if not self._post(item, told):
            self._persevere(item, told)

    async def heard(self) -> None:
        """Wait until each that was sent at once is answered, or is sent again by a task; DEADLINE_S at most."""
        if self._posted:
            self._all_heard = self._all_heard or asyncio.get_running_loop().create_future()
            await asyncio.wait({self._all_heard}, timeout=2 * DEADLINE_S)

    async def unknown(self, seqs: Sequence[int], sid: str) -> set[int]:
        """Return which of a session's calls the store does not know to be over. Raises StoreError."""
        marks = await self._store.call(
            "HMGET", self._store.key("s", sid), "low", *(f"d:{seq}" for seq in seqs), deadline_s=DEADLINE_S
        )
        low = int(marks[0] or 0)
        return {seq for seq, mark in zip(seqs, marks[1:], strict=True) if mark is None and seq > low}

    async def again(self) -> None:
        """Deliver once, now, what waits for its next try, and of what was released in the time of a lease what the store does not know to be over.

        Releases are in the journal only if their call is: not those of escrows, of calls that it could not write down, and none
        where there is no journal. A store that lost one would hold it until the lease ends.
        Raises StoreError, but not for what the store rejects.
        """
        since_s = asyncio.get_running_loop().time() - RELEASED_S
        over = {item.seq: item for at_s, item in self._released if at_s >= since_s and item.seq not in self.pending}
        unknown = await self.unknown(list(over), self._sid) if over else set()
        items = [*self.pending.values(), *(over[seq] for seq in over if seq in unknown)]
        for start in range(0, len(items), AT_ONCE):
            some = items[start : start + AT_ONCE]
            for reply in await asyncio.gather(*(self.deliver(item) for item in some), return_exceptions=True):
                if isinstance(reply, BaseException) and not isinstance(reply, StoreReplyError):
                    raise reply

    def terminal(self, seq: int) -> None:
        """Note that a seq can never hold anything (again)."""
        if seq > self.low + 1:
            self._known.add(seq)
        elif seq == self.low + 1:
            self.low = seq
            while self.low + 1 in self._known:
                self.low += 1
                self._known.discard(self.low)

    async def deliver(self, item: Settlement, sid: str | None = None) -> list[Any]:
        """Apply one settlement now, ours or one of a dead session; twice counts once. Raises StoreError."""
        packed, only_run_id = self._command(item, sid)
        reply: list[Any] = await self._store.run_packed(
            script("settle"), packed, deadline_s=DEADLINE_S, only_run_id=only_run_id
        )
        return reply

    def _command(self, item: Settlement, sid: str | None) -> tuple[Packed, str | None]:
        """Return KEYS and ARGV, and the only process that may get them (None: any)."""
        owner, run_id, day = sid or self._sid, self._store.run_id, item.spent.day or "none"
        if (owner, day) != self._keys_of:
            key = self._store.key
            self._keys_of, self._keys = (owner, day), piece(key("s", owner), key("u"), key("day", day), key("g"))
        # A replay may come before others that the store lost: nothing is known of those.
        ack = self.low if sid is None and run_id and run_id == self.trusted_run_id else 0
        return item.packed(self._keys, owner, ack, run_id), run_id if ack else None

    def _post(self, item: Settlement, told: _Told | None) -> bool:
        packed, only_run_id = self._command(item, None)
        seq = item.seq

        def heard(reply: Any) -> None:
            self._posted.discard(seq)
            if isinstance(reply, StoreError):
                self._persevere(item, told)
            else:
                self._known_now(item, told, reply)
            if self._all_heard is not None and not self._posted:
                self._all_heard.set_result(None)
                self._all_heard = None

        sent = self._store.post(script("settle"), packed, heard, deadline_s=DEADLINE_S, only_run_id=only_run_id)
        if sent:
            self._posted.add(seq)
        return sent

    def _persevere(self, item: Settlement, told: _Told | None) -> None:
        self.unsent += 1
        self._supervisor.spawn(self._until_known(item, told), name="settle")

    async def _until_known(self, item: Settlement, told: _Told | None) -> None:
        self.unsent -= 1
        self._known_now(item, told, await self._persist(item))

    def _known_now(self, item: Settlement, told: _Told | None, reply: list[Any] | None) -> None:
        """Take the store's word for a settlement; None if it rejects it."""
        self.pending.pop(item.seq, None)
        if reply is None:
            self.tally.rejected_total += 1
            if not item.spent.record:  # nothing was spent: there is nothing to keep for a person to look at
                self.terminal(item.seq)
            return
        self.terminal(item.seq)
        self._acknowledged(item.seq)
        if reply[0] == b"OK":
            self.tally.settled_total += 1
            if told is not None:
                told(reply[1:])
        elif reply[0] == b"MISMATCH":
            self.tally.mismatch_total += 1
            _log.error("seq %d was settled before with other amounts", item.seq)
        else:
            self.tally.duplicate_total += 1

    async def _persist(self, item: Settlement) -> list[Any] | None:
        """Try until the store answers; None if it rejects the settlement itself, which is a bug of ours."""
        wait_s = 0.05
        while True:
            try:
                return await self.deliver(item)
            except StoreReplyError as error:
                _log.error("the store rejects the settlement of seq %d: %s", item.seq, error)
                return None
            except StoreError:
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                wait_s = min(wait_s * 2, RETRY_S_MAX)
