"""How a ledger knows the store's process, and what it does when that is another one: it may have lost writes.

A store that was restarted, or a replica that took over, is told again what was held and settled, by every living sidecar, before
anything is admitted on a hard budget. What is told again counts once. The lesson ends when all have said that they told all, or
after LEARN_MS. Of our own embedded store nothing that is held is lost with its process, so it learns nothing; settlements are
told again all the same.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from accounting.settling import Settler
from accounting.store.errors import StoreError, StoreUnavailableError
from accounting.store.scripts import script
from accounting.store.store import Store
from accounting.supervisor import Supervisor

LEARN_MS = 6_000
LEAST_SHARE = 3  # of LEARN_MS: whom the store forgot is waited for that long
LIVE_MS = 15_000
_LOOK_S = 0.25
_AGAIN_S_MAX = 5.0
_log = logging.getLogger("bursar")


class Acquaintance:
    """One ledger's. `give_back` tells the store all that this sidecar holds and has settled."""

    def __init__(
        self,
        store: Store,
        settler: Settler,
        supervisor: Supervisor,
        give_back: Callable[[], Awaitable[None]],
        *,
        sid: str,
        ttl_ms: int,
        embedded: bool,
    ) -> None:
        self._store, self._settler, self._supervisor, self._give_back = store, settler, supervisor, give_back
        self._sid, self._ttl_ms, self._learn_ms = sid, ttl_ms, 0 if embedded else LEARN_MS
        self.arrivals = 0  # how often a session came, as far as we were told: the store may have forgotten some
        self._run_id = self._epoch = ""  # as we last met it
        self._learning_until_s = 0.0
        self._giving_back = False

    @property
    def changed(self) -> bool:
        """Whether we are connected to a process that we have not met."""
        return self._run_id != self._store.run_id

    @property
    def learning(self) -> bool:
        """Whether the store lost writes and is still being told what was held."""
        return asyncio.get_running_loop().time() < self._learning_until_s

    async def meet(self, timeout_s: float) -> int:
        """Tell the store that we know its process; return its clock in ms. Raises StoreError."""
        run_id, reply = await self._introduced(asyncio.get_running_loop().time() + timeout_s)
        now_ms, until_ms, epoch = int(reply[0]), int(reply[1]), reply[2].decode()
        self.arrivals = int(reply[3])
        met_before = bool(self._epoch)
        self._run_id, self._epoch = run_id, epoch
        if not met_before:
            self._settler.trusted_run_id = run_id  # it has been told nothing that it could have lost
        if until_ms:
            self.learns(until_ms, now_ms)
        if self._settler.trusted_run_id != run_id:  # also if it learns no longer than one just before, which we told
            self._begin()
        return now_ms

    def learns(self, until_ms: int, now_ms: int) -> None:
        """The store learns until then: tell it what we know, once in that time."""
        until_s = asyncio.get_running_loop().time() + (until_ms - now_ms) / 1000
        if until_s > self._learning_until_s + 1:
            self._begin()
        self._learning_until_s = until_s

    async def _introduced(self, until_s: float) -> tuple[str, list[Any]]:
        """Return which process it is, and what it says of itself."""
        loop = asyncio.get_running_loop()
        while True:
            await self._store.start(max(0.001, until_s - loop.time()))
            run_id = self._store.run_id
            try:
                return run_id, await self._say(run_id, max(0.001, until_s - loop.time()), told=False)
            except StoreUnavailableError:
                # Of a Cluster the first node that we ask need not be the one that has our slot.
                if run_id == self._store.run_id or loop.time() >= until_s:
                    raise

    async def _say(self, run_id: str, deadline_s: float, *, told: bool) -> list[Any]:
        keys = [self._store.key(name) for name in ("g", "sess", "awaited")]
        args: list[str | bytes | int] = [
            run_id, self._learn_ms, LIVE_MS, os.urandom(8).hex(), self._epoch, self._sid, self._learn_ms // LEAST_SHARE,
            self._ttl_ms, self.arrivals, int(told),
        ]  # fmt: skip
        reply: list[Any] = await self._store.run(
            script("generation"), keys, args, deadline_s=deadline_s, only_run_id=run_id
        )
        return reply

    def _begin(self) -> None:
        self._settler.trusted_run_id = ""
        if not self._giving_back:
            self._giving_back = True
            self._supervisor.spawn(self._until_told(), name="give back to the store")

    async def _until_told(self) -> None:
        """Tell all, say so, and look until the lesson is over."""
        wait_s = 0.05
        try:
            while True:
                run_id = self._run_id
                try:
                    await self._give_back()
                    if run_id == self._run_id == self._store.run_id:
                        self._settler.trusted_run_id = run_id
                        await self._until_over(run_id)
                        if self._settler.trusted_run_id == run_id:
                            return
                except StoreError as error:
                    _log.warning("could not yet give back what was held: %s", error)
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, _AGAIN_S_MAX)
        finally:
            self._giving_back = False

    async def _until_over(self, run_id: str) -> None:
        """Say that all is told, again and again, until the lesson is over or there is more to tell."""
        while await self._lasts(run_id):
            if self._settler.trusted_run_id != run_id:
                return
            await asyncio.sleep(_LOOK_S)

    async def _lasts(self, run_id: str) -> bool:
        """Say that all is told; return whether the store learns still. Raises StoreError, also if all must be told again."""
        reply = await self._say(run_id, self._store.deadline_s, told=True)
        now_ms, until_ms = int(reply[0]), int(reply[1])
        if int(reply[4]):
            self._settler.trusted_run_id = ""
            msg = "the store has lost writes once more"
            raise StoreUnavailableError(msg)
        self.arrivals = int(reply[3])
        self._learning_until_s = asyncio.get_running_loop().time() + (until_ms - now_ms) / 1000 if until_ms else 0.0
        return until_ms > 0
