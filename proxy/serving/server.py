"""Keeps the connections of one listener: how many there may be, how long each may take, and how they end.

One timer looks at all of them, as often as the shortest limit needs; a limit is so passed by a quarter of it, at most by a second.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

from proxy.serving.heads import Dates
from proxy.serving.protocol import Connection
from proxy.serving.request import Request
from proxy.serving.response import Answer, Response

Handler = Callable[[Request], Awaitable[Answer]]
LOOK_S_MIN, LOOK_S_MAX = 0.05, 1.0
_WRITTEN_LOOK_S = 0.01
TOLD_MAX = 64  # connections above the bound that are being told so


class Server:
    """Makes one protocol per connection. `judge` may be replaced by who knows what a request must not be."""

    def __init__(
        self,
        handler: Handler,
        *,
        max_body_bytes: int,
        header_s: float,
        max_connections: int,
        stall_s: float = 60.0,
        body_s: float = math.inf,
    ) -> None:
        self.handler, self.max_body_bytes, self.max_connections = handler, max_body_bytes, max_connections
        self.header_s, self.stall_s, self.body_s = header_s, stall_s, body_s
        self.dates = Dates()
        self.open_total = 0
        self.closing = False
        self._connections: dict[Connection, None] = {}
        self._waiting: dict[Connection, None] = {}  # between requests, the one that has waited longest first
        self._listening: list[asyncio.Server] = []
        self._look: asyncio.TimerHandle | None = None
        self._every_s = max(LOOK_S_MIN, min(LOOK_S_MAX, header_s / 4, stall_s / 4, body_s / 4))

    def __call__(self) -> Connection:
        return Connection(self)

    def judge(self, request: Request) -> Response | None:
        """Return what a request is refused with before anybody is asked; None if it may be served."""
        return None

    @property
    def may_linger(self) -> bool:
        """Whether a connection that is one too many may be told so in peace."""
        return self.open_total <= self.max_connections + TOLD_MAX

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return list(self._connections)

    async def listen(self, host: str, port: int, *, backlog: int, reuse_port: bool | None = None) -> tuple[str, int]:
        """Accept connections; return the address. Raises OSError."""
        server = await asyncio.get_running_loop().create_server(
            self, host, port, backlog=backlog, reuse_port=reuse_port
        )
        self._listening.append(server)
        name = server.sockets[0].getsockname()
        return name[0], name[1]

    async def close(self, timeout_s: float) -> None:
        """Accept no more, end what waits, give calls under way so long, then cancel them."""
        for server in self._listening:
            server.close()
        await asyncio.sleep(0)  # let what has been accepted begin
        self.closing = True
        for connection in self.connections:
            if connection.is_idle:
                connection.end()
        if tasks := [connection.task for connection in self.connections if connection.task is not None]:
            await asyncio.wait(tasks, timeout=timeout_s)
            for connection in self.connections:
                connection.cancel()
            await asyncio.wait(tasks, timeout=timeout_s)
        await self._written(timeout_s)
        for connection in self.connections:
            connection.cut()
        await asyncio.sleep(0)  # connections are told that they are lost in the loop's next round
        if self._look is not None:
            self._look.cancel()

    async def _written(self, timeout_s: float) -> None:
        """Wait until every client has taken what was said to it, or for so long."""
        until_s = asyncio.get_running_loop().time() + timeout_s
        while any(connection.unsent_bytes for connection in self.connections):
            if asyncio.get_running_loop().time() >= until_s:
                return
            await asyncio.sleep(_WRITTEN_LOOK_S)

    # the connections' side --------------------------------------------------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False if it is one too many."""
        full = self.open_total >= self.max_connections and not self.make_room()
        self.open_total += 1
        self._connections[connection] = None
        if not full:
            self._waiting[connection] = None
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(self._every_s, self._look_around)
        return not full

    def lost(self, connection: Connection) -> None:
        """Count no more."""
        self.open_total -= 1
        self._connections.pop(connection, None)
        self._waiting.pop(connection, None)

    def busy(self, connection: Connection) -> None:
        """A request has come."""
        self._waiting.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It has had its answer."""
        self._waiting[connection] = None

    def make_room(self) -> bool:
        """Cut the connection that has waited longest between requests; False if all are at work."""
        for connection in self._waiting:
            del self._waiting[connection]
            connection.cut()
            return True
        return False

    def _look_around(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for connection in self.connections:
            if now_s >= connection.deadline_s:
                connection.cut()
        self._look = (
            asyncio.get_running_loop().call_later(self._every_s, self._look_around) if self._connections else None
        )
