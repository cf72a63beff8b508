"""A call whose lease is over goes on only with room of its own; and whether others took it or the store is away is told apart."""

import asyncio
from dataclasses import replace

import pytest

import accounting.ledger
from accounting.renewing import leased, renewed
from accounting.store.errors import StoreUnavailableError
from tests.fault_proxy import Faults, fault_proxy
from tests.ledger.houses import ask, spent, till, tokens


async def lost(one, raw, budget):
    """A hold of 60 that the store has no more."""
    hold = await one.ledger.reserve(ask(budget, wanted=60, least=60), request_id="r")
    await raw.call("DEL", hold.rows[0].counters_key, hold.rows[0].holds_key, deadline_s=5)
    return hold


async def test_a_hold_that_is_there_is_renewed_and_keeps_its_number(server, raw):
    budget = tokens(100)
    async with till(server.address) as one:
        hold = await one.ledger.reserve(ask(budget, wanted=60, least=60), request_id="r")
        seq, hold.until_s = hold.seq, 0.0
        assert await renewed(one.ledger, hold)
        assert (hold.seq, hold.until_s > asyncio.get_running_loop().time()) == (seq, True)
        assert await one.holds(budget) == 1


async def test_a_hold_that_is_gone_is_held_anew_under_another_number_and_charged_once(server, raw):
    budget = tokens(100)
    async with till(server.address) as one:
        hold = await lost(one, raw, budget)
        assert await renewed(one.ledger, hold)
        assert (hold.seq, hold.lost, list(one.ledger.open)) == (2, False, [2])
        one.ledger.settle(hold, spent(25))
        await one.settled()
        counters = await one.counters(budget)
        assert (counters["used"], counters["held"], counters.get("late")) == (25, 0, None)


async def test_room_that_others_took_ends_it(server, raw):
    budget = tokens(100)
    async with till(server.address) as one:
        hold = await lost(one, raw, budget)
        await one.ledger.reserve(ask(budget, wanted=50, least=50), request_id="other")
        assert not await renewed(one.ledger, hold)
        assert (await one.counters(budget))["held"] == 50


async def test_whoever_left_meanwhile_holds_nothing_anew(server, raw):
    budget = tokens(100)
    async with till(server.address) as one:
        hold = await lost(one, raw, budget)
        one.ledger.release(hold)
        await one.settled()
        assert not await renewed(one.ledger, hold)
        await one.settled()
        assert await one.holds(budget) == 0
        assert not one.ledger.open


@pytest.mark.parametrize(
    ("outages", "modes", "goes_on"),
    [
        (("refuse",), ("hard",), False),
        (("allow",), ("hard",), True),
        (("allow", "refuse"), ("hard", "hard"), False),
        (("allow", "refuse"), ("hard", "soft"), True),
        (("refuse",), ("shadow",), True),
    ],
)
async def test_without_the_store_it_goes_on_only_where_all_that_bind_allow_it(
    server, raw, monkeypatch, outages, modes, goes_on
):
    monkeypatch.setattr(accounting.ledger, "EXTEND_S", 0.1)
    budgets = [
        replace(tokens(1_000, f"user:{i}", outage=outage), mode=mode)
        for i, (outage, mode) in enumerate(zip(outages, modes, strict=True))
    ]
    async with fault_proxy(server.address, seed=1) as proxy, till(proxy.address) as one:
        hold = await one.ledger.reserve(ask(*budgets, wanted=60, least=60), request_id="r")
        proxy.faults = Faults(black_hole=True)
        if goes_on:
            assert await renewed(one.ledger, hold)
        else:
            with pytest.raises(StoreUnavailableError):
                await renewed(one.ledger, hold)
        await proxy.heal()


async def test_a_store_that_learns_is_one_that_is_away(server, raw):
    budget = tokens(100)
    async with till(server.address) as one:
        hold = await lost(one, raw, budget)
        await raw.call("HSET", one.store.key("g"), "learn", 10**15, deadline_s=5)
        await raw.call("HSET", one.store.key("s", one.ledger.sid), "low", 1, deadline_s=5)  # so that it is not adopted
        with pytest.raises(StoreUnavailableError):
            await renewed(one.ledger, hold)


@pytest.mark.parametrize(("mode", "ends"), [("hard", True), ("soft", False)])
async def test_a_lease_that_is_over_when_it_comes_is_none(server, raw, monkeypatch, mode, ends):
    async with till(server.address) as one:
        budget = replace(tokens(100), mode=mode)
        hold = await one.ledger.reserve(ask(budget, wanted=60, least=60), request_id="r")
        assert leased(hold) is ends
        monkeypatch.setattr(accounting.ledger, "TTL_MS", 1)
        if ends:
            with pytest.raises(StoreUnavailableError, match="too late"):
                await renewed(one.ledger, hold)
        else:
            assert await renewed(one.ledger, hold)
