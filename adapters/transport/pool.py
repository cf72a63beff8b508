"""The idle connections of one transport: last in, first out, so that those that are not needed grow old and go.

A connection that has anything to read, or was closed, is never handed out: what came while it was idle would become the
answer to somebody else's call.
"""

import asyncio
from collections import deque
from time import monotonic  # what asyncio's loops tell the time by, without two calls

from adapters.transport.connection import Connection
from adapters.transport.outgoing import Origin


class Pool:
    """Idle connections by origin. Connections in use are not known here."""

    def __init__(self, *, idle_s: float, per_origin: int, total: int) -> None:
        self._idle_s, self._per_origin, self._total = idle_s, per_origin, total
        self._idle: dict[Origin, deque[Connection]] = {}  # the oldest on the left
        self._count = 0
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    def take(self, origin: Origin) -> Connection | None:
        """Return the connection to `origin` that was idle for the shortest time, if any is still good."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        youngest_s = monotonic() - self._idle_s
        while idle:
            connection = idle.pop()
            self._count -= 1
            if connection.idle_since > youngest_s and connection.is_quiet():
                return connection
            connection.cut()
        return None

    def put(self, connection: Connection) -> None:
        """Keep a connection whose call has ended cleanly."""
        connection.idle_since = monotonic()
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle[connection.origin] = deque()
        if len(idle) >= self._per_origin:
            idle.popleft().cut()
            self._count -= 1
        if self._count >= self._total:
            connection.cut()
            return
        idle.append(connection)
        self._count += 1
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(self._idle_s, self._sweep)

    def discard(self, connection: Connection) -> None:
        """Forget a connection that was lost; also one that is not here."""
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)
            self._count -= 1

    def close(self) -> None:
        """Close all."""
        for idle in self._idle.values():
            for connection in idle:
                connection.cut()
        self._idle.clear()
        self._count = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        youngest_s = loop.time() - self._idle_s
        for origin, idle in tuple(self._idle.items()):
            while idle and idle[0].idle_since <= youngest_s:
                idle.popleft().cut()
                self._count -= 1
            if not idle:
                del self._idle[origin]
        self._handle = None
        if self._idle:
            oldest_s = min(idle[0].idle_since for idle in self._idle.values())
            self._handle = loop.call_later(max(oldest_s + self._idle_s - loop.time(), 0.0) + 0.01, self._sweep)
