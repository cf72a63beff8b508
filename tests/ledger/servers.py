"""Real Valkey servers on ports of 127.0.0.1 that a test may kill, start again, join into a Cluster, or put under a Sentinel."""

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accounting.store.embedded import _die_with_parent, find_server
from accounting.store.resp import Address, connect

KEEPING = {
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
    "everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "none": ("--appendonly", "no"),
}
SLOTS = 16_384
NODE_TIMEOUT_MS = 2_000


class Valkey:
    """One server process; it comes back at the same port with the same folder. `keeping` is a key of KEEPING."""

    def __init__(self, folder: Path, *options: str, keeping: str = "always", port: int = 0) -> None:
        self.folder, self.options, self.port = folder, (*KEEPING[keeping], *options), port or free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> Address:
        return Address(port=self.port)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [
            find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0", *self.options,
        ]  # fmt: skip
        self._run(command)

    def _run(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=(log := (self.folder / "log").open("w+")), stderr=subprocess.STDOUT,
            text=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        log.close()
        _until_open(self)

    def kill(self) -> None:
        """SIGKILL; waits until it is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def lose_tail(self, size_bytes: int) -> None:
        """Lose the end of its file, as a power cut does to what was not yet synced. It must not run."""
        assert self.process is None
        with self._kept().open("r+b") as file:
            file.truncate(max(0, self.kept_bytes() - size_bytes))

    def kept_bytes(self) -> int:
        """How long its file is."""
        return self._kept().stat().st_size

    def _kept(self) -> Path:
        return max(self.folder.glob("appendonlydir/*.incr.aof"), key=lambda p: p.stat().st_mtime)

    async def command(self, *words: Any) -> Any:
        connection = await connect(self.address, timeout_s=5)
        try:
            return await connection.call(*words, deadline_s=5)
        finally:
            connection.close()

    async def info(self, name: str) -> str:
        text = (await self.command("INFO")).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line).get(name, "")


class Sentinel(Valkey):
    """Watches `primary` under the name `main`."""

    def __init__(self, folder: Path, primary: Valkey) -> None:
        super().__init__(folder)
        self._primary = primary

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nsentinel monitor main 127.0.0.1 {self._primary.port} 1\n"
            "sentinel down-after-milliseconds main 800\nsentinel failover-timeout main 3000\n"
        )
        self._run([find_server(), str(file), "--sentinel"])


class Cluster:
    """So many primaries with a replica each (or none), all slots given out."""

    def __init__(self, folder: Path, primaries: int, *, replicas: bool, keeping: str = "everysec") -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            str(NODE_TIMEOUT_MS),
            "--cluster-allow-replica-migration",
            "no",
        )
        count = primaries * (2 if replicas else 1)
        self.nodes = [Valkey(folder / str(i), *options, keeping=keeping) for i in range(count)]
        self._primaries = primaries
        self.ids: dict[int, str] = {}  # by port

    async def start(self) -> None:
        first, share = self.nodes[0], SLOTS // self._primaries
        for node in self.nodes:
            node.start()
            self.ids[node.port] = (await node.command("CLUSTER", "MYID")).decode()
        for i, node in enumerate(self.nodes):
            if i < self._primaries:
                last = SLOTS - 1 if i == self._primaries - 1 else (i + 1) * share - 1
                await node.command("CLUSTER", "ADDSLOTSRANGE", i * share, last)
            await node.command("CLUSTER", "MEET", "127.0.0.1", first.port)
        await until(self._all_met)
        for i, node in enumerate(self.nodes[self._primaries :]):
            await node.command("CLUSTER", "REPLICATE", self.ids[self.nodes[i].port])
        await until(self.well)

    async def well(self) -> bool:
        """Whether all nodes see all slots served, and each replica is in step."""
        for node in self.nodes:
            if node.process is None:
                continue
            if b"cluster_state:ok" not in await node.command("CLUSTER", "INFO"):
                return False
            if await node.info("role") == "slave" and await node.info("master_link_status") != "up":
                return False
        return True

    async def owner(self, key: str) -> Valkey:
        """Return the living primary of a key's slot, as the living see it."""
        slot = await self.slot(key)
        for node in self.nodes:
            if node.process is not None:
                for first, last, primary, *_ in await node.command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(n for n in self.nodes if n.port == primary[1])
        raise AssertionError("no node serves the slot")

    async def slot(self, key: str) -> int:
        living = next(n for n in self.nodes if n.process is not None)
        return await living.command("CLUSTER", "KEYSLOT", key)

    async def primaries(self) -> list[Valkey]:
        return [n for n in self.nodes if n.process is not None and await n.info("role") == "master"]

    async def move(self, slot: int, source: Valkey, target: Valkey, *, step: int = 3, pause_s: float = 0.02) -> None:
        """Move a slot with what is in it, a few keys at a time, while it is in use."""
        await target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source.port])
        await source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target.port])
        while keys := await source.command("CLUSTER", "GETKEYSINSLOT", slot, step):
            await source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            await asyncio.sleep(pause_s)
        await asyncio.sleep(1)  # the source has none of the keys now, and says ASK
        for node in (target, source, *self.nodes):
            if node.process is not None and await node.info("role") == "master":
                await node.command("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target.port])

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    async def _all_met(self) -> bool:
        for node in self.nodes:
            if (await node.command("CLUSTER", "INFO")).count(f"cluster_known_nodes:{len(self.nodes)}".encode()) != 1:
                return False
        return True


@contextmanager
def running(*servers: Valkey) -> Iterator[tuple[Valkey, ...]]:
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.kill()


async def until(condition: Any, timeout_s: float = 30) -> None:
    """Wait until an awaitable function says True."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.05)


def free_port() -> int:
    """A port below 50,000, since a Cluster node takes the one 10,000 above it, too."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = 20_000 + probe.getsockname()[1] % 20_000
            with contextlib.suppress(OSError), socket.socket() as plain:
                plain.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
                return port


def _until_open(server: Valkey) -> None:
    """Wait until it listens; whether it has read its file is another matter."""
    while True:
        assert server.process is not None
        assert server.process.poll() is None, (server.folder / "log").read_text()[-800:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
