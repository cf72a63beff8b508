"""C9: each limit on time fires when it should, says which one it was, and leaves nothing held."""

import asyncio
import socket
from contextlib import closing

import pytest

from proxy.fake import Script
from tests.fleet import fleet
from tests.sidecars import rows_of

HARD = 'budgets: [{subject: "user:alice", usd: 5, period: day}]\n'
LATE_S = 0.5


async def timed(call):
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    reply = await call
    return reply, loop.time() - began_s


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "limits", "limit_s"),
    [
        (Script(hang=True), "first_token: 0.3", 0.3),
        (Script(hang=True), "total: 0.3", 0.3),
        (Script(delay_ms=5000), "first_token: 0.3", 0.3),
        (Script(stall=0), "first_token: 0.3, idle: 9", 0.3),
    ],
    ids=["silent", "silent, total", "late", "a head and no byte"],
)
async def test_a_provider_that_says_nothing_is_given_up_in_time(store, tmp_path, script, limits, limit_s, stream):
    if script.stall is not None and stream:
        pytest.skip("the fake's stream begins with its role, at once")
    async with fleet(store, tmp_path, 1, more=f"timeouts: {{{limits}}}\n" + HARD) as f:
        f.fakes["a"].script = script
        reply, took_s = await timed(f.home.chat("m", stream=stream))
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        assert limit_s <= took_s < limit_s * 1.1 + LATE_S
        await f.home.settled()
        _, held = (await f.home.balances())["user:alice", "usd"]
        assert held == 0
        await f.fakes["a"].until(lambda: f.fakes["a"].in_flight == 0)  # the provider was told to stop


@pytest.mark.parametrize(
    ("limits", "limit_s", "phase"),
    [("idle: 0.3", 0.3, "idle"), ("total: 0.6", 0.6, "total")],
)
async def test_a_stream_that_falls_silent_ends_with_an_error_event_and_pays_for_what_came(
    store, tmp_path, limits, limit_s, phase
):
    async with fleet(store, tmp_path, 1, more=f"timeouts: {{{limits}}}\n" + HARD) as f:
        f.fakes["a"].script = Script(stall=7, length=50)
        reply, took_s = await timed(f.home.chat("m", stream=True))
        assert reply.status == 200
        assert limit_s <= took_s < limit_s * 1.1 + LATE_S
        last = rows_of(reply.body)[-1]
        assert last["error"]["code"] == "upstream_timeout"
        assert b"[DONE]" not in reply.body
        assert b'finish_reason":"stop' not in reply.body
        await f.home.settled()
        used, held = (await f.home.balances())["user:alice", "usd"]
        assert held == 0
        assert used > 7 * 2000
        assert 7 <= f.home.receipts[0].usage.output <= 7 * 4  # an unknown tokenizer: counted with a margin


@pytest.mark.slow
async def test_a_slow_but_steady_stream_is_left_alone(store, tmp_path):
    async with fleet(store, tmp_path, 1, more="timeouts: {idle: 0.4, first_token: 0.4}\n") as f:
        f.fakes["a"].script = Script(pace=10, length=12)
        reply, took_s = await timed(f.home.chat("m", stream=True))
        assert took_s > 1.0
        assert reply.body.endswith(b"data: [DONE]\n\n")


async def test_a_host_that_does_not_accept_is_given_up_and_the_next_target_answers(store, tmp_path):
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(8):  # its queue is full now: connections neither open nor fail
            filler = socket.socket()
            filler.setblocking(False)
            try:
                filler.connect(("127.0.0.1", port))
            except BlockingIOError:
                pass
            fillers.append(filler)
        async with fleet(store, tmp_path, 2, more="timeouts: {connect: 0.3}\n" + HARD) as f:
            upstream = f.home.sidecar.routes.gateway.rules.router.targets("m")[0].upstream
            from dataclasses import replace

            from adapters.registry import make_adapter

            upstream.endpoint = replace(upstream.endpoint, base_url=f"http://127.0.0.1:{port}/v1")
            upstream.adapter = make_adapter(upstream.endpoint)
            reply, took_s = await timed(f.home.chat("m"))
            assert (reply.status, reply.headers["x-bursar-provider"]) == (200, "b")
            assert 0.3 <= took_s < 0.3 * 1.1 + LATE_S
            ledger, invoice = await f.agree()
            assert ledger == invoice
        for filler in fillers:
            filler.close()


async def test_a_models_own_limit_is_kept_beside_its_providers(store, tmp_path):
    models = (
        "models:\n  quick: {targets: [{to: a/fake-1}], timeouts: {first_token: 0.2}}\n"
        "  slow: {targets: [{to: a/fake-1}], timeouts: {first_token: 5}}\n"
    )
    async with fleet(
        store,
        tmp_path,
        1,
        models=models,
        extra=", timeouts: {first_token: 0.1}",
    ) as f:
        f.fakes["a"].script = Script(delay_ms=600)
        assert (await f.home.chat("quick")).status == 504
        assert (await f.home.chat("slow")).status == 200


@pytest.mark.slow
async def test_comments_keep_a_silent_stream_open_and_are_not_billed(store, tmp_path):
    async with fleet(store, tmp_path, 1, more="server: {keepalive_comment: 0.2}\ntimeouts: {idle: 1.2}\n") as f:
        f.fakes["a"].script = Script(stall=5, length=50)
        reply = await f.home.chat("m", stream=True)
        assert reply.body.count(b"\n: ") + reply.body.count(b"\n\n:") >= 2
        assert rows_of(reply.body)[-1]["error"]["code"] == "upstream_timeout"
        await f.home.settled()
        assert 5 <= f.home.receipts[0].usage.output <= 5 * 4
