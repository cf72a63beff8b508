"""The admin listener: what the commands do, over HTTP, for whoever has its token and for nobody else."""

import json

import pytest

from tests.sidecars import KEY, house

TOKEN = "admin-0123456789abcdef0123456789"
FILE = 'budgets: [{subject: "user:alice", usd: 1, period: day}]\n'


async def asked(h, method, path, body=None, token=TOKEN):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    async with h.http.request(method, h.sidecar.ops_url + "/admin/v1/" + path, headers=headers, data=data) as answer:
        return answer.status, json.loads(await answer.read())


@pytest.fixture
async def governed(store, tmp_path):
    async with house(store, tmp_path, more=FILE) as found:
        found._ops.admin_token = TOKEN
        yield found


async def test_the_admin_listener_does_what_the_commands_do(governed):
    h = governed
    assert (await asked(h, "PUT", "budgets", b'{"subject": "user:alice", "usd": 0.000000003, "period": "day"}'))[
        0
    ] == 200
    assert (await h.chat()).error["code"] == "insufficient_quota"
    status, rows = await asked(h, "GET", "budgets?subject=alice")
    assert (status, rows["data"][0]["limit_nanousd"], rows["data"][0]["source"]) == (200, 3, "stored")
    assert (await asked(h, "DELETE", "budgets?subject=alice"))[1] == {"removed": ["user:alice|usd|day"]}
    assert (await h.chat()).status == 200
    await h.settled()
    status, done = await asked(
        h, "POST", "budgets/adjust", {"subject": "alice", "unit": "usd", "change": "0.5", "reason": "x"}
    )
    assert (status, done["after"] - done["before"]) == (200, 500_000_000)
    status, key = await asked(h, "POST", "keys", {"user": "nina", "expires": "30d"})
    assert (status, (await h.chat(key=key["secret"])).status) == (200, 200)
    assert key["secret"] not in json.dumps(await asked(h, "GET", "keys"))
    assert (await asked(h, "DELETE", f"keys?id={key['id']}"))[1]["state"] == "revoked"
    assert (await h.chat(key=key["secret"])).status == 401
    await h.settled()
    status, usage = await asked(h, "GET", "usage?by=user")
    assert {row["user"]: row["calls"] for row in usage["data"]} == {"alice": 1, "nina": 1}


BAD = [
    ("PUT", "budgets", {"subject": "user:a", "usd": -1, "period": "day"}, 400, "usd"),
    ("PUT", "budgets", {"subject": "user:a", "period": "day"}, 400, "needs an amount"),
    ("PUT", "budgets", {"subject": "user:a", "usd": 1, "perod": "day"}, 400, "nearest valid key: period"),
    ("PUT", "budgets", {"subject": "${HOME}", "usd": 1, "period": "day"}, 400, "subject"),
    ("PUT", "budgets", b"[1]", 400, "JSON object"),
    ("PUT", "budgets", b"\xff", 400, "JSON object"),
    ("DELETE", "budgets", None, 400, "subject"),
    ("DELETE", "budgets?subject=zoe", None, 409, "no such budget"),
    ("POST", "budgets/adjust", {"subject": "alice", "unit": "usd", "change": "1"}, 400, "say why"),
    ("POST", "budgets/adjust", {"subject": "alice", "unit": "usd", "change": 1, "reason": "x"}, 400, "all texts"),
    ("POST", "budgets/adjust", {"subject": "alice", "unit": "euro", "change": "1", "reason": "x"}, 400, "unit wants"),
    ("POST", "keys", {"id": "a/b"}, 400, "wants letters"),
    ("POST", "keys", {"id": "a", "secret": "mine-0123456789"}, 400, "no such field"),
    ("POST", "keys", {"id": "a", "expires": 30}, 400, "expires"),
    ("DELETE", "keys?id=alice-laptop", None, 409, "is in the file"),
    ("GET", "usage?since=soon", None, 400, "span of time"),
    ("GET", "usage?by=mood", None, 400, "by wants"),
    ("GET", "secrets", None, 404, "Unknown request URL"),
]


async def test_the_admin_listener_refuses_what_is_not_right(governed):
    for method, path, body, status, says in BAD:
        got, answer = await asked(governed, method, path, body)
        assert got == status, (method, path, body, answer)
        assert says in answer["error"]["message"], answer
        assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("token", [None, "", "admin-0123456789abcdef012345678X", KEY])
async def test_without_its_token_the_admin_listener_does_nothing(governed, token):
    for method, path in (("GET", "keys"), ("POST", "drain"), ("PUT", "budgets")):
        assert (await asked(governed, method, path, {}, token=token))[0] == 401
    assert not governed.sidecar.drain_asked.is_set()


async def test_without_a_configured_token_there_is_no_admin_listener(governed):
    governed._ops.admin_token = ""
    assert (await asked(governed, "GET", "keys"))[0] == 404


async def test_drain_by_the_admin_listener_takes_no_new_calls(governed):
    assert await asked(governed, "POST", "drain") == (200, {"status": "draining"})
    assert governed.sidecar.drain_asked.is_set()
    refused = await governed.chat()
    assert (refused.status, refused.error["code"]) == (503, "draining")
