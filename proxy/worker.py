"""One worker of `bursar serve --workers`: a whole `bursar serve` of its own, that shares the data port and tells its parent where its ops are.

Parent and worker hold the ends of one socket. The worker writes a line when it answers calls; when the parent is gone, however
that ended, the worker reads the end and drains.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence

import aiohttp
import orjson

START_S = 60.0
_ANSWER_S = 2.0


class WorkerError(Exception):
    """A worker did not start; what it said is on standard error."""


class Worker:
    """One process. `ops_url` is valid after `start`."""

    def __init__(self, number: int, command: Sequence[str], http: aiohttp.ClientSession) -> None:
        self.number, self.ops_url = number, ""
        self._command, self._http = command, http
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int | None:
        """Its process, None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def ready(self) -> bool:
        """Whether it has begun to answer calls."""
        return bool(self.ops_url) and self.pid is not None

    async def start(self) -> None:
        """Start it; it answers calls when this returns. Raises WorkerError."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, "--worker-fd", str(theirs.fileno()), pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C on the terminal is for the parent, which tells the workers
            )  # fmt: skip
        reader, self._writer = await asyncio.open_connection(sock=ours)
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                line = await reader.readline()
        if not line:
            self.signal(signal.SIGKILL)
            raise WorkerError(f"worker {self.number} did not start")
        self.ops_url = str(orjson.loads(line)["ops_url"])

    async def ended(self) -> int:
        """Wait until it is gone; return its exit code."""
        assert self._process is not None
        code = await self._process.wait()
        self.ops_url = ""
        if self._writer is not None:
            self._writer.close()
        return code

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ask(self, path: str) -> tuple[int, bytes] | None:
        """Return status and body of its ops listener; None if it does not answer in time."""
        if not self.ready:
            return None
        try:
            async with asyncio.timeout(_ANSWER_S), self._http.get(self.ops_url + path) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


def tell_parent(fd: int, ops_url: str) -> socket.socket:
    """Runs in the worker: say that calls are answered, and drain when the parent is gone. Keep what is returned."""
    end = socket.socket(fileno=fd)
    end.setblocking(False)
    end.send(orjson.dumps({"ops_url": ops_url}) + b"\n")

    def gone() -> None:
        loop.remove_reader(end)
        os.kill(os.getpid(), signal.SIGTERM)

    loop = asyncio.get_running_loop()
    loop.add_reader(end, gone)
    return end


def command(config_file: str | None, listen: str) -> list[str]:
    """Return what runs a worker."""
    words = [sys.executable, "-m", "proxy", "serve", "--listen", listen]
    return words if config_file is None else [*words, "-c", config_file]
