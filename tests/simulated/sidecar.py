"""One sidecar as far as accounting goes, all of it real: store, ledger, journal, recovery, till. Its process may stall and crash."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from accounting.charge import Receipt, Till
from accounting.journal.recovery import Recovery
from accounting.journal.session import Session
from accounting.journal.writer import FileJournal, Sizes
from accounting.ledger import Ledger
from accounting.noting import NoJournal
from accounting.store.errors import StoreError
from accounting.store.resp import Address
from accounting.store.store import Store
from accounting.store.url import StoreUrl
from accounting.supervisor import Supervisor
from tests.simulated.books import START_MS
from tests.simulated.loops import Loop
from tests.simulated.network import Network

_PLACE = StoreUrl(kind="single", addresses=(Address(path="store"),))
_SIZES = Sizes(segment_bytes=32 * 1024, total_bytes=8 * 1024 * 1024, reserve_bytes=4096)


class Journal(FileJournal):
    """Its thread does nothing: `tidy` does it, on the clock of the world."""

    def _keep_durable(self) -> None:
        pass

    def tidy(self) -> None:
        if self._broken is None:
            self.flush()
            self._make_spare()


class Sidecar:
    """A process with a journal's folder. `start` it again after `crash`: another session finds the folder."""

    def __init__(self, network: Network, folder: Path, name: str, *, offset_s: float, rate: float) -> None:
        self.network, self.folder, self.name = network, folder, name
        self._offset_s, self._rate, self._lives = offset_s, rate, 0
        self.alive = self.ready = False
        self.impaired: list[list[float]] = []  # from when until when it could not do its duty
        self.receipts: list[Receipt] = []
        self.dead_sids: set[str] = set()
        self.loop: Loop
        self.ledger: Ledger

    def start(self) -> None:
        """Begin a process."""
        self._lives += 1
        sid = f"{self.name}{self._lives}"
        self.loop = Loop(self.network.world, self.network.connect, offset_s=self._offset_s, rate=self._rate)
        self.supervisor = Supervisor()
        self.store = Store(_PLACE, prefix="b", tenant="t")
        self.journal = Journal(self.folder, sid, sizes=_SIZES, clock=self.loop.time)
        self.ledger = Ledger(self.store, supervisor=self.supervisor, journal=self.journal, sid=sid)
        self.recovery = _Recovery(self.journal, self.ledger.settler, now_s=self.wall_s)
        self.ledger.recover = self.recovery.replay
        self.till = Till(ledger=self.ledger, supervisor=self.supervisor, on_receipt=self.receipts.append)
        self.alive, self.ready = True, False
        self.loop.create_task(self._main())

    def crash(self) -> None:
        """kill -9: what it wrote stays, its locks and connections go, and nothing of it ever runs again."""
        self.alive = self.ready = False
        self.dead_sids.add(self.ledger.sid)
        self.network.forget(self.loop)
        self.network.world.bury(self.loop)
        self.recovery.release()
        _dropped(self.journal)
        touched(self.folder / self.ledger.sid, self.wall_s())
        self.ledger._journal = NoJournal()

    def wall_s(self) -> float:
        return START_MS / 1000 + self.network.world.now_s

    def impair(self, for_s: float) -> None:
        """Note that it cannot be expected to keep its holds alive in that time."""
        now_s = self.network.world.now_s
        self.impaired.append([now_s, now_s + for_s])

    def impaired_s(self, since_s: float, until_s: float) -> float:
        """For how long it was impaired in that time."""
        return sum(max(0.0, min(b, until_s) - max(a, since_s)) for a, b in self.impaired)

    @property
    def quiet(self) -> bool:
        """Whether nothing is open, and the store has all that is settled."""
        if not self.ready or self.loop.stalled:
            return False
        settler = self.ledger.settler
        return not (self.ledger.open or settler.pending or settler.trusted_run_id != self.store.run_id)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        return self.loop.create_task(work)

    async def _main(self) -> None:
        self.journal.open()
        while True:
            try:
                await self.ledger.start()
                break
            except StoreError:
                await asyncio.sleep(0.5)
        self.supervisor.spawn(self.ledger.heartbeat(), name="heartbeat")
        self.supervisor.spawn(self.recovery.run(), name="recovery")
        self.ready = True
        while True:
            await asyncio.sleep(2.0)
            self.journal.tidy()


class _Recovery(Recovery):
    """Files that it writes are as young as the world says."""

    async def _settle(self, dead: Any) -> None:
        await super()._settle(dead)
        touched(dead.session.path, self._now_s())


def touched(folder: Path, now_s: float) -> None:
    """Give files the time of the world: the disk has its own clock."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            os.utime(path, (now_s, now_s))


def _dropped(journal: FileJournal) -> None:
    """Do what the kernel does with the files of a process that is gone."""
    for segment in [*journal._segments, *journal._to_close, *journal._to_delete, journal._spare]:
        if segment is not None and segment.fd >= 0:
            segment._unmap()
            os.close(segment.fd)
            segment.fd = -1
    session: Session | None = journal._session
    if session is not None:
        session.release()
