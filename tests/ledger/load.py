"""Sidecars as far as the ledger goes, journal and all, under load; and the truth about what they spent, kept apart from them."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from accounting.budgets import Budget
from accounting.hold import BudgetRefusedError, LearningError
from accounting.journal.recovery import Recovery
from accounting.journal.writer import FileJournal
from accounting.ledger import Ledger
from accounting.store.errors import StoreError
from accounting.store.resp import Address
from accounting.store.store import Store
from accounting.store.url import StoreUrl
from accounting.supervisor import Supervisor
from tests.ledger.houses import ask, spent, tokens

LARGE = tokens(10**12, "user:a")
WORST = 100
Locate = Callable[[], Awaitable[Sequence[Address]]]


class Sidecar:
    """Store, journal, ledger, heartbeat and recovery, put together as `proxy.sidecar` does it."""

    def __init__(self, url: StoreUrl, folder: Path, *, locate: Locate | None = None, deadline_s: float = 0.25) -> None:
        self.store = Store(url, prefix="b", tenant="t", deadline_s=deadline_s, locate=locate)
        self.supervisor = Supervisor()
        self.journal = FileJournal(folder / "journal", random.randbytes(16).hex())
        self.ledger = Ledger(self.store, supervisor=self.supervisor, journal=self.journal, sid=self.journal.sid)
        self.recovery = Recovery(self.journal, self.ledger.settler)
        self.ledger.recover = self.recovery.replay

    async def start(self) -> None:
        self.journal.open()
        await self.ledger.start()
        self._tasks = [
            self.supervisor.spawn(self.ledger.heartbeat(), name="heartbeat"),
            self.supervisor.spawn(self.recovery.run(), name="recovery"),
        ]

    async def settled(self) -> None:
        """Wait until the store has all that is settled, and all that it had before."""
        async with asyncio.timeout(30):
            while self.ledger.settler.pending or self.ledger.settler.trusted_run_id != self.store.run_id:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.supervisor.drain(0.01)
        self.recovery.release()
        self.journal.close()
        await self.store.close()


@dataclass
class Truth:
    """What was really spent, by budget; and how the calls fared. Nothing of it comes from the ledger's counters."""

    used: dict[str, int] = field(default_factory=dict)
    records: int = 0
    refused_s: list[float] = field(default_factory=list)  # when: 503, the store is away or learns
    spent: int = 0  # refusals for want of budget
    slowest_s: float = 0.0
    admitted_s: list[float] = field(default_factory=list)

    def outages_s(self) -> list[float]:
        """Return the times of more than a second between two admitted calls, longest first."""
        gaps = (b - a for a, b in zip(self.admitted_s, self.admitted_s[1:], strict=False))
        return sorted((round(gap, 1) for gap in gaps if gap > 1), reverse=True)

    def outage_s(self) -> float:
        """Return the longest time between two admitted calls."""
        return max((b - a for a, b in zip(self.admitted_s, self.admitted_s[1:], strict=False)), default=0.0)


class Load:
    """Clients that call through some sidecars until they are told to stop. Every call that was admitted is settled."""

    def __init__(self, sidecars: Sequence[Sidecar], budgets: Sequence[Budget], *, seed: int, clients: int = 6) -> None:
        self.sidecars, self.budgets, self.truth = sidecars, budgets, Truth()
        self._seed, self._rng, self._clients, self._stop = seed, random.Random(seed), clients, asyncio.Event()
        self.calls = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Truth]:
        print(f"seed of the load: {self._seed}")
        async with asyncio.TaskGroup() as group:
            for sidecar in self.sidecars:
                for number in range(self._clients):
                    group.create_task(self._client(sidecar, long=number == 0))
            try:
                yield self.truth
            finally:
                self._stop.set()

    async def admits(self, more: int = 1) -> None:
        """Wait until so many more calls were admitted by each sidecar's clients together."""
        wanted = len(self.truth.admitted_s) + more
        async with asyncio.timeout(40):
            while len(self.truth.admitted_s) < wanted:
                await asyncio.sleep(0.005)

    async def _client(self, sidecar: Sidecar, *, long: bool) -> None:
        loop, rng = asyncio.get_running_loop(), self._rng
        while not self._stop.is_set():
            budgets = [b for b in self.budgets if b is LARGE or rng.random() < 0.5]
            self.calls += 1
            began = loop.time()
            try:
                hold = await sidecar.ledger.reserve(
                    ask(*budgets, wanted=WORST, least=WORST), request_id=str(self.calls)
                )
            except BudgetRefusedError:
                self.truth.spent += 1
                hold = None
            except (StoreError, LearningError):
                self.truth.refused_s.append(loop.time())
                hold = None
            self.truth.slowest_s = max(self.truth.slowest_s, loop.time() - began)
            if hold is None:
                await asyncio.sleep(0.02)
                continue
            self.truth.admitted_s.append(loop.time())
            await asyncio.sleep(rng.uniform(0.5, 2) if long else rng.uniform(0, 0.02))
            actual = rng.randint(0, WORST)
            for budget in budgets:
                self.truth.used[budget.id] = self.truth.used.get(budget.id, 0) + actual
            self.truth.records += 1
            sidecar.ledger.settle(hold, spent(actual))

    async def agrees(self) -> None:
        """The counters are the truth, nothing is held, and no hard budget is overspent."""
        for sidecar in self.sidecars:
            await sidecar.settled()
        store, ledger = self.sidecars[0].store, self.sidecars[0].ledger
        for budget in self.budgets:
            window = budget.period.window(ledger.now_ms())
            found = await store.call("HGETALL", store.key("b", budget.id, window.key), deadline_s=5)
            numbers = {k.decode(): int(v) for k, v in zip(found[::2], found[1::2], strict=True)}
            live = await store.call("ZCARD", store.key("x", budget.id, window.key), deadline_s=5)
            used = self.truth.used.get(budget.id, 0)
            assert numbers.get("used", 0) == used, f"{budget.id}: {numbers}, and the truth is {used}"
            assert (numbers.get("held", 0), live) == (0, 0), numbers
            assert used <= budget.limit
        mismatches = sum(
            s.ledger.settler.tally.mismatch_total + s.ledger.settler.tally.rejected_total for s in self.sidecars
        )
        assert mismatches == 0


@asynccontextmanager
async def sidecars(
    url: StoreUrl, folder: Path, count: int = 2, *, locate: Locate | None = None, deadline_s: float = 0.25
) -> AsyncIterator[list[Sidecar]]:
    async with AsyncExitStack() as stack:
        made = []
        for number in range(count):
            one = Sidecar(url, folder / f"sidecar{number}", locate=locate, deadline_s=deadline_s)
            await one.start()
            stack.push_async_callback(one.close)
            made.append(one)
        yield made


async def met(one: Sidecar) -> None:
    """Wait until a sidecar has met the store's new process."""
    async with asyncio.timeout(20):
        while True:
            try:
                await one.ledger.start()
                return
            except StoreError:
                await asyncio.sleep(0.02)


@pytest.fixture
def seed() -> int:
    """Of the random moments; BURSAR_SEED repeats a run."""
    number = int(os.environ.get("BURSAR_SEED") or random.SystemRandom().randrange(2**32))
    print(f"BURSAR_SEED={number}")
    return number


def hurry(monkeypatch) -> None:
    """Make lessons and heartbeats ten times as short, in the same proportion to each other."""
    import accounting.acquaintance
    import accounting.ledger

    monkeypatch.setattr(accounting.acquaintance, "LEARN_MS", 600)
    monkeypatch.setattr(accounting.ledger, "HEARTBEAT_S", 0.5)
