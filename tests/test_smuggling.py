"""C1: every shape of the corpus is refused, or is exactly one well-formed request upstream. Nothing hangs."""

import asyncio
import json

import pytest

from proxy.wellformed import fault, foreign
from tests.sidecars import KEY, house
from tests.smuggling import CASES
from tests.wire import BODY, answers, one_answer, opened, post, talk

MORE = "server: {header_seconds: 0.5, body_seconds: 0.5}\n"


@pytest.mark.slow
async def test_no_shape_of_the_corpus_makes_more_than_one_request_or_an_error_of_ours(store, tmp_path, caplog):
    async with house(store, tmp_path, more=MORE) as home:
        marks = {name: b"case %04d" % number for number, name in enumerate(CASES, 1)}
        told = await asyncio.gather(
            *(talk(home.port, data.replace(b"case 0000", marks[name]), 4) for name, data in CASES.items())
        )
        seen = list(home.fake.requests)
    wrong = {}
    for (name, mark), (got, closed) in zip(marks.items(), told, strict=True):
        made = [request for request in seen if mark in request.body]
        if fault_found := judged(got, closed, made) or strange(made, mark):
            wrong[name] = fault_found
        if KEY.encode() in got or mark in got:
            wrong[name] = "echoes the request"
    assert not wrong, wrong
    assert all(any(mark in request.body for mark in marks.values()) for request in seen)
    assert KEY not in caplog.text


def judged(got, closed, made):
    """What is wrong with an outcome: it is to be one request and its answer, or a refusal after which the connection ends."""
    statuses = [status for status, _ in answers(got)]
    if any(status >= 500 and status != 505 for status in statuses):
        return f"an error of ours: {statuses}"
    if len(made) > 1 or statuses.count(200) != len(made):
        return f"{len(made)} requests for {statuses}"
    if not closed and len(statuses) != 1:  # a well-formed request may leave it open, refused or not
        return f"left open after {statuses}"
    return None


def strange(made, mark):
    """What is wrong with a request that went upstream."""
    for request in made:
        expected = json.loads(BODY.replace(b"case 0000", mark))
        if (request.method, request.path) != ("POST", "/v1/chat/completions") or json.loads(request.body) != expected:
            return "another request than was sent"
        if (
            "transfer-encoding" in request.headers
            or "expect" in request.headers
            or len(request.headers.getall("host")) != 1
        ):
            return "framing was passed on"
    return None


async def test_the_corpus_has_its_size_and_says_yes_to_what_is_right(store, tmp_path):
    assert len(CASES) >= 140
    right = ["content-length with zeros before", "transfer-encoding of another case", "chunk size with an extension", "trailers",
             "request line absolute, our host", "upgrade to h2c", "empty lines before", "101 headers"]  # fmt: skip
    async with house(store, tmp_path, more=MORE) as home:
        for name in right:
            data = CASES[name]
            if name == "101 headers":
                data = data.replace(b"X-96: y\r\n", b"").replace(b"X-95: y\r\n", b"").replace(b"X-94: y\r\n", b"")
            async with opened(home.port) as (reader, writer):
                writer.write(data)
                status, _, _ = await one_answer(reader)
                assert status == 200, name


@pytest.mark.parametrize("name", ["cl.te", "te.cl", "cl.te, a whole body", "transfer-encoding gzip, chunked", "transfer-encoding in HTTP/1.0",
                                  "host with a path", "request line absolute, another host", "request line connect",
                                  "host twice", "expect twice", "upgrade to a websocket", "two authorizations", "expect something",
                                  "connection lists content-length", "129 headers", "40 KB of headers", "101 headers"])  # fmt: skip
async def test_what_must_be_refused_is(store, tmp_path, name):
    async with house(store, tmp_path, more=MORE) as home:
        got, closed = await talk(home.port, CASES[name])
        assert closed
        assert [400 <= status < 500 for status, _ in answers(got)] == [True]
        assert len(home.fake.requests) == 0
        assert set(json.loads(answers(got)[0][1])["error"]) == {"message", "type", "param", "code"}


async def test_a_request_behind_a_request_is_not_read_and_the_connection_ends(store, tmp_path):
    async with house(store, tmp_path) as home:
        got, closed = await talk(home.port, post() * 20)
        assert closed
        assert [status for status, _ in answers(got)] == [200]
        assert len(home.fake.requests) == 1


async def test_calls_one_after_another_on_one_connection_are_all_served(store, tmp_path):
    async with house(store, tmp_path) as home, opened(home.port) as (reader, writer):
        for _ in range(5):
            writer.write(post())
            assert (await one_answer(reader))[0] == 200


async def test_a_client_that_waits_for_100_continue_gets_it(store, tmp_path):
    async with house(store, tmp_path) as home, opened(home.port) as (reader, writer):
        whole = post(headers=b"expect: 100-continue\r\n")
        head = whole[: -len(BODY)]
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await one_answer(reader))[0] == 200


def by_name(headers):
    """Headers as our parser hands them on: the first of each name, and what came again."""
    first, again = {}, []
    for name, value in ((name.lower(), value) for name, value in headers):
        if name in first:
            again.append((name, value))
        else:
            first[name] = value
    return first, again


LOCAL = [(b"Host", b"127.0.0.1:8080")]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (LOCAL, False), ([(b"host", b"localhost")], False), ([(b"host", b"[::1]:80")], False), ([(b"host", b"evil.example")], True),
        ([(b"host", b"127.0.0.1.evil.example")], True), ([(b"host", b"localhost.evil.example:8080")], True), ([], True),
        ([*LOCAL, (b"Origin", b"http://localhost:3000")], False), ([*LOCAL, (b"Origin", b"https://evil.example")], True), ([*LOCAL, (b"Origin", b"null")], True),
        ([*LOCAL, (b"Origin", b"http://localhost"), (b"origin", b"http://evil.example")], True), ([*LOCAL, (b"Origin", b"http://evil.example"), (b"origin", b"http://localhost")], True),
    ],
)  # fmt: skip
def test_without_keys_a_page_of_another_site_is_kept_out(headers, expected):
    assert foreign(*by_name(headers)) is expected


async def test_name_rebinding_does_not_reach_a_listener_without_keys(store, tmp_path):
    async with house(store, tmp_path, keys="auth: {mode: none}\n") as home:
        got, _ = await talk(home.port, post(host=b"host: evil.example\r\n"))
        assert [status for status, _ in answers(got)] == [403]
        got, _ = await talk(home.port, post(host=b"host: 127.0.0.1\r\n", headers=b"connection: close\r\n"))
        assert [status for status, _ in answers(got)] == [200]


OK = [(b"Host", b"a.example"), (b"Content-Length", b"3")]


@pytest.mark.parametrize(
    ("method", "target", "version", "headers", "status"),
    [
        ("POST", "/v1/x", (1, 1), OK, None), ("GET", "/", (1, 0), [], None), ("POST", "/v1/x", (2, 0), OK, 505), ("POST", "/v1/x", (0, 9), OK, 505),
        ("POST", "/v1/x", (1, 1), OK + OK[1:], 400), ("CONNECT", "/v1/x", (1, 1), OK, 400), ("POST", "http://a.example/v1/x?y", (1, 1), OK, None),
        ("POST", "http://A.EXAMPLE", (1, 1), OK, None), ("POST", "http://b.example/", (1, 1), OK, 400), ("POST", "ftp://a.example/", (1, 1), OK, 400),
        ("POST", "/\x7f", (1, 1), OK, 400), ("POST", "/ä", (1, 1), OK, 400), ("OPTIONS", "*", (1, 1), OK, 400), ("POST", "", (1, 1), OK, 400),
        ("POST", "/", (1, 1), [*OK, (b"Expect", b"100-Continue")], None), ("POST", "/", (1, 1), [*OK, (b"Upgrade", b"websocket")], None),
        ("POST", "/", (1, 0), [OK[0], (b"Transfer-Encoding", b"chunked")], 400), ("POST", "/", (1, 1), [*OK, (b"Transfer-Encoding", b"chunked")], 400),
        ("POST", "/", (1, 1), [OK[0], (b"Transfer-Encoding", b"gzip, chunked")], 400), ("POST", "/", (1, 1), [OK[0], (b"Transfer-Encoding", b"Chunked")], None),
        ("POST", "/", (1, 1), [(b"Host", b"[::1]:80")], None), ("POST", "/", (1, 1), [(b"Host", b"[evil")], 400),
    ],
)  # fmt: skip
def test_a_head_is_judged_without_looking_at_what_it_asks(method, target, version, headers, status):
    found = fault(method, target, version, *by_name(headers))
    assert (found and found[0]) == status
