"""The ledger as its callers have it: `reserve`, `settle`, `extend`, over a real store that fails, forgets and comes back."""

import asyncio

import pytest

from accounting.ask import Ask, Draw, Rate
from accounting.budgets import Budget, BudgetBook, Caller
from accounting.hold import BudgetRefusedError, ConfigChangedError, LearningError, RateRefusedError
from accounting.periods import Period
from accounting.reading import Reader
from accounting.settlement import Settlement, Spent
from accounting.store.errors import StoreUnavailableError
from accounting.stored import StoredConfig
from tests.ledger.houses import TOTAL, ask, spent, till, tokens


@pytest.fixture
async def one(server, raw):
    async with till(server.address) as till_:
        yield till_


async def reserve(one, *budgets, wanted=10, **more):
    return await one.ledger.reserve(
        ask(*budgets, wanted=wanted, least=more.pop("least", wanted), **more), request_id="r"
    )


async def test_a_hold_is_settled_once_whatever_is_called_how_often(one):
    budget = tokens(100)
    hold = await reserve(one, budget)
    for _ in range(3):
        one.ledger.settle(hold, spent(7))
        one.ledger.release(hold)
    await one.settled()
    assert await one.counters(budget) == {"used": 7, "held": 0, "n": 1}
    assert one.ledger.settler.tally.settled_total == 1


async def test_a_settled_call_is_seen_by_the_very_next_reserve(one):
    """Nothing is awaited in between: the settlement must leave first all the same."""
    budget = tokens(10)
    for _ in range(50):
        hold = await reserve(one, budget)
        one.ledger.settle(hold, spent(0))
    one.ledger.settle(await reserve(one, budget), spent(10))
    with pytest.raises(BudgetRefusedError) as refused:
        await reserve(one, budget, wanted=1)
    assert not refused.value.held_only
    assert (refused.value.row.used, refused.value.row.held, refused.value.requested) == (10, 0, 1)


async def test_a_refusal_names_the_budget_and_what_it_would_take(one):
    narrow, wide = tokens(5, "key:k"), tokens(100, "team:t")
    with pytest.raises(BudgetRefusedError) as refused:
        await reserve(one, wide, narrow, wanted=6)
    assert refused.value.row.budget == narrow
    await reserve(one, wide, narrow, wanted=5)
    with pytest.raises(BudgetRefusedError) as refused:
        await reserve(one, wide, narrow, wanted=1)
    assert refused.value.held_only
    assert refused.value.row.held == 5


async def test_a_reserve_that_is_cancelled_holds_nothing(one):
    budget = tokens(100)
    for _ in range(20):
        task = asyncio.create_task(reserve(one, budget))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await one.settled()
    assert await one.holds(budget) == 0
    assert (await one.counters(budget)).get("held", 0) == 0
    assert one.ledger.settler.low == 20, "and every mark can be forgotten"


async def test_several_units_in_one_budget_each_bind(one):
    period = Period(kind="day")
    budgets = [
        Budget(subject="user:a", unit=unit, limit=limit, period=period)
        for unit, limit in (("tokens", 100), ("requests", 2), ("usd", 50))
    ]
    worst = {"tokens": (5, 1), "requests": (1, 0), "usd": (4, 2)}
    a = Ask(draws=tuple(Draw(b, *worst[b.unit]) for b in budgets), wanted=80, least=1)
    hold = await one.ledger.reserve(a, request_id="r")
    assert hold.granted == 23, "the money is the tightest: 4 + 2 * 23 = 50"
    one.ledger.settle(hold, Spent(input_tokens=5, output_tokens=3, cost_nanousd=10, record=b"{}", day="20260101"))
    one.ledger.settle(
        await one.ledger.reserve(a, request_id="r"), Spent(input_tokens=1, cost_nanousd=1, record=b"{}", day="20260101")
    )
    with pytest.raises(BudgetRefusedError) as refused:
        await one.ledger.reserve(a, request_id="r")
    assert refused.value.row.budget.unit == "requests"
    balances = await Reader(one.store).balances(budgets, one.ledger.now_ms())
    assert [b.row.used for b in balances] == [9, 2, 11]


async def test_defaults_are_counted_for_each_subject_by_itself(one):
    book = BudgetBook([tokens(10, "user:*"), tokens(3, "user:bob")])
    for user, fits in (("alice", 10), ("carol", 10), ("bob", 3)):
        (budget,) = book.for_subjects(Caller(user=user).subjects())
        hold = await reserve(one, budget, wanted=50, least=1)
        assert hold.granted == fits
        assert hold.rows[0].budget.subject == f"user:{user}"


async def test_a_changed_configuration_is_seen_at_the_next_reserve_and_holds_nothing(one):
    budget = tokens(10)
    await StoredConfig(one.store).put_budget(tokens(99), {"by": "test"})
    with pytest.raises(ConfigChangedError) as changed:
        await reserve(one, budget)
    one.ledger.config_version = changed.value.version
    assert (await reserve(one, budget)).rows[0].held == 10


async def test_a_rate_is_refused_with_the_time_to_wait(one):
    a = Ask(rates=(Rate(subject="key:k", what="requests", limit=2, fixed=1, per_output=0),))
    first = await one.ledger.reserve(a, request_id="r")
    assert first.rates[0].remaining == 1
    await one.ledger.reserve(a, request_id="r")
    with pytest.raises(RateRefusedError) as refused:
        await one.ledger.reserve(a, request_id="r")
    assert 0 < refused.value.wait_ms <= 30_000


async def test_calls_at_once_are_refused_as_a_rate(one):
    limit = Budget(subject="key:k", unit="concurrency", limit=1, period=TOTAL, outage="allow")
    a = Ask(draws=(Draw(limit, 1, 0),))
    hold = await one.ledger.reserve(a, request_id="r")
    with pytest.raises(RateRefusedError):
        await one.ledger.reserve(a, request_id="r")
    one.ledger.settle(hold, spent(5))
    assert (await one.ledger.reserve(a, request_id="r")).granted == 0


class Book:
    """A journal that remembers, and may break."""

    def __init__(self):
        self.items, self.broken = [], False

    def admitted(self, note):
        if self.broken:
            raise StoreUnavailableError("disk")

    def progress(self, seq, payload):
        pass

    def settled(self, data):
        if self.broken:
            raise OSError("disk")
        self.items.append(Settlement.load(data))

    def acknowledged(self, seq):
        pass


async def test_what_cannot_be_written_down_is_not_begun_and_what_was_spent_is_settled(server, raw):
    journal, budget = Book(), tokens(100)
    async with till(server.address, journal=journal) as one:
        hold = await reserve(one, budget)
        journal.broken = True
        with pytest.raises(StoreUnavailableError):
            await reserve(one, budget)
        with pytest.raises(OSError, match="disk"):
            one.ledger.settle(hold, spent(9))
        await one.settled()
        counters = await one.counters(budget)
        assert (counters["used"], counters["held"]) == (9, 0)


async def lose_writes(raw, budget, *, keep: dict[bytes, bytes]) -> None:
    """The store goes back to what it was: another process with older books. (The run id that the books know is another's.)"""
    await raw.call("FLUSHALL", deadline_s=5)
    for key, dump in keep.items():
        await raw.call("RESTORE", key, 0, dump, deadline_s=5)
    await raw.call("HSET", "b:{t}:g", "gen", "somebody else", deadline_s=5)


async def snapshot(raw) -> dict[bytes, bytes]:
    return {k: await raw.call("DUMP", k, deadline_s=5) for k in await raw.call("KEYS", "*", deadline_s=5)}


async def until(condition, timeout_s=10):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def recovering(one, journal):
    async def recover():
        for item in journal.items:
            await one.ledger.settler.deliver(item, one.ledger.sid)

    one.ledger.recover = recover


async def test_a_store_that_lost_writes_learns_from_every_sidecar_and_then_is_exact(server, raw):
    """Both sidecars have settled and still hold; the store forgets all but the first calls. Nothing is admitted until both told it."""
    budget, books = tokens(1_000), (Book(), Book())
    async with till(server.address, journal=books[0]) as a, till(server.address, journal=books[1]) as b:
        recovering(a, books[0])
        recovering(b, books[1])
        for one in (a, b):
            one.ledger.settle(await reserve(one, budget, wanted=100), spent(50))
            await one.settled()
        kept = await snapshot(raw)
        for one in (a, b):
            for _ in range(3):
                one.ledger.settle(await reserve(one, budget, wanted=100), spent(60))
            await one.settled()
        holds = [await reserve(one, budget, wanted=100) for one in (a, b)]
        assert await a.counters(budget) == {"used": 460, "held": 200, "n": 8}
        await lose_writes(raw, budget, keep=kept)
        for one in (a, b):
            with pytest.raises(LearningError):
                await reserve(one, budget, wanted=1)
            assert one.ledger.learning
        await until(lambda: all(one.ledger.settler.trusted_run_id for one in (a, b)))
        assert await a.counters(budget) == {"used": 460, "held": 200, "n": 8, "late": 360}
        await raw.call("HSET", "b:{t}:g", "learn", "0", deadline_s=5)
        for one, hold in zip((a, b), holds, strict=True):
            assert not hold.lost
            one.ledger.settle(hold, spent(10))
            await one.settled()
        with pytest.raises(BudgetRefusedError):
            await reserve(a, budget, wanted=1_000 - 480 + 1)
        assert (await reserve(a, budget, wanted=1_000 - 480)).granted == 520


async def test_a_settlement_that_overtakes_the_recovery_does_not_make_the_store_forget(server, raw):
    """Its ack says that the calls before it are settled: the store that lost them must not believe it."""
    budget, book = tokens(1_000), Book()
    async with till(server.address, journal=book) as one:
        for _ in range(5):
            one.ledger.settle(await reserve(one, budget), spent(10))
        late = await reserve(one, budget)
        await one.settled()
        assert one.ledger.settler.low == 5
        await lose_writes(raw, budget, keep={})
        one.ledger.settle(late, spent(10))
        await one.settled()
        assert (await one.counters(budget))["used"] == 10
        recovering(one, book)
        with pytest.raises(LearningError):
            await reserve(one, budget)
        await until(lambda: one.ledger.settler.trusted_run_id)
        assert (await one.counters(budget))["used"] == 60


async def test_a_sidecar_that_has_not_told_all_again_says_nothing_of_what_may_be_forgotten(server, raw):
    """Another one has met the new process already, so the store would believe it."""
    budget, book = tokens(1_000), Book()
    async with till(server.address, journal=book) as one, till(server.address) as other:
        for _ in range(5):
            one.ledger.settle(await reserve(one, budget), spent(10))
        late = await reserve(one, budget)
        await one.settled()
        await lose_writes(raw, budget, keep={})
        one.ledger.settler.trusted_run_id = "the process before"
        with pytest.raises(LearningError):
            await reserve(other, budget)
        one.ledger.settle(late, spent(10))
        await one.settled()
        for item in book.items:
            await one.ledger.settler.deliver(item, one.ledger.sid)
        assert (await one.counters(budget))["used"] == 60


async def test_a_store_that_lost_everything_is_noticed_though_another_sidecar_met_it_first(server, raw):
    budget = tokens(1_000)
    async with till(server.address) as old:
        hold = await reserve(old, budget, wanted=100)
        await raw.call("FLUSHALL", deadline_s=5)
        async with till(server.address) as fresh:
            await reserve(fresh, budget, wanted=1)
            old.store._connection.close()
            old.ledger._known._run_id = "the one before"
            with pytest.raises(LearningError):
                await reserve(old, budget, wanted=1)
            await until(lambda: old.ledger.settler.trusted_run_id)
            assert not hold.lost
            assert (await old.counters(budget))["held"] == 101


async def test_while_the_store_learns_only_hard_budgets_wait(server, raw):
    hard, allowed = tokens(10), tokens(10, "user:b", outage="allow")
    soft = Budget(subject="user:c", unit="tokens", limit=1, period=TOTAL, mode="soft")
    async with till(server.address) as one:
        await reserve(one, hard)
        await raw.call("HSET", "b:{t}:g", "gen", "another", deadline_s=5)
        with pytest.raises(LearningError) as learning:
            await reserve(one, hard)
        assert 0 < learning.value.wait_ms <= 6_000
        assert (await reserve(one, soft)).reserved
        assert not (await reserve(one, allowed)).reserved
        assert one.ledger.unreserved_total == 1


async def test_an_embedded_store_learns_nothing_but_is_told_what_was_settled(server, raw):
    budget, book = tokens(1_000), Book()
    async with till(server.address, journal=book, embedded=True) as one:
        recovering(one, book)
        one.ledger.settle(await reserve(one, budget), spent(10))
        await one.settled()
        await lose_writes(raw, budget, keep={})
        one.ledger._known._run_id = "the one before"
        one.ledger.settler.trusted_run_id = "the one before"
        hold = await reserve(one, budget)
        assert hold.reserved
        assert not one.ledger.learning
        await until(lambda: one.ledger.settler.trusted_run_id == one.store.run_id)
        assert (await one.counters(budget))["used"] == 10


async def test_a_hold_that_the_store_lost_is_marked_lost_and_its_use_is_still_charged(one, raw):
    budget = tokens(100)
    hold = await reserve(one, budget)
    assert hold.until_s < asyncio.get_running_loop().time() + 30
    await one.ledger.extend()
    assert not hold.lost
    await raw.call("DEL", *await raw.call("KEYS", "b:{t}:x:*", deadline_s=5), deadline_s=5)
    await one.ledger.extend()
    assert hold.lost
    one.ledger.settle(hold, spent(8))
    await one.settled()
    assert (await one.counters(budget))["used"] == 8


async def test_many_open_holds_are_all_extended(one, raw):
    budget = tokens(10_000)
    holds = [await reserve(one, budget, wanted=1) for _ in range(120)]
    before = holds[0].until_s
    await asyncio.sleep(0.01)
    await one.ledger.extend()
    assert all(hold.until_s > before and not hold.lost for hold in holds)


async def test_all_keys_of_a_tenant_lie_in_one_slot(one, raw):
    budgets = [
        tokens(10_000, "user:{x}y"),
        tokens(10_000, "team:a}b{c"),
        Budget(subject="model:a/{b}", unit="tokens", limit=10**6, period=Period(kind="rolling:1h")),
    ]
    a = Ask(
        draws=tuple(Draw(b, 1, 1) for b in budgets),
        rates=(Rate(subject="key:{k}", what="requests", limit=5, fixed=1, per_output=0),),
        wanted=3,
    )
    one.ledger.settle(await one.ledger.reserve(a, request_id="r"), spent(1))
    await one.settled()
    keys = await raw.call("KEYS", "*", deadline_s=5)
    assert len(keys) >= 10
    assert {key[: key.index(b"}") + 1] for key in keys} == {b"b:{t}"}


async def test_a_session_keeps_few_marks_however_many_calls_it_made(one, raw):
    budget = tokens(10**9)
    for _ in range(300):
        one.ledger.settle(await reserve(one, budget, wanted=1), spent(1))
    with pytest.raises(BudgetRefusedError):
        await reserve(one, tokens(0, "user:none"), wanted=1)
    await one.settled()
    one.ledger.settle(await reserve(one, budget, wanted=1), spent(1))
    await one.settled()
    marks = await raw.call("HKEYS", f"b:{{t}}:s:{one.ledger.sid}", deadline_s=5)
    assert len(marks) <= 60, marks
