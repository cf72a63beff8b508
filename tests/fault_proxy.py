"""A TCP proxy that misbehaves on purpose, in front of a store or a provider. What it does is decided by a seed and its `Faults`.

Towards a store it knows where a command ends, so that it can lose one, or send a copy of it by another way (whose answer
nobody gets). Change `faults` at any time: it is looked at for every piece of data.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from accounting.store.resp import Address

CHUNK = 64 * 1024
SCRIPTS = (b"EVAL", b"EVALSHA")


@dataclass(slots=True, kw_only=True)
class Faults:
    """Probabilities are between 0 and 1, and of a command where one is known, else of a piece of data."""

    refuse: bool = False  # connections are cut as they come
    black_hole: bool = False  # everything is taken and nothing passes, in both directions
    mute: bool = False  # requests pass, their answers never come, nor any later ones of that connection
    delay_s: float = 0.0  # before each piece, in both directions
    jitter_s: float = 0.0
    one_byte: bool = False  # at a time
    cut_after_bytes: int | None = None  # of answers: then the connection is reset
    reset: float = 0.0  # before a request
    reset_after: float = 0.0  # after a script: it is carried out, and its answer is lost
    drop: float = 0.0  # a request is lost, and all that comes after it on that connection
    duplicate: float = 0.0  # a copy of a request arrives as well


@dataclass(slots=True, eq=False)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    answered_bytes: int = 0
    deaf: bool = False  # to requests, for good: TCP loses nothing in the middle
    dumb: bool = False
    held: list[tuple[asyncio.StreamWriter, bytes]] = field(default_factory=list)

    def reset(self) -> None:
        for writer in (self.client, self.server):
            plain = writer.get_extra_info("socket")
            if plain is not None and plain.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Listens on 127.0.0.1:`port`; passes on to `target`. `resp`: the traffic is commands to a store."""

    def __init__(self, target: Address, *, seed: int = 0, resp: bool = True) -> None:
        self.target, self.resp = target, resp
        self.faults = Faults()
        self.random = random.Random(seed)
        self.port = 0
        self.seen: list[bytes] = []  # names of the commands that came, in order
        self.connections_total = 0
        self._server: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.port)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset_all(self) -> None:
        """Cut every connection now."""
        for link in list(self._links):
            link.reset()

    async def heal(self) -> None:
        """Be a plain proxy again; what a black hole swallowed arrives late, as it does when packets are sent again."""
        self.faults = Faults()
        for link in list(self._links):
            held, link.held = link.held, []
            for writer, data in held:
                with contextlib.suppress(OSError):
                    writer.write(data)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_total += 1
        if self.faults.refuse:
            writer.transport.abort()
            return
        try:
            upstream, server = await self._dial()
        except OSError:  # nobody is there
            writer.transport.abort()
            return
        link = Link(writer, server)
        self._links.add(link)
        tasks = [asyncio.create_task(self._requests(link, reader)), asyncio.create_task(self._answers(link, upstream))]
        self._tasks.update(tasks)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            for task in tasks:
                task.cancel()
                self._tasks.discard(task)
            writer.transport.abort()
            server.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.target.path is not None:
            return await asyncio.open_unix_connection(self.target.path)
        return await asyncio.open_connection(self.target.host, self.target.port)

    async def _requests(self, link: Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            while data := await (read_command(reader) if self.resp else reader.read(CHUNK)):
                self.seen.append(command_name(data) if self.resp else b"")
                if self._happens(self.faults.reset):
                    link.reset()
                    return
                link.deaf = link.deaf or self._happens(self.faults.drop)
                if link.deaf:
                    continue
                if self._happens(self.faults.duplicate):
                    self._spawn(self._copy(data))
                resets = self.seen[-1] in SCRIPTS and self._happens(self.faults.reset_after)
                link.dumb = link.dumb or resets
                await self._pass(link, link.server, data)
                if resets:
                    await asyncio.sleep(0.02)
                    link.reset()
                    return

    async def _answers(self, link: Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                link.dumb = link.dumb or self.faults.mute
                if link.dumb:
                    continue
                cut = self.faults.cut_after_bytes
                if cut is not None and link.answered_bytes + len(data) > cut:
                    link.client.write(data[: max(0, cut - link.answered_bytes)])
                    await asyncio.sleep(0.01)
                    link.reset()
                    return
                link.answered_bytes += len(data)
                await self._pass(link, link.client, data)

    async def _pass(self, link: Link, writer: asyncio.StreamWriter, data: bytes) -> None:
        faults = self.faults
        if faults.black_hole or link.held:
            link.held.append((writer, data))
            return
        if faults.delay_s or faults.jitter_s:
            await asyncio.sleep(faults.delay_s + self.random.uniform(0, faults.jitter_s))
        pieces = [data[i : i + 1] for i in range(len(data))] if faults.one_byte else [data]
        for piece in pieces:
            writer.write(piece)
            if faults.one_byte:
                await asyncio.sleep(0)
        await writer.drain()

    async def _copy(self, data: bytes) -> None:
        """Deliver a copy on a connection of its own."""
        with contextlib.suppress(OSError):
            reader, writer = await self._dial()
            writer.write(data)
            await reader.read(CHUNK)
            writer.close()

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def _spawn(self, work) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def read_command(reader: asyncio.StreamReader) -> bytes:
    """Read one command, an array of bulk strings; empty at the end. Source: https://redis.io/docs/latest/develop/reference/protocol-spec/"""
    head = await reader.readline()
    parts = [head]
    for _ in range(int(head[1:]) if head else 0):
        size = await reader.readline()
        parts += [size, await reader.readexactly(int(size[1:]) + 2)]
    return b"".join(parts)


def command_name(command: bytes) -> bytes:
    return command.split(b"\r\n", 3)[2].upper()


@asynccontextmanager
async def fault_proxy(target: Address, *, seed: int = 0, resp: bool = True) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(target, seed=seed, resp=resp)
    print(f"fault proxy, seed {seed}")
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
