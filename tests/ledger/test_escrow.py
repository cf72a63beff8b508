"""What is held ahead of time and spent while the store is away (`outage: escrow`): never more than is held, and counted once."""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from accounting.ask import Ask, Draw
from accounting.budgets import Budget
from accounting.escrow import ACTIVE_S, AGAIN_S, TOKENS_MAX, Escrows
from accounting.hold import BudgetRefusedError, HeldRow, Hold, RefusedError
from accounting.store.errors import StoreError, StoreUnavailableError
from tests.fault_proxy import Faults, fault_proxy
from tests.ledger.houses import TOTAL, ask, spent, till, tokens
from tests.ledger.scenes import START, TTL, draw

ESCROW = "user:a"
HOLE = Faults(black_hole=True)


def budget_of(limit=100_000, **more):
    return tokens(limit, ESCROW, outage="escrow", **more)


# the pure part ----------------------------------------------------------------------------------------------------


def hold_of(seq, budget, granted, *, remaining=10**15, until_s=30.0, key="b", amount=0, cover=0):
    row = HeldRow(
        budget=budget, counters_key=key, holds_key="x", field="used", amount=amount, expiry_ms=0, resets_ms=None,
        limit=remaining, used=0, held=0, cover_seq=cover,
    )  # fmt: skip
    return Hold(seq=seq, request_id="r", granted=granted, rows=(row,), until_s=until_s)


def kept(budget, *, per_output=1):
    escrows = Escrows()
    assert escrows.noticed(Ask(draws=(Draw(budget, 5, per_output),)), hold_of(1, budget, 10), 0.0)
    (wanted,) = escrows.wanted(0.0)
    escrows.took(wanted, hold_of(2, budget, wanted.wanted))
    return escrows, wanted.wanted


@pytest.mark.parametrize(
    ("unit", "limit", "per_output", "size"),
    [
        ("tokens", 100_000, 1, 2_000),
        ("tokens", 10**9, 1, TOKENS_MAX),
        ("output_tokens", 10**9, 3, TOKENS_MAX),
        ("input_tokens", 10**9, 0, TOKENS_MAX),
        ("usd", 10**9, 2_000, 2 * 10**7),
        ("usd", 10**12, 2_000, TOKENS_MAX * 2_000),
        ("usd", 10**12, 0, 2 * 10**10),
        ("requests", 1_000, 0, 20),
    ],
)
def test_it_is_a_fiftieth_of_the_limit_or_twenty_thousand_tokens_worth(unit, limit, per_output, size):
    budget = Budget(subject=ESCROW, unit=unit, limit=limit, period=TOTAL, outage="escrow")
    _, wanted = kept(budget, per_output=per_output)
    assert wanted == size


@pytest.mark.parametrize("more", [{"mode": "soft"}, {"mode": "shadow"}, {"outage": "refuse"}, {"outage": "allow"}])
def test_only_hard_budgets_with_that_policy_keep_one(more):
    budget = dataclasses.replace(budget_of(), **more)
    assert not Escrows().noticed(Ask(draws=(Draw(budget, 5, 1),)), hold_of(1, budget, 10), 0.0)


@pytest.mark.parametrize(
    ("limit", "remaining", "due"), [(49, 10**15, False), (100_000, 19_999, False), (100_000, 20_000, True)]
)
def test_a_budget_that_is_tiny_or_runs_low_keeps_none(limit, remaining, due):
    budget = budget_of(limit)
    escrows = Escrows()
    assert escrows.noticed(Ask(draws=(Draw(budget, 5, 1),)), hold_of(1, budget, 10, remaining=remaining), 0.0) is due


def test_it_is_asked_for_once_and_again_later():
    budget, escrows = budget_of(), Escrows()
    call = Ask(draws=(Draw(budget, 5, 1),)), hold_of(1, budget, 10)
    assert escrows.noticed(*call, 0.0)
    assert len(escrows.wanted(0.0)) == 1
    assert not escrows.noticed(*call, 0.1)
    assert not escrows.wanted(AGAIN_S - 0.1)
    assert len(escrows.wanted(AGAIN_S)) == 1


def test_it_pays_for_calls_until_it_is_spent_and_takes_back_what_they_did_not_use():
    budget = budget_of()
    escrows, size = kept(budget)
    call = Ask(draws=(Draw(budget, 100, 1),), wanted=5_000, least=500)
    found = escrows.admit(call, ["b"], 1.0)
    assert found is not None
    assert found.granted == size - 100
    hold = hold_of(3, budget, found.granted, amount=size, cover=2)
    escrows.opened(hold, found)
    assert escrows.admit(call, ["b"], 1.0) is None, "all of it is out"
    escrows.settled(hold, [700])
    assert escrows.admit(call, ["b"], 1.0).granted == size - 700 - 100
    assert escrows.admit(replace(call, share_permille=100), ["b"], 1.0).granted == 500, "the least, before a share"
    whole = Ask(draws=(Draw(dataclasses.replace(budget, hold="full"), 100, 1),), wanted=size, least=1)
    assert escrows.admit(whole, ["b"], 1.0) is None
    assert escrows.admit(replace(whole, wanted=size - 800), ["b"], 1.0).granted == size - 800


def test_it_pays_for_as_much_output_as_fits_at_its_price():
    escrows, size = kept(budget_of())
    call = Ask(draws=(Draw(budget_of(), 100, 3),), wanted=5_000, least=1)
    assert escrows.admit(call, ["b"], 1.0).granted == (size - 100) // 3
    assert escrows.admit(replace(call, share_permille=500), ["b"], 1.0).granted == (size - 100) // 3 // 2


@pytest.mark.parametrize("cover", [0, 1, 3])
def test_a_call_that_another_paid_for_gives_it_nothing_back(cover):
    budget = budget_of()
    escrows, size = kept(budget)
    call = Ask(draws=(Draw(budget, 0, 1),), wanted=size, least=1)
    escrows.opened(hold_of(4, budget, size - 100, amount=size - 100, cover=2), escrows.admit(call, ["b"], 1.0))
    escrows.settled(hold_of(5, budget, 500, amount=500, cover=cover), [0])
    assert escrows.admit(call, ["b"], 1.0).granted == 100
    other = tokens(100_000, "team:none")
    escrows.settled(hold_of(6, other, 500, amount=500, cover=2), [0])
    assert escrows.admit(call, ["b"], 1.0).granted == 100


@pytest.mark.parametrize(
    ("key", "now_s", "lost"), [("of another period", 1.0, False), ("b", 30.0, False), ("b", 1.0, True)]
)
def test_it_pays_for_nothing_in_another_period_beyond_its_lease_or_once_lost(key, now_s, lost):
    budget = budget_of()
    escrows, _ = kept(budget)
    escrows.holds()[0].lost = lost
    call = Ask(draws=(Draw(budget, 1, 1),), wanted=1, least=1)
    assert escrows.admit(call, ["b"], 29.9 if key == "b" and not lost else 1.0) is not None or lost
    assert escrows.admit(call, [key], now_s) is None


def test_all_budgets_of_a_call_must_let_it_pass():
    mine = budget_of()
    escrows, _ = kept(mine)
    others = {
        "refuse": False, "allow": True, "escrow": False,  # of this one nothing is kept
    }  # fmt: skip
    for outage, passes in others.items():
        other = tokens(100, "team:t", outage=outage)
        call = Ask(draws=(Draw(mine, 1, 1), Draw(other, 1, 1)), wanted=10, least=1)
        found = escrows.admit(call, ["b", "c"], 1.0)
        assert (found is not None) is passes
        assert found is None or found.covered, "one that pays is enough"
    soft = tokens(1, "team:t", mode="soft")
    assert escrows.admit(Ask(draws=(Draw(soft, 9, 1),), wanted=10), ["c"], 1.0).covered is False


def test_it_is_given_back_when_it_was_spent_from_is_idle_or_its_budget_runs_low():
    budget = budget_of()
    for why in ("spent", "idle", "low", "lost", "scarce"):
        escrows, _ = kept(budget)
        assert not escrows.given_back(1.0, 0, ())
        call = Ask(draws=(Draw(budget, 1, 1),), wanted=10, least=1)
        if why == "spent":
            hold = hold_of(3, budget, 10, amount=11, cover=2)
            escrows.opened(hold, escrows.admit(call, ["b"], 1.0))
            assert not escrows.given_back(1.0, 0, ({3},)), "not while its calls are not settled"
        elif why == "low":
            escrows.noticed(call, hold_of(3, budget, 10, remaining=10), 1.0)
            escrows.noticed(call, hold_of(3, budget, 10, remaining=5), 1.0)
            assert escrows.holds()
            escrows.noticed(
                call, replace(hold_of(3, budget, 10), rows=(replace(hold_of(3, budget, 10).rows[0], limit=0),)), 1.0
            )
        elif why == "lost":
            escrows.holds()[0].lost = True
        elif why == "scarce":
            assert escrows.scarce(budget)
        now_s = ACTIVE_S + 1 if why == "idle" else 1.0
        assert [hold.seq for hold in escrows.given_back(now_s, 0, ())] == [2], why
        assert not escrows.holds()


# the script -------------------------------------------------------------------------------------------------------


def escrowed(scene, size=100, limit=1_000):
    scene.reserve(draw(limit, 0, 1), wanted=size, least=size, seq=1)
    scene.reserve(draw(limit, 0), seq=2)  # the session goes on


def test_what_a_call_spends_is_taken_off_the_escrow_in_the_same_step(scene):
    escrowed(scene)
    assert scene.settle(5, "60@1", 40) == [b"OK", 40, 60]
    assert scene.used_and_held() == (40, 60)
    assert scene.settle(5, "60@1", 40) == [b"DUP"]
    assert scene.settle(6, "60@1", 60) == [b"OK", 100, 0]
    assert scene.lua.counters("b1", "total")[0] == {"used": 100, "n": 2}, "neither late nor over"
    assert scene.settle(1, 100, 0, told=False) == [b"OK", 100, 0], "it is given back by what is left of it"
    assert scene.used_and_held() == (100, 0)


def test_what_goes_beyond_the_escrow_counts_all_the_same(scene):
    escrowed(scene)
    assert scene.settle(5, "60@1", 130) == [b"OK", 130, 0]
    assert scene.lua.counters("b1", "total")[0] == {"used": 130, "n": 1, "over": 70}


@pytest.mark.parametrize("how", ["expired and cleared away", "given back"])
def test_without_its_escrow_it_is_late(scene, how):
    escrowed(scene)
    if how == "given back":
        scene.settle(1, 100, 0, told=False)
    else:
        scene.lua.now = START + TTL + 1
        scene.seq = 8
        scene.hold(1_000, 1)
    held = scene.used_and_held()[1]
    assert scene.settle(5, "60@1", 40) == [b"OK", 40, held]
    assert scene.lua.counters("b1", "total")[0]["late"] == 40


def test_its_lease_is_not_changed_and_a_heartbeat_knows_its_new_size(scene):
    escrowed(scene)
    before = scene.lua.counters("b1", "total")[1]["s.1"][1]
    scene.settle(5, "60@1", 40)
    assert scene.lua.counters("b1", "total")[1]["s.1"] == (60, before)
    scene.lua.now = START + TTL - 1
    assert scene.lua.extend("run1", "s", TTL, [(1, 100, [("b1", "total", 100)])])[4:] == []
    assert scene.lua.counters("b1", "total")[1]["s.1"] == (60, START + 2 * TTL - 1)


# the ledger -------------------------------------------------------------------------------------------------------


async def escrow_kept(one, budget):
    """Call once, so that the budget is in use, and wait for its escrow."""
    one.ledger.settle(await one.ledger.reserve(ask(budget, fixed=10, wanted=1, least=1), request_id="r"), spent(0))
    async with asyncio.timeout(5):
        while not one.ledger.escrows.holds():
            await asyncio.sleep(0.005)
    await one.settled()
    return one.ledger.escrows.holds()[0]


@pytest.mark.slow
async def test_one_whose_answer_never_came_holds_nothing(server, raw):
    budget = budget_of()
    async with fault_proxy(server.address, seed=8) as proxy, till(proxy.address, deadline_s=0.5) as one:
        call = ask(budget, fixed=10, wanted=1, least=1)
        hold = await one.ledger.reserve(call, request_id="r")
        await escrow_kept(one, budget)
        one.ledger.give_up_escrows()
        await one.settled()
        hold.until_s = 10.0**9
        assert one.ledger.escrows.noticed(call, hold, 10.0**9)
        proxy.faults = Faults(mute=True)
        keeping = asyncio.create_task(one.ledger.keep_escrows())
        async with asyncio.timeout(5):
            while await one_holds(raw, hold) < 2:
                await asyncio.sleep(0.005)
        await keeping
        await proxy.heal()
        await one.settled()
        assert await one_holds(raw, hold) == 1, "the call's own"


async def one_holds(raw, hold):
    return await raw.call("ZCARD", hold.rows[0].holds_key, deadline_s=5)


async def until_reached(one):
    async with asyncio.timeout(8):
        while True:
            try:
                one.ledger.release(await one.ledger.reserve(ask(tokens(10, "user:other"), wanted=1), request_id="r"))
                return
            except (StoreError, RefusedError):
                await asyncio.sleep(0.05)


async def test_while_the_store_is_away_exactly_the_escrow_is_served(server, raw):
    budget, call = budget_of(100_000), dict(fixed=50, wanted=450, least=450)
    async with fault_proxy(server.address, seed=5) as proxy, till(proxy.address, deadline_s=0.25) as one:
        hold = await escrow_kept(one, budget)
        assert (hold.granted, (await one.counters(budget))["held"]) == (2_000, 2_000)
        proxy.faults = HOLE
        holds = [await one.ledger.reserve(ask(budget, **call), request_id="r") for _ in range(4)]
        assert all(h.escrow and not h.reserved for h in holds)
        assert one.ledger.escrow_total == 4
        assert one.ledger.unreserved_total == 0
        with pytest.raises(StoreUnavailableError):
            await one.ledger.reserve(ask(budget, **call), request_id="r")
        for h in holds:
            one.ledger.settle(h, replace(spent(400), input_tokens=50))
        last = await one.ledger.reserve(ask(budget, fixed=0, wanted=450, least=1), request_id="r")
        assert last.granted == 200, "clamped to what is left of it"
        one.ledger.settle(last, spent(200))
        with pytest.raises(StoreUnavailableError):
            await one.ledger.reserve(ask(budget, wanted=1, least=1), request_id="r")
        await proxy.heal()
        await until_reached(one)
        await one.settled()
        counters = await one.counters(budget)
        assert (counters["used"], counters["held"]) == (2_000, 0)
        assert "late" not in counters
        assert "over" not in counters
        await one.ledger.keep_escrows()
        await one.settled()
        assert await one.holds(budget) == 0, "one that was spent from is given back, to be taken anew"


async def test_nobody_else_gets_what_an_escrow_holds_and_at_no_time_is_more_used_and_held_than_the_limit(server, raw):
    budget = budget_of(1_000)
    async with (
        fault_proxy(server.address, seed=5) as proxy,
        till(proxy.address, deadline_s=0.25) as one,
        till(server.address) as two,
    ):
        await escrow_kept(one, budget)
        proxy.faults = HOLE
        rest = await two.ledger.reserve(ask(budget, wanted=980, least=980), request_id="r")
        with pytest.raises(BudgetRefusedError) as refused:
            await two.ledger.reserve(ask(budget, wanted=1, least=1), request_id="r")
        assert refused.value.held_only
        two.ledger.settle(rest, spent(980))
        await two.settled()
        mine = await one.ledger.reserve(ask(budget, wanted=100, least=1), request_id="r")
        assert mine.granted == 20
        one.ledger.settle(mine, spent(15))
        await proxy.heal()
        async with asyncio.timeout(8):
            while one.ledger.settler.pending:
                counters = await two.counters(budget)
                assert counters["used"] + counters["held"] <= 1_000
                await asyncio.sleep(0.001)
        counters = await two.counters(budget)
        assert (counters["used"], counters["held"]) == (995, 5)


async def test_an_escrow_is_not_used_beyond_its_lease(server, raw):
    budget = budget_of()
    async with fault_proxy(server.address, seed=5) as proxy, till(proxy.address, deadline_s=0.25) as one:
        hold = await escrow_kept(one, budget)
        loop = asyncio.get_running_loop()
        assert 29 < hold.until_s - loop.time() < 29.66, "a hundredth and 50 ms before the store lets go of it"
        proxy.faults = HOLE
        one.ledger.release(await one.ledger.reserve(ask(budget, wanted=1), request_id="r"))
        hold.until_s = loop.time()
        with pytest.raises(StoreUnavailableError):
            await one.ledger.reserve(ask(budget, wanted=1), request_id="r")
        await proxy.heal()


async def test_a_heartbeat_keeps_it_and_a_stop_gives_it_back(server, raw):
    budget = budget_of()
    async with till(server.address) as one:
        hold = await escrow_kept(one, budget)
        before = hold.until_s
        await one.ledger.extend()
        assert hold.until_s > before
        one.ledger.give_up_escrows()
        await one.settled()
        assert await one.holds(budget) == 0


async def test_a_refusal_for_want_of_what_we_hold_ahead_gives_it_up(server, raw):
    budget = budget_of(1_000)
    async with till(server.address) as one:
        await escrow_kept(one, budget)
        with pytest.raises(BudgetRefusedError) as refused:
            await one.ledger.reserve(ask(budget, wanted=990, least=990), request_id="r")
        assert refused.value.held_only, "so it is tried again in a moment"
        async with asyncio.timeout(5):
            while one.ledger.escrows.holds() or one.ledger.settler.pending:
                await asyncio.sleep(0.005)
        await one.ledger.reserve(ask(budget, wanted=990, least=990), request_id="r")
