"""Retries and failover through a running sidecar: what is tried again, where, how often, and what it costs."""

import json

import pytest

from accounting.ask import Ask, Draw
from accounting.budgets import Budget
from accounting.charge import Attempt
from accounting.hold import HeldRow, Hold
from accounting.meter import Meter
from accounting.periods import Period
from accounting.usage import Usage
from adapters.errors import (
    UpstreamAuthError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from proxy.fake import Script
from proxy.retrying import (
    BACKOFF_S,
    BACKOFF_S_MAX,
    RetryBudget,
    blames_target,
    concerns_key,
    grant_left,
    is_far_away,
    is_safe,
    retry_after_s,
    wait_s,
)
from tests.fleet import fleet
from tests.sidecars import KEY

HARD = 'budgets: [{subject: "user:alice", usd: 5, period: day}]\n'


def error(status, code=None, **headers):
    return UpstreamError("x", status=status, code=code, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(
    ("failure", "safe", "key", "target", "far"),
    [
        (UpstreamUnavailableError("x", delivered=False), True, False, True, False),
        (UpstreamUnavailableError("x", delivered=True), False, False, True, False),
        (UpstreamTimeoutError("x", phase="connect"), True, False, True, False),
        (UpstreamTimeoutError("x", phase="tls"), True, False, True, False),
        (UpstreamTimeoutError("x", phase="first_token"), False, False, True, False),
        (UpstreamTimeoutError("x", phase="idle"), False, False, True, False),
        (UpstreamTimeoutError("x", phase="total"), False, False, True, False),
        (UpstreamProtocolError("x"), True, False, True, False),
        (UpstreamAuthError("x"), True, True, False, True),
        (error(429), True, True, False, False),
        (error(429, retry_after="2"), True, True, False, False),
        (error(429, retry_after="30"), True, True, False, True),
        (error(429, "insufficient_quota", x_should_retry="false"), True, True, False, True),
        (error(500), True, False, True, False),
        (error(503, retry_after="60"), True, False, True, True),
        (error(503, x_should_retry="false"), False, False, True, False),
        (error(529), True, False, True, False),
        (error(501), False, False, True, False),
        (error(408), True, False, False, False),
        (error(400), False, False, False, False),
        (error(403), True, True, False, True),
        (error(403, "content_policy_violation"), False, False, False, True),
        (error(404), False, False, False, False),
        (error(422), False, False, False, False),
    ],
)
def test_every_failure_has_one_reading(failure, safe, key, target, far):
    assert (is_safe(failure), concerns_key(failure), blames_target(failure), is_far_away(failure)) == (
        safe,
        key,
        target,
        far,
    )


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"retry-after": "2"}, 2.0), ({"retry-after-ms": "150"}, 0.15), ({"retry-after-ms": "1", "retry-after": "9"}, 0.001),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:00 GMT"}, None), ({"retry-after": "-1"}, None), ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None), ({}, None), ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
    ],
)  # fmt: skip
def test_what_a_provider_says_about_waiting_is_read_and_nonsense_is_not(headers, expected_s):
    assert retry_after_s(UpstreamError("x", status=429, headers=headers)) == expected_s


def test_waits_are_jittered_over_the_whole_range_and_grow_up_to_a_bound():
    failure = error(503)
    for turn in (1, 2, 3, 9):
        most = min(BACKOFF_S_MAX, BACKOFF_S * 2**turn)
        waits = [wait_s(failure, turn) for _ in range(400)]
        assert 0 <= min(waits) < most * 0.1
        assert most * 0.9 < max(waits) <= most
    assert 2.0 <= wait_s(error(503, retry_after="2"), 1) <= 2.0 + BACKOFF_S


@pytest.mark.parametrize("calls", [0, 10, 100, 1000])
def test_retries_are_a_tenth_of_all_calls_and_three_to_begin_with(calls):
    budget, taken = RetryBudget(0.1), 0
    for _ in range(calls):
        budget.earned()
        taken += budget.take()
    while budget.take():
        taken += 1
    assert calls * 0.1 + 2 <= taken <= calls * 0.1 + 3.001


def test_quiet_times_do_not_save_up_for_a_storm():
    budget = RetryBudget(0.1)
    for _ in range(100_000):
        budget.earned()
    assert sum(budget.take() for _ in range(1000)) == 13


class Price:
    version = "t"

    def cost_nanousd(self, usage):
        return 1000 * usage.input + 2000 * usage.output


def held(unit, amount, fixed, per, *, granted, least, mode="hard"):
    budget = Budget(subject="user:a", unit=unit, limit=10**12, period=Period(kind="day"), mode=mode)
    row = HeldRow(
        budget=budget, counters_key="", holds_key="", field="used", amount=amount, expiry_ms=0, resets_ms=None,
        limit=10**12, used=0, held=amount,
    )  # fmt: skip
    hold = Hold(seq=1, request_id="r", granted=granted, rows=(row,))
    return hold, Ask(draws=(Draw(budget, fixed, per),), wanted=granted, least=least)


def attempt(usage=None, *, billable=True):
    meter = Meter("m", lambda: 0)
    meter.reported = usage
    return Attempt("p", "m", Price(), meter, billable=billable)


SMALL = Usage(input=10, output=5)


@pytest.mark.parametrize(
    ("unit", "amount", "fixed", "per", "mode", "attempts", "left"),
    [
        ("usd", 2_100_000, 100_000, 2000, "hard", [], 1000),
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(billable=False)], 1000),
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt()], None),  # the worst must be assumed
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(SMALL)], 990),  # 20,000 of it are spent
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(SMALL), attempt()], None),
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(Usage(input=10, output=900))], None),  # less than the least
        ("usd", 110_000, 100_000, 0, "hard", [attempt(SMALL)], None),
        ("tokens", 1100, 100, 1, "hard", [attempt(SMALL)], 985),
        ("requests", 1, 1, 0, "hard", [attempt()], 1000),
        ("concurrency", 1, 1, 0, "hard", [attempt()], 1000),
        ("usd", 2_100_000, 100_000, 2000, "soft", [attempt()], 1000),
    ],
)
def test_one_more_attempt_gets_what_the_hold_still_covers(unit, amount, fixed, per, mode, attempts, left):
    hold, ask = held(unit, amount, fixed, per, granted=1000, least=256, mode=mode)
    assert grant_left(hold, ask, attempts) == left


# through a running sidecar --------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("status", [503, 429])
async def test_an_outage_is_not_answered_with_more_load(store, tmp_path, status):
    async with fleet(store, tmp_path, 1) as f:
        f.fakes["a"].script = Script(status=status)
        for _ in range(60):
            assert (await f.home.chat("m")).status == status
        assert f.calls("a") <= 60 * 1.1 + 3  # C16


async def test_a_target_that_keeps_failing_is_left_alone_and_taken_back_when_it_answers(store, tmp_path):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = Script(status=500)
        for _ in range(30):
            reply = await f.home.chat("m")
            assert (reply.status, reply.headers["x-bursar-provider"]) == (200, "b")
        assert f.calls("a") == 5
        place = ("a", "fake-1", f.fakes["a"].url)
        assert (await f.home.metrics())["bursar_upstream_up", (("provider", "a"),)] == 0
        assert (await f.home.ops("/readyz")).json["upstreams"]["a"] == {"targets_left_out": 1}
        assert (await f.home.ops("/readyz")).status == 200  # providers are told of, and never a reason not to be ready
        f.fakes["a"].script = Script()
        f.trier.health.of(place).open_until_s = 0  # its rest is over
        assert (await f.home.chat("m")).headers["x-bursar-provider"] == "a"
        assert f.trier.health.of(place).clean or f.trier.health.of(place).state(0) == "closed"
        assert (await f.home.metrics())["bursar_upstream_up", (("provider", "a"),)] == 1


async def test_streams_that_break_off_count_against_their_target(store, tmp_path):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = Script(cut=3)
        seen = [(await f.home.chat("m", stream=True)).headers["x-bursar-provider"] for _ in range(12)]
        assert seen[:5] == ["a"] * 5
        assert set(seen[5:]) == {"b"}


async def test_the_last_target_is_tried_however_often_it_failed(store, tmp_path):
    async with fleet(store, tmp_path, 1, more="retries: {attempts: 1}\n") as f:
        f.fakes["a"].script = Script(status=500)
        for _ in range(8):
            assert (await f.home.chat("m")).status == 500
        f.fakes["a"].script = Script()
        assert (await f.home.chat("m")).status == 200


KEYS = ("sk-good-0123456789abcdef01234567", "sk-bad-00123456789abcdef01234567", "sk-also-0123456789abcdef01234567")


async def test_a_key_that_is_refused_rests_while_another_serves(store, tmp_path):
    async with fleet(store, tmp_path, 1, keys=KEYS, accept=(KEYS[0], KEYS[2])) as f:
        for _ in range(9):
            assert (await f.home.chat("m")).status == 200
        used = [seen.headers["authorization"].removeprefix("Bearer ") for seen in f.fakes["a"].requests]
        assert used.count(KEYS[1]) == 1
        assert {used.count(KEYS[0]), used.count(KEYS[2])} <= {4, 5}
        assert (await f.home.ops("/readyz")).json["upstreams"]["a"] == {"keys_resting": 1}


async def test_when_all_keys_are_refused_they_are_still_tried_and_the_client_learns_no_key(store, tmp_path):
    async with fleet(store, tmp_path, 1, keys=KEYS, accept=("none-of-them",)) as f:
        for _ in range(3):
            reply = await f.home.chat("m")
            assert (reply.status, reply.error["code"]) == (502, "upstream_auth_error")
            assert not any(key.encode() in reply.body for key in (*KEYS, KEY))
        assert f.calls("a") >= 5


async def test_a_target_whose_only_key_rests_comes_last(store, tmp_path):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = Script(status=429, retry_after="60", times=1)
        assert (await f.home.chat("m")).headers["x-bursar-provider"] == "b"
        assert (await f.home.chat("m")).headers["x-bursar-provider"] == "b"
        assert f.calls("a") == 1
