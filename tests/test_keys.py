"""Keys: whom they speak for, what they may use, and that one that is made, changed or revoked counts on the very next call."""

import json

import pytest

from accounting.stored import StoredKey
from proxy.keyring import peppered_digest
from tests.sidecars import HELLO, KEY, KEYS, MODEL, budget, house

SHOP = "sk-shop-0123456789abcdef0123456789"
APP = "sk-app-0123456789abcdef0123456789x"
AGENTS = (
    f'keys: [{{id: shop, team: shop, secret: "{SHOP}", user_from: "header:x-bursar-user"}}, '
    f'{{id: app, user: fallback, secret: "{APP}", user_from: "body:user"}}, '
    f'{{id: meta, secret: "sk-meta-0123456789abcdef0123456789", user_from: "body:metadata.end_user"}}, '
    f'{{id: alice-laptop, user: alice, secret: "{KEY}"}}]\n'
)
PER_USER = 'budgets: [{subject: "user:*", tokens: 100, period: day}]\n'
BUDGET = 'budgets: [{subject: "tenant:default", usd: 100, period: day}]\n'


async def made(h, key_id, secret, **more):
    digest = peppered_digest(await h.stored().pepper(), secret.encode())
    await h.stored().put_key(StoredKey(id=key_id, digest=digest, **more), {"by": "test"})


@pytest.fixture(params=["", BUDGET], ids=["nobody limited", "with a budget"])
async def h(store, tmp_path, request):
    async with house(store, tmp_path, more=request.param) as found:
        yield found


async def test_a_key_made_a_moment_ago_works(h):
    secret = "sk-bursar-made-a-moment-ago-0123456789"
    assert (await h.chat(key=secret)).status == 401
    await made(h, "new", secret, user="nina")
    assert (await h.chat(key=secret)).status == 200
    await h.settled()
    assert [record["user"] for record in await h.records()] == ["nina"]


@pytest.mark.parametrize("how", ["revoked", "removed", "rotated"])
async def test_a_revoked_key_ends_with_its_very_next_call(h, how):
    secret = "sk-bursar-stored-0123456789abcdef01"
    await made(h, "stored", secret, user="nina")
    assert (await h.chat(key=secret)).status == 200
    if how == "revoked":
        await made(h, "stored", secret, user="nina", revoked_ms=1)
    elif how == "removed":
        await h.stored().remove_key("stored", {"by": "test"})
    else:
        await made(h, "stored", secret + "-2", user="nina")
    assert (await h.chat(key=secret)).status == 401
    assert len(h.fake.requests) == 1


async def test_a_revoked_key_sees_neither_models_nor_budgets(h):
    secret = "sk-bursar-stored-0123456789abcdef01"
    await made(h, "stored", secret)
    for path in ("/models", "/budget", "/models/fake-1"):
        assert (await h.get(path, key=secret)).status == 200
    await h.stored().remove_key("stored", {"by": "test"})
    for path in ("/models", "/budget", "/models/fake-1"):
        assert (await h.get(path, key=secret)).status == 401


async def test_a_stored_key_takes_the_place_of_the_files_key_of_that_id(h):
    await made(h, "alice-laptop", "sk-bursar-the-new-one-0123456789ab", user="alice")
    assert (await h.chat(key="sk-bursar-the-new-one-0123456789ab")).status == 200
    assert (await h.chat(key=KEY)).status == 401


async def test_a_key_ends_at_its_expiry(h):
    now_ms = h.sidecar.ledger.now_ms()
    await made(h, "old", "sk-bursar-old-0123456789abcdef01234", expires_ms=now_ms - 1)
    await made(h, "young", "sk-bursar-young-0123456789abcdef012", expires_ms=now_ms + 3_600_000)
    assert (await h.chat(key="sk-bursar-old-0123456789abcdef01234")).status == 401
    assert (await h.chat(key="sk-bursar-young-0123456789abcdef012")).status == 200


async def test_a_stored_allow_list_is_kept(h):
    await made(h, "narrow", "sk-bursar-narrow-0123456789abcdef01", models=("mini-*", MODEL))
    assert (await h.chat(key="sk-bursar-narrow-0123456789abcdef01")).status == 200
    assert (await h.chat("mini-7", key="sk-bursar-narrow-0123456789abcdef01")).status == 200
    refused = await h.chat("fake-1", key="sk-bursar-narrow-0123456789abcdef01")
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")


async def test_a_stored_budget_counts_on_the_very_next_call(h):
    assert (await h.chat()).status == 200
    await h.stored().put_budget(budget("user:alice", "requests", 1, "total"), {"by": "test"})
    assert (await h.chat()).status == 200
    assert (await h.chat()).status == 429


async def test_azures_sdk_may_send_its_own_header(h):
    assert (await h.chat(key=None, headers={"api-key": KEY})).status == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(h, scheme):
    assert (await h.chat(key=None, headers={"authorization": f"{scheme}  {KEY} "})).status == 200


@pytest.fixture
async def agents(store, tmp_path):
    async with house(store, tmp_path, keys=AGENTS, more=PER_USER + "admission: {min_completion: 16}\n") as found:
        yield found


async def test_a_header_names_the_end_user_and_never_goes_upstream(agents):
    for user in ("u1", "u2"):
        assert (await agents.chat(key=SHOP, headers={"x-bursar-user": user}, max_tokens=40)).status == 200
    assert all("x-bursar-user" not in seen.headers for seen in agents.fake.requests)
    await agents.until_receipts(2)
    assert {r.caller.user for r in agents.receipts} == {"u1", "u2"}
    assert (
        await agents.chat(MODEL + "?length=60", key=SHOP, headers={"x-bursar-user": "u1"}, max_tokens=60)
    ).status == 200
    again = await agents.chat(key=SHOP, headers={"x-bursar-user": "u1"}, max_tokens=60)
    assert again.status == 429
    assert again.error["budget"]["subject"] == "user:u1"


async def test_without_its_user_such_a_key_is_refused_or_falls_back_to_its_own(agents):
    nameless = await agents.chat(key=SHOP, max_tokens=10)
    assert (nameless.status, nameless.error["type"]) == (400, "invalid_request_error")
    assert (await agents.chat(key=APP, max_tokens=10)).status == 200
    await agents.until_receipts(1)
    assert agents.receipts[0].caller.user == "fallback"


async def test_a_body_field_names_the_end_user_and_never_goes_upstream(agents):
    assert (await agents.chat(key=APP, user="u7", max_tokens=10, temperature=0.5)).status == 200
    sent = json.loads(agents.fake.requests[0].body)
    assert "user" not in sent
    assert sent["temperature"] == 0.5
    await agents.until_receipts(1)
    assert agents.receipts[0].caller.user == "u7"


async def test_a_nested_body_field_names_the_end_user_and_never_goes_upstream(agents):
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 10, "metadata": {"end_user": "u9", "run": "7"}}
    reply = await agents.post(key="sk-meta-0123456789abcdef0123456789", **body)
    assert reply.status == 200
    assert "u9" not in agents.fake.requests[0].body.decode()
    assert json.loads(agents.fake.requests[0].body)["metadata"] == {"run": "7"}
    await agents.until_receipts(1)
    assert agents.receipts[0].caller.user == "u9"


async def test_a_user_who_is_named_twice_is_refused(agents):
    raw = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "user": "u1", "user": "u2"}'
    reply = await agents.send("POST", "/chat/completions", key=APP, data=raw)
    assert (reply.status, reply.error["param"]) == (400, "user")
    assert not agents.fake.requests


async def test_other_keys_are_not_believed_when_they_name_a_user(agents):
    assert (await agents.chat(headers={"x-bursar-user": "bob"}, user="bob", max_tokens=10)).status == 200
    await agents.until_receipts(1)
    assert agents.receipts[0].caller.user == "alice"
    assert json.loads(agents.fake.requests[0].body)["user"] == "bob"  # OpenAI's own field goes on
    assert "x-bursar-user" not in agents.fake.requests[0].headers


@pytest.mark.parametrize("name", ["x" * 257, "a\tb", 7, {"a": 1}, ["u"], True])
async def test_a_name_that_is_none_is_refused(agents, name):
    reply = await agents.chat(key=APP, user=name, max_tokens=10)
    assert (reply.status, reply.error["param"]) == (400, "user")


async def test_with_no_keys_wanted_everybody_is_the_default_user(store, tmp_path):
    async with house(store, tmp_path, keys="", more="auth: {mode: none}\n" + PER_USER) as h:
        assert (await h.chat(key=None, max_tokens=16)).status == 200
        assert (await h.chat(key="anything", max_tokens=16)).status == 200
        await h.until_receipts(2)
        assert {r.caller.user for r in h.receipts} == {"default"}
    assert KEYS
