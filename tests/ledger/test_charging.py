"""`charged`, on a real store: what is written down of a call, whatever became of it; and a hold that a heartbeat keeps."""

import asyncio

import orjson
import pytest

import accounting.heartbeat
import accounting.ledger
from accounting.acquaintance import LEARN_MS
from accounting.ask import Ask, Draw
from accounting.budgets import Caller
from accounting.charge import Attempt, Till, charged
from accounting.heartbeat import beat
from accounting.journal.format import Progress
from accounting.meter import Meter
from accounting.noting import NoJournal
from accounting.settling import Tally
from accounting.store.errors import StoreUnavailableError
from tests.ledger.houses import ask, spent, till, tokens

CALLER = Caller(key="k|1", user="alice", team="lab", org="acme", tags=("blue",))
ALICE = tokens(10_000)
EVERY_S = 5.0


class Priced:
    """One nano-USD for an input token, ten for one of output."""

    version = "table 7"

    def cost_nanousd(self, usage):
        return usage.input + 10 * usage.output


PRICED = Priced()


def attempt(name="a", *, price=PRICED, billable=True, says=None, text=""):
    """One to a provider that reports `says` as (input, output), or only sends `text`."""
    meter = Meter("gpt-4o", lambda: 7)
    if text:
        meter.observe([{"model": "served", "choices": [{"index": 0, "delta": {"content": text}}]}])
    if says:
        meter.observe([{"model": "served", "usage": {"prompt_tokens": says[0], "completion_tokens": says[1]}}])
    return Attempt(name, f"{name}-model", price, meter, billable)


class Desk:
    """A ledger that writes down receipts, and reads back what the store has."""

    def __init__(self, one):
        self.one, self.receipts = one, []
        self.till = Till(ledger=one.ledger, supervisor=one.supervisor, on_receipt=self.receipts.append)

    def charged(self, wanted=100):
        return charged(self.till, ask(ALICE, fixed=20, wanted=wanted), request_id="r1", caller=CALLER, model="asked")

    async def books(self):
        """(records, day's totals, the budget's counters)."""
        await self.one.settled()
        store = self.one.store
        entries = await store.call("XRANGE", store.key("u"), "-", "+", deadline_s=5)
        rows = {}
        for key in await store.call("KEYS", store.key("day", "*"), deadline_s=5):
            found = await store.call("HGETALL", key.decode(), deadline_s=5)
            rows |= {k.decode(): int(v) for k, v in zip(found[::2], found[1::2], strict=True)}
        return [orjson.loads(fields[3]) for _, fields in entries], rows, await self.one.counters(ALICE)


@pytest.fixture
async def desk(server, raw):
    async with till(server.address) as one:
        yield Desk(one)


async def test_a_call_is_written_down_with_all_that_is_known_of_it(desk):
    async with desk.charged() as charge:
        charge.begin(attempt(says=(20, 30)))
        charge.first_token_s = 0.25
        await asyncio.sleep(0.02)
        receipt = await charge.finish("ok")
        assert await charge.finish("again") is receipt
    (record,), rows, counters = await desk.books()
    assert 20 <= record.pop("ms") < 5_000
    assert record == {
        "id": "r1", "key": "k|1", "user": "alice", "team": "lab", "org": "acme", "tags": ["blue"], "model": "asked",
        "provider": "a", "upstream_model": "a-model", "response_model": "served", "input": 20, "cached": 0, "cache_write": 0,
        "output": 30, "reasoning": 0, "cost_nanousd": 320, "price": "table 7", "estimated": False, "outcome": "ok", "reserved": True,
    }  # fmt: skip
    row = "k%7C1|alice|lab|a/a-model"
    assert rows == {f"{row}|n": 1, f"{row}|input": 20, f"{row}|output": 30, f"{row}|cost": 320}
    assert (counters["used"], counters["held"], counters["n"]) == (50, 0, 1)
    assert desk.receipts == [receipt]
    assert desk.one.ledger.settler.tally == Tally(
        settled_total=1, duplicate_total=0, mismatch_total=0, rejected_total=0
    )
    assert (receipt.attempts, receipt.first_token_s) == (1, 0.25)


class Noted:
    """A journal that keeps what it is told of progress."""

    def __init__(self):
        self.progressed = []

    def progress(self, seq, payload):
        self.progressed.append(Progress.load(payload))

    def __getattr__(self, name):
        return lambda *_: None


@pytest.mark.parametrize("billable", [True, False])
async def test_a_call_is_noted_once_before_it_is_sent_so_that_a_crash_charges_its_input(server, raw, billable):
    async with till(server.address, journal=(journal := Noted())) as one, Desk(one).charged() as charge:
        charge.hold.notes = {"input": 20, "input_nanousd": 200}
        charge.begin(attempt(billable=billable))
        charge.begin(attempt())
        assert journal.progressed == [Progress(seq=1, input_tokens=20, output_tokens=0, cost_nanousd=200)][:billable]


A, B = {"says": (20, 30)}, {"says": (5, 1)}
SUMS = [
    pytest.param([A, B], (25, 31, 335, "table 7", False), id="both may be billed"),
    pytest.param([A | {"billable": False}, B], (5, 1, 15, "table 7", False), id="the first never began"),
    pytest.param([A, B | {"billable": False}], (20, 30, 320, "table 7", False), id="the last never began"),
    pytest.param([A | {"price": None}, B], (25, 31, None, None, False), id="the first without a price"),
    pytest.param([A, B | {"price": None}], (25, 31, None, "table 7", False), id="the last without a price"),
    pytest.param([A | {"price": None, "billable": False}, B], (5, 1, 15, "table 7", False), id="without a price but unused"),
    pytest.param([{"text": "one two three"}, B], (12, 4, 52, "table 7", True), id="one had to be counted"),
    pytest.param([{"text": "one two three"}], (7, 3, 37, "table 7", True), id="counted"),
]  # fmt: skip


@pytest.mark.parametrize(("attempts", "told"), SUMS)
@pytest.mark.parametrize("finishes", [True, False])
async def test_all_attempts_that_may_be_billed_are_charged(desk, attempts, told, finishes):
    async with desk.charged() as charge:
        for number, settings in enumerate(attempts):
            charge.begin(attempt("ab"[number], **settings))
        if finishes:
            await charge.finish("ok")
    await desk.one.supervisor.drain(5)
    (record,), _, counters = await desk.books()
    assert (record["input"], record["output"], record["cost_nanousd"], record["price"], record["estimated"]) == told
    assert record["provider"] == "ab"[len(attempts) - 1]
    assert record["outcome"] == ("ok" if finishes else "error")
    assert (counters["used"], counters["held"]) == (told[0] + told[1], 0)
    assert len(desk.receipts) == 1


async def test_a_call_that_no_provider_began_on_counts_as_none(desk):
    requests = tokens(10, "user:a")
    requests = type(requests)(subject="user:a", unit="requests", limit=10, period=requests.period)
    one_request = Ask(draws=(Draw(requests, 1, 0),), wanted=5)
    async with charged(desk.till, one_request, request_id="r", caller=Caller(), model="m") as charge:
        charge.begin(attempt(billable=False))
    await desk.one.settled()
    assert (await desk.one.counters(requests)).get("used", 0) == 0
    async with charged(desk.till, one_request, request_id="r", caller=Caller(), model="m") as charge:
        charge.begin(attempt(says=(0, 0)))
    await desk.one.settled()
    counters = await desk.one.counters(requests)
    assert (counters["used"], counters["held"]) == (1, 0)
    assert [r.provider for r in desk.receipts] == ["a", "a"]


async def test_a_call_without_any_attempt_names_no_provider(desk):
    async with desk.charged():
        pass
    (record,), rows, counters = await desk.books()
    assert (record["provider"], record["upstream_model"], record["cost_nanousd"], record["price"]) == ("", "", 0, None)
    assert rows == {"k%7C1|alice|lab||n": 1}
    assert (counters.get("used", 0), counters["held"]) == (0, 0)


async def test_a_call_that_is_cancelled_is_charged_by_a_task_that_outlives_it(desk):
    async def call():
        async with desk.charged() as charge:
            charge.begin(attempt(text="one two three"))
            charge.outcome = "disconnect"
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    while not desk.one.ledger.open:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await desk.one.supervisor.drain(5)
    (record,), _, counters = await desk.books()
    assert (record["outcome"], record["output"], record["estimated"]) == ("disconnect", 3, True)
    assert (counters["used"], counters["held"]) == (10, 0)


async def test_a_model_s_name_that_is_no_text_costs_no_settlement(desk):
    async with desk.charged() as charge:
        tried = attempt(says=(1, 1))
        tried.meter.response_model = "\ud800"
        charge.begin(tried)
        await charge.finish("ok")
    await desk.one.settled()
    assert (await desk.one.counters(ALICE))["used"] == 2


class Acknowledgements(NoJournal):
    """Remembers of which calls it was told that the store has them."""

    def __init__(self):
        self.seqs = []

    def acknowledged(self, seq):
        self.seqs.append(seq)


async def test_the_journal_is_told_what_the_store_has_and_only_then(server, raw):
    journal = Acknowledgements()
    async with till(server.address, journal=journal) as one:
        holds = [await one.ledger.reserve(ask(ALICE, wanted=10), request_id="r") for _ in range(3)]
        assert journal.seqs == []
        one.ledger.settle(holds[0], spent(5))
        one.ledger.release(holds[2])
        await one.settled()
        assert sorted(journal.seqs) == [holds[0].seq, holds[2].seq]
        assert one.ledger.settler.low == holds[0].seq, "the second is open"
        one.ledger.settle(holds[1], spent(5))
        await one.settled()
        assert one.ledger.settler.low == holds[2].seq


async def test_who_listens_hears_of_each_settlement_once_with_what_is_used_and_held(server, raw):
    heard = []
    async with till(server.address) as one:
        one.ledger.on_settled = lambda hold, counts: heard.append((hold.seq, counts))
        first, second = [await one.ledger.reserve(ask(ALICE, wanted=10), request_id="r") for _ in range(2)]
        one.ledger.settle(first, spent(4))
        one.ledger.settle(first, spent(9))
        await one.settled()
        assert heard == [(first.seq, [4, 10])]
        one.ledger.settle(second, spent(3))
        await one.settled()
        assert heard[1:] == [(second.seq, [7, 0])]


async def test_a_heartbeat_keeps_a_hold_for_many_leases_and_survives_a_store_that_objects(server, raw, monkeypatch):
    monkeypatch.setattr(accounting.ledger, "HEARTBEAT_S", 0.03)
    monkeypatch.setattr(accounting.ledger, "TTL_MS", 300)
    async with till(server.address) as one:
        hold = await one.ledger.reserve(ask(ALICE, wanted=100), request_id="r")
        beating = one.supervisor.spawn(one.ledger.heartbeat(), name="heartbeat")
        await asyncio.sleep(0.1)
        one.store._connection.close()
        await asyncio.sleep(0.9)
        now = await raw.call("TIME", deadline_s=5)
        held = await raw.call(
            "ZCOUNT", hold.rows[0].holds_key, int(now[0]) * 1000 + int(now[1]) // 1000, "+inf", deadline_s=5
        )
        assert (held, hold.lost, hold.until_s > asyncio.get_running_loop().time()) == (1, False, True)
        beating.cancel()


async def test_a_hold_that_cannot_grow_since_it_is_gone_is_marked_as_lost(server, raw):
    async with till(server.address) as one:
        hold = await one.ledger.reserve(ask(ALICE, wanted=100), request_id="r")
        await raw.call("DEL", hold.rows[0].holds_key, deadline_s=5)
        assert not await one.ledger.grow(hold, ask(ALICE, wanted=100), 200)
        assert (hold.lost, hold.granted) == (True, 100)


async def test_a_hold_grows_again_when_the_store_has_been_met_anew(server, raw):
    async with till(server.address, embedded=True) as one:
        hold = await one.ledger.reserve(ask(ALICE, wanted=100), request_id="r")
        await raw.call("HSET", one.store.key("g"), "gen", "another", deadline_s=5)
        assert not await one.ledger.grow(hold, ask(ALICE, wanted=100), 200)
        assert (hold.lost, hold.granted) == (False, 100)
        assert await one.ledger.grow(hold, ask(ALICE, wanted=100), 200)
        assert (hold.lost, hold.granted) == (False, 200)


@pytest.mark.parametrize("fails", [0, 3])
async def test_no_two_heartbeats_are_further_apart_than_a_lesson_allows(monkeypatch, fails):
    """One that failed is made up for soon, or what is held would be given away; and so is each of a newcomer that holds something."""
    waits, beats, now_s = [], [], 0.0

    async def waited(lost, most_s):
        nonlocal now_s
        waits.append(most_s)
        now_s += most_s
        await asyncio.sleep(0)
        return False

    async def act():
        beats.append((now_s, waits[-1]))
        if now_s > 60 and len([b for b in beats if b[0] > 60]) <= fails:
            raise StoreUnavailableError("gone")

    monkeypatch.setattr(accounting.heartbeat, "_waited", waited)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    beating = asyncio.ensure_future(beat(lambda: EVERY_S, asyncio.Event(), lambda: True, act))
    while now_s < 100:
        await asyncio.sleep(0)
    beating.cancel()
    new = [at_s for at_s, wait_s in beats if wait_s == EVERY_S / 10 and at_s <= 60]
    assert 1.2 * EVERY_S <= new[-1] <= 2.3 * EVERY_S, "others have heard of it by then"
    assert new[0] == EVERY_S / 10
    late = [wait_s for at_s, wait_s in beats if at_s > 60]
    assert late[: fails + 2] == [EVERY_S] + [EVERY_S / 10] * fails + [EVERY_S]
    assert EVERY_S < LEARN_MS / 1000


async def test_a_newcomer_that_holds_nothing_waits_and_newcomers_of_one_moment_come_apart(monkeypatch):
    firsts = set()
    for _ in range(20):
        first, now_s = 0.0, 0.0

        async def waited(lost, most_s):
            nonlocal now_s
            now_s += most_s
            await asyncio.sleep(0)
            return False

        async def act():
            nonlocal first
            first = first or now_s

        monkeypatch.setattr(accounting.heartbeat, "_waited", waited)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
        beating = asyncio.ensure_future(beat(lambda: EVERY_S, asyncio.Event(), lambda: False, act))
        while not first:
            await asyncio.sleep(0)
        beating.cancel()
        firsts.add(first)
        assert EVERY_S < first < 15, "before it counts as gone"
    assert len(firsts) > 5


async def test_whoever_loses_the_connection_speaks_at_once(server, raw):
    """Without waiting for its next heartbeat: others may wait for it."""
    async with till(server.address) as one:
        beating = one.supervisor.spawn(one.ledger.heartbeat(), name="heartbeat")
        await asyncio.sleep(0)
        await raw.call("DEL", one.store.key("sess"), deadline_s=5)
        one.store._connection.close()
        async with asyncio.timeout(4):
            while not await raw.call("ZCARD", one.store.key("sess"), deadline_s=5):
                await asyncio.sleep(0.01)
        beating.cancel()
