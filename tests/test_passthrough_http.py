"""Other /v1 paths are relayed only where they are listed, as they are, at their price; one that breaks off is seen to."""

import asyncio

import aiohttp
import pytest

from proxy.fake import FakeProvider
from tests.misbehaving import ok
from tests.misbehaving import provider as peer
from tests.sidecars import KEY, PROVIDER_KEY, budget, house

LISTED = "passthrough: [{path: /v1/moderations, usd: 0.01}]\n"
MORE = LISTED + 'budgets: [{subject: "user:alice", usd: 0.025, period: day}]\n'
FAST = 'limits: [{subject: "key:*", rpm: 100}]\n'


def providers(p):
    return f'providers: {{{{fake: {{{{kind: fake, base_url: "{p.url("/v1")}", api_keys: ["{PROVIDER_KEY}"]}}}}}}}}\n'


async def whole(p):
    while await p.answer(b'{"results": []}', b"content-type: application/json\r\nset-cookie: a=b\r\n"):
        pass


async def broken(p):
    await p.request()
    await p.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")


async def test_a_listed_path_is_relayed_and_costs_its_price_until_the_budget_is_spent(store, tmp_path):
    async with peer(whole) as p, house(store, tmp_path, providers=providers(p), more=MORE) as h:
        for _ in range(2):
            reply = await h.post("/moderations", input="x")
            assert (reply.status, reply.json) == (200, {"results": []})
            assert "set-cookie" not in reply.headers
        refused = await h.post("/moderations", input="x")
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
        assert PROVIDER_KEY.encode() in p.requests[0]
        assert KEY.encode() not in p.requests[0]
        await h.until_receipts(2)
        assert (await h.balances())["user:alice", "usd"] == (20_000_000, 0)
        assert (await h.post("/files", input="x")).error["code"] == "unknown_url"


async def test_an_answer_that_breaks_off_is_cut_and_no_second_answer_is_put_into_it(store, tmp_path):
    async with peer(broken) as p, house(store, tmp_path, providers=providers(p), more=MORE) as h:
        with pytest.raises(aiohttp.ClientPayloadError):
            await h.post("/moderations", input="x")
        reader, writer = await asyncio.open_connection("127.0.0.1", h.port)
        head = (
            f"POST /v1/moderations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 2\r\n\r\n{{}}"
        )
        writer.write(head.encode())
        seen = b""
        try:
            async with asyncio.timeout(10):
                while data := await reader.read(65536):
                    seen += data
        except ConnectionError:
            pass
        writer.close()
        assert seen.count(b"HTTP/1.1 ") <= 1
        await h.until_receipts(2)
        assert {r.outcome for r in h.receipts} == {"upstream_error"}


async def test_a_provider_that_was_never_reached_costs_nothing(store, tmp_path):
    async with FakeProvider() as fake:
        pass
    async with house(store, tmp_path, fake=fake, more=MORE) as h:
        reply = await h.post("/moderations", input="x")
        assert (reply.status, reply.error["code"]) == (502, "upstream_unavailable")
        await h.until_receipts(1)
        assert (await h.balances())["user:alice", "usd"] == (0, 0)


async def test_without_a_price_a_hard_cost_budget_refuses_it(store, tmp_path):
    more = MORE.replace("{path: /v1/moderations, usd: 0.01}", "/v1/moderations")
    async with peer(whole) as p, house(store, tmp_path, providers=providers(p), more=more) as h:
        reply = await h.post("/moderations", input="x")
        assert (reply.status, reply.error["code"]) == (400, "unbounded_cost")
        assert not p.requests


@pytest.mark.parametrize("subject", ["key:alice-laptop", "user:*", "provider:fake"])
async def test_limits_of_speed_apply(store, tmp_path, subject):
    more = LISTED + f'limits: [{{subject: "{subject}", rpm: 2}}]\n'
    async with peer(whole) as p, house(store, tmp_path, providers=providers(p), more=more) as h:
        replies = [await h.post("/moderations", input="x") for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert replies[0].headers["x-ratelimit-remaining-requests"] == "1"
        assert replies[2].error["code"] == "rate_limit_exceeded"
        assert float(replies[2].headers["retry-after"]) > 0
        assert len(p.requests) == 2


async def test_calls_at_once_are_limited_and_a_budget_of_the_provider_is_drawn_on(store, tmp_path):
    async def held(p):
        await p.request()
        await p.server.go.wait()
        await p.write(ok(b"{}"))

    more = (
        LISTED
        + 'limits: [{subject: "key:*", concurrency: 1}]\nbudgets: [{subject: "provider:fake", usd: 1, period: day}]\n'
    )
    async with peer(held) as p, house(store, tmp_path, providers=providers(p), more=more) as h:
        first = asyncio.create_task(h.post("/moderations", input="x"))
        async with asyncio.timeout(10):
            while not p.requests:
                await asyncio.sleep(0)
        assert (await h.post("/moderations", input="x")).error["code"] == "rate_limit_exceeded"
        p.go.set()
        assert (await first).status == 200
        await h.until_receipts(1)
        assert (await h.balances())["provider:fake", "usd"] == (10_000_000, 0)


@pytest.mark.parametrize(
    ("more", "late"),
    [("", False), (FAST, False), (FAST, True)],
    ids=["a caller without limits", "while the body is read", "after the last look, so that only the ledger notices"],
)
async def test_what_is_stored_while_the_call_is_looked_at_is_read_anew(store, tmp_path, more, late):
    async with peer(whole) as p, house(store, tmp_path, providers=providers(p), more=LISTED + more) as h:
        gateway, poor = h.sidecar.routes.gateway, budget("user:alice", "usd", 5_000_000)
        version, looked = gateway.version, []

        async def changing():
            looked.append(1)
            if late:
                seen = await version()
            if len(looked) == 1:
                await h.stored().put_budget(poor, {"by": "test"})
            return seen if late else await version()

        gateway.version = changing
        reply = await h.post("/moderations", input="x")
        assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")  # and no 503
        assert not p.requests


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error": {"message": "Incorrect API key provided: sk-provider-0123456789abcdef012345."}}'),
        (401, b""),
        (400, b'{"error": {"message": "API key not valid. Please pass a valid API key.", "code": 400}}'),
        (403, b'{"error": {"message": "no", "code": "invalid_api_key"}}'),
    ],
)
async def test_a_refusal_of_our_own_credentials_is_the_operators_trouble_and_costs_nothing(
    store, tmp_path, status, body
):
    async def refuse(p):
        while await p.request():
            await p.write(b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))

    async with peer(refuse) as p, house(store, tmp_path, providers=providers(p), more=MORE) as h:
        reply = await h.post("/moderations", input="x")
        assert (reply.status, reply.error["type"], reply.error["code"]) == (
            502,
            "upstream_error",
            "upstream_auth_error",
        )
        assert PROVIDER_KEY.encode() not in reply.body
        await h.until_receipts(1)
        assert (await h.balances())["user:alice", "usd"] == (0, 0)
        assert (await h.ops("/readyz")).json["upstreams"]["fake"] == {"keys_resting": 1}


@pytest.mark.parametrize("status", [400, 403, 404, 500])
async def test_any_other_refusal_is_relayed_as_it_is(store, tmp_path, status):
    body = b'{"error": {"message": "This input is not for us."}}'

    async def refuse(p):
        while await p.request():
            await p.write(b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))

    async with peer(refuse) as p, house(store, tmp_path, providers=providers(p), more=MORE) as h:
        reply = await h.post("/moderations", input="x")
        assert (reply.status, reply.body) == (status, body)
