"""`bursar serve --workers N`: a parent that serves no call, but starts workers, keeps them alive, and answers for all of them on the ops listener.

Each worker is a whole Bursar with a session of its own in the ledger and a journal of its own; the kernel shares out connections to
them. Limits of `server:` are each worker's own. A worker that dies is started again, ever later if it keeps dying; one whose loop no
longer answers is ended first.
"""

import asyncio
import contextlib
import logging
import signal
import socket

import aiohttp

from accounting.store.embedded import EmbeddedStore
from accounting.supervisor import Supervisor
from proxy.config.address import parse_address
from proxy.config.model import Config
from proxy.edge import Handler
from proxy.listening import Listeners, ops_server, written
from proxy.merging import Page, counters, merge, parse
from proxy.reaching import open_store
from proxy.worker import Worker, WorkerError, command

BACKOFF_S = 0.5
BACKOFF_S_MAX = 30.0
STEADY_S = 60.0  # a worker that lived so long starts anew with the shortest wait
PROBE_S = 5.0
PROBES_LOST_MAX = 3
STOP_MARGIN_S = 15.0
_log = logging.getLogger("bursar")


class Workers:
    """`start`, then `url` and `ops_url` answer; `stop` drains all. Stands where a Sidecar stands for the command."""

    def __init__(self, config: Config, count: int, *, config_file: str | None) -> None:
        self.config, self.count = config, count
        self.supervisor, self.drain_asked = Supervisor(), asyncio.Event()
        self.url = self.ops_url = ""
        self.restarts_total = 0
        self.stopping = asyncio.Event()
        self.workers: list[Worker] = []
        self._config_file = config_file
        self._embedded: EmbeddedStore | None = open_store(config)[1]
        self._port: socket.socket | None = None
        self._http: aiohttp.ClientSession
        self._listeners = Listeners()
        self._pages: dict[int, Page] = {}  # the last of each living worker
        self._gone: Page = {}  # what dead ones counted

    async def start(self) -> None:
        """Start the store, the first worker, the others, then the ops listener. Raises WorkerError, StoreError and OSError."""
        from proxy.workers_ops import WorkersOps

        self._port, address = reserve_port(self.config.listen)
        self.url = f"http://{address}"
        if self._embedded is not None:
            await self._embedded.start()
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0), auto_decompress=False
        )
        run = command(self._config_file, address)
        self.workers = [Worker(number, run, self._http) for number in range(1, self.count + 1)]
        first, *others = self.workers
        await first.start()  # alone: what is wrong with the configuration is to be said once
        await asyncio.gather(*(worker.start() for worker in others))
        await self._listen(WorkersOps(self, self._http).handle)
        for worker in self.workers:
            self.supervisor.spawn(self._keep(worker), name=f"worker {worker.number}")
            self.supervisor.spawn(self._probe(worker), name=f"probe {worker.number}")

    async def stop(self, drain_s: float | None = None) -> None:
        """Let each worker drain, then close. Safe to call also after a failed start."""
        self.stopping.set()
        self._tell(signal.SIGTERM)
        limit_s = self.config.server.drain_seconds if drain_s is None else drain_s
        try:
            async with asyncio.timeout(limit_s + STOP_MARGIN_S):
                await self._all_ended()
        except TimeoutError:
            self._tell(signal.SIGKILL)
            await self._all_ended()
        await self.supervisor.drain(0.1)
        await self._listeners.close()
        if hasattr(self, "_http"):
            await self._http.close()
        if self._embedded is not None:
            await self._embedded.stop()
        if self._port is not None:
            self._port.close()

    def hurry(self) -> None:
        """Cut short a drain that is under way."""
        self._tell(signal.SIGTERM)

    async def reload_file(self, source: str) -> None:
        """Have each worker read the file anew."""
        self._tell(signal.SIGHUP)

    async def watch_file(self, source: str) -> None:
        """Do nothing: each worker watches the file itself."""

    async def metrics(self) -> Page:
        """Return one page for all; a worker that does not answer counts as it last did."""
        answers = await asyncio.gather(*(worker.ask("/metrics") for worker in self.workers))
        for worker, answer in zip(self.workers, answers, strict=True):
            if answer is not None and answer[0] == 200 and worker.ready:  # noqa: PLR2004
                self._pages[worker.number] = parse(answer[1].decode())
        alive = sum(worker.ready for worker in self.workers)
        own = parse(_OWN.format(alive=alive, restarts=self.restarts_total))
        return merge([self._gone, *self._pages.values(), own])

    def _tell(self, number: int) -> None:
        for worker in self.workers:
            worker.signal(number)

    async def _all_ended(self) -> None:
        await asyncio.gather(*(worker.ended() for worker in self.workers if worker.pid is not None))

    async def _keep(self, worker: Worker) -> None:
        """Start a worker again whenever it ends."""
        loop, wait_s = asyncio.get_running_loop(), BACKOFF_S
        began_s = loop.time()
        while not self.stopping.is_set():
            code = await worker.ended()
            self._gone = merge([self._gone, counters(self._pages.pop(worker.number, {}))])
            if self.stopping.is_set():
                return
            wait_s = BACKOFF_S if loop.time() - began_s > STEADY_S else wait_s
            _log.error("worker %d ended with code %d; it is started again in %.1f s", worker.number, code, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S_MAX)
            if self.stopping.is_set():
                return
            self.restarts_total += 1
            began_s = loop.time()
            with contextlib.suppress(WorkerError):  # it is gone: the next round says so
                await worker.start()
            if self.stopping.is_set():  # it began while the others were told to end
                worker.signal(signal.SIGTERM)

    async def _probe(self, worker: Worker) -> None:
        """End a worker whose event loop has stood still for long: connections would go on being given to it."""
        lost = 0
        while not self.stopping.is_set():
            await asyncio.sleep(PROBE_S)
            lost = 0 if not worker.ready or await worker.ask("/livez") is not None else lost + 1
            if lost == PROBES_LOST_MAX:
                _log.error("worker %d does not answer: it is ended", worker.number)
                worker.signal(signal.SIGKILL)
                lost = 0

    async def _listen(self, handle: Handler) -> None:
        server = ops_server(handle, header_s=self.config.server.header_seconds)
        self.ops_url = await self._listeners.open(self.config.ops.listen, server)


def reserve_port(listen: str) -> tuple[socket.socket, str]:
    """Hold the data port without listening on it, so that workers may share it; return the address too. Raises OSError.

    Bound once without sharing first: else two Bursars could share a port unknowingly.
    """
    host, port = parse_address(listen)
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        address = probe.getsockname()
    held = socket.socket(family)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held, written(str(address[0]), int(address[1]))


_OWN = """# HELP bursar_workers_ready Workers that answer calls.
# TYPE bursar_workers_ready gauge
bursar_workers_ready {alive}
# HELP bursar_worker_restarts_total Workers that ended and were started again.
# TYPE bursar_worker_restarts_total counter
bursar_worker_restarts_total {restarts}
"""
