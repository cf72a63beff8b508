"""Settles what dead sessions left behind, and tells a store that lost writes what it had been told before.

Everything is delivered under the dead session's own name, so the store counts each call once, however many processes find the
same journal, and however often. (It remembers a session for 14 days: a journal that is found later than that may be
counted twice.)
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from accounting.journal.aftermath import crashed
from accounting.journal.format import ACKNOWLEDGED, SETTLED, encode, encode_seqs, header, settled_seq
from accounting.journal.reading import load_note, load_settlement, read_story, settled_in
from accounting.journal.segment import Disk, Segment
from accounting.journal.session import Session
from accounting.journal.writer import KEPT_S, TOLD_MAX, FileJournal
from accounting.settlement import Settlement
from accounting.settling import Settler
from accounting.store.errors import StoreError, StoreReplyError

AT_ONCE = 32
LOOK_S = 30.0
RETRY_S = 1.0
_log = logging.getLogger("bursar")


def _now_s() -> float:
    return datetime.now(UTC).timestamp()


@dataclass(slots=True)
class _Dead:
    """A dead session that we have locked. `rejected`: it is kept for a person to look at."""

    session: Session
    done: bool = False
    rejected: bool = False


class Recovery:
    """Run it in a supervised task. `settler` delivers; the journal is that of this process, whose folder it looks through."""

    def __init__(self, journal: FileJournal, settler: Settler, *, now_s: Callable[[], float] = _now_s) -> None:
        self._journal, self._settler, self._now_s = journal, settler, now_s
        self._dead: list[_Dead] = []
        self.recovered_total = 0  # calls that a crash had cut short

    async def run(self) -> None:
        """Settle what dead sessions left, for ever: also those that die while we live."""
        wait_s = RETRY_S
        while True:
            try:
                wait_s = LOOK_S if await self.once() else RETRY_S
            except OSError as error:
                _log.error("the journals in %s cannot be read: %s", self._journal.folder, error.strerror)
                wait_s = LOOK_S
            await asyncio.sleep(wait_s)

    async def once(self) -> bool:
        """Look once; delete what is done with. False if the store is away: look again soon. Raises OSError."""
        self._dead += [_Dead(session) for session in Session.dead(self._journal.folder, self._now_s())]
        for dead in self._dead:
            if not dead.done:
                try:
                    await self._settle(dead)
                except StoreError as error:
                    _log.debug("cannot settle what session %s left yet: %s", dead.session.sid, error)
                    return False
        for dead in [d for d in self._dead if d.done and not d.rejected]:
            if dead.session.changed_s() < self._now_s() - KEPT_S:
                self._dead.remove(dead)
                dead.session.delete()
        return True

    async def replay(self) -> None:
        """Deliver again what was settled in the last ten minutes, by us and by the dead. Raises StoreError.

        The store that we had told may have lost it; where it has not, nothing changes. What it has kept it is not told at length,
        since others wait for the end of this.
        """
        for payloads in self._journal.recent():
            await self._deliver_unknown(payloads, self._journal.sid)
        for dead in list(self._dead):
            if dead.done:  # of others all is still to come
                await self._tell_again(dead.session)

    def release(self) -> None:
        """Let go of the dead: another process, or our next one, may look after them."""
        for dead in self._dead:
            dead.session.release()
        self._dead.clear()

    async def _settle(self, dead: _Dead) -> None:
        session = dead.session
        story = await asyncio.to_thread(read_story, session.files(), session.sid)
        day = datetime.fromtimestamp(session.changed_s() or self._now_s(), UTC).strftime("%Y%m%d")
        items, dead.rejected = [], story.unreadable
        for payload, progress in story.open.values():
            try:
                items.append(crashed(load_note(payload), progress, day))
            except (ValueError, KeyError, TypeError, IndexError):
                dead.rejected = True
                _log.error("a call in the journal of session %s cannot be read", session.sid)
        rejected = await self._deliver(story.settled.values(), session.sid) + await self._all(items, session.sid)
        dead.rejected = dead.rejected or rejected > 0
        # Last, since it may be much: what the store had said it has. It may have lost that before we met it, which nobody saw.
        await self._tell_again(session)
        session.tidy()
        if not dead.rejected:
            _write_down(session, items, [*story.settled, *(item.seq for item in items)])
        dead.done = True
        self.recovered_total += len(items)
        if items or story.settled:
            text = "session %s ended without us: settled %d calls that it had cut short, and %d that it had noted"
            _log.warning(text, session.sid, len(items), len(story.settled))

    async def _tell_again(self, session: Session) -> None:
        for path in session.files():
            for payloads in settled_in(path, 0):
                await self._deliver_unknown(payloads, session.sid)

    async def _deliver_unknown(self, payloads: Sequence[bytes], sid: str) -> None:
        by_seq: dict[int, bytes] = {}
        for payload in payloads:
            try:
                by_seq[settled_seq(payload)] = payload
            except ValueError:
                _log.error("a settlement in the journal cannot be read")
        unknown = await self._settler.unknown(list(by_seq), sid) if by_seq else set()
        await self._deliver((by_seq[seq] for seq in by_seq if seq in unknown), sid)

    async def _deliver(self, payloads: Iterable[bytes], sid: str) -> int:
        items = [item for payload in payloads if (item := load_settlement(payload)) is not None]
        return await self._all(items, sid)

    async def _all(self, items: list[Settlement], sid: str) -> int:
        """Deliver; return how many the store rejects, whatever becomes of the others. Raises StoreError."""
        rejected = 0
        for start in range(0, len(items), AT_ONCE):
            some = items[start : start + AT_ONCE]
            replies = await asyncio.gather(*(self._settler.deliver(i, sid) for i in some), return_exceptions=True)
            for item, reply in zip(some, replies, strict=True):
                if isinstance(reply, StoreReplyError):
                    rejected += 1
                    _log.error("the store rejects seq %d of session %s: its journal is kept", item.seq, sid)
                elif isinstance(reply, BaseException):
                    raise reply
        return rejected


def _write_down(session: Session, items: list[Settlement], seqs: list[int]) -> None:
    """Note in a further file of the dead session what we settled in its place, so that the next who reads it need not."""
    if not seqs:
        return
    settled = [encode(SETTLED, item.dump()) for item in items]
    told = [encode(ACKNOWLEDGED, encode_seqs(seqs[at : at + TOLD_MAX])) for at in range(0, len(seqs), TOLD_MAX)]
    records = b"".join(settled + told)
    number, size_bytes = int(session.files()[-1].stem) + 1, len(header(session.sid)) + len(records)
    try:
        segment = Segment(session.making(number), session.sid, Disk(), most_bytes=size_bytes)
        segment.append_all(records)
        segment.name(session.file(number))
        segment.sync()
        segment.close()
    except OSError as error:
        _log.warning("what session %s left may be settled again, and will count once: %s", session.sid, error.strerror)
