"""`python -m tests.bench.hot`: a budget that all callers share (A12): how long a reserve takes at a given rate, and what it costs the server.

Calls come at even distances whether or not the last was answered, since that is what callers do. Each is settled right after, so the
latency has settlements in it as it has in life; the server's CPU is measured apart, of reserves and of settlements alone. Several
rounds, of which the best and the median are told: beside other work the best says more about us, the spread about the machine.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from accounting.hold import Hold
from accounting.ledger import Ledger
from tests.bench.units import SPENT, Bench, ask_for, reserve_many, settle_many

BUDGETS = (1, 4)
RATE = 1000


async def latencies_ms(ledger: Ledger, budgets: int, rate: int, seconds: float) -> list[float]:
    """Return how long each reserve took, in ms, sorted."""
    loop, found, ask = asyncio.get_running_loop(), list[float](), ask_for(budgets, "team:hot")

    async def call() -> None:
        began_s = time.perf_counter()
        hold = await ledger.reserve(ask, request_id="req_0123456789abcdef01234567")
        found.append((time.perf_counter() - began_s) * 1000)
        ledger.settle(hold, SPENT)

    count, began_s = int(rate * seconds), loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            if (early_s := began_s + number / rate - loop.time()) > 0:
                await asyncio.sleep(early_s)
            group.create_task(call())
    while ledger.settler.pending:
        await asyncio.sleep(0.001)
    return sorted(found)


async def server_us(bench: Bench, ledger: Ledger, budgets: int, count: int) -> tuple[float, float]:
    """Return the server's CPU of one reserve and of one settlement, in microseconds, each alone on the wire."""
    holds: list[Hold] = []

    async def reserve() -> None:
        holds.extend(await reserve_many(ledger, [ask_for(budgets, "team:hot")] * count))

    reserved = await bench.cost(count, reserve)
    settled = await bench.cost(count, lambda: settle_many(ledger, holds))
    return reserved.cpu_us, settled.cpu_us


async def run(rate: int, seconds: float, rounds: int) -> None:
    """Measure, and print a line for each number of budgets."""
    folder = Path(tempfile.mkdtemp(prefix="bursar-hot-"))
    bench = Bench(folder)
    try:
        await bench.start()
        ledger = await bench.ledger()
        print(
            "| budgets | reserve p50 ms (best, median) | p99 ms | server µs per reserve | per settlement |\n|---|---|---|---|---|"
        )
        for budgets in BUDGETS:
            await latencies_ms(ledger, budgets, rate, 0.5)  # scripts and counters are there
            p50, p99, reserve, settle = list[float](), list[float](), list[float](), list[float]()
            for _ in range(rounds):
                times = await latencies_ms(ledger, budgets, rate, seconds)
                p50.append(times[len(times) // 2])
                p99.append(times[len(times) * 99 // 100])
                cpu = await server_us(bench, ledger, budgets, rate)
                reserve.append(cpu[0])
                settle.append(cpu[1])
            cells = (f"{min(n):.2f}, {statistics.median(n):.2f}" for n in (p50, p99))
            costs = (f"{min(n):.1f}, {statistics.median(n):.1f}" for n in (reserve, settle))
            print(f"| {budgets} | {' | '.join(cells)} | {' | '.join(costs)} |", flush=True)
        await bench.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Print the table; return 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hot", description=__doc__)
    parser.add_argument("--rate", type=int, default=RATE, help=f"calls per second (default {RATE})")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    args = parser.parse_args()
    asyncio.run(run(args.rate, args.seconds, args.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
