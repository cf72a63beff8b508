"""`python -m tests.bench.units`: what one of each costs the store: CPU, bytes on the wire, memory. `docs/scale.md` computes with these.

Our own ledger talks to a real server of its own. CPU is what the server says it used (INFO, microseconds), its append-only file
included; the server's share of serving many connections at once is in, since calls are kept 32 deep.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accounting.ask import Ask, Draw, Rate
from accounting.budgets import Budget
from accounting.hold import Hold
from accounting.ledger import EXTEND_HOLDS_MAX, Ledger
from accounting.periods import Period
from accounting.settlement import Spent
from accounting.store.embedded import EmbeddedStore
from accounting.store.store import Store
from accounting.store.url import read_url
from accounting.stored import StoredConfig, StoredKey
from accounting.supervisor import Supervisor
from tests.bench import measure

BUDGETS = (1, 2, 3, 5)
DEEP = 32
CALLS = 2000
_UNITS = ("usd", "tokens", "requests", "input_tokens", "output_tokens")
_RECORD = json.dumps({
    "id": "req_0123456789abcdef01234567", "key": "alice-laptop", "user": "alice", "team": "research", "org": None, "tags": ["lab"],
    "model": "gpt-4o-mini", "provider": "openai", "upstream_model": "gpt-4o-mini", "response_model": "gpt-4o-mini-2024-07-18",
    "input": 160, "cached": 0, "cache_write": 0, "output": 50, "reasoning": 0, "cost_nanousd": 54000, "price": "2026-11-10",
    "estimated": False, "outcome": "ok", "ms": 812, "reserved": True,
}).encode()  # fmt: skip
SPENT = Spent(
    input_tokens=160, output_tokens=50, cost_nanousd=54_000, record=_RECORD, totals_row="alice-laptop|alice|research|openai/gpt-4o-mini",
    day="20261120",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one operation costs the server."""

    cpu_us: float
    in_bytes: float
    out_bytes: float


class Bench:
    """A server of its own; `cost` and `memory_bytes` are of what is done in between."""

    def __init__(self, folder: Path) -> None:
        self._embedded = EmbeddedStore(folder)
        self.supervisor = Supervisor()
        self.store: Store

    async def start(self) -> None:
        """Start the server and connect; the server runs apart from us where there are two cores."""
        await self._embedded.start()
        self.store = Store(read_url(f"unix://{self._embedded.address.path}"), deadline_s=10.0)
        await self.store.start()
        cores = measure.cores()
        measure.pin(int((await self.info("server"))["process_id"]), cores.rest)

    async def stop(self) -> None:
        """Stop the server."""
        await self.supervisor.drain(10)
        await self.store.close()
        await self._embedded.stop()

    async def ledger(self) -> Ledger:
        """Return a sidecar's ledger, with a session of its own."""
        ledger = Ledger(self.store, supervisor=self.supervisor, embedded=True)
        await ledger.start()
        return ledger

    async def info(self, section: str) -> dict[str, str]:
        """Return one part of what the server says of itself."""
        text = (await self.store.call("INFO", section, deadline_s=10)).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    async def cost(self, count: int, act: Callable[[], Awaitable[object]]) -> Cost:
        """Return what one of `count` operations costs."""
        before = await self._used()
        await act()
        after = await self._used()
        cpu_us, in_bytes, out_bytes = ((b - a) / count for a, b in zip(before, after, strict=True))
        return Cost(cpu_us=cpu_us * 1e6, in_bytes=in_bytes, out_bytes=out_bytes)

    async def memory_bytes(self) -> int:
        """Return what the server's data takes."""
        return int((await self.info("memory"))["used_memory"])

    async def _used(self) -> tuple[float, float, float]:
        cpu, stats = await self.info("cpu"), await self.info("stats")
        seconds = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
        return seconds, float(stats["total_net_input_bytes"]), float(stats["total_net_output_bytes"])


def ask_for(count: int, subject: str = "user:alice", *, rates: int = 0) -> Ask:
    """Return a call that draws on `count` budgets with room for anything."""
    budgets = [
        Budget(subject=f"{subject}-{n}", unit=_UNITS[n % 5], limit=10**15, period=Period(kind="month"))
        for n in range(count)
    ]
    draws = tuple(Draw(budget, 1600, 600) for budget in budgets)
    limits = tuple(Rate(subject=f"key:{n}", what="requests", limit=10**8, fixed=1, per_output=0) for n in range(rates))
    return Ask(draws=draws, rates=limits, wanted=256, least=16)


async def reserve_many(ledger: Ledger, asks: list[Ask]) -> list[Hold]:
    """Reserve all, so many at a time."""
    holds: list[Hold] = []
    for at in range(0, len(asks), DEEP):
        holds += await asyncio.gather(
            *(ledger.reserve(ask, request_id="req_0123456789abcdef01234567") for ask in asks[at : at + DEEP])
        )
    return holds


async def settle_many(ledger: Ledger, holds: list[Hold]) -> None:
    """Settle all, and wait until the store has them."""
    for at in range(0, len(holds), DEEP):
        for hold in holds[at : at + DEEP]:
            ledger.settle(hold, SPENT)
        while ledger.settler.pending:
            await asyncio.sleep(0)


async def calls(bench: Bench, count: int) -> dict[str, dict[str, Cost]]:
    """Return the cost of reserve, settle and extend for each number of budgets."""
    found: dict[str, dict[str, Cost]] = {}
    for budgets in BUDGETS:
        ledger, asks = await bench.ledger(), [ask_for(budgets)] * count
        await settle_many(ledger, await reserve_many(ledger, asks[:DEEP]))  # scripts and counters are there
        holds: list[Hold] = []

        async def reserve(ledger: Ledger = ledger, asks: list[Ask] = asks, holds: list[Hold] = holds) -> None:
            holds += await reserve_many(ledger, asks)

        row = {"reserve": await bench.cost(count, reserve)}
        row["extend, per hold"] = await bench.cost(len(holds), ledger.extend)
        row["settle"] = await bench.cost(count, lambda ledger=ledger, holds=holds: settle_many(ledger, holds))  # type: ignore[misc]
        found[f"{budgets} budget{'s' if budgets > 1 else ''}"] = row
    ledger, limited = await bench.ledger(), [ask_for(3, rates=1)] * count
    held = []
    rated = await bench.cost(count, lambda: _into(held, reserve_many(ledger, limited)))
    await settle_many(ledger, held)
    found["3 budgets and a rate limit"] = {"reserve": rated}
    idle = await bench.ledger()
    found["none open"] = {"extend, per heartbeat": await bench.cost(count, lambda: _repeat(count, idle.extend))}
    version = StoredConfig(bench.store).version
    found["none open"]["version poll"] = await bench.cost(count, lambda: _repeat(count, version))
    return found


async def hot(bench: Bench, open_holds: tuple[int, ...], count: int) -> dict[str, Cost]:
    """Return the cost of a reserve on one budget on which so many holds are open already."""
    found, ledger = {}, await bench.ledger()
    ask, opened = ask_for(1, "team:hot"), 0
    for wanted in open_holds:
        await reserve_many(ledger, [ask] * (wanted - opened))
        held: list[Hold] = []
        found[f"{wanted:,} open"] = await bench.cost(
            count, lambda held=held: _into(held, reserve_many(ledger, [ask] * count))
        )  # type: ignore[misc]
        opened = wanted + count
    return found


async def sizes(bench: Bench, count: int) -> dict[str, float]:
    """Return bytes of the server's memory for one of each."""
    found: dict[str, float] = {}

    async def of_one(name: str, act: Callable[[], Awaitable[object]], number: int = count) -> None:
        before = await bench.memory_bytes()
        await act()
        found[name] = (await bench.memory_bytes() - before) / number

    held: list[Hold]
    ledger = await bench.ledger()
    shared, held = [ask_for(3, "team:shared")] * count, []
    await of_one("open hold on three budgets", lambda: _into(held, reserve_many(ledger, shared)))
    await of_one("settled", lambda: settle_many(ledger, held))
    record = found["usage record of a settled call"] = found.pop("settled") + found["open hold on three budgets"]
    mine = [ask_for(1, f"user:u{n}") for n in range(count)]
    held = []
    await of_one("open", lambda: _into(held, reserve_many(ledger, mine)))
    await of_one("used", lambda: settle_many(ledger, held))
    found["budget that was used"] = found.pop("open") + found.pop("used") - record
    await of_one("session with one settled call", lambda: _sessions(bench, count // 10), count // 10)
    stored = StoredConfig(bench.store)
    key = StoredKey(id="", digest="d" * 64, user="alice", team="research", created_ms=1_760_000_000_000)
    names = iter(range(10**9))

    async def put_keys() -> None:
        for _ in range(count):
            await stored.put_key(replace(key, id=f"key-{next(names):08d}"), {"by": "bench"})

    await of_one("stored key, with its audit entry", put_keys)
    return found


async def _into(held: list[Hold], holds: Awaitable[list[Hold]]) -> None:
    held += await holds


async def _repeat(count: int, act: Callable[[], Awaitable[object]]) -> None:
    for _ in range(count):
        await act()


async def _sessions(bench: Bench, count: int) -> None:
    for _ in range(count):
        ledger = await bench.ledger()
        await settle_many(ledger, await reserve_many(ledger, [ask_for(1)]))


async def run(count: int) -> dict[str, object]:
    """Measure everything; return it by name."""
    folder = Path(tempfile.mkdtemp(prefix="bursar-units-"))
    bench = Bench(folder)
    try:
        await bench.start()
        operations = await calls(bench, count)
        crowded = await hot(bench, (0, 1000, 10 * count), count // 2)
        memory = await sizes(bench, 2 * count)
        server = await bench.info("server")
        await bench.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    version = server.get("valkey_version") or server.get("redis_version")
    return {
        "server": f"{server.get('server_name', 'redis')} {version}",
        "operations": operations,
        "hot budget": crowded,
        "memory": memory,
    }


def main() -> int:
    """Print the tables; return 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.units", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS, help=f"of each kind (default {CALLS})")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    found = asyncio.run(run(max(args.calls, 100)))
    print(f"{found['server']}; {measure.machine()['processor']}; a heartbeat carries up to {EXTEND_HOLDS_MAX} holds\n")
    print("| with | operation | CPU µs | bytes in | bytes out |\n|---|---|---|---|---|")
    for name, row in found["operations"].items():  # type: ignore[attr-defined]  # a dict
        for operation, cost in row.items():
            print(_line(f"{name} | {operation}", cost))
    for name, cost in found["hot budget"].items():  # type: ignore[attr-defined]  # a dict
        print(_line(f"one budget, {name} | reserve", cost))
    print("\n| in memory | bytes |\n|---|---|")
    for name, size in found["memory"].items():  # type: ignore[attr-defined]  # a dict
        print(f"| {name} | {size:.0f} |")
    if args.json:
        Path(args.json).write_text(json.dumps(found, default=asdict, indent=1) + "\n")
    return 0


def _line(name: str, cost: Cost) -> str:
    return f"| {name} | {cost.cpu_us:.1f} | {cost.in_bytes:.0f} | {cost.out_bytes:.0f} |"


if __name__ == "__main__":
    sys.exit(main())
