"""GET /v1/budget: the caller's own budgets, one row for each unit, as the store has them."""

import asyncio
import datetime as dt

from tests.sidecars import HELLO_TOKENS, KEYS, MODEL, budget, house

BOB = "sk-bob-0123456789abcdef0123456789"
TWO_KEYS = KEYS.replace("]\n", f', {{id: bobs, user: bob, secret: "{BOB}"}}]\n')
BUDGETS = """budgets:
  - {subject: "user:alice", usd: 1.25, tokens: 1000, requests: 5, period: day}
  - {subject: "team:lab", usd: 0.5, period: total, mode: soft}
  - {subject: "key:bobs", usd: 7, period: month}
  - {subject: "user:*", output_tokens: 900, period: "rolling:30d"}
  - {subject: "model:gpt-4o", usd: 3, period: week}
"""
ROW = ["subject", "unit", "limit", "used", "held", "remaining", "period", "resets_at", "mode"]


async def test_each_budget_and_unit_of_the_caller_is_one_row(store, tmp_path):
    async with house(store, tmp_path, keys=TWO_KEYS, more=BUDGETS) as h:
        assert (await h.chat(MODEL + "?length=10", max_tokens=50)).status == 200
        reply = await h.get("/budget")
        assert reply.status == 200
        assert reply.json["object"] == "list"
        rows = {(row["subject"], row["unit"]): row for row in reply.json["data"]}
        assert all(list(row) == ROW for row in rows.values())
        assert set(rows) == {
            ("user:alice", "usd"), ("user:alice", "tokens"), ("user:alice", "requests"), ("team:lab", "usd"),
        }  # fmt: skip
        cost = (HELLO_TOKENS * 1000 + 10 * 2000) / 1e9
        money = rows["user:alice", "usd"]
        assert (money["limit"], money["used"], money["held"]) == (1.25, cost, 0)
        assert money["remaining"] == 1.25 - cost
        tokens = rows["user:alice", "tokens"]
        assert (tokens["limit"], tokens["used"], tokens["remaining"]) == (1000, HELLO_TOKENS + 10, 976)
        assert rows["user:alice", "requests"]["used"] == 1
        assert rows["team:lab", "usd"]["mode"] == "soft"
        assert rows["team:lab", "usd"]["resets_at"] is None
        assert rows["team:lab", "usd"]["period"] == "total"
        resets = dt.datetime.fromisoformat(money["resets_at"])
        assert resets.tzinfo is not None
        assert 0 < (resets - dt.datetime.now(dt.UTC)).total_seconds() <= 86_400


async def test_others_budgets_are_not_shown_and_defaults_become_ones_own(store, tmp_path):
    async with house(store, tmp_path, keys=TWO_KEYS, more=BUDGETS) as h:
        rows = (await h.get("/budget", key=BOB)).json["data"]
        assert {(row["subject"], row["unit"], row["limit"]) for row in rows} == {
            ("key:bobs", "usd", 7.0), ("user:bob", "output_tokens", 900),
        }  # fmt: skip


async def test_without_budgets_the_list_is_empty(store, tmp_path):
    async with house(store, tmp_path) as h:
        assert (await h.get("/budget")).json == {"object": "list", "data": []}


async def test_what_calls_in_flight_hold_is_shown_and_goes_when_they_end(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", tokens: 1000, period: day}]\n'
    async with house(store, tmp_path, more=more) as h:
        waiting = asyncio.create_task(h.chat(MODEL + "?hang", max_tokens=100))
        await h.fake.until(lambda: h.fake.in_flight == 1)
        (row,) = (await h.get("/budget")).json["data"]
        assert (row["used"], row["held"], row["remaining"]) == (0, HELLO_TOKENS + 100, 1000 - HELLO_TOKENS - 100)
        waiting.cancel()
        await asyncio.wait([waiting])
        await h.until_receipts(1)
        (row,) = (await h.get("/budget")).json["data"]
        assert row["held"] == 0


async def test_a_stored_budget_is_shown_at_once(store, tmp_path):
    async with house(store, tmp_path, more=BUDGETS) as h:
        await h.stored().put_budget(budget("user:alice", "usd", 2 * 10**9), {"by": "test"})
        rows = (await h.get("/budget")).json["data"]
        assert [row["limit"] for row in rows if (row["subject"], row["unit"]) == ("user:alice", "usd")] == [2.0]
