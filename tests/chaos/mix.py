"""Three real sidecars, one real store, one provider with an invoice; between them whatever a seed makes go wrong, for a given time."""

import asyncio
import contextlib
import random
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from accounting.store.resp import Address
from tests.chaos.callers import USERS, Caller, Seen, key_of
from tests.fault_proxy import FaultProxy, Faults
from tests.ledger.servers import Valkey
from tests.sidecars import config_text, serving
from tests.test_crash import provider

PREFIX = "chaos"
KEYS = "keys:\n" + "".join(
    f'  - {{id: {user}-key, user: {user}, team: lab, secret: "{key_of(user)}"}}\n' for user in USERS
)
BUDGETS = """budgets:
  - {subject: "user:*", tokens: 5000, period: minute}
  - {subject: "team:lab", usd: 0.03, period: minute, outage: escrow}
  - {subject: "user:carol", tokens: 25000, period: total, hold: slice}
  - {subject: "tenant:default", tokens: 1000000000, requests: 1000000, usd: 9000, period: total, mode: soft}
server: {drain_seconds: 2}
timeouts: {connect: 3, first_token: 10, idle: 5, total: 60}
"""
CLIENTS = 4  # of each sidecar
OFTEN = {"kill": 4, "stop": 3, "net": 6, "upstream": 4, "store": 2, "freeze": 1}


class Place:
    """Where a sidecar runs, again and again. `kill` ends its process; it begins anew after the given time."""

    def __init__(self, number: int, store: FaultProxy, upstream: FaultProxy) -> None:
        self.number, self.store, self.upstream = number, store, upstream
        self.running = None
        self.stopped = False
        self.lives = 0
        self.logs: list[str] = []
        self._again_s = 0.0
        self._killed = asyncio.Event()
        self._over = self._gently = False
        self.exit_code: int | None = None  # of the last process, if that was ended gently

    @property
    def url(self) -> str | None:
        return self.running.url if self.running is not None else None

    async def live(self, config_file) -> None:
        """Run until `end`."""
        while not self._over:
            self._killed.clear()
            try:
                async with serving(config_file) as running:
                    self.running, self.lives = running, self.lives + 1
                    await self._killed.wait()
                    self.running = None
                    await self._ended(running)
                self.logs.append(running.log)
            except (AssertionError, TimeoutError) as error:  # the store was away when it began: so it is begun again
                self.logs.append(str(error))
            self.stopped = False
            await asyncio.sleep(self._again_s)

    def kill(self, again_s: float) -> None:
        self._again_s = again_s
        self._killed.set()

    def end(self, *, gently: bool = False) -> None:
        """For good. `gently` lets it finish its work and give back what it holds ahead of time."""
        self._over, self._gently = True, gently
        self.kill(0)

    async def _ended(self, running) -> None:
        if self.stopped:
            running.signal(signal.SIGCONT)
        if self._gently:
            running.signal(signal.SIGTERM)
            self.exit_code = await running.ended(40)
        elif running.process.returncode is None:
            running.process.kill()

    def signal(self, number: int) -> None:
        if self.running is not None and self.running.process.returncode is None:
            self.running.signal(number)
            self.stopped = number == signal.SIGSTOP


class Mix:
    """All of it. `seen` is what clients saw, `story` what went wrong when."""

    def __init__(self, folder, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.store = Valkey(folder / "valkey", keeping="everysec")
        self.places: list[Place] = []
        self.seen: list[Seen] = []
        self.story: list[str] = []
        self.over = asyncio.Event()
        self.http: aiohttp.ClientSession
        self._store_stopped = False
        self._lives: list[asyncio.Task[None]] = []
        self._callers: list[asyncio.Task[None]] = []

    @property
    def invoice(self):
        return self.folder / "invoice"

    @asynccontextmanager
    async def running(self):
        async with AsyncExitStack() as stack:
            self.store.start()
            stack.callback(self.store.kill)
            fake_url = await stack.enter_async_context(provider(self.invoice))
            port = int(fake_url.rpartition(":")[2].partition("/")[0])
            self.http = await stack.enter_async_context(aiohttp.ClientSession())
            lives = self._lives
            for number in range(3):
                proxies = [
                    FaultProxy(self.store.address, seed=number),
                    FaultProxy(Address(port=port), seed=number, resp=False),
                ]
                for proxy in proxies:
                    await proxy.start()
                    stack.push_async_callback(proxy.stop)
                place = Place(number, *proxies)
                file = self.folder / f"bursar{number}.yaml"
                file.write_text(
                    config_text(
                        f"redis://127.0.0.1:{place.store.port}", self.folder / f"data{number}",
                        f"http://127.0.0.1:{place.upstream.port}/v1", prefix=PREFIX, keys=KEYS, more=BUDGETS,
                        deadline_ms=250,
                    )
                )  # fmt: skip
                self.places.append(place)
                lives.append(asyncio.create_task(place.live(file)))
            callers = [
                Caller(USERS[i % 3], place, self.http, random.Random(self.rng.random()), self.seen)
                for place in self.places
                for i in range(CLIENTS)
            ]
            await self.all_serve()
            tasks = self._callers = [asyncio.create_task(caller.run(self.over)) for caller in callers]
            try:
                yield self
            finally:
                self.over.set()
                for place in self.places:
                    place.end()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*lives, *tasks, return_exceptions=True)

    async def all_serve(self, timeout_s: float = 60) -> None:
        """Wait until each place has a process that answers."""
        async with asyncio.timeout(timeout_s):
            while any(place.url is None for place in self.places):
                await asyncio.sleep(0.05)

    async def enough(self) -> None:
        """Let the last calls end; nobody calls any more."""
        self.over.set()
        await asyncio.gather(*self._callers)

    async def stop(self) -> None:
        """End all sidecars as Kubernetes does, and wait for that."""
        for place in self.places:
            place.end(gently=True)
        await asyncio.gather(*self._lives)

    async def trouble(self, for_s: float, *, every_s: float, longest_s: float) -> None:
        """Let things go wrong for that time, then let them all be well again."""
        loop, rng = asyncio.get_running_loop(), self.rng
        end_s, began_s = loop.time() + for_s, loop.time()
        ends: list[asyncio.Task[None]] = []
        deck = [
            "store",
            *rng.sample(["kill", "kill", "stop", "net", "upstream"], 5),
        ]  # of each some, also in a short time
        while loop.time() < end_s:
            name = deck.pop() if deck else rng.choices(list(OFTEN), list(OFTEN.values()))[0]
            lasts_s = min(rng.choice((0.2, 1.0, 3.0, 8.0, 35.0)) * rng.uniform(0.5, 1.2), longest_s)
            self.story.append(f"{loop.time() - began_s:7.2f} {name} {lasts_s:.1f} s")
            ends.append(asyncio.create_task(getattr(self, f"_{name}")(lasts_s)))
            await asyncio.sleep(min(rng.expovariate(1 / every_s), max(0, end_s - loop.time())))
        await asyncio.gather(*ends)

    async def _kill(self, lasts_s: float) -> None:
        self.rng.choice(self.places).kill(min(lasts_s, 5))

    async def _stop(self, lasts_s: float) -> None:
        place = self.rng.choice(self.places)
        if place.running is None or place.stopped:
            return
        running = place.running
        place.signal(signal.SIGSTOP)
        await asyncio.sleep(lasts_s)
        if place.running is running:
            place.signal(signal.SIGCONT)

    async def _net(self, lasts_s: float) -> None:
        faults = self.rng.choice((
            Faults(black_hole=True), Faults(refuse=True), Faults(mute=True), Faults(delay_s=0.03, jitter_s=0.2),
            Faults(reset=0.1, reset_after=0.1), Faults(drop=0.05), Faults(duplicate=0.3), Faults(one_byte=True),
            Faults(cut_after_bytes=2000),
        ))  # fmt: skip
        await self._faulty(self.rng.choice(self.places).store, faults, lasts_s)

    async def _upstream(self, lasts_s: float) -> None:
        faults = self.rng.choice((
            Faults(black_hole=True), Faults(refuse=True), Faults(delay_s=0.05), Faults(reset=0.2), Faults(one_byte=True),
            Faults(cut_after_bytes=3000),
        ))  # fmt: skip
        await self._faulty(self.rng.choice(self.places).upstream, faults, lasts_s)

    @staticmethod
    async def _faulty(proxy: FaultProxy, faults: Faults, lasts_s: float) -> None:
        proxy.faults = faults
        if faults.refuse:
            proxy.reset_all()
        await asyncio.sleep(lasts_s)
        if proxy.faults is faults:
            await proxy.heal()

    async def _store(self, lasts_s: float) -> None:
        """kill -9; it may lose the end of its file, as when the machine goes down with it."""
        if self.store.process is None or self._store_stopped:
            return
        self.store.kill()
        if self.rng.random() < 0.5:
            with contextlib.suppress(ValueError):
                self.store.lose_tail(self.rng.randrange(3000))
        await asyncio.sleep(min(lasts_s, 10))
        self.store.start()

    async def _freeze(self, lasts_s: float) -> None:
        if self.store.process is None or self._store_stopped:
            return
        self._store_stopped = True
        self.store.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(min(lasts_s, 8))
        self.store.process.send_signal(signal.SIGCONT)
        self._store_stopped = False
