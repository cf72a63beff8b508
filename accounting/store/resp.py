"""One pipelined connection to Redis: commands of all calls share it, replies come back in order.

A command whose deadline passes is given up, but its place in the queue is kept, so that its late reply is dropped and can
never be taken for another's. Nothing is sent twice: whether a command may be repeated is known only to the one who sent it.
Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import hiredis

from accounting.clock import loop_clock
from accounting.store.errors import StoreReplyError, StoreUnavailableError
from accounting.store.packing import Argument, pack

Told: TypeAlias = Callable[[Any], None]  # gets a reply, or the StoreError in its place

REPLY_BYTES_MAX = 64 * 1024 * 1024
PENDING_MAX = 20_000
_NEVER_S = float("inf")
_LAG_S = 0.03  # of our own loop: a command that left so late, or a look so late, is no sign of a server that is away
_EXCUSE_S = 0.1  # what the server is given then to answer in, from when we are back
_EXCUSED_MAX_S = 1.0  # past a deadline, however often we are late
_log = logging.getLogger("bursar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens: a host and port, or a unix socket."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = None
    database: int = 0


class Posted:
    """Waits for a reply as a future does, at a tenth of its price: `told` is called at once, whatever comes, and never twice."""

    __slots__ = ("_told",)

    def __init__(self, told: Told) -> None:
        self._told: Told | None = told

    def done(self) -> bool:
        return self._told is None

    def set_result(self, reply: Any) -> None:
        told, self._told = self._told, None
        assert told is not None
        try:
            told(StoreReplyError(str(reply)) if isinstance(reply, hiredis.ReplyError) else reply)
        except Exception as error:  # noqa: BLE001 - another command's reply must not be lost for it
            _log.error("a reply could not be taken: %s", type(error).__name__, exc_info=error)

    set_exception = set_result


class Connection(asyncio.Protocol):
    """Made by `connect`. Once `closed`, it stays so."""

    def __init__(self) -> None:
        self._loop, self._now_s = asyncio.get_running_loop(), loop_clock()
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._waiting: deque[tuple[asyncio.Future[Any] | Posted, float]] = deque()  # and each one's deadline
        self._watch: asyncio.TimerHandle | None = None  # one for all: it goes off at the earliest deadline
        self._watch_at_s = _NEVER_S
        self._out: list[bytes] = []
        self._out_s = 0.0  # since when the first of them waits to leave
        self._excused_until_s = 0.0  # we were late ourselves: no deadline counts before
        self._transport: asyncio.Transport | None = None
        self._heard_s = 0.0  # when the server last said something, or had nothing to say
        self._reply_bytes = 0  # of a reply that is not whole yet
        self.closed = False
        self.on_lost: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._now_s()
        self._reply_bytes += len(data)
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MORE:
                if not self._waiting:
                    self._lose("the store sent a reply that nobody asked for")
                    return
                self._reply_bytes = 0
                future, _ = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)
            if self._reply_bytes > REPLY_BYTES_MAX:
                self._lose("the store sent a reply that is too large")
        except hiredis.ProtocolError:
            self._lose("the store does not speak the Redis protocol")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("the connection to the store was lost")

    def send(self, packed: bytes, until_s: float = _NEVER_S) -> asyncio.Future[Any]:
        """Queue a command, spelled; commands of one turn of the loop leave in one write. Raises StoreUnavailableError.

        The future fails with it too, when the loop's clock comes to `until_s`. An error reply is its result.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue(packed, until_s, future)
        return future

    def post(self, packed: bytes, until_s: float, told: Told) -> None:
        """Queue a command, spelled, that nobody waits for. Raises StoreUnavailableError; then `told` is not called."""
        self._queue(packed, until_s, Posted(told))

    async def call(self, *command: Argument, deadline_s: float) -> Any:
        """Send and return the reply. Raises StoreUnavailableError at the deadline, StoreReplyError for an error reply."""
        return await self.reply(pack(command), self._now_s() + deadline_s)

    async def reply(self, packed: bytes, until_s: float) -> Any:
        """As `call`, for a command that is spelled."""
        reply = await self.send(packed, until_s)
        if isinstance(reply, hiredis.ReplyError):
            raise StoreReplyError(str(reply))
        return reply

    def _queue(self, packed: bytes, until_s: float, future: asyncio.Future[Any] | Posted) -> None:
        waiting = self._waiting
        if self.closed or len(waiting) >= PENDING_MAX:
            msg = "not connected to the store" if self.closed else "too many commands wait for the store"
            raise StoreUnavailableError(msg)
        if not self._out:
            self._out_s = self._now_s()
            if not waiting:
                self._heard_s = self._out_s
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        waiting.append((future, until_s))
        if until_s < self._watch_at_s:
            self._watch_until(until_s)

    def silent_s(self) -> float:
        """For how long the server has owed us an answer and not said a word."""
        return self._now_s() - self._heard_s if self._waiting else 0.0

    def close(self) -> None:
        """Cut the connection; whoever waits is told."""
        self._lose("the connection to the store was closed")

    def _flush(self) -> None:
        self._excuse(self._out_s)
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _watch_until(self, until_s: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch_at_s = until_s
        self._watch = self._loop.call_at(until_s, self._late)

    def _excuse(self, due_s: float) -> float:
        """Return the time; the server is not blamed for what we ourselves did later than was due."""
        now_s = self._now_s()
        if now_s - due_s > _LAG_S:
            self._excused_until_s = now_s + _EXCUSE_S
        return now_s

    def _late(self) -> None:
        # The reply may lie in the socket unread if our own loop was busy: let it poll once more before giving up.
        now_s = self._excuse(self._watch_at_s)
        self._loop.call_soon(lambda: self._loop.call_soon(self._give_up, now_s))

    def _give_up(self, now_s: float) -> None:
        """Give up what was due then; from now on watch what is due next."""
        next_s, excused_until_s = _NEVER_S, self._excused_until_s
        for future, until_s in tuple(self._waiting):
            if future.done():
                continue
            if until_s < excused_until_s:
                until_s = min(excused_until_s, until_s + _EXCUSED_MAX_S)  # noqa: PLW2901 - its deadline, as it now is
            if until_s <= now_s:
                future.set_exception(StoreUnavailableError("the store did not answer in time"))
            else:
                next_s = min(next_s, until_s)
        self._watch_at_s = _NEVER_S
        if next_s < _NEVER_S and not self.closed:
            self._watch_until(next_s)

    def _lose(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        self.on_lost()
        if self._transport is not None:
            self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(StoreUnavailableError(why))


async def connect(address: Address, *, timeout_s: float, name: str = "bursar") -> Connection:
    """Open, authenticate and name a connection. Raises StoreUnavailableError and StoreReplyError (wrong password)."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if address.path is not None:
                _, connection = await loop.create_unix_connection(Connection, address.path)
            else:
                _, connection = await loop.create_connection(Connection, address.host, address.port, ssl=address.tls)
    except (OSError, TimeoutError, ssl.SSLError) as error:
        msg = f"cannot reach the store: {type(error).__name__}"
        raise StoreUnavailableError(msg) from error
    try:
        for command in _greeting(address, name):
            await connection.call(*command, deadline_s=timeout_s)
    except BaseException:
        connection.close()
        raise
    return connection


def _greeting(address: Address, name: str) -> Sequence[tuple[Argument, ...]]:
    commands: list[tuple[Argument, ...]] = []
    if address.password:
        commands.append(
            ("AUTH", address.username, address.password) if address.username else ("AUTH", address.password)
        )
    if address.database:
        commands.append(("SELECT", address.database))
    commands.append(("CLIENT", "SETNAME", name))
    return commands


_MORE = object()
