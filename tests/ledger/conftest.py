"""A real Valkey for the ledger's tests: one server for the session, emptied before each test, and scripts whose clock we set."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from accounting.store.embedded import EmbeddedStore
from accounting.store.resp import Address, Connection, connect
from tests.ledger.commands import Lua
from tests.ledger.scenes import Scene
from tests.ledger.seam import Clocked


class Server:
    """The embedded store in a thread of its own, since a child process belongs to the loop that started it."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.embedded = EmbeddedStore(folder)
        self.do(self.embedded.start())

    @property
    def address(self) -> Address:
        return self.embedded.address

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def stop(self) -> None:
        self.do(self.embedded.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    server = Server(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def clocked(server: Server):
    """A blocking connection that runs the scripts on a clock of ours."""
    client = Clocked(server.address.path or "")
    client("FLUSHALL")
    yield client
    client.close()


@pytest.fixture
async def raw(server: Server):
    """A plain connection to the emptied server."""
    connection: Connection = await connect(server.address, timeout_s=5)
    await connection.call("FLUSHALL", deadline_s=5)
    yield connection
    connection.close()


@pytest.fixture
def scene(clocked: Clocked):
    return Scene(Lua(clocked))
