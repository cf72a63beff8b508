"""Every row of the error table that says no to a good request: cost, budgets, limits, overload; and what OpenAI's SDK makes of it."""

import asyncio

import openai
import pytest

from tests.contract import BOB, free, hard, told
from tests.sidecars import HELLO, MODEL, NANO, budget, house

__all__ = ["free", "hard"]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "mcp"}]}, "tools[1]"),
    ],
)
async def test_a_cost_that_nothing_bounds_is_refused_on_a_hard_cost_budget_only(hard, free, more, param):
    reply = await hard.chat(**more)
    error = told(reply)
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", "unbounded_cost")
    assert error["param"] == param
    assert reply.headers["x-should-retry"] == "false"
    assert not hard.fake.requests
    assert (await free.chat(**more)).status == 200


async def test_an_unknown_price_is_refused_on_a_hard_cost_budget_only(hard, store, tmp_path):
    reply = await hard.chat("bare-1")
    error = told(reply)
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", "unknown_price")
    assert reply.headers["x-should-retry"] == "false"
    async with house(store, tmp_path, prices="") as h:
        assert (await h.chat()).status == 200


async def test_a_spent_budget_is_429_insufficient_quota_with_its_row(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", tokens: 100, period: day}]\nadmission: {min_completion: 16}\n'
    async with house(store, tmp_path, more=more) as h:
        for _ in range(2):
            assert (await h.chat("gpt-4o?length=30", max_tokens=30)).status == 200
        reply = await h.chat("gpt-4o?length=30", max_tokens=30)
        error = told(reply)
        assert (reply.status, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
        row = error["budget"]
        assert {k: row[k] for k in ("subject", "unit", "limit", "used", "held", "remaining", "mode")} == {
            "subject": "user:alice", "unit": "tokens", "limit": 100, "used": 88, "held": 0, "remaining": 12, "mode": "hard",
        }  # fmt: skip
        assert row["requested"] == 14 + 16
        assert row["resets_at"].endswith("T00:00:00Z")
        assert 0 < int(reply.headers["retry-after"]) <= 86_400
        assert reply.headers["x-should-retry"] == "false"
        for words in ("user:alice", "88 tokens", "100 tokens", "30 tokens", "0 tokens held", row["resets_at"]):
            assert words in error["message"]
        async with h.sdk(max_retries=5) as sdk:
            with pytest.raises(openai.RateLimitError) as caught:
                await sdk.chat.completions.create(model=MODEL, messages=HELLO)
            assert caught.value.code == "insufficient_quota"
            assert caught.value.body["budget"]["used"] == 88
        assert h.sidecar.telemetry.refusals.labels("insufficient_quota")._value.get() == 2  # it did not retry


async def test_a_budget_that_never_resets_names_no_time_to_come_back(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", tokens: 5, period: total}]\n'
    async with house(store, tmp_path, more=more) as h:
        reply = await h.chat()
        assert (reply.status, told(reply)["code"]) == (429, "insufficient_quota")
        assert "retry-after" not in reply.headers
        assert reply.error["budget"]["resets_at"] is None


async def test_a_call_larger_than_the_whole_limit_is_spent_even_while_others_hold(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", tokens: 200, period: day, hold: full}]\n'
    async with house(store, tmp_path, more=more) as h:
        waiting = asyncio.create_task(h.chat("gpt-4o?hang", max_tokens=100))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        large, momentary = await h.chat(max_tokens=300), await h.chat(max_tokens=150)
        assert told(large)["code"] == "insufficient_quota"
        assert told(momentary)["code"] == "budget_held"
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_budget_that_is_only_held_is_429_budget_held_which_sdks_retry(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", tokens: 200, period: day}]\nadmission: {min_completion: 64}\n'
    async with house(store, tmp_path, more=more) as h:
        waiting = asyncio.create_task(h.chat("gpt-4o?hang", max_tokens=150))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        reply = await h.chat(max_tokens=100)
        error = told(reply)
        assert (reply.status, error["type"], error["code"]) == (429, "rate_limit_error", "budget_held")
        assert reply.headers["retry-after"] == "1"
        assert reply.headers["x-should-retry"] == "true"
        assert error["budget"]["held"] == 164
        assert error["budget"]["used"] == 0
        waiting.cancel()
        await asyncio.wait([waiting])
        await h.until_receipts(1)
        assert (await h.chat(max_tokens=100)).status == 200


@pytest.mark.parametrize(
    ("limit", "what"), [("rpm: 2", "requests"), ("tpm: 150", "tokens")],
)  # fmt: skip
async def test_a_rate_limit_is_429_with_ratelimit_headers(store, tmp_path, limit, what):
    more = f'limits: [{{subject: "key:alice-laptop", {limit}}}]\n'
    async with house(store, tmp_path, more=more) as h:
        replies = [await h.chat(max_tokens=50) for _ in range(3)]
        assert [r.status for r in replies] == [200, 200, 429]
        assert int(replies[0].headers[f"x-ratelimit-limit-{what}"]) in (2, 150)
        assert replies[0].headers[f"x-ratelimit-remaining-{what}"] in ("1", "86")
        error = told(replies[2])
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert float(replies[2].headers["retry-after"]) > 0
        assert replies[2].headers[f"x-ratelimit-remaining-{what}"] == "0"
        async with h.sdk() as sdk:
            with pytest.raises(openai.RateLimitError):
                await sdk.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=50)


async def test_a_concurrency_limit_is_429_and_ends_with_the_call(store, tmp_path):
    async with house(store, tmp_path, more='limits: [{subject: "key:*", concurrency: 1}]\n') as h:
        waiting = asyncio.create_task(h.chat("gpt-4o?hang"))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        reply = await h.chat()
        assert (reply.status, told(reply)["code"]) == (429, "rate_limit_exceeded")
        assert "retry-after" in reply.headers
        waiting.cancel()
        await asyncio.wait([waiting])
        await h.until_receipts(1)
        assert (await h.chat()).status == 200


async def test_too_many_calls_in_flight_is_503_overloaded(store, tmp_path):
    more = "server: {max_in_flight: 1, queue: 1, queue_seconds: 0.05}\n"
    async with house(store, tmp_path, more=more) as h:
        waiting = asyncio.create_task(h.chat("gpt-4o?hang"))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        queued, refused = await asyncio.gather(h.chat(), h.chat())
        for reply in (queued, refused):
            error = told(reply)
            assert (reply.status, error["type"], error["code"]) == (503, "server_error", "overloaded")
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.headers["connection"].lower() == "close"
        waiting.cancel()
        await asyncio.wait([waiting])
        await h.until_receipts(1)
        assert (await h.chat()).status == 200


async def test_a_caller_who_leaves_the_queue_leaves_its_place_to_others(store, tmp_path):
    async with house(store, tmp_path, more="server: {max_in_flight: 1, queue: 4, queue_seconds: 20}\n") as h:
        first = asyncio.create_task(h.chat("gpt-4o?hang"))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        left, stayed = asyncio.create_task(h.chat()), asyncio.create_task(h.chat())
        places = h.sidecar.routes.places
        while len(places._queue) < 2:
            await asyncio.sleep(0)
        left.cancel()
        while len(places._queue) > 1:
            await asyncio.sleep(0)
        first.cancel()
        assert (await stayed).status == 200
        await h.until_receipts(2)
        assert places.taken == 0


async def test_too_many_connections_are_told_so(store, tmp_path):
    async with house(store, tmp_path, more="server: {max_connections: 1}\n") as h:
        busy = asyncio.create_task(h.chat(MODEL + "?hang"))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", h.port)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"overloaded"' in answer
        writer.close()
        busy.cancel()
        await asyncio.wait([busy])


async def test_a_stored_budget_of_nothing_refuses_everything(free):
    await free.stored().put_budget(budget("user:bob", "usd", 0), {"by": "test"})
    reply = await free.chat(key=BOB)
    assert (reply.status, told(reply)["code"]) == (429, "insufficient_quota")
    assert NANO * reply.error["budget"]["limit"] == 0
