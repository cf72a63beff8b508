"""The one way to the store: runs a script within a deadline, reconnects, follows a moved slot, and never retries blindly.

All keys of a tenant share one hash slot, so even of a Cluster only one node is ever talked to: the one that owns that slot.
A command is sent again only if its connection broke before the deadline, and only scripts go this way, each of which is
idempotent by request id. Redis errors that mean "not now" count as unavailable.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from accounting.store.breaker import Breaker
from accounting.store.errors import StoreError, StoreReplyError, StoreUnavailableError
from accounting.store.resp import Address, Argument, Connection, connect
from accounting.store.scripts import Script
from accounting.store.server import ServerInfo, check_info, read_info
from accounting.store.url import StoreUrl

_NOT_NOW = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "OOM", "READONLY", "MISCONF")
_WRONG_NODE = ("READONLY", "MASTERDOWN")
_REDIRECTS_MAX = 4


class Store:
    """A connection that is made anew when it breaks. `locate` finds the addresses to try, in order."""

    def __init__(
        self,
        url: StoreUrl,
        *,
        prefix: str = "bursar",
        tenant: str = "default",
        deadline_s: float = 0.25,
        locate: Callable[[], Awaitable[Sequence[Address]]] | None = None,
    ) -> None:
        self.url, self.deadline_s = url, deadline_s
        self._root = f"{prefix}:{{{tenant}}}:"
        self._locate = locate
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._moved: Address | None = None
        self._breaker = Breaker()
        self.info: ServerInfo | None = None
        self.hard = False  # set when a hard budget is configured: a wrong eviction policy then refuses
        self.warnings: list[str] = []
        self.errors_total = 0
        self.on_latency: Callable[[float], None] = lambda _: None

    @property
    def up(self) -> bool:
        """Whether the last word from the store was an answer."""
        return self._connection is not None and not self._connection.closed and not self._breaker.open

    @property
    def run_id(self) -> str:
        """The id of the server process we are connected to; empty before the first connection."""
        return self.info.run_id if self.info else ""

    def key(self, *parts: str) -> str:
        """Return a key of this tenant: all share one hash slot."""
        return self._root + ":".join(parts)

    async def start(self, timeout_s: float = 5.0) -> list[str]:
        """Connect and look at the server's settings; return warnings. Raises StoreError."""
        await self._connected(asyncio.get_running_loop().time() + timeout_s)
        return self.warnings

    async def close(self) -> None:
        """Cut the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StoreError):
                await self._connecting
        if self._connection is not None:
            self._connection.close()

    async def run(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument], *, deadline_s: float | None = None
    ) -> Any:
        """Run a script and return its reply. Raises StoreUnavailableError within the deadline, and StoreReplyError."""
        head = (len(keys), *keys, *args)

        async def evaluate(connection: Connection, left_s: float) -> Any:
            try:
                return await connection.call("EVALSHA", script.sha, *head, deadline_s=left_s)
            except StoreReplyError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
            return await connection.call("EVAL", script.text, *head, deadline_s=left_s)

        return await self._guarded(evaluate, deadline_s or self.deadline_s)

    async def call(self, *command: Argument, deadline_s: float | None = None) -> Any:
        """Run a plain command that may safely be repeated (reads, and writes that set rather than add)."""

        async def plain(connection: Connection, left_s: float) -> Any:
            return await connection.call(*command, deadline_s=left_s)

        return await self._guarded(plain, deadline_s or self.deadline_s)

    async def _guarded(self, act: Callable[[Connection, float], Awaitable[Any]], deadline_s: float) -> Any:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        if not self._breaker.allows(began_s):
            msg = "the store is not answering"
            raise StoreUnavailableError(msg)
        try:
            reply = await self._attempts(act, began_s + deadline_s)
        except StoreReplyError:
            self._breaker.success()  # it answers, if only to object
            self.errors_total += 1
            raise
        except StoreUnavailableError:
            self._breaker.failure(loop.time())
            self.errors_total += 1
            raise
        self._breaker.success()
        self.on_latency(loop.time() - began_s)
        return reply

    async def _attempts(self, act: Callable[[Connection, float], Awaitable[Any]], until_s: float) -> Any:
        loop = asyncio.get_running_loop()
        redirects, broken = 0, False
        while True:
            connection = await self._connected(until_s)
            try:
                return await act(connection, max(0.001, until_s - loop.time()))
            except StoreUnavailableError:
                if broken or not connection.closed or loop.time() >= until_s:
                    raise
                broken = True  # the connection broke at once: one new connection, the same command
            except StoreReplyError as error:
                redirects += 1
                if redirects > _REDIRECTS_MAX or not self._redirected(str(error), connection):
                    if str(error).startswith(_NOT_NOW):
                        msg = f"the store cannot serve now: {str(error).partition(' ')[0]}"
                        raise StoreUnavailableError(msg) from error
                    raise

    def _redirected(self, error: str, connection: Connection) -> bool:
        """Follow MOVED and ASK to the slot's owner, and leave a demoted primary; True if it is worth another try."""
        words = error.split()
        if words[0] in ("MOVED", "ASK") and len(words) == 3 and self._moved_to(words[2]):  # noqa: PLR2004 - MOVED slot host:port
            connection.close()
            return True
        if words[0] in _WRONG_NODE:
            connection.close()
            self._moved = None
        return False

    def _moved_to(self, place: str) -> bool:
        host, _, port = place.rpartition(":")
        if not port.isdigit() or not self.url.addresses:
            return False
        self._moved = replace(self.url.addresses[0], host=host or self.url.addresses[0].host, port=int(port))
        return True

    async def _connected(self, until_s: float) -> Connection:
        """Return the open connection, or join the one attempt to open it."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        loop = asyncio.get_running_loop()
        if self._connecting is None or self._connecting.done():
            self._connecting = loop.create_task(self._open(), name="store connection")
            self._connecting.add_done_callback(_retrieved)
        waiting = self._connecting
        done, _ = await asyncio.wait({waiting}, timeout=max(0.001, until_s - loop.time()))
        if not done:
            msg = "the store did not accept a connection in time"
            raise StoreUnavailableError(msg)
        return waiting.result()

    async def _open(self) -> Connection:
        failure: StoreError = StoreUnavailableError("the store has no address")
        for address in await self._addresses():
            try:
                connection = await connect(address, timeout_s=2.0)
            except StoreReplyError as error:
                msg = f"the store refuses our login: {str(error).partition(' ')[0]}"
                failure = StoreUnavailableError(msg)
                continue
            except StoreUnavailableError as error:
                failure = error
                continue
            try:
                self.info = read_info(await connection.call("INFO", deadline_s=2.0))
                self.warnings = check_info(self.info, hard=self.hard)
            except StoreReplyError as error:
                connection.close()
                msg = f"the store does not let us run INFO ({str(error).partition(' ')[0]}): allow +info, +eval, +evalsha and our keys"
                failure = StoreUnavailableError(msg)
                continue
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            return connection
        raise failure

    async def _addresses(self) -> Sequence[Address]:
        if self._moved is not None:
            return (self._moved, *self.url.addresses)
        if self._locate is not None:
            return await self._locate()
        addresses = list(self.url.addresses)
        if len(addresses) > 1:
            random.shuffle(addresses)
        return addresses


def _retrieved(task: asyncio.Task[Connection]) -> None:
    """Mark the outcome as seen: the waiters may all have given up."""
    if not task.cancelled():
        task.exception()
