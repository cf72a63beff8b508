"""`hold: slice`: a stream holds its input and a slice, grows while it streams, and ends cleanly where the budget does."""

import asyncio
import json
from dataclasses import replace

import pytest

from accounting.budgets import BudgetBook
from accounting.journal.aftermath import crashed
from accounting.journal.reading import load_note, read_story
from proxy.slices import MARGIN_TOKENS, SLICE_TOKENS
from tests.sidecars import HELLO_TOKENS, MODEL, house, rows_of

SMALL = "admission: {min_completion: 16, unbounded_share: 0.25}\n"
PACE = "&pace=6000"  # quick, but no quicker than it can be counted


def budgets(output_tokens, **more):
    words = "".join(f", {name}: {value}" for name, value in more.items())
    return f'budgets: [{{subject: "user:alice", output_tokens: {output_tokens}, period: day, hold: slice{words}}}]\n{SMALL}'


def sent(h):
    return {name: value for name, value in json.loads(h.fake.requests[-1].body).items() if name.startswith("max_")}


def finishes(reply):
    return [c["finish_reason"] for chunk in rows_of(reply.body) for c in chunk["choices"] if c["finish_reason"]]


async def watched(h, limit, seen):
    """Look at the budget until cancelled: used and held are never above the limit."""
    while True:
        used, held = (await h.balances())["user:alice", "output_tokens"]
        assert used + held <= limit
        seen.append(held)
        await asyncio.sleep(0.002)


async def test_a_stream_holds_a_slice_and_grows_as_it_goes(store, tmp_path):
    async with house(store, tmp_path, more=budgets(10_000)) as h:
        seen = []
        watch = asyncio.create_task(watched(h, 10_000, seen))
        reply = await h.chat(MODEL + "?length=2500" + PACE, stream=True, max_tokens=4000)
        watch.cancel()
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert finishes(reply) == ["stop"]
        assert sent(h) == {"max_tokens": 4000}, "the client's own limit, not the slice"
        assert "x-budget-clamped" not in reply.headers
        assert set(seen) >= {SLICE_TOKENS, 2 * SLICE_TOKENS, 3 * SLICE_TOKENS}
        assert max(seen) == 3 * SLICE_TOKENS
        await h.until_receipts(1)
        assert h.receipts[0].hold.granted == 3 * SLICE_TOKENS
        assert (await h.balances())["user:alice", "output_tokens"] == (2500, 0)
        counters = await h.sidecar.store.call("HGETALL", h.receipts[0].hold.rows[0].counters_key)
        assert b"over" not in counters
        assert b"late" not in counters


async def test_a_short_wish_is_held_whole(store, tmp_path):
    async with house(store, tmp_path, more=budgets(10_000)) as h:
        reply = await h.chat(MODEL + "?length=900" + PACE, stream=True, max_tokens=300)
        assert finishes(reply) == ["length"]
        await h.until_receipts(1)
        assert h.receipts[0].hold.granted == 300


@pytest.mark.parametrize("show", [False, True])
async def test_where_the_budget_ends_the_stream_ends_as_openai_ends_one_at_its_limit(store, tmp_path, show):
    async with house(store, tmp_path, more=budgets(2_000)) as h:
        options = {"stream_options": {"include_usage": True}} if show else {}
        watch = asyncio.create_task(watched(h, 2_000, []))
        reply = await h.chat(MODEL + "?length=20000" + PACE, stream=True, max_tokens=9000, **options)
        assert not watch.done(), "within the limit at every step"
        watch.cancel()
        assert reply.status == 200
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert finishes(reply) == ["length"]
        await h.fake.until(lambda: h.fake.cancelled == 1)
        await h.until_receipts(1)
        (receipt,) = h.receipts
        assert receipt.outcome == "cut"
        assert receipt.hold.granted == 2_000
        assert 2_000 - 2 * MARGIN_TOKENS < receipt.usage.output <= 2_000
        assert h.fake.invoice.completion_tokens <= 2_000, "what was on its way fits into the margin"
        used, held = (await h.balances())["user:alice", "output_tokens"]
        assert (used, held) == (receipt.usage.output, 0)
        if show:
            assert rows_of(reply.body)[-1]["usage"]["completion_tokens"] == used


async def test_many_streams_on_one_budget_stay_within_it_and_leave_little(store, tmp_path):
    async with house(store, tmp_path, more=budgets(12_000)) as h:
        watch = asyncio.create_task(watched(h, 12_000, []))
        calls = [h.chat(MODEL + "?length=5000" + PACE, stream=True, max_tokens=5000) for _ in range(6)]
        replies = await asyncio.gather(*calls)
        assert not watch.done()
        watch.cancel()
        assert {reply.status for reply in replies} <= {200, 429}
        assert all(reply.body.endswith(b"data: [DONE]\n\n") for reply in replies if reply.status == 200)
        await h.until_receipts(sum(reply.status == 200 for reply in replies))
        used, held = (await h.balances())["user:alice", "output_tokens"]
        assert held == 0
        assert 6_000 < used <= h.fake.invoice.completion_tokens <= 12_000


async def test_what_is_less_than_a_slice_is_clamped(store, tmp_path):
    async with house(store, tmp_path, more=budgets(500)) as h:
        reply = await h.chat(MODEL + "?length=9000", stream=True, max_tokens=5000)
        assert reply.headers["x-budget-clamped"] == "500"
        assert sent(h) == {"max_completion_tokens": 500} or sent(h) == {"max_tokens": 500}
        await h.until_receipts(1)
        assert h.receipts[0].outcome == "ok"
        assert (await h.balances())["user:alice", "output_tokens"] == (500, 0)


async def test_a_call_without_a_limit_is_sent_the_models_own(store, tmp_path):
    async with house(store, tmp_path, more=budgets(100_000)) as h:
        reply = await h.chat(MODEL + "?length=50", stream=True)
        assert "x-budget-clamped" not in reply.headers
        assert set(sent(h).values()) == {16384}
        await h.until_receipts(1)
        assert h.receipts[0].hold.granted == SLICE_TOKENS


@pytest.mark.parametrize(
    ("more", "model"),
    [
        pytest.param({}, MODEL, id="not streamed"),
        pytest.param({"stream": True, "reasoning_effort": "high"}, MODEL, id="asked to think"),
        pytest.param({"stream": True}, "gpt-5", id="a model that hides its thoughts"),
        pytest.param({"stream": True}, "gemini-2.5-pro", id="another"),
    ],
)
async def test_what_cannot_be_counted_as_it_passes_is_clamped(store, tmp_path, more, model):
    async with house(store, tmp_path, more=budgets(2_000)) as h:
        reply = await h.chat(model + "?length=10", max_tokens=9000, **more)
        assert reply.headers["x-budget-clamped"] == "2000"


async def test_beside_a_budget_that_is_clamped_it_is_clamped(store, tmp_path):
    more = budgets(10_000).replace("[{", '[{subject: "team:lab", output_tokens: 2000, period: day}, {')
    async with house(store, tmp_path, more=more) as h:
        reply = await h.chat(MODEL + "?length=10", stream=True, max_tokens=9000)
        assert reply.headers["x-budget-clamped"] == "2000"


async def test_beside_a_limit_of_tokens_per_minute_it_is_clamped(store, tmp_path):
    more = budgets(2_000) + 'limits: [{subject: "user:alice", tpm: 100000}]\n'
    async with house(store, tmp_path, more=more) as h:
        reply = await h.chat(MODEL + "?length=10", stream=True, max_tokens=9000)
        assert reply.headers["x-budget-clamped"] == "2000"


async def test_a_provider_that_bills_a_cancelled_stream_is_clamped(store, tmp_path):
    providers = 'providers: {{r: {{preset: openrouter, base_url: "{fake}", api_keys: [k-0123456789]}}}}\n'
    text = {"providers": providers, "models": 'models: {"*": r/*}\n', "prices": ""}
    more = budgets(2_000, mode="soft")
    async with house(store, tmp_path, more=more, **text) as h:
        admitter = h.sidecar.routes.gateway.rules.admitter
        admitter.book = BudgetBook(
            replace(budget, mode="hard") for budget in admitter.book.all()
        )  # as a command may store it
        reply = await h.chat(MODEL + "?length=10", stream=True, max_tokens=9000)
        assert reply.headers["x-budget-clamped"] == "2000"


async def test_each_choice_has_its_slice(store, tmp_path):
    async with house(store, tmp_path, more=budgets(10_000)) as h:
        reply = await h.chat(MODEL + "?length=1500" + PACE, stream=True, n=2, max_tokens=2000)
        assert sorted(finishes(reply)) == ["stop", "stop"]
        await h.until_receipts(1)
        assert h.receipts[0].hold.granted in (2000, 2 * SLICE_TOKENS)
        assert (await h.balances())["user:alice", "output_tokens"] == (3000, 0)


async def test_in_money_it_holds_the_input_and_a_slice(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", usd: 0.01, period: day, hold: slice}]\n' + SMALL
    async with house(store, tmp_path, more=more) as h:
        reply = await h.chat(MODEL + "?length=20000" + PACE, stream=True, max_tokens=9000)
        assert finishes(reply) == ["length"]
        await h.until_receipts(1)
        used, held = (await h.balances())["user:alice", "usd"]
        bill = h.fake.invoice.prompt_tokens * 1000 + h.fake.invoice.completion_tokens * 2000
        assert held == 0
        assert 8_000_000 < used <= bill <= 10_000_000
        assert used == HELLO_TOKENS * 1000 + h.receipts[0].usage.output * 2000


@pytest.mark.slow
@pytest.mark.parametrize(("outage", "outcome"), [("refuse", "cut"), ("allow", "ok")])
async def test_while_the_store_is_away_it_goes_on_only_if_the_budget_allows_that(own_store, tmp_path, outage, outcome):
    async with house(own_store, tmp_path, more=budgets(10_000, outage=outage)) as h:
        call = asyncio.create_task(h.chat(MODEL + "?length=2500&pace=3000", stream=True, max_tokens=4000))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        async with asyncio.timeout(5):
            while not h.sidecar.ledger.open:
                await asyncio.sleep(0.01)
        own_store.stop()
        reply = await call
        assert reply.body.endswith(b"data: [DONE]\n\n")
        own_store.start()
        await h.until_receipts(1)
        assert h.receipts[0].outcome == outcome
        if outcome == "cut":
            assert h.receipts[0].usage.output <= SLICE_TOKENS


async def test_a_crash_charges_what_was_relayed_of_a_hold_that_had_grown(store, tmp_path):
    async with house(store, tmp_path, more=budgets(10_000)) as h:
        call = asyncio.create_task(h.chat(MODEL + "?length=2500&pace=3000", stream=True, max_tokens=4000))
        async with asyncio.timeout(10):
            while not any(hold.granted > SLICE_TOKENS for hold in h.sidecar.ledger.open.values()):
                await asyncio.sleep(0.005)
        (hold,) = h.sidecar.ledger.open.values()
        journal = h.sidecar.journal
        story = read_story([segment.path for segment in journal._segments], journal.sid)
        payload, progress = story.open[hold.seq]
        note = load_note(payload)
        assert note["granted"] == 2 * SLICE_TOKENS
        carried, told = journal._open[hold.seq]  # into the next file, when this one is full
        assert load_note(carried) == note
        assert told
        assert progress is not None
        assert progress.output_tokens > 300, "what was known of its progress is still known"
        item = crashed(note, progress, "20260101")
        assert item.rows[0][3] == 2 * SLICE_TOKENS
        await call
