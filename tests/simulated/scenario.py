"""One world from one seed: three sidecars, budgets near their limits, calls, and whatever goes wrong."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accounting.budgets import Budget
from accounting.periods import Period
from tests.simulated.books import Server
from tests.simulated.calls import Calls, Plan
from tests.simulated.loops import World
from tests.simulated.network import Network, Weather
from tests.simulated.sidecar import Sidecar

EVENTS = 200
SIDECARS = 3


@dataclass
class Scene:
    """A world, and what is in it. `events` counts what happened: arrivals, pieces, ends, faults."""

    seed: int
    folder: Path
    rng: random.Random = field(init=False)
    world: World = field(default_factory=World)
    calls: Calls = field(default_factory=Calls)
    events: int = 0
    story: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)  # of the callers

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        random.seed(self.seed)  # the product's own jitter
        self.server = Server(self.world, random.Random(self.seed + 1))
        self.network = Network(self.world, random.Random(self.seed + 2), self._serve)
        self.budgets = budgets(rng)
        self.sidecars = [
            Sidecar(
                self.network, self.folder / name, name, offset_s=rng.uniform(1, 1e5), rate=rng.uniform(0.996, 1.004)
            )
            for name in "abc"[:SIDECARS]
        ]
        self._frozen: list[Callable[[], None]] = []
        self.frozen = False

    # What may happen

    def tell(self, what: str) -> None:
        self.events += 1
        self.story.append(f"{self.world.now_s:9.3f} {what}")

    def call(self, sidecar: Sidecar, plan: Plan) -> None:
        """One client calls; it may leave."""
        if not sidecar.ready:
            return
        self.events += 1 + len(plan.pieces)
        task = sidecar.spawn(self.calls.make(plan, sidecar))
        self.tasks.append(task)
        leaves_s = {"leaves": sum(s for s, _ in plan.pieces) * 0.7, "early": self.rng.uniform(0, 0.002)}.get(plan.ends)
        if leaves_s is not None:
            loop = sidecar.loop
            self.world.at(leaves_s, lambda: loop.call_soon(task.cancel) if loop in self.world.loops else None)

    def weather(self, sidecar: Sidecar, weather: Weather, for_s: float) -> None:
        if not sidecar.alive:
            return
        self.tell(f"{sidecar.name}: {weather} for {for_s:.1f} s")
        sidecar.impair(for_s + 2)
        loop = sidecar.loop
        self.network.weather[loop] = weather
        if weather.refuse:
            self.network.cut(lambda wire: wire.loop is loop)
        self.world.at(for_s, lambda: self.network.heal(loop))

    def stall(self, sidecar: Sidecar, for_s: float) -> None:
        if not sidecar.alive or sidecar.loop.stalled:
            return
        self.tell(f"{sidecar.name}: stalls for {for_s:.1f} s")
        sidecar.impair(for_s + 1)
        loop, loop.stalled = sidecar.loop, True
        self.world.at(for_s, lambda: setattr(loop, "stalled", False))

    def crash(self, sidecar: Sidecar, for_s: float) -> None:
        if not sidecar.alive:
            return
        self.tell(f"{sidecar.name}: crashes for {for_s:.1f} s")
        sidecar.impair(for_s + 5)
        for call in self.calls.all:
            if call.sid == sidecar.ledger.sid and call.state in ("new", "open"):
                call.state = "dead"
        sidecar.crash()
        self.world.at(for_s, lambda: None if sidecar.alive else sidecar.start())

    def restart(self, for_s: float, lag_s: float) -> None:
        """The store ends, and comes back without what it had heard in the last `lag_s`."""
        if not self.network.open:
            return
        self.tell(f"store: gone for {for_s:.1f} s, loses {lag_s:.1f} s")
        since_s = self.world.now_s - lag_s
        self._away(for_s, lambda: self.server.lose(since_s))

    def freeze(self, for_s: float) -> None:
        """The store stands still, and then goes on."""
        if self.frozen or not self.network.open:
            return
        self.tell(f"store: frozen for {for_s:.1f} s")
        for sidecar in self.sidecars:
            sidecar.impair(for_s + 2)
        self.frozen = True
        self.world.at(for_s, self._thaw)

    def jump(self, by_ms: int) -> None:
        self.tell(f"store: its clock jumps by {by_ms} ms")
        self.server.jump(by_ms)

    def _away(self, for_s: float, back: Callable[[], None]) -> None:
        self.network.open = self.frozen = False
        self._frozen.clear()
        self.network.process += 1
        self.network.cut()
        for sidecar in self.sidecars:
            sidecar.impair(for_s)

        def returns() -> None:
            back()
            self.network.open = True

        self.world.at(for_s, returns)

    def _serve(self, words: list[bytes]) -> bytes | None:
        if not self.frozen:
            return self.server.serve(words)
        self._frozen.append(lambda: self.server.serve(words))  # whoever waited has given up by then, mostly
        return None

    def _thaw(self) -> None:
        if not self.frozen:
            return
        self.frozen = False
        frozen, self._frozen = self._frozen, []
        if self.network.open:
            for act in frozen:
                act()
            self.network.cut()


def budgets(rng: random.Random) -> list[Budget]:
    """Some that bind and are too small for all that comes, some that only count."""
    total, minute = Period(kind="total"), Period(kind="minute")
    outage = rng.choice(("refuse", "refuse", "escrow"))
    ample = 10 if outage == "escrow" else 1  # an allowance is a fiftieth of a limit
    made = [
        Budget(subject="team:lab", unit="tokens", limit=ample * rng.randint(1000, 7000), period=total, outage=outage),
        Budget(
            subject="user:alice", unit="usd", limit=ample * rng.randint(2, 12) * 10**6, period=minute, outage=outage
        ),
        Budget(subject="user:bob", unit="output_tokens", limit=rng.randint(500, 4000), period=total, hold="slice"),
        Budget(subject="key:alice-laptop", unit="requests", limit=rng.randint(5, 40), period=total, hold="full"),
        Budget(subject="tenant:t", unit="tokens", limit=5_000, period=minute, mode="soft"),
    ]
    if rng.random() < 0.3:
        made.append(Budget(subject="org:o", unit="tokens", limit=20_000, period=total, outage="allow"))
    return made


def plan(scene: Scene, number: int) -> Plan:
    """One call, of any kind."""
    rng = scene.rng
    chosen = [budget for budget in scene.budgets if rng.random() < 0.6] or [scene.budgets[0]]
    sliced = any(b.hold == "slice" for b in chosen)
    if sliced:
        chosen = [b for b in chosen if b.hold == "slice" or not b.binds or b.unit == "requests"]
    wanted = rng.choice((40, 300, 1500))
    pause_s = rng.choice((0.0, 0.05, 0.5, 3.0))
    pieces = tuple((rng.uniform(0, 2) * pause_s, rng.randint(1, 240)) for _ in range(rng.randint(2, 7)))
    return Plan(
        number, tuple(chosen), rng.choice((5, 60, 300)), wanted, rng.choice((1, min(wanted, 256))), rng.choice((0, 0, 250)),
        pieces, ends=rng.choices(("ok", "refused", "leaves", "early"), (12, 1, 2, 1))[0], slice=128 if sliced else 0,
        excess=rng.choice((0,) * 30 + (7,)),
    )  # fmt: skip


def trouble(scene: Scene, kinds: list[str]) -> None:
    """Let one thing go wrong, of the kinds that this world knows."""
    rng = scene.rng
    one = rng.choice(scene.sidecars)
    for_s = rng.choice((0.3, 2.0, 8.0, 45.0)) * rng.uniform(0.5, 1.5)
    match rng.choice(kinds):
        case "crash":
            scene.crash(one, for_s)
        case "stall":
            scene.stall(one, for_s)
        case "late":
            scene.weather(one, Weather(delay_s=rng.choice((0.02, 0.1, 0.3)), jitter_s=0.2), for_s)
        case "lossy":
            scene.weather(one, Weather(break_before=0.1, break_after=0.15), for_s)
        case "copies":
            scene.weather(one, Weather(copy=0.5), for_s)
        case "hole":
            scene.weather(one, Weather(black_hole=True), for_s)
        case "refuse":
            scene.weather(one, Weather(refuse=True), for_s)
        case "reboot":  # of the machine that both are on
            for sidecar in rng.sample(scene.sidecars, rng.randint(1, SIDECARS)):
                scene.crash(sidecar, rng.uniform(0.5, 10))
            scene.restart(rng.uniform(0.5, 5), rng.uniform(0, 1))
        case "restart":
            scene.restart(min(for_s, 10.0), rng.uniform(0, 1))
        case "promotion":
            scene.restart(rng.uniform(0.5, 3), rng.choice((0.0, 1.0, 5.0, 30.0)) * rng.random())
        case "freeze":
            scene.freeze(for_s)
        case "jump":
            scene.jump(rng.choice((-20_000, -4_000, 3_000, 20_000, 120_000, 700_000)))
        case "rest":
            scene.tell("nothing for long")
            scene.world.run(scene.world.now_s + 100)


KINDS = (
    "crash", "stall", "late", "lossy", "copies", "hole", "refuse", "restart", "promotion", "freeze", "jump", "rest", "reboot"
)  # fmt: skip


def live(scene: Scene, watch: Callable[[], list[str]], kinds: tuple[str, ...]) -> None:
    """Let as much happen as a world is given, or until `watch` finds something wrong."""
    rng, world = scene.rng, scene.world
    some = rng.sample(kinds, min(len(kinds), rng.choice((0, 1, 2, 3, 5, 13))))
    often = rng.uniform(0.05, 0.3)
    for sidecar in scene.sidecars:
        sidecar.start()
    world.run(1.0)
    number = 0
    burst = rng.choice((0.02, 0.2, 1.0, 3.0))
    while scene.events < EVENTS:
        if some and rng.random() < often:
            trouble(scene, some)
        else:
            number += 1
            scene.call(rng.choice(scene.sidecars), plan(scene, number))
            scene.events += 1
        world.run(world.now_s + rng.expovariate(1 / burst))
        if rng.random() < 0.2 and watch():
            return
