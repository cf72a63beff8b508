"""A client may leave at any point: the call is settled once, for what was relayed, and the provider is told to stop."""

import asyncio
import json

import pytest

from tests.sidecars import HELLO, HELLO_TOKENS, KEY, MODEL, house, total

BUDGET = 'budgets: [{subject: "user:alice", tokens: 1000000, requests: 1000, usd: 100, period: day}]\n'
POINTS = range(30)


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=BUDGET) as made:
        yield made


async def begin(h, model, **more):
    """Send a streaming request by hand; return what to read from and to hang up with."""
    body = json.dumps({"model": model, "messages": HELLO, "stream": True, **more}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", h.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize("rude", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("point", POINTS)
async def test_a_client_that_leaves_after_so_many_tokens_pays_for_them_once(h, point, rude):
    reader, writer = await begin(h, f"{MODEL}?length=40&stall={point}")
    seen = b""
    while seen.count(b'"content":') <= point and point:  # one comes with the role
        seen += await reader.readuntil(b"\n\n")
    await h.fake.until(lambda: h.fake.in_flight == 1)
    writer.transport.abort() if rude else writer.close()
    await h.until_receipts(1)
    await h.fake.until(lambda: h.fake.cancelled == 1)
    (receipt,), (billed,) = h.receipts, h.fake.invoice
    assert receipt.outcome == "disconnect"
    assert (billed.prompt_tokens, billed.completion_tokens) == ((HELLO_TOKENS, point))
    assert (receipt.usage.input, receipt.usage.output) == (billed.prompt_tokens, billed.completion_tokens)
    assert receipt.usage.estimated
    used = await h.balances()
    assert used["user:alice", "tokens"] == (HELLO_TOKENS + point, 0)
    assert used["user:alice", "requests"] == (1, 0)
    assert used["user:alice", "usd"] == (HELLO_TOKENS * 1000 + point * 2000, 0)
    assert len(await h.records()) == 1
    assert h.sidecar.routes.places.taken == 0


async def test_thirty_at_once_that_leave_at_thirty_points(h):
    async def leave(point):
        reader, writer = await begin(h, f"{MODEL}?length=40&stall={point}")
        seen = b""
        while seen.count(b'"content":') <= point and point:
            seen += await reader.readuntil(b"\n\n")
        await h.fake.until(lambda: h.fake.in_flight + h.fake.cancelled == len(POINTS))
        writer.close()

    await asyncio.gather(*(leave(point) for point in POINTS))
    await h.until_receipts(len(POINTS))
    await h.fake.until(lambda: h.fake.cancelled == len(POINTS))
    spent = len(POINTS) * HELLO_TOKENS + sum(POINTS)
    assert (await h.balances())["user:alice", "tokens"] == (spent, 0)
    assert h.fake.invoice.prompt_tokens + h.fake.invoice.completion_tokens == spent
    found = await h.metrics()
    assert total(found, "bursar_requests_total", outcome="disconnect") == len(POINTS)
    assert total(found, "bursar_in_flight") == 0


async def test_a_client_that_leaves_before_a_whole_answer_frees_everything(h):
    call = asyncio.create_task(h.chat(MODEL + "?stall=5"))
    await h.fake.until(lambda: h.fake.in_flight == 1)
    call.cancel()
    await h.until_receipts(1)
    await h.fake.until(lambda: h.fake.cancelled == 1)
    assert h.receipts[0].outcome == "disconnect"
    assert (await h.balances())["user:alice", "tokens"] == (HELLO_TOKENS, 0)


async def test_a_client_that_leaves_in_the_middle_of_its_own_request_costs_nothing(h):
    _, writer = await asyncio.open_connection("127.0.0.1", h.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 1000\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()
    writer.transport.abort()
    assert (await h.chat()).status == 200
    await h.until_receipts(1)
    assert len(h.receipts) == len(h.fake.requests) == 1
    assert h.sidecar.routes.places.taken == 0


async def test_a_client_that_leaves_after_the_last_byte_pays_what_the_provider_says(h):
    reader, writer = await begin(h, MODEL + "?length=20")
    seen = b""
    while b"[DONE]" not in seen:
        seen += await reader.readuntil(b"\n\n")
    writer.transport.abort()
    await h.until_receipts(1)
    assert h.receipts[0].outcome == "ok"
    assert not h.receipts[0].usage.estimated
    assert (await h.balances())["user:alice", "tokens"] == (HELLO_TOKENS + 20, 0)


async def test_a_client_that_reads_nothing_makes_the_provider_wait_and_is_cut_off(store, tmp_path):
    more = BUDGET + "timeouts: {write_stall: 0.3}\n"
    async with house(store, tmp_path, more=more) as h:
        reader, writer = await begin(h, MODEL + "?length=100000", max_tokens=100_000)
        writer.transport.pause_reading()
        await h.until_receipts(1)
        await h.fake.until(lambda: h.fake.cancelled == 1)
        (receipt,), (billed,) = h.receipts, h.fake.invoice
        assert receipt.outcome == "disconnect"
        assert 0 < receipt.usage.output <= billed.completion_tokens < 100_000
        assert (await h.balances())["user:alice", "tokens"] == (receipt.usage.total, 0)
        writer.transport.abort()
        del reader
