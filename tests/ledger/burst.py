"""A process of the burst test: many calls at once on one store, through the ledger or through a check and then an add.

Run as `python -m tests.ledger.burst SOCKET WAY CALLS LIMIT BUDGETS TOKENS SEED`; prints what was spent, and how many calls were refused.
"""

import asyncio
import random
import sys

import orjson

from accounting.hold import BudgetRefusedError
from accounting.store.resp import Address
from tests.ledger.houses import Till, ask, spent, till, tokens


async def through_the_ledger(one: Till, calls: int, limits: list[int], worst: int, seed: int) -> tuple[int, int]:
    rng = random.Random(seed)
    budgets = [tokens(limit, f"user:{i}") for i, limit in enumerate(limits)]
    used = refused = 0

    async def call(number: int) -> None:
        nonlocal used, refused
        actual = rng.randint(worst // 2, worst)
        for _ in range(40):
            try:
                hold = await one.ledger.reserve(ask(*budgets, wanted=worst, least=worst), request_id=str(number))
            except BudgetRefusedError as error:
                if not error.held_only:
                    break
                await asyncio.sleep(rng.uniform(0.005, 0.03))
                continue
            await asyncio.sleep(rng.uniform(0, 0.01))
            used += actual
            one.ledger.settle(hold, spent(actual))
            return
        refused += 1

    await asyncio.gather(*(call(number) for number in range(calls)))
    await one.settled()
    return used, refused


async def check_then_add(one: Till, calls: int, limits: list[int], worst: int) -> tuple[int, int]:
    """What does not work: look at the counter, make the call, add to the counter."""
    used = refused = 0

    async def call() -> None:
        nonlocal used, refused
        found = await one.store.call("GET", "control", deadline_s=10)
        if int(found or 0) + worst > limits[0]:
            refused += 1
            return
        await asyncio.sleep(0.2)  # the call
        used += worst
        await one.store.call("INCRBY", "control", worst, deadline_s=10)

    await asyncio.gather(*(call() for _ in range(calls)))
    return used, refused


async def main(socket: str, way: str, calls: int, limits: list[int], worst: int, seed: int) -> None:
    async with till(Address(path=socket), deadline_s=20.0) as one:
        print("ready", flush=True)
        sys.stdin.readline()
        work = (
            through_the_ledger(one, calls, limits, worst, seed)
            if way == "ledger"
            else check_then_add(one, calls, limits, worst)
        )
        used, refused = await work
        print(orjson.dumps({"used": used, "refused": refused}).decode(), flush=True)


if __name__ == "__main__":
    place, how, number, many, size, start = sys.argv[1:]
    asyncio.run(main(place, how, int(number), [int(n) for n in many.split(",")], int(size), int(start)))
