"""A server that speaks the Redis protocol and answers what a test tells it to: for what a real one says only on bad days."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from accounting.store.resp import Address
from tests.fault_proxy import read_command

INFO = b"redis_version:7.0.0\r\nrun_id:%s\r\nrole:%s\r\nmaxmemory_policy:%s\r\naof_enabled:%s\r\n"
Answer = Callable[[list[bytes]], bytes | None]


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def info(run_id: bytes = b"r1", role: bytes = b"master", policy: bytes = b"noeviction", aof: bytes = b"1") -> bytes:
    return bulk(INFO % (run_id, role, policy, aof))


class FakeStore:
    """`answer` gets a command's words and returns the raw reply; None: what a plain server would say."""

    def __init__(self, answer: Answer | None = None, greeting: bytes | None = None) -> None:
        self.answer: Answer = answer or (lambda _: None)
        self.info = greeting or info()
        self.commands: list[list[bytes]] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.port)

    def names(self) -> list[str]:
        return [words[0].decode().upper() for words in self.commands]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            while data := await read_command(reader):
                words = data.split(b"\r\n")[2::2]
                self.commands.append(words)
                reply = self.answer(words)
                if reply is None:
                    reply = self.info if words[0].upper() == b"INFO" else b"+OK\r\n"
                if not reply:
                    await asyncio.Event().wait()  # TCP loses nothing in the middle: silent once is silent for good
                writer.write(reply)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


@asynccontextmanager
async def fake_store(answer: Answer | None = None, greeting: bytes | None = None) -> AsyncIterator[FakeStore]:
    one = FakeStore(answer, greeting)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()
