"""The cache of answers: what is kept, for whom, how it is told, and that it costs nothing."""

import asyncio

import pytest

from accounting.ask import Ask, Draw, Rate
from accounting.budgets import Budget
from accounting.periods import Period
from proxy.cache import asks_only_for_speed
from tests.sidecars import KEY, house, total

BOB = "sk-bob-0123456789abcdef0123456789"
TWO = f'keys: [{{id: alice-laptop, user: alice, team: lab, secret: "{KEY}"}}, {{id: bob-laptop, user: alice, team: lab, secret: "{BOB}"}}]\n'
ON = "cache: {mode: exact, seconds: 60}\n"


async def twice(home, **call):
    first = await home.chat("fake-1", **call)
    await kept(home)
    return first, await home.chat("fake-1", **call)


async def kept(home):
    """Wait until what is to be kept is."""
    tasks = [t for t in home.sidecar.supervisor._tasks if t.get_name() == "keep"]
    if tasks:
        await asyncio.wait(tasks)


async def test_the_same_question_at_temperature_0_is_answered_from_the_cache_and_says_so(store, tmp_path):
    async with house(store, tmp_path, more=ON + 'budgets: [{subject: "user:alice", usd: 5, period: day}]\n') as home:
        first, second = await twice(home, temperature=0)
        assert (first.status, first.headers["x-bursar-cache"]) == (200, "miss")
        assert (second.status, second.headers["x-bursar-cache"]) == (200, "hit")
        assert second.body == first.body
        assert second.headers["x-bursar-cost-usd"] == "0"
        assert second.headers["x-bursar-provider"] == "fake"
        assert int(second.headers["age"]) >= 0
        assert second.headers["x-request-id"] != first.headers["x-request-id"]
        assert len(home.fake.invoice) == 1
        await home.until_receipts(2)
        assert [r.outcome for r in home.receipts] == ["ok", "cached"]
        assert home.receipts[1].cost_nanousd == 0
        used, held = (await home.balances())["user:alice", "usd"]
        assert (used, held) == (home.receipts[0].cost_nanousd, 0)
        assert total(await home.metrics(), "bursar_requests_total", outcome="cached") == 1


@pytest.mark.parametrize(
    "call",
    [{}, {"temperature": 0.1}, {"temperature": None}, {"temperature": False}, {"temperature": 0, "stream": True}, {"temperature": 0, "n": 2},
     {"temperature": 0, "store": True}, {"temperature": 0, "web_search_options": {}}],
)  # fmt: skip
async def test_what_may_be_answered_otherwise_the_next_time_is_not_kept(store, tmp_path, call):
    async with house(store, tmp_path, more=ON) as home:
        first, second = await twice(home, **call)
        assert "x-bursar-cache" not in first.headers
        assert "x-bursar-cache" not in second.headers
        assert len(home.fake.invoice) + (first.status >= 400) * 2 >= 2


async def test_it_is_off_unless_switched_on(store, tmp_path):
    async with house(store, tmp_path) as home:
        _, second = await twice(home, temperature=0)
        assert "x-bursar-cache" not in second.headers
        assert len(home.fake.invoice) == 2


async def test_no_key_gets_what_was_answered_to_another(store, tmp_path):
    async with house(store, tmp_path, more=ON, keys=TWO) as home:
        await twice(home, temperature=0)
        reply = await home.chat("fake-1", key=BOB, temperature=0)
        assert reply.headers["x-bursar-cache"] == "miss"
        assert len(home.fake.invoice) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 5},
        {"seed": 1},
        {"messages": [{"role": "user", "content": "another"}]},
        {"temperature": 0.0, "top_p": 0.5},
    ],
)
async def test_another_question_gets_an_answer_of_its_own(store, tmp_path, other):
    async with house(store, tmp_path, more=ON) as home:
        await twice(home, temperature=0)
        reply = await home.chat("fake-1", **{"temperature": 0, **other})
        assert reply.headers["x-bursar-cache"] == "miss"


async def test_the_order_of_fields_makes_no_other_question(store, tmp_path):
    async with house(store, tmp_path, more=ON) as home:
        await twice(home, temperature=0, max_tokens=9)
        reply = await home.post(
            max_tokens=9,
            temperature=0,
            messages=[{"content": "Say hello to the treasurer.", "role": "user"}],
            model="fake-1",
        )
        assert reply.headers["x-bursar-cache"] == "hit"


async def test_a_client_can_ask_for_an_answer_of_its_own_and_for_nothing_to_be_kept(store, tmp_path):
    async with house(store, tmp_path, more=ON) as home:
        private = {"cache-control": "no-store"}
        first = await home.chat("fake-1", headers=private, temperature=0)
        await kept(home)
        assert "x-bursar-cache" not in first.headers
        assert (await twice(home, temperature=0))[1].headers["x-bursar-cache"] == "hit"
        fresh = await home.chat("fake-1", headers={"Cache-Control": "No-Cache"}, temperature=0)
        assert fresh.headers["x-bursar-cache"] == "miss"
        assert len(home.fake.invoice) == 3


async def test_an_answer_is_forgotten_in_time(store, tmp_path):
    async with house(store, tmp_path, more="cache: {mode: exact, seconds: 0.2}\n") as home:
        await twice(home, temperature=0)
        keys = await store.command("KEYS", home.sidecar.store.key("answer", "*"))
        assert [0 < await store.command("PTTL", key) <= 200 for key in keys] == [True]
        async with asyncio.timeout(5):
            while await store.command("KEYS", home.sidecar.store.key("answer", "*")):
                await asyncio.sleep(0.02)
        assert (await home.chat("fake-1", temperature=0)).headers["x-bursar-cache"] == "miss"


async def test_embeddings_are_kept_and_errors_are_not(store, tmp_path):
    async with house(store, tmp_path, more=ON) as home:
        for expected in ("miss", "hit"):
            reply = await home.post("/embeddings", model="fake-1", input="a text")
            assert (reply.status, reply.headers["x-bursar-cache"]) == (200, expected)
            await kept(home)
        for _ in range(2):
            reply = await home.chat("fake-1?status=400", temperature=0)
            assert (reply.status, reply.headers.get("x-bursar-cache")) == (400, None)


async def test_hits_still_count_as_requests_per_minute(store, tmp_path):
    async with house(store, tmp_path, more=ON + 'limits: [{subject: "key:*", rpm: 3}]\n') as home:
        statuses = []
        for _ in range(4):
            statuses.append((await home.chat("fake-1", temperature=0)).status)
            await kept(home)
        assert statuses == [200, 200, 200, 429]


@pytest.mark.slow
async def test_without_the_store_nothing_is_found_and_nothing_breaks(own_store, tmp_path):
    budget = 'budgets: [{subject: "user:alice", usd: 5, period: day, outage: allow}]\n'
    async with house(own_store, tmp_path, more=ON + budget) as home:
        await twice(home, temperature=0)
        own_store.stop()
        reply = await home.chat("fake-1", temperature=0)
        assert (reply.status, reply.headers["x-bursar-cache"]) == (200, "miss")


def test_an_answer_from_the_cache_asks_for_its_turn_and_for_no_money():
    def draw(unit):
        return Draw(Budget(subject="u", unit=unit, limit=1, period=Period(kind="total")), 1, 0)

    rates = tuple(Rate(subject="k", what=what, limit=1, fixed=1, per_output=1) for what in ("requests", "tokens"))
    asked = asks_only_for_speed(
        Ask(draws=(draw("usd"), draw("concurrency"), draw("requests")), rates=rates, wanted=9, least=3)
    )
    assert [d.budget.unit for d in asked.draws] == ["concurrency"]
    assert [rate.what for rate in asked.rates] == ["requests"]
    assert (asked.wanted, asked.least) == (0, 0)
