"""Delivers settlements until the store has them. Off the hot path; the journal has each of them first."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accounting.settlement import Settlement
from accounting.store.errors import StoreError, StoreReplyError
from accounting.store.scripts import script
from accounting.store.store import Store
from accounting.supervisor import Supervisor

RETRY_S_MAX = 2.0
DEADLINE_S = 2.0
AT_ONCE = 32
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
        self.pending: dict[int, Settlement] = {}
        self.tally = Tally()

    def send(self, item: Settlement, told: Callable[[list[int]], None] | None = None) -> None:
        """Deliver in the background; `told` gets used and held of each budget afterwards, if this was the first time."""
        self.pending[item.seq] = item
        self.unsent += 1
        self._supervisor.spawn(self._until_known(item, told), name="settle")

    async def unknown(self, seqs: Sequence[int], sid: str) -> set[int]:
        """Return which of a session's calls the store does not know to be over. Raises StoreError."""
        marks = await self._store.call(
            "HMGET", self._store.key("s", sid), "low", *(f"d:{seq}" for seq in seqs), deadline_s=DEADLINE_S
        )
        low = int(marks[0] or 0)
        return {seq for seq, mark in zip(seqs, marks[1:], strict=True) if mark is None and seq > low}

    async def deliver_pending(self) -> None:
        """Deliver once, now, all that waits for its next try. Raises StoreError, but not for what the store rejects."""
        items = list(self.pending.values())
        for start in range(0, len(items), AT_ONCE):
            some = items[start : start + AT_ONCE]
            for reply in await asyncio.gather(*(self.deliver(item) for item in some), return_exceptions=True):
                if isinstance(reply, BaseException) and not isinstance(reply, StoreReplyError):
                    raise reply

    def terminal(self, seq: int) -> None:
        """Note that a seq can never hold anything (again)."""
        self._known.add(seq)
        while self.low + 1 in self._known:
            self.low += 1
            self._known.discard(self.low)

    async def deliver(self, item: Settlement, sid: str | None = None) -> list[Any]:
        """Apply one settlement now, ours or one of a dead session; twice counts once. Raises StoreError."""
        owner, key = sid or self._sid, self._store.key
        keys = [key("s", owner), key("u"), key("day", item.spent.day or "none"), key("g")]
        for row in item.rows:
            keys += row[:2]
        run_id = self._store.run_id
        # A replay may come before others that the store lost: nothing is known of those.
        ack = self.low if sid is None and run_id and run_id == self.trusted_run_id else 0
        reply: list[Any] = await self._store.run(
            script("settle"),
            keys,
            item.arguments(owner, ack, run_id),
            deadline_s=DEADLINE_S,
            only_run_id=run_id if ack else None,
        )
        return reply

    async def _until_known(self, item: Settlement, told: Callable[[list[int]], None] | None) -> None:
        self.unsent -= 1
        reply = await self._persist(item)
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
