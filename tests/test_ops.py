"""The ops listener: metrics with the contract's names, probes, and nothing else without a token."""

import asyncio
import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from proxy.counting import Sums
from tests.sidecars import KEY, MODEL, config_text, house, total

NAMES = """bursar_requests_total bursar_request_duration_seconds_bucket bursar_time_to_first_token_seconds_bucket
bursar_overhead_seconds_bucket bursar_tokens_total bursar_cost_usd_total bursar_in_flight bursar_budget_refusals_total
bursar_budget_limit bursar_budget_used bursar_budget_held bursar_usage_estimated_total bursar_overspend_usd_total
bursar_store_up bursar_store_latency_seconds_bucket bursar_store_errors_total bursar_journal_pending bursar_journal_bytes
bursar_upstream_up bursar_upstream_retries_total bursar_upstream_errors_total gen_ai_client_token_usage_bucket
gen_ai_client_operation_duration_seconds_bucket""".split()
CALLBACKS = """bursar_callback_executions_total bursar_callback_errors_total bursar_callback_duration_seconds bursar_active_callbacks""".split()
BUDGETS = """budgets: [{subject: "user:alice", usd: 1, requests: 6, period: day}, {subject: "user:*", tokens: 5, period: day}]
retries: {attempts: 2, budget: 1.0}
"""


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=BUDGETS) as made:
        yield made


async def test_after_some_calls_every_metric_of_the_contract_is_there(h):
    await h.chat()
    await h.chat(stream=True)
    await h.chat(MODEL + "?no_usage", stream=True)
    await h.chat(MODEL + "?status=503&times=1")
    await h.chat(MODEL + "?status=400")
    for _ in range(3):
        await h.chat()
    await h.until_receipts(7)
    found = await h.metrics()
    names = {name for name, _ in found}
    missing = [name for name in NAMES if name not in names]
    assert not missing
    assert total(found, "bursar_requests_total", outcome="ok") == 6
    assert total(found, "bursar_requests_total", provider="fake", model=MODEL) + total(
        found, "bursar_requests_total", provider="fake", model="other"
    ) == len(h.receipts)
    assert total(found, "bursar_usage_estimated_total") == 1
    assert total(found, "bursar_upstream_retries_total") == 1
    assert total(found, "bursar_upstream_errors_total") == 2
    assert total(found, "bursar_budget_refusals_total", reason="insufficient_quota") == 1
    assert total(found, "bursar_budget_used", subject="user:alice", unit="requests") == 6
    assert total(found, "bursar_budget_limit", subject="user:alice", unit="usd") == 1
    assert total(found, "bursar_store_up") == 1
    for phase in ("admission", "reserve"):
        assert total(found, "bursar_overhead_seconds_count", phase=phase) == 7
    assert total(found, "bursar_in_flight") == 0
    assert {dict(labels)["subject"] for (name, labels) in found if name == "bursar_budget_used"} == {"user:alice"}
    assert {dict(labels)["type"] for (name, labels) in found if name == "bursar_tokens_total"} <= {
        "input", "output", "cached", "reasoning",
    }  # fmt: skip


def test_a_series_is_told_from_its_first_count_on():
    registry = CollectorRegistry()
    sums = Sums(registry, "things", "Things.", ("kind",))
    sums.of(("never",))
    sums.of(("twice",)).total += 1
    sums.of(("twice",)).total += 1
    told = generate_latest(registry).decode()
    assert 'things_total{kind="twice"} 2.0' in told
    assert "never" not in told


async def test_callback_metrics_are_there(h):
    page = await h.scrape()
    assert not [name for name in CALLBACKS if f"# TYPE {name} " not in page]


async def test_no_name_from_the_wire_becomes_a_label(h):
    for name in ("evil-model-1", "evil-model-2"):
        await h.chat(name)
    await h.settled()
    assert "evil-model" not in await h.scrape()
    assert KEY not in await h.scrape()


async def test_probes_answer_and_say_nothing(h):
    live, ready = await h.ops("/livez"), await h.ops("/readyz")
    assert (live.status, ready.status) == (200, 200)
    assert (await h.ops("/livez", method="HEAD")).status == 200
    h.sidecar.routes.draining = True
    assert (await h.ops("/readyz")).status == 503
    assert (await h.ops("/livez")).status == 200
    h.sidecar.routes.draining = False


async def test_not_ready_without_the_store_but_alive(own_store, tmp_path):
    async with house(own_store, tmp_path) as h:
        assert (await h.ops("/readyz")).status == 200
        own_store.stop()
        await h.get("/budget")
        await h.chat()
        reply = await h.ops("/readyz")
        assert reply.status == 503
        assert "store" in json.dumps(reply.json)
        assert (await h.ops("/livez")).status == 200
        assert (await h.ops("/metrics")).status == 200
        own_store.start()
        await h.settled()
        async with asyncio.timeout(
            10
        ):  # a store that came back is told first what was held, and that is not ready either
            while (reply := await h.ops("/readyz")).status != 200:
                assert reply.json["checks"].keys() == {"store"}
                await asyncio.sleep(0.05)


async def test_a_dead_provider_does_not_make_it_unready(store, tmp_path):
    providers = 'providers: {{fake: {{kind: fake, base_url: "http://127.0.0.1:9/v1"}}}}\n'
    async with house(store, tmp_path, providers=providers) as h:
        assert (await h.chat()).status == 502
        assert (await h.ops("/readyz")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models",
        "/v1/chat/completions",
        "/healthz",
        "/debug",
        "/metrics/x",
        "/admin",
        "/admin/v1/keys",
        "/ui",
        "/ui/",
    ],
)
async def test_without_a_token_there_is_nothing_else(h, path):
    for headers in ({}, {"authorization": f"Bearer {KEY}"}, {"authorization": "Bearer "}):
        reply = await h.ops(path, headers=headers)
        assert reply.status == 404
        assert reply.error["code"] == "unknown_url"


async def test_probes_take_no_other_method(h):
    for path in ("/metrics", "/livez", "/readyz"):
        reply = await h.ops(path, method="POST")
        assert reply.status == 405
        assert reply.headers["allow"]


async def test_with_a_token_admin_wants_exactly_that(store, tmp_path):
    token = "admin-token-0123456789abcdef"
    text = config_text(store, tmp_path, "http://x")
    assert "ops" in text
    async with house(store, tmp_path, ops=f', admin_token: "{token}"') as h:
        for headers in (
            {},
            {"authorization": "Bearer nope"},
            {"authorization": f"Bearer {token}x"},
            {"authorization": f"Basic {token}"},
        ):
            reply = await h.ops("/admin/v1/keys", headers=headers)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        reply = await h.ops("/admin/v1/nothing-of-this-name", headers={"authorization": f"Bearer {token}"})
        assert reply.status == 404
        assert (await h.get("/models", key=token)).status == 401


async def test_metrics_can_be_scraped_while_calls_are_in_flight(h):
    calls = [asyncio.create_task(h.chat(MODEL + "?length=50&pace=500", stream=True, max_tokens=60)) for _ in range(5)]
    await h.fake.until(lambda: h.fake.in_flight == 5)
    assert total(await h.metrics(), "bursar_in_flight") == 5
    assert {r.status for r in await asyncio.gather(*calls)} == {200}
