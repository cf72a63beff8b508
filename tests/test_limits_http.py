"""Limits of speed through HTTP: what is counted for whom, what the headers say, what a refusal tells, shared by all sidecars."""

import asyncio

import openai
import pytest
from openai import AsyncOpenAI

from accounting.ask import Worst
from accounting.budgets import Caller
from proxy.config.policy import Limit
from proxy.fake import Script
from proxy.limits import LimitBook, rates
from tests.sidecars import HELLO, KEY, house

BOB = "sk-bob-0123456789abcdef0123456789"
KEYS = f'keys: [{{id: alice-laptop, user: alice, team: lab, secret: "{KEY}"}}, {{id: bob-laptop, user: bob, team: lab, secret: "{BOB}"}}]\n'


def book(*rows):
    return LimitBook(Limit(subject=subject, rpm=rpm) for subject, rpm in rows)


@pytest.mark.parametrize(
    ("rows", "routes", "expected"),
    [
        ([("key:k", 5)], [], {"key:k": 5}),
        ([("key:*", 7)], [], {"key:k": 7}),
        ([("key:*", 7), ("key:k", 5)], [], {"key:k": 5}),
        ([("key:*", 7), ("user:u", 3), ("team:t", 2)], [], {"key:k": 7, "user:u": 3, "team:t": 2}),
        ([("user:other", 3)], [], {}),
        ([("model:m", 4)], [("p", "m")], {"model:m": 4}),
        ([("model:p/m", 4)], [("p", "m"), ("q", "m")], {"model:p/m": 4}),
        ([("model:*", 4)], [("p", "m"), ("q", "n")], {"model:m": 4, "model:n": 4}),
        ([("model:m", 4), ("model:*", 9)], [("p", "m"), ("p", "org/n")], {"model:m": 4, "model:org/n": 9}),
        ([("provider:*", 4)], [("p", "m"), ("p", "n")], {"provider:p": 4}),
        ([("tenant:default", 4)], [], {"tenant:default": 4}),
    ],
)
def test_a_call_counts_against_its_callers_limits_and_those_of_its_models(rows, routes, expected):
    caller = Caller(key="k", user="u", team="t")
    found = rates(book(*rows).of(caller, routes), Worst(input_tokens=1, input_nanousd=0, output_nanousd=0))
    assert {rate.subject: rate.limit for rate in found} == expected


async def test_requests_per_minute_refuse_with_openais_headers_and_a_true_wait(store, tmp_path):
    more = 'limits: [{subject: "key:*", rpm: 3}]\n'
    async with house(store, tmp_path, more=more, keys=KEYS) as home:
        for left in (2, 1, 0):
            reply = await home.chat()
            assert reply.status == 200
            assert reply.headers["x-ratelimit-limit-requests"] == "3"
            assert reply.headers["x-ratelimit-remaining-requests"] == str(left)
            assert reply.headers["x-ratelimit-reset-requests"].endswith("s")
        refused = await home.chat()
        assert (refused.status, refused.error["code"], refused.error["type"]) == (
            429,
            "rate_limit_exceeded",
            "rate_limit_error",
        )
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert 15 < int(refused.headers["retry-after-ms"]) / 1000 <= 20  # one of three a minute
        assert int(refused.headers["retry-after"]) == pytest.approx(
            int(refused.headers["retry-after-ms"]) / 1000, abs=1
        )
        assert "x-should-retry" not in refused.headers
        assert (await home.chat(key=BOB)).status == 200  # a limit of each key
        assert len(home.fake.invoice) == 4


async def test_the_wait_that_is_told_is_enough_and_not_much_too_long(store, tmp_path):
    async with house(store, tmp_path, more='limits: [{subject: "key:*", rpm: 120}]\n') as home:
        replies = await asyncio.gather(*(home.chat("fake-1?length=2") for _ in range(125)))
        wait_ms = [int(r.headers["retry-after-ms"]) for r in replies if r.status == 429]
        assert 3 <= len(wait_ms) <= 6
        assert max(wait_ms) <= 500
        await asyncio.sleep(max(wait_ms) / 1000 + 0.01)  # the promise itself is what is tested
        assert (await home.chat("fake-1?length=2")).status == 200


@pytest.mark.parametrize("subject", ["user:alice", "team:lab", "model:fake-1", "tenant:default", "provider:fake"])
async def test_a_limit_is_one_limit_for_all_who_share_its_subject(store, tmp_path, subject):
    more = f'limits: [{{subject: "{subject}", rpm: 2}}]\n'
    models = "models: {fake-1: fake/fake-1, other: fake/fake-2}\n"
    async with house(store, tmp_path, more=more, keys=KEYS, models=models) as home:
        assert [(await home.chat("fake-1")).status for _ in range(3)] == [200, 200, 429]
        assert (await home.chat("fake-1", key=BOB)).status == (200 if subject == "user:alice" else 429)
        assert (await home.chat("other")).status == (200 if subject == "model:fake-1" else 429)


async def test_tokens_per_minute_count_input_and_what_may_be_generated(store, tmp_path):
    async with house(store, tmp_path, more='limits: [{subject: "key:*", tpm: 1000}]\n') as home:
        first = await home.chat(max_tokens=600)
        assert first.status == 200
        assert first.headers["x-ratelimit-limit-tokens"] == "1000"
        refused = await home.chat(max_tokens=600)
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert "tokens per minute" in refused.error["message"]
        assert (await home.chat(max_tokens=100)).status == 200


async def test_calls_at_once_are_limited_and_a_place_comes_back_when_one_ends(store, tmp_path):
    async with house(store, tmp_path, more='limits: [{subject: "user:*", concurrency: 2}]\n', keys=KEYS) as home:
        home.fake.script = Script(hang=True)
        hanging = [asyncio.create_task(home.chat()) for _ in range(2)]
        await home.fake.until(lambda: home.fake.in_flight == 2)
        refused = await home.chat()
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert "at once" in refused.error["message"]
        assert int(refused.headers["retry-after"]) >= 1
        home.fake.script = Script()
        assert (await home.chat(key=BOB)).status == 200
        hanging[0].cancel()
        await home.fake.until(lambda: home.fake.in_flight == 1)
        async with asyncio.timeout(5):
            while (await home.chat()).status != 200:
                pass
        for task in hanging:
            task.cancel()


async def test_two_sidecars_share_every_limit(store, tmp_path):
    more = 'limits: [{subject: "key:*", rpm: 10, concurrency: 3}]\n'
    async with (
        house(store, tmp_path / "1", prefix="shared-limits", more=more) as one,
        house(store, tmp_path / "2", prefix="shared-limits", more=more, fake=one.fake) as two,
    ):
        replies = await asyncio.gather(*((one, two)[n % 2].chat("fake-1?delay_ms=150") for n in range(10)))
        assert sum(r.status == 200 for r in replies) == 3
        statuses = [(await (one, two)[n % 2].chat()).status for n in range(12)]
        assert sum(status == 200 for status in statuses) in (6, 7)  # ten a minute in all, and what flows back meanwhile


async def test_a_call_that_a_budget_refuses_uses_up_no_rate(store, tmp_path):
    more = 'limits: [{subject: "key:*", rpm: 2}]\nbudgets: [{subject: "user:alice", usd: 0.0000001, period: day}]\n'
    async with house(store, tmp_path, more=more, keys=KEYS) as home:
        for _ in range(4):
            assert (await home.chat()).error["code"] == "insufficient_quota"
        assert [(await home.chat(key=BOB)).status for _ in range(2)] == [200, 200]


async def test_an_sdk_waits_as_it_is_told_and_then_succeeds(store, tmp_path):
    async with house(store, tmp_path, more='limits: [{subject: "key:*", rpm: 240}]\n') as home:
        await asyncio.gather(*(home.chat("fake-1?length=2") for _ in range(242)))
        async with AsyncOpenAI(api_key=KEY, base_url=home.url, max_retries=2) as sdk:
            answer = await sdk.chat.completions.create(model="fake-1?length=2", messages=HELLO)
        assert answer.choices[0].message.content


async def test_an_sdk_that_does_not_retry_gets_its_rate_limit_error(store, tmp_path):
    async with house(store, tmp_path, more='limits: [{subject: "key:*", rpm: 1}]\n') as home:
        await home.chat()
        async with home.sdk() as sdk:
            with pytest.raises(openai.RateLimitError) as caught:
                await sdk.chat.completions.create(model="fake-1", messages=HELLO)
        assert caught.value.code == "rate_limit_exceeded"
