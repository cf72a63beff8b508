"""Retries and failover through a running sidecar: what is tried again, where, how often, and what it costs."""

import json

import pytest

from proxy.fake import Script
from tests.fleet import fleet

HARD = 'budgets: [{subject: "user:alice", usd: 5, period: day}]\n'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", ["status=500", "status=503", "status=529", "status=408", "status=429"])
async def test_a_refusal_that_may_pass_is_tried_again_and_the_client_sees_nothing_of_it(
    store, tmp_path, script, stream
):
    async with fleet(store, tmp_path, 1) as f:
        reply = await f.home.chat(f"a/fake-1?{script}&times=1", stream=stream)
        assert reply.status == 200
        await f.home.until_receipts(1)
        assert "x-bursar-provider" in reply.headers
        ledger, invoice = await f.agree()
        assert ledger == invoice > 0


@pytest.mark.parametrize("status", [400, 404, 422, 413])
async def test_a_refusal_that_will_not_pass_is_told_at_once(store, tmp_path, status):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = Script(status=status)
        reply = await f.home.chat("m")
        assert reply.status == status
        assert (f.calls("a"), f.calls("b")) == (1, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        Script(status=500),
        Script(status=429, retry_after="30"),
        Script(status=401),
        Script(status=503, retry_after="60"),
        Script(status=403),
    ],
    ids=["500", "429 for long", "401", "503 for long", "403"],
)
async def test_the_next_target_answers_at_once_where_the_first_refuses(store, tmp_path, script, stream):
    async with fleet(store, tmp_path, 2, more=HARD) as f:
        f.fakes["a"].script = script
        reply = await f.home.chat("m", stream=stream)
        assert reply.status == 200
        assert reply.headers["x-bursar-provider"] == "b"
        assert (f.calls("a"), f.calls("b")) == (1, 1)
        ledger, invoice = await f.agree()
        assert ledger == invoice > 0


async def test_a_target_where_nobody_listens_is_passed_over(store, tmp_path):
    async with fleet(store, tmp_path, 2, more=HARD) as f:
        await f.fakes["a"].__aexit__(None, None, None)
        reply = await f.home.chat("m")
        assert (reply.status, reply.headers["x-bursar-provider"]) == (200, "b")
        await f.home.settled()
        assert f.home.receipts[0].attempts == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_when_nothing_helps_the_client_is_told_not_to_try_it_all_again(store, tmp_path, stream):
    async with fleet(store, tmp_path, 2, more=HARD) as f:
        for fake in f.fakes.values():
            fake.script = Script(status=503)
        reply = await f.home.chat("m", stream=stream)
        assert reply.status == 503
        assert reply.headers["x-should-retry"] == "false"
        assert (f.calls("a"), f.calls("b")) == (2, 2)
        assert (await f.agree()) == (0, 0)
        assert (await f.home.balances())["user:alice", "usd"] == (0, 0)


async def test_an_sdk_that_retries_too_does_not_multiply_our_retries(store, tmp_path):
    import openai

    async with fleet(store, tmp_path, 1) as f:
        f.fakes["a"].script = Script(status=429)
        async with f.home.sdk(max_retries=3) as sdk:
            with pytest.raises(openai.RateLimitError):
                await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert f.calls("a") == 2


async def test_a_single_attempt_leaves_the_choice_to_the_client(store, tmp_path):
    async with fleet(store, tmp_path, 1, more="retries: {attempts: 1}\n") as f:
        f.fakes["a"].script = Script(status=503)
        reply = await f.home.chat("m")
        assert (reply.status, reply.headers.get("x-should-retry")) == (503, None)


@pytest.mark.parametrize(
    ("script", "stream"),
    [(Script(empty=True), False), (Script(empty=True), True), (Script(malformed=True), False)],
    ids=["empty", "empty stream", "malformed"],
)
async def test_an_empty_or_malformed_200_is_no_answer_but_another_may_follow(store, tmp_path, script, stream):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = script
        reply = await f.home.chat("m", stream=stream)
        assert (reply.status, reply.headers["x-bursar-provider"]) == (200, "b")
        assert f.trier.health.of(("a", "fake-1", f.fakes["a"].url)).failures == 1


async def test_a_malformed_200_is_not_followed_where_the_hold_does_not_cover_a_second_bill(store, tmp_path):
    async with fleet(store, tmp_path, 2, more=HARD) as f:
        f.fakes["a"].script = Script(malformed=True)
        reply = await f.home.chat("m")
        assert reply.status == 502
        assert reply.error["code"] == "upstream_protocol_error"
        assert f.calls("b") == 0
        await f.home.settled()
        assert f.home.receipts[0].cost_nanousd > 0  # what it may have cost is not forgotten
        assert f.home.receipts[0].usage.estimated


async def test_an_error_object_sent_as_a_200_is_an_error_and_costs_nothing(store, tmp_path):
    async with fleet(store, tmp_path, 2, more=HARD) as f:
        f.fakes["a"].script = Script(error_body=True)
        reply = await f.home.chat("m")
        assert (reply.status, reply.headers["x-bursar-provider"]) == (200, "b")
        ledger, invoice = await f.agree()
        assert ledger == invoice


async def test_a_whole_answer_to_a_stream_is_billed_and_the_rest_of_the_hold_is_all_that_may_follow(store, tmp_path):
    from tests.misbehaving import ok, provider

    whole = json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49},
        }
    ).encode()

    async def script(peer):
        while await peer.request():
            await peer.write(ok(whole, b"content-type: application/json\r\n"))

    async with provider(script) as odd, fleet(store, tmp_path, 1, more=HARD) as f:
        gateway = f.home.sidecar.routes.gateway
        first = gateway.rules.router.targets("m")[0]
        from dataclasses import replace

        from adapters.registry import make_adapter
        from proxy.upstreams import Upstream

        endpoint = replace(first.upstream.endpoint, base_url=odd.url("/v1"), name="odd")
        upstream = Upstream(
            endpoint=endpoint,
            adapter=make_adapter(endpoint),
            transport=first.upstream.transport,
            timeouts=first.upstream.timeouts,
            credentials=first.upstream.credentials,
        )
        gateway.rules.router._upstreams = {**gateway.rules.router._upstreams, "odd": upstream}
        from proxy.config.model import Spread, Target

        gateway.rules.router._settled.clear()
        gateway.rules.router._exact["m"] = Spread(targets=(Target(to="odd/fake-1"), Target(to="a/fake-1")))
        reply = await f.home.chat("m", stream=True, max_tokens=1000)
        assert reply.status == 200
        assert reply.headers["x-bursar-provider"] == "a"
        assert int(reply.headers["x-budget-clamped"]) < 1000  # the first bill came out of the same hold
        await f.home.settled()
        receipt = f.home.receipts[0]
        spent = sum(1000 * e.prompt_tokens + 2000 * e.completion_tokens for e in f.billed) + 1000 * 9 + 2000 * 40
        assert receipt.cost_nanousd == spent
        assert receipt.cost_nanousd <= receipt.hold.rows[0].amount


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_sent_again_once_a_provider_may_have_begun(store, tmp_path, stream):
    more = "timeouts: {first_token: 0.2}\n" + HARD
    async with fleet(store, tmp_path, 2, more=more) as f:
        f.fakes["a"].script = Script(hang=True)
        reply = await f.home.chat("m", stream=stream)
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
        assert f.calls("b") == 0


async def test_a_deadline_ends_the_waiting_between_attempts(store, tmp_path):
    async with fleet(store, tmp_path, 1, more="timeouts: {total: 0.5}\nretries: {attempts: 9, budget: 1}\n") as f:
        f.fakes["a"].script = Script(status=503, retry_after="1")
        import asyncio

        began_s = asyncio.get_running_loop().time()
        reply = await f.home.chat("m")
        assert reply.status == 503
        assert asyncio.get_running_loop().time() - began_s < 0.9
        assert f.calls("a") == 1
