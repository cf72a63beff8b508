"""What an answer says in its headers: who answered, what is left, what was lowered; and what of the client never goes on."""

import asyncio
import json
import re
from itertools import islice

import pytest

from proxy.routes import request_ids
from tests.misbehaving import ok
from tests.misbehaving import provider as peer
from tests.sidecars import HELLO, HELLO_TOKENS, KEY, MODEL, PROVIDER_KEY, house

BUDGETS = """budgets:
  - {subject: "user:alice", usd: 1, tokens: 100000, period: day}
  - {subject: "team:lab", usd: 0.5, period: month}
"""


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=BUDGETS) as made:
        yield made


def test_no_two_calls_have_one_id_however_many_are_drawn_at_once():
    ids = [each for _ in range(2) for each in islice(request_ids(), 1000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("req_[0-9a-f]{24}", each) for each in ids)


async def test_an_answer_says_who_answered_and_what_is_left_of_the_tightest_budget(h):
    reply = await h.chat(MODEL + "?length=10", max_tokens=100)
    assert reply.status == 200
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-bursar-provider"] == "fake"
    assert reply.headers["x-bursar-model"] == MODEL + "?length=10"
    bound = 37  # of the input: far from the limit it is not counted
    assert reply.headers["x-budget-remaining-usd"] == f"{0.5 - (bound * 1000 + 100 * 2000) / 1e9:.9f}".rstrip("0")
    assert reply.headers["x-budget-remaining-tokens"] == str(100_000 - bound - 100)
    assert reply.headers["x-budget-reset"].endswith("T00:00:00Z")
    assert reply.headers["x-bursar-cost-usd"] == f"{(HELLO_TOKENS * 1000 + 10 * 2000) / 1e9:.9f}".rstrip("0")
    assert "x-budget-clamped" not in reply.headers
    assert "x-bursar-unreserved" not in reply.headers


async def test_a_stream_has_the_same_headers_but_no_cost(h):
    reply = await h.chat(stream=True)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert {"x-request-id", "x-bursar-provider", "x-bursar-model", "x-budget-remaining-usd", "x-budget-reset"} <= {
        name.lower() for name in reply.headers
    }
    assert "x-bursar-cost-usd" not in reply.headers
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"


async def test_a_settled_call_is_seen_by_the_next(h):
    first = await h.chat(MODEL + "?length=10", max_tokens=100)
    second = await h.chat(MODEL + "?length=10", max_tokens=100)
    left = [float(r.headers["x-budget-remaining-usd"]) for r in (first, second)]
    assert left[0] - left[1] == pytest.approx(float(first.headers["x-bursar-cost-usd"]), abs=1e-12)


async def test_two_calls_at_once_see_each_others_holds(h):
    waiting = asyncio.create_task(h.chat(MODEL + "?hang", max_tokens=1000))
    await h.fake.until(lambda: h.fake.in_flight == 1)
    reply = await h.chat(max_tokens=1000)
    assert int(reply.headers["x-budget-remaining-tokens"]) == 100_000 - 2 * (37 + 1000)
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_without_budgets_there_are_no_budget_headers(store, tmp_path):
    async with house(store, tmp_path) as h:
        reply = await h.chat()
        assert not [name for name in reply.headers if name.lower().startswith("x-budget")]
        assert "x-bursar-unreserved" not in reply.headers
        assert reply.headers["x-bursar-cost-usd"]


async def test_without_a_price_there_is_no_cost(store, tmp_path):
    async with house(store, tmp_path, prices="") as h:
        assert "x-bursar-cost-usd" not in (await h.chat()).headers


async def test_the_models_own_word_is_in_the_answer_and_ours_in_the_header(store, tmp_path):
    async with house(store, tmp_path, models='models: {nice: "fake/gpt-4o"}\n') as h:
        reply = await h.chat("nice")
        assert reply.json["model"] == MODEL
        assert reply.headers["x-bursar-model"] == MODEL
        assert json.loads(h.fake.requests[0].body)["model"] == MODEL


async def test_what_the_client_sends_beside_the_body_stays_here(h):
    headers = {
        "x-secret": "client", "cookie": "a=b", "x-forwarded-for": "10.0.0.1", "openai-organization": "org-client",
        "user-agent": "client/1", "x-request-id": "theirs", "referer": "http://inside/", "x-stainless-lang": "python",
    }  # fmt: skip
    reply = await h.chat(headers=headers)
    sent = h.fake.requests[0].headers
    assert KEY not in str(sent)
    assert sent["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert not {"x-secret", "cookie", "x-forwarded-for", "openai-organization", "referer", "x-stainless-lang"} & {
        name.lower() for name in sent
    }
    assert "client/1" not in str(sent)
    assert sent["x-request-id"] == reply.headers["x-request-id"] != "theirs"


async def test_no_header_of_the_provider_can_reach_the_client_but_those_we_know(store, tmp_path):
    body = b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
    secret = b"set-cookie: provider=1\r\nx-internal-host: db1\r\nserver: theirs\r\ncontent-type: application/json\r\n"

    async def answer(p):
        while await p.request():
            await p.write(ok(body, secret))

    async with peer(answer) as p:
        providers = (
            f'providers: {{{{fake: {{{{kind: fake, base_url: "{p.url("/v1")}", api_keys: [k-0123456789]}}}}}}}}\n'
        )
        async with house(store, tmp_path, providers=providers) as h:
            reply = await h.chat()
            assert reply.status == 200
            assert not {"set-cookie", "x-internal-host"} & {name.lower() for name in reply.headers}


@pytest.mark.parametrize(
    "name", ["gpt-4o?length=3&x=\u00e9", "gpt-4o\r\nx-evil: 1", "gpt-4o\x00", "m" * 5000, "\ud83d\ude00"]
)
async def test_a_models_name_cannot_forge_a_header(store, tmp_path, name):
    async with house(store, tmp_path) as h:
        reply = await h.post(model=name, messages=HELLO)
        assert "x-evil" not in reply.headers
        assert all("\n" not in value and len(value) <= 1000 for value in reply.headers.values())
        assert reply.status in (200, 400)
