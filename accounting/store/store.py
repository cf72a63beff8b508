"""The one way to the store: runs a script within a deadline, reconnects, follows a moved slot, and never retries blindly.

All keys of a tenant share one hash slot, so even of a Cluster only one node is ever talked to: the one that owns that slot.
A command is sent again only if its connection broke before the deadline, and only scripts go this way, each of which is
idempotent by request id. Redis errors that mean "not now" count as unavailable.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from hiredis import ReplyError

from accounting.clock import loop_clock, loop_time_s
from accounting.store.breaker import Breaker
from accounting.store.complaints import NOT_NOW, WRONG_NODE, read_error
from accounting.store.errors import (
    StoreChangedError,
    StoreError,
    StoreNotAskedError,
    StoreReplyError,
    StoreUnavailableError,
)
from accounting.store.packing import Argument, Packed, arguments_of, pack
from accounting.store.resp import Address, Connection, Told, connect
from accounting.store.scripts import Script
from accounting.store.server import ServerInfo, check_info, read_info
from accounting.store.url import StoreUrl

_REDIRECTS_MAX = 4
_SILENT_S = 1.0
_Act: TypeAlias = Callable[
    [Connection, float, Sequence[str]], Awaitable[Any]
]  # connection, until_s, what to send before


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
        self.run_id = ""  # of the server process we are connected to; empty before the first connection
        self.hard = False  # set when a hard budget is configured: a wrong eviction policy then refuses
        self.warnings: list[str] = []
        self.errors_total = 0
        self.lost = asyncio.Event()  # the connection broke; whoever waits for that clears it
        self.on_latency: Callable[[float], None] = lambda _: None
        self.now_s: Callable[[], float] = loop_time_s  # of the loop that we are connected on

    @property
    def up(self) -> bool:
        """Whether the last word from the store was an answer."""
        return self._connection is not None and not self._connection.closed and not self._breaker.open

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
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        deadline_s: float | None = None,
        only_run_id: str | None = None,
    ) -> Any:
        """Run a script and return its reply. Raises StoreUnavailableError within the deadline, and StoreReplyError.

        With `only_run_id` it is sent to that server process or to none: StoreChangedError tells that there is another now.
        """
        return await self.run_packed(script, arguments_of(keys, args), deadline_s=deadline_s, only_run_id=only_run_id)

    async def run_packed(
        self, script: Script, arguments: Packed, *, deadline_s: float | None = None, only_run_id: str | None = None
    ) -> Any:
        """As `run`, for arguments that are spelled."""
        began_s, broken = self.now_s(), False
        until_s = began_s + (deadline_s or self.deadline_s)
        if (connection := self._ready(only_run_id)) is not None:  # nearly always: the rest is for bad days
            try:
                reply = await connection.send(arguments.after(script.named), until_s)
            except StoreUnavailableError:
                if not connection.closed or self.now_s() >= until_s:
                    self._failed(self.now_s())
                    raise
                broken = True
            else:
                if not isinstance(reply, ReplyError):  # one is asked for again, where it is known what each means
                    self._answered(began_s, self.now_s())
                    return reply

        async def evaluate(connection: Connection, until_s: float, before: Sequence[str]) -> Any:
            if only_run_id is not None and only_run_id != self.run_id:
                msg = "the store is another process than before"
                raise StoreChangedError(msg)
            try:
                return await _ask(connection, before, arguments.after(script.named), until_s)
            except StoreReplyError as error:
                if not str(error).startswith("NOSCRIPT") or self.now_s() >= until_s:
                    raise
            return await _ask(connection, before, arguments.after(script.whole), until_s)

        return await self._guarded(evaluate, began_s, until_s, broken=broken)

    def post(
        self,
        script: Script,
        arguments: Packed,
        told: Told,
        *,
        deadline_s: float,
        only_run_id: str | None = None,
    ) -> bool:
        """Send a script at once; `told` gets its reply, or a StoreError. False if it was not sent: `run` it then.

        It is not sent again, whatever happens.
        """
        connection = self._ready(only_run_id)
        if connection is None:
            return False
        began_s = self.now_s()

        def heard(reply: Any) -> None:
            if not isinstance(reply, StoreError):
                self._answered(began_s, self.now_s())
            told(reply)

        try:
            connection.post(arguments.after(script.named), began_s + deadline_s, heard)
        except StoreUnavailableError:
            return False
        return True

    async def call(self, *command: Argument, deadline_s: float | None = None) -> Any:
        """Run a plain command that may safely be repeated (reads, and writes that set rather than add)."""

        async def plain(connection: Connection, until_s: float, before: Sequence[str]) -> Any:
            return await _ask(connection, before, pack(command), until_s)

        began_s = asyncio.get_running_loop().time()
        return await self._guarded(plain, began_s, began_s + (deadline_s or self.deadline_s))

    def _ready(self, only_run_id: str | None) -> Connection | None:
        """Return the open connection if nothing speaks against using it at once."""
        connection = self._connection
        if connection is None or connection.closed or self._breaker.open:
            return None
        return connection if only_run_id is None or only_run_id == self.run_id else None

    def _answered(self, began_s: float, now_s: float) -> None:
        if not self._breaker.calm:
            self._breaker.success()
        self.on_latency(now_s - began_s)

    def _failed(self, now_s: float) -> None:
        self._breaker.failure(now_s)
        self.errors_total += 1
        if self._connection is not None and self._connection.silent_s() > _SILENT_S:
            self._connection.close()  # whoever is at the other end will not answer any more: a new connection may

    async def _guarded(self, act: _Act, began_s: float, until_s: float, *, broken: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        if not broken and not self._breaker.allows(began_s):
            msg = "the store is not answering"
            raise StoreNotAskedError(msg)
        try:
            reply = await self._attempts(act, until_s, broken=broken)
        except StoreReplyError:
            self._breaker.success()  # it answers, if only to object
            self.errors_total += 1
            raise
        except StoreChangedError:
            self._breaker.success()  # it is there
            raise
        except StoreUnavailableError:
            self._failed(loop.time())
            raise
        self._answered(began_s, loop.time())
        return reply

    async def _attempts(self, act: _Act, until_s: float, *, broken: bool) -> Any:
        """Ask, and once more on a new connection if the first is lost, unless one is `broken` already."""
        loop = asyncio.get_running_loop()
        redirects = 0
        while True:
            connection = await self._connected(until_s)
            try:
                return await act(connection, until_s, ())
            except StoreUnavailableError:
                if broken or not connection.closed or loop.time() >= until_s:
                    raise
                broken = True  # the connection broke at once: one new connection, the same command
            except StoreReplyError as error:
                code, place = read_error(str(error), self.url)
                redirects += 1
                if code == "ASK" and place is not None:
                    return await _aside(place, act, until_s)
                if code == "MOVED" and place is not None and redirects <= _REDIRECTS_MAX:
                    self._moved = place
                    connection.close()
                    continue
                if code in WRONG_NODE:
                    connection.close()
                    self._moved = None
                if code in NOT_NOW:
                    msg = f"the store cannot serve now: {code}"
                    raise StoreUnavailableError(msg) from error
                raise

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
                if address == self._moved:
                    self._moved = None
                continue
            try:
                self.info = read_info(await connection.call("INFO", deadline_s=2.0))
                self.run_id = self.info.run_id
                self.warnings = check_info(self.info, hard=self.hard)
            except StoreReplyError as error:
                connection.close()
                msg = f"the store does not let us run INFO ({str(error).partition(' ')[0]}): allow +info, +eval, +evalsha and our keys"
                failure = StoreUnavailableError(msg)
                continue
            except StoreError as error:  # a replica, or a server that ended just now: another address may do
                connection.close()
                failure = error
                continue
            except BaseException:
                connection.close()
                raise
            self._connection, self.now_s = connection, loop_clock()
            connection.on_lost = self.lost.set
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


async def _ask(connection: Connection, before: Sequence[str], packed: bytes, until_s: float) -> Any:
    for word in before:
        connection.send(pack((word,)))
    return await connection.reply(packed, max(until_s, loop_time_s() + 0.001))


async def _aside(address: Address, act: _Act, until_s: float) -> Any:
    """Ask the node that a slot is being moved to, for once: the slot is not its own yet."""
    connection = await connect(address, timeout_s=max(0.001, until_s - asyncio.get_running_loop().time()))
    try:
        return await act(connection, until_s, ("ASKING",))
    except StoreReplyError as error:
        code, _ = read_error(str(error), None)
        if code in NOT_NOW:
            msg = f"the store cannot serve now: {code}"
            raise StoreUnavailableError(msg) from error
        raise
    finally:
        connection.close()


def _retrieved(task: asyncio.Task[Connection]) -> None:
    """Mark the outcome as seen: the waiters may all have given up."""
    if not task.cancelled():
        task.exception()
