"""Other /v1 paths are relayed only where they are listed, as they are, at their price; one that breaks off is seen to."""

import asyncio

import aiohttp
import pytest

from proxy.fake import FakeProvider
from tests.misbehaving import provider as peer
from tests.sidecars import KEY, PROVIDER_KEY, house

LISTED = "passthrough: [{path: /v1/moderations, usd: 0.01}]\n"
MORE = LISTED + 'budgets: [{subject: "user:alice", usd: 0.025, period: day}]\n'


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
