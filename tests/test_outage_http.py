"""P6: without the store the answer comes in time and follows each budget's own policy; nothing fails open silently."""

import asyncio
import signal
import time

import pytest

import accounting.ledger
from tests.sidecars import KEYS, MODEL, house, rows_of, total

BOB = "sk-bob-0123456789abcdef0123456789"
TWO_KEYS = KEYS.replace(
    "]\n",
    f', {{id: bobs, user: bob, secret: "{BOB}"}}, {{id: free, user: carol, secret: "sk-carol-0123456789abcdef0123456789"}}]\n',
)
CAROL = "sk-carol-0123456789abcdef0123456789"
BUDGETS = """budgets:
  - {subject: "user:alice", usd: 1, period: day}
  - {subject: "user:bob", usd: 1, tokens: 100000, period: day, outage: allow}
"""
DEADLINE_S = 0.3
SLACK_S = 0.7  # for a machine with other work


@pytest.fixture
async def h(own_store, tmp_path):
    async with house(own_store, tmp_path, keys=TWO_KEYS, more=BUDGETS, deadline_ms=250) as made:
        made.store = own_store
        for key in (None or BOB, CAROL):
            assert (await made.chat(key=key)).status == 200
        assert (await made.chat()).status == 200
        await made.settled()
        yield made
        if own_store.process is None:
            own_store.start()
        else:
            own_store.process.send_signal(signal.SIGCONT)
        await made.settled()


def gone(h, how):
    h.store.stop() if how == "killed" else h.store.process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_under_refuse_the_answer_is_503_within_the_deadline(h, how):
    gone(h, how)
    served = len(h.fake.requests)
    for _ in range(5):
        began_s = time.monotonic()
        reply = await h.chat()
        took_s = time.monotonic() - began_s
        assert reply.status == 503
        assert (reply.error["type"], reply.error["code"]) == ("server_error", "budget_store_unavailable")
        assert int(reply.headers["retry-after"]) >= 1
        assert took_s < DEADLINE_S + SLACK_S
    assert len(h.fake.requests) == served
    assert total(await h.metrics(), "bursar_budget_refusals_total", reason="budget_store_unavailable") == 5


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_under_allow_the_call_passes_says_so_and_is_charged_later(h, how):
    before = (await h.balances())["user:bob", "tokens"][0]
    gone(h, how)
    reply = await h.chat(MODEL + "?length=10", key=BOB)
    assert reply.status == 200
    assert reply.headers["x-bursar-unreserved"] == "true"
    assert total(await h.metrics(), "bursar_unreserved_total") == 1
    if how == "killed":
        h.store.start()
    else:
        h.store.process.send_signal(signal.SIGCONT)
    await h.settled()
    assert (await h.balances())["user:bob", "tokens"] == (before + 24, 0)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_whom_nothing_limits_waits_for_nothing_that_matters(h, how):
    gone(h, how)
    reply = await h.chat(key=CAROL)
    assert reply.status == 200


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_the_callers_own_budget_cannot_be_told_and_says_so(h, how):
    gone(h, how)
    reply = await h.get("/budget")
    assert (reply.status, reply.error["code"]) == (503, "budget_store_unavailable")
    assert (await h.get("/models")).status == 200


@pytest.mark.slow
async def test_it_recovers_by_itself_and_remembers(h):
    used = await h.balances()
    h.store.stop()
    assert (await h.chat()).status == 503
    h.store.start()
    async with asyncio.timeout(15):
        while (reply := await h.chat(MODEL + "?length=10")).status != 200:
            assert reply.error["code"] == "budget_store_unavailable"
    await h.settled()
    after = await h.balances()
    assert after["user:alice", "usd"] == (used["user:alice", "usd"][0] + 34_000, 0)


async def test_a_call_in_flight_survives_the_outage_and_is_settled_after_it(h):
    used = (await h.balances())["user:alice", "usd"][0]
    call = asyncio.create_task(h.chat(MODEL + "?length=20&delay_ms=300", stream=True))
    await h.fake.until(lambda: h.fake.in_flight == 1)
    h.store.stop()
    reply = await call
    assert reply.status == 200
    assert reply.body.endswith(b"data: [DONE]\n\n")
    h.store.start()
    await h.settled()
    assert (await h.balances())["user:alice", "usd"] == (used + 14_000 + 40_000, 0)


async def test_a_sidecar_starts_without_the_store_and_serves_when_it_is_there(own_store, tmp_path):
    own_store.stop()
    async with house(own_store, tmp_path, keys=TWO_KEYS, more=BUDGETS, deadline_ms=250) as h:
        assert (await h.chat()).status == 503
        assert (await h.ops("/readyz")).status == 503
        own_store.start()
        async with asyncio.timeout(15):
            while (await h.chat()).status != 200:
                pass
        assert (await h.ops("/readyz")).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize(("key", "ends"), [(None, True), (BOB, False)])
async def test_a_stream_whose_lease_ends_meanwhile_is_told_so_and_never_that_it_was_finished(
    h, monkeypatch, how, key, ends
):
    """Its hard budget has not ended, so `length` would be a lie; one that is to be allowed goes on."""
    monkeypatch.setattr(accounting.ledger, "TTL_MS", 700)
    monkeypatch.setattr(accounting.ledger, "EXTEND_S", 0.2)
    send = h.chat(MODEL + "?length=60&pace=50", stream=True, **({"key": key} if key else {}))
    stream = asyncio.create_task(send)
    await h.fake.until(lambda: h.fake.in_flight == 1)
    gone(h, how)
    reply = await stream
    rows = rows_of(reply.body)
    finishes = [choice["finish_reason"] for row in rows for choice in row.get("choices", ()) if choice["finish_reason"]]
    if not ends:
        assert finishes == ["stop"]
        assert reply.body.endswith(b"data: [DONE]\n\n")
        return
    assert finishes == []
    assert rows[-1]["error"]["code"] == "budget_store_unavailable"
    assert rows[-1]["error"]["type"] == "server_error"
    assert not reply.body.endswith(b"data: [DONE]\n\n")
    h.store.start() if how == "killed" else h.store.process.send_signal(signal.SIGCONT)
    await h.until_receipts(4)
    assert (h.receipts[-1].outcome, h.receipts[-1].usage.output > 0) == ("error", True), "what was relayed is charged"
