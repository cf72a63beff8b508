"""D2: every route with every kind of caller. A route that is in the code and not in this table fails the test."""

import itertools
from dataclasses import replace

import pytest

from accounting.stored import StoredKey
from proxy.keyring import peppered_digest
from proxy.routes import CALLS
from tests.sidecars import HELLO, KEY, house
from tests.wire import answers, talk

TOKEN = "admin-token-0123456789abcdef0123"
NARROW = "sk-narrow-0123456789abcdef0123456"
KEYS = f'keys: [{{id: alice-laptop, user: alice, team: lab, secret: "{KEY}"}}, {{id: narrow, user: nora, secret: "{NARROW}", models: [allowed]}}]\n'
MODELS = 'models: {fake-1: fake/fake-1, allowed: fake/fake-1, "*": fake/*}\n'

CALLERS = {
    "none": {},
    "empty": {"authorization": ""},
    "bad": {"authorization": "Bearer sk-unknown-0123456789abcdef0123"},
    "a prefix": {"authorization": f"Bearer {KEY[:-1]}"},
    "longer": {"authorization": f"Bearer {KEY}x"},
    "other case": {"authorization": f"Bearer {KEY.upper()}"},
    "basic": {"authorization": f"Basic {KEY}"},
    "cookie": {"cookie": f"authorization={KEY}"},
    "the admin's": {"authorization": f"Bearer {TOKEN}"},
    "virtual": {"authorization": f"Bearer {KEY}"},
    "narrow": {"authorization": f"Bearer {NARROW}"},
}
STRANGERS = ("none", "empty", "bad", "a prefix", "longer", "other case", "basic", "cookie")

BODY = {"model": "fake-1", "messages": HELLO, "prompt": "x", "input": "x"}
DATA = {
    **{("POST", path): {"virtual": 200, "narrow": 404} for path in CALLS},
    ("GET", "/v1/models"): {"virtual": 200, "narrow": 200},
    ("GET", "/v1/models/fake-1"): {"virtual": 200, "narrow": 404},
    ("GET", "/v1/models/allowed"): {"virtual": 200, "narrow": 200},
    ("GET", "/v1/budget"): {"virtual": 200, "narrow": 200},
}


async def ask(home, base, method, path, headers):
    json = None
    if method == "POST":
        json = {
            k: v
            for k, v in BODY.items()
            if not (k == "messages" and "chat" not in path) and not (k == "input" and "chat" in path)
        }
    async with home.http.request(method, base + path, headers=headers, json=json) as answer:
        return answer.status, await answer.read()


async def test_the_data_listener_serves_keys_and_nobody_else(store, tmp_path):
    wrong = []
    async with house(store, tmp_path, keys=KEYS, models=MODELS) as home:
        for ((method, path), expected), (name, headers) in itertools.product(DATA.items(), CALLERS.items()):
            status, body = await ask(home, home.sidecar.url, method, path, headers)
            wanted = expected.get(name, 401)
            if status != wanted:
                wrong.append((method, path, name, status, wanted, body[:200]))
            if TOKEN.encode() in body or KEY.encode() in body:
                wrong.append((method, path, name, "echoes a secret"))
    assert not wrong


def test_every_route_of_the_data_listener_is_in_the_table():
    assert {path for method, path in DATA if method == "POST"} == set(CALLS)


def admin_routes(home):
    from gc import get_objects

    from proxy.ops import Ops

    ops = next(o for o in get_objects() if type(o) is Ops and o.registry is home.sidecar.telemetry.registry)
    return sorted(ops.admin)


ADMIN = {
    ("POST", "drain"), ("GET", "budgets"), ("PUT", "budgets"), ("DELETE", "budgets"), ("POST", "budgets/adjust"), ("GET", "keys"), ("POST", "keys"),
    ("DELETE", "keys"), ("GET", "usage"),
}  # fmt: skip
OPEN_OPS = ("/metrics", "/livez", "/readyz")


@pytest.mark.parametrize("token", [TOKEN, ""], ids=["with an admin token", "without"])
async def test_the_ops_listener_gives_probes_to_all_and_admin_to_its_token_only(store, tmp_path, token):
    ops = f', admin_token: "{token}"' if token else ""
    wrong = []
    async with house(store, tmp_path, keys=KEYS, models=MODELS, ops=ops) as home:
        assert set(admin_routes(home)) == ADMIN
        for path, (name, headers) in itertools.product(OPEN_OPS, CALLERS.items()):
            status, body = await ask(home, home.sidecar.ops_url, "GET", path, headers)
            if status != 200 or KEY.encode() in body or (token and token.encode() in body):
                wrong.append((path, name, status))
        routes = [*admin_routes(home), ("GET", "no/such/route"), ("POST", "keys"), ("DELETE", "keys/x")]
        for (method, path), (name, headers) in itertools.product(routes, CALLERS.items()):
            if name == "the admin's" and token:
                continue  # what the right token may do is tested with what it does
            status, _ = await ask(home, home.sidecar.ops_url, method, "/admin/v1/" + path, headers)
            if status != (401 if token else 404):
                wrong.append((method, path, name, status))
        for path in (
            "/admin",
            "/admin/",
            "/admin/v2/keys",
            "//admin/v1/keys",
            "/v1/models",
            "/v1/chat/completions",
            "/metrics/../admin/v1/keys",
            "/METRICS",
        ):
            for name in ("none", "virtual"):
                status, _ = await ask(home, home.sidecar.ops_url, "GET", path, CALLERS[name])
                if status not in (401, 404):
                    wrong.append((path, name, status))
    assert not wrong


HOSTS = ("127.0.0.1", "localhost", "evil.example", "bursar.example:9090", "127.0.0.1:9090")
PATHS = (
    "/admin/v1/keys",
    "/metrics",
    "/v1/../admin/v1/keys",
    "/v1/%2e%2e/admin/v1/keys",
    "/v1//../../admin/v1/keys",
    "/admin%2fv1%2fkeys",
    "/./metrics",
    "/v1/chat/completions/../../../metrics",
)


@pytest.mark.parametrize("host", HOSTS)
async def test_no_spelling_of_host_or_path_reaches_the_other_listener(store, tmp_path, host):
    async with house(store, tmp_path, keys=KEYS, models=MODELS) as home:
        for path, absolute in itertools.product(PATHS, (False, True)):
            target = f"http://{host}{path}" if absolute else path
            head = f"GET {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {TOKEN}\r\nx-forwarded-host: x\r\nconnection: close\r\n\r\n"
            got, _ = await talk(home.port, head.encode(), 3)
            assert [status for status, _ in answers(got)] in ([404], [400], [401]), (path, got[:300])
            assert b"bursar_" not in got


async def test_revoked_and_expired_keys_are_strangers_at_once(store, tmp_path):
    async with house(store, tmp_path, keys=KEYS, models=MODELS) as home:
        stored, now_ms = home.stored(), home.sidecar.ledger.now_ms()
        secrets = {name: f"sk-{name}-0123456789abcdef0123456789" for name in ("fresh", "revoked", "expired")}
        pepper = await stored.pepper()
        rows = {
            name: StoredKey(id=name, digest=peppered_digest(pepper, secret.encode()), user="u")
            for name, secret in secrets.items()
        }
        rows["expired"] = replace(rows["expired"], expires_ms=now_ms - 1)
        for row in rows.values():
            await stored.put_key(row, {"by": "test"})

        async def answers_to(name):
            headers = {"authorization": f"Bearer {secrets[name]}"}
            return {(await ask(home, home.sidecar.url, method, path, headers))[0] for method, path in DATA}

        assert await answers_to("fresh") == {200}
        assert await answers_to("revoked") == {200}
        assert await answers_to("expired") == {401}
        await stored.put_key(replace(rows["revoked"], revoked_ms=now_ms), {"by": "test"})
        assert await answers_to("revoked") == {401}
        assert await answers_to("fresh") == {200}
