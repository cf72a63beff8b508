"""One trial: start one proxy, ask it in four ways, stop it. What is measured is what that process tree did in between.

The order is: ready (first whole answer), idle memory, a closed loop of calls, a closed loop of streams, then one call at a
time and a slow pace for latency. An answer that is not right voids the trial.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from tests.bench import measure
from tests.bench.load import Ask, Load, ask
from tests.bench.peers import ROOT, Launch, Peer, Provider

CONNECTIONS = 32
STREAMS = 40
PACED_CONNECTIONS, PACED_EVERY_S = 2, 0.05  # 40 calls a second in all: well below what the slowest of them can do
READY_S_MAX = 60.0
WARM_S = 1.0
_PAUSE_S = 0.02


class VoidError(Exception):
    """A trial that says nothing: the proxy did not start, or did not answer as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One trial's figures. `store_us_per_call` is the CPU of the store that runs on the other core."""

    us_per_call: float
    us_per_chunk: float
    calls_per_s: float
    latency: "Latency"
    idle_mb: float
    loaded_mb: float
    ready_s: float
    store_us_per_call: float | None

    def dump(self) -> dict[str, float | None]:
        """Return the figures by name."""
        return {name: value for name, value in asdict(self).items() if name != "latency"}


class Trial:
    """Runs one peer once."""

    def __init__(self, peer: Peer, cache: Path, provider: Provider, cores: measure.Cores, *, seconds: float) -> None:
        self._peer, self._cache, self._provider, self._cores, self._seconds = peer, cache, provider, cores, seconds
        self._pids: list[int] = []
        self._store: list[int] = []

    async def run(self) -> Result:
        """Return the figures. Raises VoidError."""
        work = Path(tempfile.mkdtemp(prefix="bursar-bench-"))
        launch = self._peer.launch(self._cache, work, free_port(), self._provider)
        log = (work / "log").open("wb")
        began_s = perf_counter()
        process = subprocess.Popen(
            launch.command, cwd=ROOT, env={**os.environ, **launch.environ}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, self._cores.measured),
        )  # fmt: skip
        try:
            await self._until_ready(process, launch)
            ready_s = perf_counter() - began_s
            return await self._measure(process.pid, launch, ready_s)
        except VoidError as error:
            raise VoidError(f"{error}; its last words: {_last_words(work / 'log')}") from error
        finally:
            await asyncio.to_thread(_stop, process)
            log.close()
            shutil.rmtree(work, ignore_errors=True)

    async def _measure(self, pid: int, launch: Launch, ready_s: float) -> Result:
        self._find(pid, launch)
        await asyncio.sleep(0.5)
        idle_mb = measure.memory_bytes(self._pids) / 1e6
        calls = await self._window(self._ask(launch), CONNECTIONS)
        loaded_mb = measure.memory_bytes(self._pids) / 1e6
        streams = await self._window(self._ask(launch, stream=True), STREAMS)
        latency = await latencies(self._ask(launch), self._seconds)
        return Result(
            us_per_call=calls.cpu_us / calls.calls, us_per_chunk=streams.cpu_us / max(1, streams.chunks),
            calls_per_s=calls.calls / calls.seconds, latency=latency, idle_mb=idle_mb,
            loaded_mb=max(loaded_mb, measure.memory_bytes(self._pids) / 1e6), ready_s=ready_s,
            store_us_per_call=calls.store_us / calls.calls if self._store else None,
        )  # fmt: skip

    def _find(self, pid: int, launch: Launch) -> None:
        """Tell the proxy's processes from its store, and let the store run where the load does."""
        everyone = measure.tree(pid)
        self._store = [one for one in everyone if measure.named(one, launch.apart)]
        self._pids = [one for one in everyone if one not in self._store]
        for one in self._store:
            measure.pin(one, self._cores.rest)

    async def _window(self, what: Ask, connections: int) -> "_Window":
        load = Load(what, connections)
        await load.start()
        await asyncio.sleep(WARM_S)
        tally, began_s = load.tally, perf_counter()
        cpu, store, calls, chunks = measure.cpu_s(self._pids), measure.cpu_s(self._store), tally.calls, tally.chunks
        await asyncio.sleep(self._seconds)
        seconds = perf_counter() - began_s
        window = _Window(
            cpu_us=(measure.cpu_s(self._pids) - cpu) * 1e6, store_us=(measure.cpu_s(self._store) - store) * 1e6,
            calls=tally.calls - calls, chunks=tally.chunks - chunks, seconds=seconds,
        )  # fmt: skip
        await load.stop()
        if tally.errors:
            raise VoidError(f"{tally.errors} of {tally.calls} answers were wrong: {tally.first_error}")
        if not window.calls:
            raise VoidError("no call ended in the time of the measurement")
        return window

    async def _until_ready(self, process: "subprocess.Popen[bytes]", launch: Launch) -> None:
        """Ask until there is one whole right answer."""
        until_s, said = perf_counter() + READY_S_MAX, "nothing listens"
        while perf_counter() < until_s:
            if process.poll() is not None:
                raise VoidError(f"it ended with code {process.returncode}")
            load = Load(self._ask(launch), 1, every_s=READY_S_MAX)  # one call: another would be cut short, and counted
            try:
                await load.start()
            except OSError:
                await asyncio.sleep(_PAUSE_S)
                continue
            while not load.tally.calls and not load.tally.errors and perf_counter() < until_s:
                await asyncio.sleep(0.002)
            await load.stop()
            if not load.tally.errors:
                return
            said = load.tally.first_error
            await asyncio.sleep(_PAUSE_S)
        raise VoidError(f"not ready in {READY_S_MAX:.0f} s: {said}")

    @staticmethod
    def _ask(launch: Launch, *, stream: bool = False) -> Ask:
        return ask(
            "127.0.0.1", launch.port, path=launch.path, headers=launch.headers, model=launch.model, stream=stream
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    cpu_us: float
    store_us: float
    calls: int
    chunks: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long calls take in ms: one at a time, each as soon as the last is answered; and at a slow pace, when caches have gone cold."""

    p50_ms: float
    p99_ms: float
    cold_p50_ms: float


async def latencies(what: Ask, seconds: float) -> Latency:
    """Measure it. Raises VoidError."""
    p50_ms, p99_ms = await _quantiles(Load(what, 1), seconds)
    cold_p50_ms, _ = await _quantiles(Load(what, PACED_CONNECTIONS, every_s=PACED_EVERY_S), seconds)
    return Latency(p50_ms=p50_ms, p99_ms=p99_ms, cold_p50_ms=cold_p50_ms)


async def _quantiles(load: Load, seconds: float) -> tuple[float, float]:
    await load.start()
    await asyncio.sleep(WARM_S / 2)
    load.tally.latencies_ns.clear()
    await asyncio.sleep(seconds)
    await load.stop()
    found = sorted(load.tally.latencies_ns)
    if load.tally.errors or not found:
        raise VoidError(load.tally.first_error or "no call ended of those that were asked one at a time")
    return found[len(found) // 2] / 1e6, found[min(len(found) - 1, len(found) * 99 // 100)] / 1e6


def free_port() -> int:
    """Return a port that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the process, and whatever is left of its group."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(line.strip()[:200] for line in lines[-4:]) or "none"
