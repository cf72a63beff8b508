"""Every row of the error table that a request itself is to blame for: key, model, path, method, size, body."""

import json

import pytest

from tests.contract import BOB, TWO_KEYS, free, told
from tests.sidecars import HELLO, KEY, house

__all__ = ["free"]


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (None, {}),
        ("sk-wrong", {}),
        (None, {"authorization": "Basic " + KEY}),
        (None, {"authorization": KEY}),
        (None, {"authorization": "Bearer "}),
        ("x" * 4000, {}),
        (KEY + "x", {}),
        (KEY[:-1], {}),
    ],
)
@pytest.mark.parametrize("path", ["/chat/completions", "/models", "/budget", "/embeddings"])
async def test_no_or_a_wrong_key_is_401(free, key, headers, path):
    body = json.dumps({"model": "fake-1", "messages": HELLO, "input": "x"}).encode()
    method = "GET" if path in ("/models", "/budget") else "POST"
    reply = await free.send(method, path, key=key, headers=headers, data=body if method == "POST" else None)
    error = told(reply)
    assert reply.status == 401
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert "x-request-id" in reply.headers
    assert free.fake.requests == free.fake.requests.__class__([], 1000)


async def test_a_model_that_the_key_may_not_use_and_one_that_nobody_has_are_the_same_404(store, tmp_path):
    models = "models: {gpt-4o: fake/gpt-4o, fake-1: fake/fake-1, other: fake/other}\n"
    async with house(store, tmp_path, keys=TWO_KEYS, models=models) as h:
        hidden, absent = await h.chat("other", key=BOB), await h.chat("absent", key=BOB)
        for reply, name in ((hidden, "other"), (absent, "absent")):
            error = told(reply)
            assert (reply.status, error["type"], error["code"]) == (404, "invalid_request_error", "model_not_found")
            assert error["message"].replace(name, "") == hidden.error["message"].replace("other", "")
        assert not h.fake.requests


@pytest.mark.parametrize(
    "path", ["/files", "/chat", "/chat/completions/x", "/../metrics", "/%2e%2e/metrics", "", "/models2", "//models"]
)
async def test_an_unknown_path_is_404_unknown_url(free, path):
    reply = await free.send("POST", path, data=b"{}")
    assert reply.status == 404
    assert told(reply)["code"] == "unknown_url"


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/admin/v1/keys", "/ui", "/", "/v2/models"])
async def test_the_data_listener_serves_nothing_but_v1(free, path):
    async with free.http.get(free.sidecar.url + path, headers={"authorization": f"Bearer {KEY}"}) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/chat/completions", "POST"), ("DELETE", "/embeddings", "POST"), ("OPTIONS", "/responses", "POST"),
        ("POST", "/models", "GET"), ("PUT", "/budget", "GET"), ("DELETE", "/models/fake-1", "GET"),
    ],
)  # fmt: skip
async def test_a_wrong_method_is_405_with_allow(free, method, path, allow):
    reply = await free.send(method, path)
    assert reply.status == 405
    assert told(reply)["code"] == "method_not_allowed"
    assert allow in reply.headers["allow"]


async def test_head_of_what_can_be_got_has_no_body_and_leaves_the_connection_usable(free):
    for path, status in (
        ("/models", 200),
        ("/models/fake-1", 200),
        ("/budget", 200),
        ("/models/", 200),
        ("/nothing", 404),
    ):
        reply = await free.send("HEAD", path)
        assert (reply.status, reply.body) == (status, b"")
    assert (await free.chat()).status == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_413(free, chunked):
    data = json.dumps({"model": "fake-1", "messages": [{"role": "user", "content": "x" * 70_000}]}).encode()

    async def pieces():
        for at in range(0, len(data), 5000):
            yield data[at : at + 5000]

    reply = await free.send("POST", "/chat/completions", data=pieces() if chunked else data)
    assert reply.status == 413
    assert told(reply)["code"] == "request_too_large"
    assert not free.fake.requests
    assert (await free.chat()).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x"])
async def test_a_content_encoding_is_415(free, encoding):
    reply = await free.send(
        "POST", "/chat/completions", headers={"content-encoding": encoding}, data=b"\x1f\x8b rubbish"
    )
    assert reply.status == 415
    assert told(reply)["type"] == "invalid_request_error"


BAD_BODIES = [
    (b'{"model": "gpt-4o", "messages": [{"role": "user"}], "max_tokens": 100000, "max_tokens": 5}', "max_tokens"),
    (b'{"model": "gpt-4o", "messages": [{"role": "user"}], "n": 100, "\\u006e": 1}', "n"),
    (b"", None), (b"{", None), (b"[]", None), (b"null", None), (b'"x"', None), (b"\xff\xfe{}", None), (b"{} {}", None),
    (b'{"model": "fake-1"', None),
    (b'{"messages": [{"role": "user", "content": "x"}]}', "model"),
    (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', "model"),
    (b'{"model": "", "messages": [{"role": "user", "content": "x"}]}', "model"),
    (b'{"model": "fake-1"}', "messages"),
    (b'{"model": "fake-1", "messages": []}', "messages"),
    (b'{"model": "fake-1", "messages": {}}', "messages"),
    (b'{"model": "fake-1", "messages": ["x"]}', "messages[0]"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "stream": "yes"}', "stream"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "stream_options": {"include_usage": true}}', "stream_options"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "stream": true, "stream_options": 7}', "stream_options"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "n": 0}', "n"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "n": 1000}', "n"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "n": true}', "n"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "max_tokens": -1}', "max_tokens"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "max_tokens": 1.5}', "max_tokens"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "max_tokens": "9"}', "max_tokens"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "max_completion_tokens": 99999999999}', "max_completion_tokens"),
    (b'{"model": "fake-1", "messages": [{"role": "user"}], "max_completion_tokens": 99999999999999999999999999}', "max_completion_tokens"),
    (b'{"model": "fake-1", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
    (b'{"model": "fake-1", "messages": [{"role": "user", "content": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}]}", None),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "param"), BAD_BODIES)
async def test_a_bad_body_is_400_and_names_the_field(free, raw, param):
    reply = await free.send("POST", "/chat/completions", data=raw)
    error = told(reply)
    assert (reply.status, error["type"], error["code"], error["param"]) == (400, "invalid_request_error", None, param)
    assert not free.fake.requests


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/completions", {"model": "fake-1"}, "prompt"),
        ("/embeddings", {"model": "fake-1"}, "input"),
        ("/responses", {"model": "fake-1"}, "input"),
        ("/completions", {"model": "fake-1", "prompt": "x", "best_of": "3"}, "best_of"),
        ("/responses", {"model": "fake-1", "input": "x", "max_output_tokens": -5}, "max_output_tokens"),
    ],
)
async def test_each_operation_names_what_it_misses(free, path, body, param):
    reply = await free.post(path, **body)
    assert (reply.status, told(reply)["param"]) == (400, param)


async def test_a_field_that_the_provider_cannot_honour_is_unsupported_parameter(store, tmp_path):
    providers = 'providers: {{claude: {{kind: anthropic, base_url: "{fake}", api_keys: [k-0123456789]}}}}\n'
    async with house(
        store, tmp_path, providers=providers, models="models: {c: claude/claude-haiku-4-5}\n", prices=""
    ) as h:
        reply = await h.chat("c", n=3)
        error = told(reply)
        assert (reply.status, error["code"], error["param"]) == (400, "unsupported_parameter", "n")
