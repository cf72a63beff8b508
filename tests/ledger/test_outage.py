"""The store behind a proxy that delays, loses, doubles, cuts and swallows (B7, B9): refusals are quick, and the books stay right."""

import asyncio
import random

import pytest

from accounting.budgets import Budget
from accounting.hold import RefusedError
from accounting.settlement import settlement
from accounting.store.errors import StoreError, StoreUnavailableError
from tests.fault_proxy import Faults, fault_proxy
from tests.ledger.houses import TOTAL, ask, spent, till, tokens

DEADLINE_S = 0.25
QUICK_S = 1.0  # a generous bound of what must take 0.25 s on an idle machine


@pytest.fixture
async def proxy(server, raw):
    async with fault_proxy(server.address, seed=7) as one:
        yield one


@pytest.fixture
async def one(proxy):
    async with till(proxy.address, deadline_s=DEADLINE_S) as till_:
        yield till_


async def reserve(one, *budgets, wanted=10):
    return await one.ledger.reserve(ask(*budgets, wanted=wanted, least=wanted), request_id="r")


async def reachable(one, budget, timeout_s=8.0):
    """Ask until the store answers again, as callers do; return after how long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                one.ledger.release(await reserve(one, budget, wanted=1))
                return loop.time() - began
            except (StoreError, RefusedError):
                await asyncio.sleep(0.05)


OUTAGES = [
    pytest.param(Faults(black_hole=True), id="a black hole"),
    pytest.param(Faults(mute=True), id="requests pass and answers do not", marks=pytest.mark.slow),
    pytest.param(Faults(delay_s=5.0), id="five seconds late", marks=pytest.mark.slow),
    pytest.param(Faults(reset=1.0), id="a reset before each command", marks=pytest.mark.slow),
    pytest.param(Faults(reset_after=1.0), id="a reset after each command"),
    pytest.param(Faults(refuse=True, reset=1.0), id="nobody listens"),
    pytest.param(Faults(cut_after_bytes=0), id="an answer of no bytes", marks=pytest.mark.slow),
    pytest.param(Faults(drop=1.0), id="every command is lost", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("faults", OUTAGES)
async def test_an_unreachable_store_refuses_in_time_and_is_reached_again_by_itself(proxy, one, faults):
    loop, budget = asyncio.get_running_loop(), tokens(100)
    await reserve(one, budget)
    proxy.faults = faults
    for _ in range(4):
        deadline = loop.time() + QUICK_S
        with pytest.raises(StoreUnavailableError):
            await reserve(one, budget)
        assert loop.time() < deadline
    assert not one.store.up, "the breaker is open"
    came = len(proxy.seen)
    with pytest.raises(StoreUnavailableError):
        await reserve(one, budget)
    assert len(proxy.seen) - came <= 1, "and nobody waits for a store that is known to be away"
    await proxy.heal()
    await reachable(one, budget)
    await one.settled()
    assert await one.holds(budget) == 1, "what was asked for in vain holds nothing"
    assert (await one.counters(budget))["held"] == 10


async def test_a_slow_store_is_not_an_absent_one(proxy, one):
    proxy.faults = Faults(delay_s=0.03, one_byte=True)
    for _ in range(3):
        await reserve(one, tokens(100))
    assert one.store.up


@pytest.mark.slow
async def test_of_many_calls_at_once_none_waits_longer_than_the_deadline(proxy, one):
    loop, budget = asyncio.get_running_loop(), tokens(10_000)
    await reserve(one, budget)
    proxy.faults = Faults(black_hole=True)
    began = loop.time()
    results = await asyncio.gather(*(reserve(one, budget, wanted=1) for _ in range(300)), return_exceptions=True)
    assert all(isinstance(r, StoreUnavailableError) for r in results)
    assert loop.time() - began < 2 * QUICK_S
    await proxy.heal()
    await reachable(one, budget)
    await one.settled()
    assert await one.holds(budget) == 1


async def test_an_answer_that_is_lost_after_the_deed_counts_once(proxy, one):
    """The settlement is carried out and its answer never comes: sent again, it is a duplicate."""
    budget = tokens(1_000)
    holds = [await reserve(one, budget) for _ in range(5)]
    proxy.faults = Faults(reset_after=1.0)
    for hold in holds:
        one.ledger.settle(hold, spent(7))
    async with asyncio.timeout(10):
        while proxy.seen.count(b"EVALSHA") < 8:
            await asyncio.sleep(0.01)
    await proxy.heal()
    await one.settled()
    await reachable(one, budget)
    await one.settled()
    counters = await one.counters(budget)
    assert (counters["used"], counters["held"], counters["n"]) == (35, 0, 5)
    tally = one.ledger.settler.tally
    assert tally.settled_total + tally.duplicate_total >= 5
    assert tally.duplicate_total > 0, "or nothing was lost"


@pytest.mark.slow
async def test_a_reserve_whose_answer_is_lost_is_asked_again_and_holds_once(proxy, one):
    """The connection breaks at once, so the same reserve goes out again: it is told what it has."""
    budget = tokens(1_000)
    await reserve(one, budget, wanted=1)
    proxy.faults = Faults(reset_after=0.5)
    held = 1
    for _ in range(20):
        try:
            held += (await reserve(one, budget)).rows[0].amount
        except StoreUnavailableError:
            await asyncio.sleep(0.1)
    await proxy.heal()
    await reachable(one, budget)
    await one.settled()
    assert (await one.counters(budget))["held"] == held


@pytest.mark.parametrize(
    ("outage", "mode", "passes"),
    [("refuse", "hard", False), ("allow", "hard", True), ("refuse", "soft", True), ("refuse", "shadow", True)],
)
async def test_each_budget_says_what_becomes_of_its_calls_meanwhile(proxy, one, outage, mode, passes):
    budget = Budget(subject="user:a", unit="tokens", limit=100, period=TOTAL, mode=mode, outage=outage)
    await reserve(one, budget, wanted=1)
    proxy.faults = Faults(black_hole=True)
    if not passes:
        with pytest.raises(StoreUnavailableError):
            await reserve(one, budget)
        assert one.ledger.unreserved_total == 0
        return
    hold = await reserve(one, budget)
    assert not hold.reserved, "and that is told"
    assert one.ledger.unreserved_total == 1
    one.ledger.settle(hold, spent(30))
    await proxy.heal()
    await one.settled()
    assert (await one.counters(budget))["used"] == 30, "it is charged when the store is back"


async def test_one_budget_that_refuses_is_enough(proxy, one):
    await reserve(one, tokens(100), wanted=1)
    proxy.faults = Faults(black_hole=True)
    with pytest.raises(StoreUnavailableError):
        await reserve(one, tokens(100, outage="allow"), tokens(100, "team:t"))


async def test_a_call_that_nobody_limits_does_not_notice(proxy, one):
    proxy.faults = Faults(black_hole=True)
    hold = await reserve(one)
    one.ledger.settle(hold, spent(3))
    await proxy.heal()
    await one.settled()


async def storm(server, seed: int, calls: int) -> None:
    """Loss, copies, delays and resets at once, from two sidecars; in the end the books are exact."""
    rng, budget, truth = random.Random(seed), tokens(5_000), 0
    async with fault_proxy(server.address, seed=seed) as proxy:
        async with till(proxy.address, deadline_s=DEADLINE_S) as a, till(proxy.address, deadline_s=DEADLINE_S) as b:
            proxy.faults = Faults(jitter_s=0.01, drop=0.01, duplicate=0.3, reset=0.02, reset_after=0.03)

            async def call(one) -> None:
                nonlocal truth
                await asyncio.sleep(rng.uniform(0, calls / 150))
                try:
                    hold = await reserve(one, budget, wanted=rng.randint(1, 100))
                except (StoreError, RefusedError):
                    return
                await asyncio.sleep(rng.uniform(0, 0.2))
                used = rng.randint(0, hold.granted)
                truth += used
                one.ledger.settle(hold, spent(used))

            await asyncio.gather(*(call(rng.choice((a, b))) for _ in range(calls)))
            await proxy.heal()
            for one in (a, b):
                await reachable(one, tokens(10**6, "user:other"))
                await one.settled()
            counters = await a.counters(budget)
            print(
                f"seed {seed}: {truth} used of 5000; {proxy.connections_total} connections, {len(proxy.seen)} commands"
            )
            assert counters["used"] == truth <= 5_000
            assert counters["held"] == 0
            assert await a.holds(budget) == 0, "no tombstone came too late to matter"
            assert truth > 0


@pytest.mark.slow
async def test_a_storm_of_faults_leaves_exact_books(server, raw):
    await storm(server, 1, 80)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
async def test_longer_storms_leave_exact_books(server, raw, seed):
    await storm(server, seed, 600)


@pytest.mark.slow
@pytest.mark.parametrize("snapshot", ["before its release", "before its reserve"])
async def test_a_hold_that_lost_writes_bring_back_is_released_again(server, raw, snapshot):
    """Its reserve's answer never came. There is no journal here: its release is told again from memory."""
    budget = tokens(100)
    async with fault_proxy(server.address, seed=6) as proxy, till(proxy.address, deadline_s=1.0) as one:
        one.ledger.release(await one.ledger.reserve(ask(budget), request_id="r"))  # so that the store knows the scripts
        await one.settled()
        before = await dumped(raw)
        proxy.faults = Faults(mute=True)
        call = asyncio.create_task(one.ledger.reserve(ask(budget, wanted=60, least=60), request_id="r"))
        key = one.store.key("x", budget.id, "total")
        async with asyncio.timeout(5):
            while not await raw.call("EXISTS", key, deadline_s=5):
                await asyncio.sleep(0.005)
        if snapshot == "before its release":
            before = await dumped(raw)
        with pytest.raises(StoreUnavailableError):
            await call
        await proxy.heal()
        await one.settled()
        assert await one.holds(budget) == 0
        await raw.call("FLUSHALL", deadline_s=5)
        for name, dump in before.items():
            await raw.call("RESTORE", name, 0, dump, deadline_s=5)
        await raw.call("HSET", one.store.key("g"), "gen", "another", deadline_s=5)
        assert await raw.call("EXISTS", key, deadline_s=5) == (snapshot == "before its release")
        await one.ledger.extend()
        mark = one.store.key("s", one.ledger.sid)
        async with asyncio.timeout(5):
            while not await raw.call("HEXISTS", mark, "d:2", deadline_s=5):
                await asyncio.sleep(0.005)
        assert await one.holds(budget) == 0
        assert (await one.counters(budget)).get("held", 0) == 0


async def test_who_says_that_all_is_told_has_told_what_waits_for_its_next_try(server, raw):
    budget = tokens(100)
    async with till(server.address) as one:
        hold = await one.ledger.reserve(ask(budget, wanted=60, least=60), request_id="r")
        del one.ledger.open[hold.seq]
        one.ledger.settler.pending[hold.seq] = settlement(hold, spent(7))  # its task sleeps for up to 2 s
        await raw.call("HSET", one.store.key("g"), "gen", "another", deadline_s=5)
        await one.ledger.extend()
        async with asyncio.timeout(5):
            while one.ledger.settler.trusted_run_id != one.store.run_id:
                await asyncio.sleep(0.005)
        counters = await one.counters(budget)
        assert (counters["used"], counters["held"]) == (7, 0)


async def dumped(raw):
    """Everything that the store has."""
    return {name: await raw.call("DUMP", name, deadline_s=5) for name in await raw.call("KEYS", "*", deadline_s=5)}
