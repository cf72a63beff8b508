"""Holds that grow: piece by piece, never past the limit, once however often they are asked (`hold: slice`)."""

import asyncio
import random

import pytest

from accounting.periods import Period
from tests.fault_proxy import Faults, fault_proxy
from tests.ledger.commands import key
from tests.ledger.houses import ask, spent, till, tokens
from tests.ledger.scenes import AMOUNT_MAX, RUN, START, TTL, Draw, draw


def grow(scene, seq: int, draws: list[Draw], wanted: int, least: int = 0, run: str = RUN):
    return scene.lua.grow(run, "s", seq, TTL, wanted, least, tuple(draws))


def test_a_hold_grows_to_what_fits_and_not_further(scene):
    d = draw(100, 10, 1)
    scene.reserve(d, wanted=20, least=20, seq=1)
    scene.reserve(d, wanted=20, least=20, seq=2)
    assert grow(scene, 1, [d], 30)[2:] == [30, 40]
    assert grow(scene, 1, [d], 500)[2:] == [60, 70], "100 less the other's 30"
    assert scene.used_and_held() == (0, 100)
    refused = grow(scene, 1, [d], 500, least=61)
    assert refused[0] == b"DENY"
    assert refused[2:] == [1, 100, 0, 100, 71]
    assert scene.used_and_held() == (0, 100), "what is refused stays as it is"
    scene.settle(2, 30, 0)
    assert grow(scene, 1, [d], 500, least=61)[2] == 90


def test_it_grows_on_all_of_its_budgets_or_on_none(scene):
    a, b = draw(100, 0, 1), draw(50, 5, 2, budget="b2")
    scene.reserve(a, b, wanted=10, least=10, seq=1)
    assert grow(scene, 1, [a, b], 40, least=23)[0] == b"DENY"
    assert (scene.used_and_held(), scene.used_and_held("b2")) == ((0, 10), (0, 25))
    assert grow(scene, 1, [a, b], 40)[2:] == [22, 22, 49]


@pytest.mark.parametrize("why", ["settled", "released", "expired", "never"])
def test_what_is_over_does_not_grow(scene, why):
    d = draw(100, 0, 1)
    if why != "never":
        scene.reserve(d, wanted=10, least=10, seq=1)
    if why == "expired":
        scene.lua.now = START + TTL
    elif why != "never":
        scene.settle(1, 10, 5 if why == "settled" else 0)
    held = scene.used_and_held()[1]
    assert grow(scene, 1, [d], 50)[0] == b"LOST"
    assert scene.used_and_held()[1] == held


def test_asking_again_grows_once_and_asking_for_less_changes_nothing(scene):
    d = draw(100, 5, 1)
    scene.reserve(d, wanted=10, least=10, seq=1)
    for _ in range(4):
        assert grow(scene, 1, [d], 30)[2:] == [30, 35]
    assert grow(scene, 1, [d], 3)[2:] == [30, 35]
    assert scene.used_and_held() == (0, 35)


@pytest.mark.parametrize("how", ["grows", "grows by nothing", "pays for a call", "pays for a call that used nothing"])
def test_the_holds_of_a_window_are_forgotten_with_it_though_their_only_one_changed(scene, how):
    """A set that is empty for a moment is deleted, and the new one has no end."""
    d = draw(100, 0, 1, pid="p", start=START, end=START + 60_000)
    scene.reserve(d, wanted=10, least=10, seq=1)
    if how.startswith("grows"):
        assert grow(scene, 1, [d], 30 if how == "grows" else 10)[0] == b"OK"
    else:
        used = 0 if how.endswith("nothing") else 4
        assert scene.settle(2, "10@1", used, pid="p") == [b"OK", used, 10 - used]
    assert scene.lua.redis("PTTL", key("x", "b1", "p")) > 0


def test_growing_is_a_sign_of_life(scene):
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=10, least=10, seq=1)
    scene.lua.now = START + TTL - 1
    grow(scene, 1, [d], 10)
    scene.lua.now = START + 2 * TTL - 2
    assert grow(scene, 1, [d], 20)[0] == b"OK"


def test_a_settlement_that_knows_only_the_old_size_gives_back_all(scene):
    """The answer to the growth was lost."""
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=10, least=10, seq=1)
    grow(scene, 1, [d], 40)
    assert scene.settle(1, 10, 25) == [b"OK", 25, 0]
    assert scene.lua.counters("b1", "total")[0] == {"used": 25, "n": 1}, "neither late nor over: it was held"


def test_a_heartbeat_that_knows_only_the_old_size_keeps_all(scene):
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=10, least=10, seq=1)
    grow(scene, 1, [d], 40)
    scene.lua.now = START + TTL - 1
    assert scene.lua.extend(RUN, "s", TTL, [(1, 10, [("b1", "total", 10)])])[4:] == []
    scene.lua.now = START + TTL + 5
    assert scene.lua.read([d])[3] == 40


@pytest.mark.parametrize("hold", ["there as it was", "lost", "expired"])
def test_a_store_that_forgot_a_growth_learns_it_again(scene, hold):
    a, b = draw(100, 0, 1), draw(500, 5, 2, budget="b2")
    scene.reserve(a, b, wanted=10, least=10, seq=1)
    if hold == "lost":
        scene.lua.redis("DEL", key("b", "b1", "total"), key("x", "b1", "total"))
    scene.lua.now += TTL + 1 if hold == "expired" else 0
    told = [(1, 40, [("b1", "total", 40), ("b2", "total", 85)])]
    scene.lua.generation("run2", 6_000, 15_000, "x", "e", "s")
    for _ in range(2):
        assert scene.lua.extend("run2", "s", TTL, told)[4:] == []
        assert (scene.used_and_held(), scene.used_and_held("b2")) == ((0, 40), (0, 85))
    assert scene.lua.settle(
        "run2", "s", 1, 0, "p", True, [("b1", "total", b"used", 40, 33), ("b2", "total", b"used", 85, 71)]
    ) == [b"OK", 33, 0, 71, 0]
    assert scene.lua.counters("b1", "total")[0] == {"used": 33, "n": 1}


def test_of_an_escrow_the_store_knows_better_how_much_is_left(scene):
    scene.reserve(draw(1_000, 0, 1), wanted=100, least=100, seq=1)
    scene.settle(5, "60@1", 60)
    scene.lua.generation("run2", 6_000, 15_000, "x", "e", "s")
    assert scene.lua.extend("run2", "s", TTL, [(1, 0, [("b1", "total", 100)])])[4:] == []
    assert scene.used_and_held() == (60, 40)


def test_expired_holds_of_others_leave_room_though_nobody_cleared_them_away(scene):
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=80, least=80, seq=1)
    scene.lua.now = START + TTL - 1
    scene.reserve(d, wanted=20, least=20, seq=2)
    scene.lua.now = START + TTL
    assert grow(scene, 2, [d], 100)[2] == 100


def test_a_clock_that_is_set_back_brings_none_back_whose_room_was_taken(scene):
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=80, least=80, seq=1)
    scene.lua.now = START + 1
    scene.reserve(d, wanted=20, least=20, seq=2)
    scene.lua.now = START + TTL
    assert grow(scene, 2, [d], 100)[2] == 100
    scene.lua.now = START + 5
    _, _, used, held, *_ = scene.lua.read([d])
    assert (used, held) == (0, 100)
    assert scene.lua.extend(RUN, "s", TTL, [(1, 80, [("b1", "total", 80)])])[4:] == [b"1"], "it is lost"


def test_growing_moves_the_clock_on_as_a_heartbeat_does(scene):
    """A lease that is given by a clock which then is set back would last too long."""
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=10, least=10, seq=1)
    scene.lua.now = START + 20_000
    grow(scene, 1, [d], 20)
    scene.lua.now = START
    assert scene.lua.read([d])[0] == START + 20_000


def test_a_lowered_limit_stops_growth_and_takes_nothing_away(scene):
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=50, least=50, seq=1)
    assert grow(scene, 1, [draw(30, 0, 1, version=2)], 60)[2] == 50
    scene.reserve(draw(30, 0, version=3), seq=2)
    assert grow(scene, 1, [d], 60)[2] == 50, "whoever still knows the old limit"


@pytest.mark.parametrize("bad", ["-1", "1e3", str(AMOUNT_MAX + 1), ""])
def test_what_is_not_an_amount_does_not_grow(scene, bad):
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=10, least=10, seq=1)
    with pytest.raises(Exception, match="BURSAR"):
        grow(scene, 1, [d], bad)  # type: ignore[arg-type]
    assert scene.used_and_held() == (0, 10)


@pytest.mark.parametrize("seed", range(6))
def test_any_number_of_growing_streams_stay_within_the_limit(scene, seed):
    """Against a model: a dict of what each holds."""
    rng, limit, model = random.Random(seed), 2_000, {}
    used, done = 0, set()
    d = draw(limit, 3, 2)
    for _ in range(300):
        what = rng.random()
        if what < 0.3:
            wanted = rng.randint(1, 60)
            free = limit - used - sum(3 + 2 * g for g in model.values())
            reply = scene.reserve(d, wanted=wanted, least=1)
            if free >= 5:
                model[scene.seq] = min(wanted, (free - 3) // 2)
                assert reply[2] == model[scene.seq]
            else:
                assert reply[0] == b"DENY"
        elif what < 0.8 and model:
            seq, wanted, least = rng.choice(sorted(model)), rng.randint(1, 300), rng.choice((0, 0, 100))
            free = limit - used - sum(3 + 2 * g for s, g in model.items() if s != seq)
            reply = grow(scene, seq, [d], wanted, least)
            if least > model[seq] and 3 + 2 * least > free:
                assert reply[0] == b"DENY"
            else:
                model[seq] = max(model[seq], min(wanted, (free - 3) // 2))
                assert reply[2:] == [model[seq], 3 + 2 * model[seq]]
        elif model:
            seq = rng.choice(sorted(model))
            held = 3 + 2 * model.pop(seq)
            actual = rng.randint(0, held)
            used += actual
            scene.settle(seq, rng.choice((held, 5)), actual)
            done.add(seq)
        for seq in list(done)[:3]:
            assert grow(scene, seq, [d], 500)[0] == b"LOST"
        assert scene.used_and_held() == (used, sum(3 + 2 * g for g in model.values()))
        assert used + scene.used_and_held()[1] <= limit


async def test_a_stream_holds_slice_by_slice_until_the_budget_ends(server, raw):
    budget = tokens(1_000)
    async with till(server.address) as one:
        a = ask(budget, fixed=100, wanted=200, least=200)
        hold, other = [await one.ledger.reserve(a, request_id="r") for _ in range(2)]
        slices = 0
        while await one.ledger.grow(hold, a, hold.granted + 100, hold.granted + 50):
            slices += 1
        assert (slices, hold.granted, hold.rows[0].amount) == (4, 600, 700)
        one.ledger.settle(hold, spent(0))
        await one.settled()
        assert (await one.counters(budget))["held"] == 300
        assert not await one.ledger.grow(hold, a, 900)
        assert await one.ledger.grow(other, a, 900)
        assert other.granted == 900


async def test_growth_knows_what_a_rolling_window_counts(server, raw):
    budget = tokens(1_000, period=Period(kind="rolling:1h"))
    async with till(server.address) as one:
        a = ask(budget, wanted=100, least=100)
        first, hold = [await one.ledger.reserve(a, request_id="r") for _ in range(2)]
        one.ledger.settle(first, spent(100))
        await one.settled()
        assert await one.ledger.grow(hold, a, 5_000)
        assert hold.granted == 900


async def test_growth_whose_answers_are_lost_leaves_exact_books(server, raw):
    budget = tokens(100_000)
    async with fault_proxy(server.address, seed=3) as proxy, till(proxy.address, deadline_s=0.25) as one:
        a = ask(budget, wanted=10, least=10)
        holds = [await one.ledger.reserve(a, request_id="r") for _ in range(10)]
        proxy.faults = Faults(reset_after=0.3, duplicate=0.5)
        for size in (50, 100, 150):
            await asyncio.gather(*(one.ledger.grow(h, a, size) for h in holds), return_exceptions=True)
        await proxy.heal()
        for hold in holds:
            one.ledger.settle(hold, spent(9))
        await one.settled()
        counters = await one.counters(budget)
        assert (counters["used"], counters["held"]) == (90, 0)
        assert "late" not in counters
        assert await one.holds(budget) == 0
