"""A provider on a real socket that does exactly what a test's script says, byte by byte, and notes what it was sent."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The provider's side of one connection. `number` counts connections from 0."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, server: "Provider"):
        self.reader, self.writer, self.number, self.server = reader, writer, number, server

    async def request(self) -> bytes:
        """Read one whole request; b"" if the client left first."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = await self.reader.readexactly(length)
        self.server.requests.append(head + body)
        return head + body

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed its side."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65536):
                pass
        self.server.gone.set()

    async def answer(self, body: bytes = b"ok", headers: bytes = b"") -> bytes:
        """Read a request and answer it with a plain 200."""
        request = await self.request()
        if request:
            await self.write(ok(body, headers))
        return request

    def reset(self) -> None:
        """Close with a reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Provider:
    """The listening side."""

    def __init__(self, port: int):
        self.port = port
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        self.go = asyncio.Event()  # for scripts that wait for the test
        self.errors: list[BaseException] = []
        self.listener: asyncio.Server

    def url(self, path: str = "/v1/x", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


def ok(body: bytes = b"ok", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def provider(script: Script, context: ssl.SSLContext | None = None, **options: object) -> AsyncIterator[Provider]:
    """Listen; each connection runs `script` in a task of its own and is closed after it."""
    tasks: set[asyncio.Task] = set()
    made: Provider

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        peer = Peer(reader, writer, made.connections, made)
        made.connections += 1
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        except BaseException as error:
            made.errors.append(error)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, **options)
    made = Provider(server.sockets[0].getsockname()[1])
    made.listener = server
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks), timeout=5)
        assert not made.errors, made.errors
