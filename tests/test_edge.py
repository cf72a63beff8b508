"""The listener itself: slow clients, limits, places in the queue, headers in both directions. C1 is in test_smuggling."""

import asyncio
import json
import socket
import time

import pytest

from proxy.errors import ClientError
from proxy.fake import Script
from proxy.places import Places
from tests.fleet import fleet
from tests.misbehaving import provider
from tests.sidecars import HELLO, KEY, house
from tests.wire import AUTH, BODY, JSON, answers, one_answer, opened, post, talk

HOST = b"host: bursar.example\r\n"
QUICK = "server: {header_seconds: 0.6, body_seconds: 0.8, max_connections: 2000}\ntimeouts: {write_stall: 0.8}\n"


async def until_closed(reader, timeout_s):
    began_s = time.monotonic()
    got = b""
    async with asyncio.timeout(timeout_s):
        try:
            while piece := await reader.read(65536):
                got += piece
        except ConnectionError:
            pass
    return got, time.monotonic() - began_s


SLOW = {
    "nothing": (b"", 0.6),
    "half a request line": (b"POST /v1/ch", 0.6),
    "half a header": (b"POST /v1/chat/completions HTTP/1.1\r\nhost: a", 0.6),
    "no end of the head": (b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + AUTH, 0.6),
    "no body": (post()[: -len(BODY)], 0.8),
    "half a body": (post()[:-20], 0.8),
    "half a chunk": (post(b"", headers=b"transfer-encoding: chunked\r\n", length=False) + b"ff\r\n{", 0.8),
    "a stranger's half body": (post()[:-20].replace(KEY.encode(), b"sk-unknown"), 1.0),
    "HTTP/0.9": (b"GET /v1/models\r\n", 0.6),
}


@pytest.mark.parametrize("name", SLOW)
async def test_a_client_that_dawdles_is_cut_off_in_time(store, tmp_path, name):
    data, limit_s = SLOW[name]
    async with house(store, tmp_path, more=QUICK) as home, opened(home.port) as (reader, writer):
        writer.write(data)
        got, took_s = await until_closed(reader, 5)
        assert took_s < limit_s * 1.1 + 1.5  # a second of it waits for what may still come, so that the refusal is read
        assert all(400 <= status < 500 for status, _ in answers(got))
        assert len(home.fake.requests) == 0
        assert home.sidecar.routes.places.taken == 0


async def test_a_head_that_drips_in_is_cut_off_though_each_byte_comes_in_time(store, tmp_path):
    async with house(store, tmp_path, more=QUICK) as home, opened(home.port) as (reader, writer):
        writer.write(post())
        assert (await one_answer(reader))[0] == 200  # also on a connection that was good before
        began_s = time.monotonic()
        dripping = asyncio.create_task(_drip(writer, b"POST /v1/chat/completions HTTP/1.1\r\n" + b"x: y\r\n" * 200))
        await until_closed(reader, 5)
        dripping.cancel()
        assert 0.5 < time.monotonic() - began_s < 1.6


async def _drip(writer, data):
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.03)


@pytest.mark.slow
async def test_slow_clients_take_no_place_from_others(store, tmp_path):
    """C4, scaled: 300 connections dawdle in three ways while calls go on as before."""
    more = QUICK.replace("max_connections: 2000", "max_connections: 400, max_in_flight: 4, queue: 4")
    async with house(store, tmp_path, more=more) as home:
        calm = [await _took(home) for _ in range(15)]
        slow = [await asyncio.open_connection("127.0.0.1", home.port) for _ in range(300)]
        for number, (_, writer) in enumerate(slow):
            writer.write([b"POST /v1/", post()[:-20], post()[: -len(BODY)]][number % 3])
        busy = [await _took(home) for _ in range(15)]
        assert sorted(busy)[7] < 4 * sorted(calm)[7] + 0.02
        for reader, writer in slow:
            await until_closed(reader, 5)
            writer.close()


async def _took(home):
    began_s = time.monotonic()
    assert (await home.chat("fake-1?length=3")).status == 200
    return time.monotonic() - began_s


async def test_when_all_connections_are_taken_the_one_idle_longest_makes_room(store, tmp_path):
    async with house(store, tmp_path, more="server: {max_connections: 5}\n") as home:
        idle = [await asyncio.open_connection("127.0.0.1", home.port) for _ in range(5)]
        for reader, writer in idle:
            writer.write(post())
            assert (await one_answer(reader))[0] == 200
        async with opened(home.port) as (reader, writer):
            writer.write(post())
            assert (await one_answer(reader))[0] == 200
        assert (await until_closed(idle[0][0], 2))[0] == b""
        for _, writer in idle:
            writer.close()


async def test_when_all_connections_are_at_work_the_next_is_told_so(store, tmp_path):
    async with house(store, tmp_path, more="server: {max_connections: 2}\n") as home:
        home.fake.script = Script(hang=True)
        busy = [await asyncio.open_connection("127.0.0.1", home.port) for _ in range(2)]
        for _, writer in busy:
            writer.write(post(BODY.replace(b"?length=3", b"")))  # a model that says what it does would not hang
        await home.fake.until(lambda: home.fake.in_flight == 2)
        got, closed = await talk(home.port, b"")
        ((status, body),) = answers(got)
        assert (status, json.loads(body)["error"]["code"], closed) == (503, "overloaded", True)
        assert b"retry-after" in got
        for _, writer in busy:
            writer.close()


@pytest.mark.slow
async def test_a_client_that_does_not_read_its_stream_is_cut_off_and_pays_for_what_it_got(store, tmp_path):
    async with house(store, tmp_path, more=QUICK) as home:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", home.port))
        body = json.dumps({"model": "fake-1?length=200000", "messages": HELLO, "stream": True}).encode()
        await asyncio.get_running_loop().sock_sendall(raw, post(body))
        await home.until_receipts(1, 15)
        assert home.receipts[0].outcome == "disconnect"
        assert home.receipts[0].usage.output > 0
        await home.fake.until(lambda: home.fake.in_flight == 0)
        assert home.fake.invoice[0].completion_tokens < 200_000  # the provider was held back, then stopped
        raw.close()


@pytest.mark.slow
async def test_a_client_that_does_not_read_a_whole_answer_is_cut_off(store, tmp_path):
    async with house(store, tmp_path, more=QUICK) as home:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", home.port))
        body = json.dumps({"model": "fake-1?length=800000", "messages": HELLO}).encode()
        await asyncio.get_running_loop().sock_sendall(raw, post(body))
        await home.until_receipts(1, 30)
        server = _edge(home)
        async with asyncio.timeout(5):
            while any(not c.is_idle for c in server.connections):
                await asyncio.sleep(0.05)
        raw.close()


def _edge(home):
    from gc import get_objects

    from proxy.edge import EdgeServer

    return next(o for o in get_objects() if type(o) is EdgeServer and o.stall_s == 0.8)


LARGE = json.dumps({"model": "fake-1", "messages": HELLO, "x": "y" * 3000}).encode()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (post(LARGE), 413, "request_too_large"),
        (post(b"", headers=b"content-length: 99999999999\r\n", length=False), 413, "request_too_large"),
        (post(b"", headers=b"transfer-encoding: chunked\r\n", length=False) + b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n", 413, "request_too_large"),
        (post(b'{"model": "fake-1", "messages": [{"role": "user", "content": ' + b"[" * 500 + b"]" * 500 + b"}]}"), 400, None),
        (post(b'{"a": ' * 200 + b"1" + b"}" * 200), 400, None),
        (post(b"[" * 2000), 400, None),
        (post(b'{"model": "fake-1", "messages": [], "max_tokens": 1' + b"0" * 1500 + b"}"), 400, None),
        (post(b"\x1f\x8b\x08" + b"\x00" * 900, headers=b"content-encoding: gzip\r\n"), 415, None),
        (post(b"\x00" * 1000, headers=b"content-encoding: br\r\n"), 415, None),
        (post(b""), 400, None),
        (post(b"null"), 400, None),
        (post(b'"x"'), 400, None),
        (post(b"\xff\xfe{}"), 400, None),
    ],
)  # fmt: skip
async def test_what_is_too_much_is_refused_quickly_and_in_openais_shape(store, tmp_path, data, status, code):
    """C6."""
    async with house(store, tmp_path, more="server: {max_body: 2KiB, body_seconds: 1}\n") as home:
        began_s = time.process_time()
        got, _ = await talk(home.port, data.replace(b"\r\nhost", b"\r\nconnection: close\r\nhost", 1), 3)
        assert time.process_time() - began_s < 1
        ((found, body),) = answers(got)
        error = json.loads(body)["error"]
        assert (found, error["code"]) == (status, code)
        assert set(error) == {"message", "type", "param", "code"}
        assert len(home.fake.requests) == 0


async def test_a_flood_of_tiny_chunks_costs_little(store, tmp_path):
    """C6."""
    async with house(store, tmp_path) as home:
        body = json.dumps({"model": "fake-1?length=2", "messages": HELLO, "user": "x" * 60_000}).encode()
        flood = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        began_s = time.process_time()
        async with opened(home.port) as (reader, writer):
            writer.write(post(b"", headers=b"transfer-encoding: chunked\r\n", length=False) + flood)
            assert (await one_answer(reader))[0] == 200
        assert time.process_time() - began_s < 2


# places ---------------------------------------------------------------------------------------------------------------


async def test_places_are_given_in_the_order_of_asking_and_none_is_lost():
    places, order = Places(most=2, queue=10, queue_s=5), []

    async def call(number):
        await places.take()
        order.append(number)
        await asyncio.sleep(0)
        places.give()

    await asyncio.gather(*(call(n) for n in range(10)))
    assert order == list(range(10))
    assert places.taken == 0


async def test_whoever_stops_waiting_gives_up_his_turn_and_not_a_place():
    places = Places(most=1, queue=10, queue_s=5)
    await places.take()
    waiting = [asyncio.create_task(places.take()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    places.give()  # goes to 0
    waiting[0].cancel()  # in the same moment in which the place came
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(3):
        places.give()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert places.taken == 0
    assert [task.cancelled() for task in waiting] == [True, True, False, False, False]


async def test_a_full_queue_and_a_long_wait_are_refused_with_an_honest_retry_after():
    places = Places(most=2, queue=2, queue_s=0.05)
    for _ in range(2):
        await places.take()
    waiting = [asyncio.create_task(places.take()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ClientError) as refused:
        await places.take()
    assert (refused.value.status, refused.value.code, refused.value.headers["retry-after"]) == (503, "overloaded", "1")
    for task in waiting:
        with pytest.raises(ClientError):
            await task
    assert places.taken == 2
    places._interval_s = 3.0  # a place came free every three seconds
    with pytest.raises(ClientError) as refused:
        await places.take()
    assert refused.value.headers["retry-after"] == "3"


async def test_a_drain_waits_for_the_last_of_all_calls_and_no_longer_than_it_was_told():
    places = Places(most=2, queue=2, queue_s=1)
    await places.take()
    assert await places.until_idle(0.01) is False
    waiting = asyncio.create_task(places.until_idle(60))
    await asyncio.sleep(0)
    places.give()
    await places.take()  # before who waits could look
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    places.give()
    assert await asyncio.wait_for(waiting, 5) is True


async def test_a_hurried_drain_does_not_wait_and_says_that_calls_are_left():
    places = Places(most=2, queue=2, queue_s=1)
    await places.take()
    waiting = asyncio.create_task(places.until_idle(60))
    await asyncio.sleep(0)
    places.hurry()
    assert await waiting is False
    places.give()
    assert await places.until_idle(60) is True


# headers --------------------------------------------------------------------------------------------------------------

SENT = (
    "X-Custom: 1", "Cookie: a=b", "Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil.example", "Via: 1.1 x", "TE: trailers",
    "Keep-Alive: timeout=5", "Proxy-Authorization: Basic eA==", "Proxy-Connection: keep-alive", "Trailer: X", "Accept-Encoding: gzip, br", "Connection: keep-alive, X-Custom",
    "api-key: sk-other", "x-api-key: sk-other", "OpenAI-Organization: org-evil", "OpenAI-Project: proj-evil", "X-Goog-Api-Key: y", "anthropic-version: 1999-01-01",
    "X-Bursar-User: mallory", "X-Request-Id: mine", "Content_Length: 5", "X-HTTP-Method-Override: DELETE", "Range: bytes=0-1", "If-None-Match: x", "Origin: https://evil.example",
    "x-portkey-custom-host: http://evil.example", "x-stainless-retry-count: 3", "User-Agent: curl/8", "Helicone-Target-Url: http://evil.example",
)  # fmt: skip
ALLOWED = {
    "host",
    "authorization",
    "content-type",
    "content-length",
    "accept",
    "accept-encoding",
    "user-agent",
    "x-request-id",
}


async def test_of_a_clients_headers_none_goes_upstream(store, tmp_path):
    """C12: the request upstream is built anew; what it holds is a closed list."""
    headers = "".join(f"{line}\r\n" for line in SENT).encode()
    async with house(store, tmp_path) as home, opened(home.port) as (reader, writer):
        writer.write(post(headers=headers))
        assert (await one_answer(reader))[0] == 200
        seen = home.fake.requests[-1].headers
        assert {name.lower() for name in seen} <= ALLOWED
        assert seen["host"] == home.fake.url.split("/")[2]
        assert KEY not in str(seen)
        assert seen["accept-encoding"] == "identity"
        assert seen["x-request-id"].startswith("req_")
        for name in ("mallory", "evil", "1.2.3.4", "sk-other"):
            assert name not in str(seen)


UPSTREAM_HEADERS = (
    b"set-cookie: a=b\r\nserver: secret-server/1.0\r\nconnection: keep-alive, x-internal\r\nx-internal: 1\r\nkeep-alive: timeout=5\r\nx-envoy-upstream: 10.0.0.7\r\n"
    b'alt-svc: h3=":443"\r\nstrict-transport-security: max-age=1\r\naccess-control-allow-origin: *\r\nlocation: http://evil.example\r\nopenai-organization: org-x\r\n'
    b"openai-processing-ms: 12\r\nx-ratelimit-remaining-requests: 99\r\nx-request-id: up_1\r\nwww-authenticate: Basic\r\ntrailer: x\r\n"
)  # fmt: skip
GONE = {
    "set-cookie",
    "x-internal",
    "keep-alive",
    "x-envoy-upstream",
    "alt-svc",
    "strict-transport-security",
    "access-control-allow-origin",
    "location",
    "www-authenticate",
    "trailer",
}


@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_providers_headers_only_the_known_reach_the_client(store, tmp_path, stream):
    answer = json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ).encode()
    events = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    kind, body = (b"text/event-stream", events) if stream else (b"application/json", answer)

    async def script(peer):
        while await peer.request():
            await peer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n%s\r\n%s"
                % (kind, len(body), UPSTREAM_HEADERS, body)
            )

    async with provider(script) as odd:
        from proxy.fake import FakeProvider  # noqa: F401  the house below is given another's address

        class Elsewhere:
            url = odd.url("/v1")

        async with house(store, tmp_path, fake=Elsewhere()) as home:
            reply = await home.chat(stream=stream)
            assert reply.status == 200
            names = {name.lower() for name in reply.headers}
            assert not names & GONE
            assert "secret-server" not in str(reply.headers)
            assert reply.headers["x-request-id"].startswith("req_")
            assert reply.headers.getall("content-type") == [
                "text/event-stream; charset=utf-8" if stream else "application/json"
            ]


async def test_the_routes_of_one_listener_are_not_those_of_the_other(store, tmp_path):
    async with fleet(store, tmp_path, 1) as f:
        for path in ("/metrics", "/livez", "/readyz", "/admin/v1/keys", "/ui"):
            async with f.home.http.get(f.home.sidecar.url + path) as answer:
                assert answer.status == 404
        for path in ("/v1/models", "/v1/chat/completions", "/v1/budget"):
            assert (await f.home.ops(path)).status == 404


def test_the_parser_is_the_compiled_one():
    """Most of what was ever smuggled past Python servers went past parsers in Python."""
    import httptools.parser.parser

    assert httptools.parser.parser.__file__.endswith(".so")
    assert JSON
