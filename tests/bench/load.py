"""The load generator: kept connections that ask again as soon as they are answered, or at a steady pace.

It looks at each answer: anything but a 200 that ends as it should is an error, and errors make a measurement void. A closed loop
shows what a proxy can do; only the paced one, far below that, says what latency it adds.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from tests.bench.upstream import MODEL

_EVENT = b"data: {"
_END = b"\r\n0\r\n\r\n"
_PROMPT = "Reconcile the accounts of the household with the ledger, and tell me what is left. " * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is sent again and again, and to whom. `raw` is the whole request."""

    host: str
    port: int
    raw: bytes


def ask(host: str, port: int, *, path: str, headers: dict[str, str], model: str = MODEL, stream: bool = False) -> Ask:
    """Return a request of about 1 KB with the headers that OpenAI's SDK sends."""
    body: dict[str, Any] = {
        "model": model, "max_tokens": 256, "temperature": 0.2,
        "messages": [{"role": "system", "content": "You are the treasurer."}, {"role": "user", "content": _PROMPT}],
    }  # fmt: skip
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    lines = {
        "host": f"{host}:{port}", "accept": "application/json", "accept-encoding": "gzip, deflate", "content-type": "application/json",
        "content-length": str(len(data)), "user-agent": "AsyncOpenAI/Python 3.52.0", "x-stainless-lang": "python",
        "x-stainless-package-version": "3.52.0", "x-stainless-os": "Linux", "x-stainless-arch": "x64", "x-stainless-async": "async:asyncio",
        "x-stainless-retry-count": "0", "connection": "keep-alive", **headers,
    }  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Ask(host=host, port=port, raw=f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data)


@dataclass(slots=True)
class Tally:
    """Counts of whole calls, of events with content, and of failures; how long each call took."""

    calls: int = 0
    chunks: int = 0
    errors: int = 0
    first_error: str = ""
    latencies_ns: list[int] = field(default_factory=list)

    def failed(self, what: str) -> None:
        """Note a failure; the first one's text is kept."""
        self.errors += 1
        self.first_error = self.first_error or what


class Load:
    """So many connections on one ask. `every_s`: each begins a call that often, not as soon as it can."""

    def __init__(self, what: Ask, connections: int, *, every_s: float = 0.0) -> None:
        self.ask, self.connections, self.every_s = what, connections, every_s
        self.tally = Tally()
        self.stopping = False
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open all connections; each begins at once, or spread over the pace."""
        for number in range(self.connections):
            await self._connect(number * self.every_s / self.connections)

    async def stop(self) -> None:
        """Cut everything."""
        self.stopping = True
        for connection in tuple(self._open):
            connection.cut()
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task
        await asyncio.sleep(0)

    def lost(self, connection: "_Connection") -> None:
        """Replace a connection that the proxy closed."""
        self._open.discard(connection)
        if not self.stopping:
            task = asyncio.get_running_loop().create_task(self._again())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _again(self) -> None:
        while not self.stopping:
            try:
                await self._connect(0.0)
            except OSError as error:
                self.tally.failed(f"cannot connect: {error.strerror}")
                await asyncio.sleep(0.1)
            else:
                return

    async def _connect(self, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        connection = _Connection(self, after_s)
        await loop.create_connection(lambda: connection, self.ask.host, self.ask.port)
        self._open.add(connection)


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load, after_s: float) -> None:
        self._load, self._tally, self._after_s = load, load.tally, after_s
        self._loop = asyncio.get_running_loop()
        self._busy = self._chunked = self._in_body = self._close = False
        self._head = self._tail = b""
        self._left = 0
        self._began_ns = 0
        self._next_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream
        self._next_s = self._loop.time() + self._after_s
        self._timer = self._loop.call_at(self._next_s, self._send)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._busy and not self._load.stopping:
            self._tally.failed("the connection was closed before the end of an answer")
        self._load.lost(self)

    def cut(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data, head = self._head[end + 4 :], self._head[:end].lower()
            self._head, self._in_body, self._tail = b"", True, b"\r\n"
            if not head.startswith(b"http/1.1 200 "):
                self._tally.failed(f"{head[:40]!r} {data[:300]!r}")
            self._chunked, self._close = b"chunked" in head, b"\r\nconnection: close" in head
            at = head.find(b"\r\ncontent-length:")
            self._left = int(head[at + 17 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if self._chunked:
            self._tally.chunks += (self._tail[-6:] + data).count(_EVENT)
            self._tail = (self._tail + data)[-8:]
            ended = self._tail.endswith(_END)
        else:
            self._left -= len(data)
            ended = self._left <= 0
        if ended:
            self._done()

    def _send(self) -> None:
        self._busy, self._in_body = True, False
        self._began_ns = perf_counter_ns()
        self._transport.write(self._load.ask.raw)

    def _done(self) -> None:
        tally, every_s = self._tally, self._load.every_s
        tally.latencies_ns.append(perf_counter_ns() - self._began_ns)
        tally.calls += 1
        self._busy = False
        if self._close:
            self._transport.close()
        elif every_s:
            now_s = self._loop.time()
            self._next_s = max(now_s, self._next_s + every_s)
            self._timer = self._loop.call_at(self._next_s, self._send)
        else:
            self._send()
