"""Our HTTP server by itself: what goes over one connection, byte by byte, and what a handler sees of it."""

import asyncio
import logging
import socket
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.edge import EdgeServer
from proxy.errors import ClientError
from proxy.serving.heads import header_lines, http_date
from proxy.serving.request import UNREAD_BYTES_MAX
from proxy.serving.response import Response, StreamedResponse
from proxy.serving.target import decoded, fields, split
from proxy.wellformed import LINE_BYTES_MAX
from tests.wire import answers

HOST = b"host: a.example\r\n"
MAX_BYTES = 300_000


def req(line, *headers, body=b"", host=HOST):
    return line + b"\r\n" + host + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body


def sent(body, *headers, line=b"POST / HTTP/1.1"):
    return req(line, b"content-length: %d" % len(body), *headers, body=body)


class Peer:
    """A client by hand, and the server it speaks to."""

    def __init__(self, server, port):
        self.server, self.port, self.writers = server, port, []

    async def open(self, data=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(data)
        return reader, writer

    async def talk(self, data, timeout_s=5):
        """Send; return all that comes until the other side closes."""
        reader, _ = await self.open(data)
        async with asyncio.timeout(timeout_s):
            return await reader.read()

    async def until(self, condition, timeout_s=5):
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def served(handler, **more):
    limits = {"max_body_bytes": MAX_BYTES, "header_s": 5, "max_connections": 100, **more}
    server = EdgeServer(handler, **limits)
    _, port = await server.listen("127.0.0.1", 0, backlog=100)
    peer = Peer(server, port)
    try:
        yield peer
    finally:
        for writer in peer.writers:
            writer.transport.abort()
        await server.close(0.05)
        assert server.connections == []
        assert server.open_total == 0


async def echo(request):
    body = await request.read()
    return Response(
        body=b"%s %s %s" % (request.method.encode(), request.path.encode(), body), content_type="text/plain"
    )


async def streamed(request):
    await request.read()
    answer = StreamedResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    await answer.write(b"abc")
    await answer.write(b"defg")
    await answer.write_eof()
    return answer


def without_date(data):
    return b"\r\n".join(line for line in data.split(b"\r\n") if not line.startswith(b"Date: "))


CLOSE = b"connection: close"


@pytest.mark.parametrize(
    ("handler", "asked", "expected"),
    [
        (echo, req(b"GET /x HTTP/1.1", CLOSE), b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nserver: bursar\r\nConnection: close\r\n\r\nGET /x "),
        (echo, req(b"GET /x HTTP/1.0"), b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nserver: bursar\r\n\r\nGET /x "),
        (echo, req(b"HEAD /x HTTP/1.1", CLOSE), b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\nserver: bursar\r\nConnection: close\r\n\r\n"),
        (echo, req(b"OPTIONS /x HTTP/1.1", CLOSE), b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\nserver: bursar\r\nConnection: close\r\n\r\nOPTIONS /x "),
        (streamed, req(b"GET / HTTP/1.1", CLOSE), b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\nserver: bursar\r\nConnection: close\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
        (streamed, req(b"GET / HTTP/1.0", b"connection: keep-alive"), b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\nserver: bursar\r\n\r\nabcdefg"),
        (streamed, req(b"HEAD / HTTP/1.1", CLOSE), b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nserver: bursar\r\nConnection: close\r\n\r\n"),
    ],
    ids=["get", "HTTP/1.0", "head", "options", "stream", "stream over HTTP/1.0", "stream for head"],
)  # fmt: skip
async def test_an_answer_has_these_bytes(handler, asked, expected):
    async with served(handler) as peer:
        assert without_date(await peer.talk(asked)) == expected


async def test_a_head_does_not_wait_for_its_first_piece():
    gate = asyncio.Event()

    async def handler(request):
        answer = StreamedResponse(headers={})
        await answer.prepare(request)
        await gate.wait()
        return answer

    async with served(handler) as peer:
        reader, _ = await peer.open(req(b"GET / HTTP/1.1"))
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        gate.set()
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"0\r\n\r\n"


async def test_an_encoded_tail_goes_into_the_head_as_it_is():
    async def handler(request):
        return Response(body=b"{}", tail=b"content-type: application/json\r\nx-a: 1\r\n", close=True)

    async with served(handler) as peer:
        assert without_date(await peer.talk(req(b"GET / HTTP/1.1"))) == (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-a: 1\r\nContent-Length: 2\r\nserver: bursar\r\nConnection: close\r\n\r\n{}"
        )


@pytest.mark.parametrize(
    "line", [b"BREW / HTTP/1.1", b"get / HTTP/1.1", b"GET / HTTP/3.7", b"PRI * HTTP/2.0", b"\x16\x03\x01"]
)
async def test_what_is_no_http_gets_a_constant_and_the_end(line):
    async with served(echo) as peer:
        got = await peer.talk(line + b"\r\n" + HOST + b"authorization: Bearer sk-secret\r\n\r\n")
        assert [status for status, _ in answers(got)] == [400]
        assert got.startswith(b"HTTP/1.0 400 Bad Request\r\nconnection: close\r\n")
        assert b"sk-secret" not in got


async def test_a_body_in_the_same_packet_is_there_when_the_handler_begins_and_one_behind_it_is_waited_for():
    seen = []

    async def handler(request):
        seen.append(request.complete)
        return await echo(request)

    async with served(handler) as peer:
        assert b"POST / abc" in await peer.talk(sent(b"abc", CLOSE))
        reader, writer = await peer.open(sent(b"abc", CLOSE)[:-2])
        await peer.until(lambda: len(seen) == 2)
        writer.write(b"bc")
        assert (await reader.read()).endswith(b"POST / abc")
    assert seen == [True, False]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(1, 400), max_size=6), chunked=st.booleans(), size=st.integers(0, 300))
async def test_wherever_a_request_is_cut_it_is_the_same_request(cuts, chunked, size):
    body = bytes(i % 251 for i in range(size))
    pieces = (
        b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:7], body[7:90], body[90:]) if p)
        + b"0\r\nx-trailer: y\r\n\r\n"
    )
    data = (
        req(b"POST /p HTTP/1.1", CLOSE, b"transfer-encoding: chunked", body=pieces)
        if chunked
        else sent(body, CLOSE, line=b"POST /p HTTP/1.1")
    )
    seen = []

    async def handler(request):
        seen.append((request.method, request.path, dict(request.headers), await request.read()))
        return Response(body=b"x")

    async with served(handler) as peer:
        reader, writer = await peer.open()
        for cut in cuts:
            writer.write(data[:cut])
            data = data[cut:]
            await asyncio.sleep(0)
        writer.write(data)
        assert [status for status, _ in answers(await reader.read())] == [200]
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(size)}
    assert seen == [("POST", "/p", {"host": "a.example", "connection": "close", **framing}, body)]


async def test_a_next_request_that_comes_before_the_last_handler_has_ended_is_served():
    """A stream's last byte leaves before its call is settled; a quick client is not to be punished for that."""
    gate, calls = asyncio.Event(), []

    async def handler(request):
        calls.append(request.path)
        answer = await streamed(request)
        await gate.wait()
        return answer

    async with served(handler) as peer:
        reader, writer = await peer.open(req(b"GET /1 HTTP/1.1"))
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(req(b"GET /2 HTTP/1.1"))
        await asyncio.sleep(0.05)
        assert calls == ["/1"]
        gate.set()
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
        assert calls == ["/1", "/2"]


async def test_empty_lines_behind_a_request_are_not_a_request():
    gate = asyncio.Event()

    async def handler(request):
        await gate.wait()
        return await echo(request)

    async with served(handler) as peer:
        reader, writer = await peer.open(sent(b"abc") + b"\r\n")
        await peer.until(lambda: peer.server.connections and not peer.server.connections[0].is_idle)
        writer.write(b"\r\n")
        await asyncio.sleep(0.05)
        gate.set()
        for _ in range(2):
            await asyncio.wait_for(reader.readuntil(b"POST / abc"), 5)
            writer.write(sent(b"abc") + b"\r\n")


@pytest.mark.parametrize("at_once", [True, False])
async def test_whatever_comes_behind_a_request_ends_the_connection_and_the_answer_says_so(at_once):
    gate = asyncio.Event()

    async def handler(request):
        await gate.wait()
        return await echo(request)

    async with served(handler) as peer:
        reader, writer = await peer.open(sent(b"abc") + (b"GET" if at_once else b""))
        await peer.until(lambda: peer.server.connections and not peer.server.connections[0].is_idle)
        writer.write(b" / HTTP/1.1\r\n")
        await asyncio.sleep(0.05)
        gate.set()
        got = await asyncio.wait_for(reader.read(), 5)
        assert b"Connection: close" in got
        assert [status for status, _ in answers(got)] == [200]


async def test_a_declined_offer_of_another_protocol_leaves_the_body_and_the_connection_as_they_were():
    async with served(echo) as peer:
        reader, writer = await peer.open()
        for body in (b"abc", b"", b"x" * 100_000):
            writer.write(sent(body, b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: x"))
            await asyncio.wait_for(reader.readuntil(b"POST / " + body), 5)
        chunks = b"3\r\nabc\r\n0\r\n\r\n"
        writer.write(
            req(b"POST / HTTP/1.1", b"connection: upgrade", b"upgrade: h2c", b"transfer-encoding: chunked", body=chunks)
        )
        await asyncio.wait_for(reader.readuntil(b"POST / abc"), 5)
        writer.write(sent(b"", b"connection: upgrade", b"upgrade: h2c", CLOSE) + sent(b"2"))
        assert [status for status, _ in answers(await asyncio.wait_for(reader.read(), 5))] == [200]


async def test_a_client_that_expects_to_be_told_is_told_only_if_its_body_is_wanted():
    async def handler(request):
        return await echo(request) if request.path == "/read" else Response(status=401, body=b"no")

    async with served(handler) as peer:
        reader, writer = await peer.open(sent(b"abc", b"expect: 100-continue", line=b"POST /read HTTP/1.1")[:-3])
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        await asyncio.wait_for(reader.readuntil(b"POST /read abc"), 5)
        got = await peer.talk(sent(b"abc", b"expect: 100-continue", line=b"POST /no HTTP/1.1")[:-3])
        assert got.startswith(b"HTTP/1.1 401 ")
        assert b"Connection: close" in got, "whether a body follows cannot be known"


# bodies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
async def test_a_body_may_be_as_large_as_the_limit_and_no_larger(chunked, more, status):
    body = b"x" * (MAX_BYTES + more)
    data = req(b"POST / HTTP/1.1", b"transfer-encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    async with served(echo) as peer:
        reader, _ = await peer.open(data if chunked else sent(body))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert int(head[9:12]) == status


async def test_a_body_that_nobody_reads_makes_its_client_wait_and_stops_when_the_answer_is_out():
    gate, held = asyncio.Event(), []

    async def handler(request):
        held.append(request)
        await gate.wait()
        return Response(body=b"no")

    async with served(handler, max_body_bytes=2**30) as peer:
        size = 64 * 2**20
        reader, writer = await peer.open(req(b"POST / HTTP/1.1", b"content-length: %d" % size))
        writer.write(bytes(size))
        await peer.until(lambda: held and len(held[0]._body) > UNREAD_BYTES_MAX)
        await asyncio.sleep(0.1)
        assert len(held[0]._body) < 1_000_000
        gate.set()
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert not held[0]._body


async def test_a_small_body_that_nobody_read_does_not_cost_the_connection():
    async def handler(request):
        return Response(body=b"no")

    async with served(handler) as peer:
        reader, writer = await peer.open(sent(b"abc")[:-3])
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\nno"), 5)
        writer.write(b"abc")
        await peer.until(lambda: peer.server.connections[0].is_idle)
        writer.write(sent(b"x"))
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\nno"), 5)


async def test_a_body_that_nobody_read_and_that_does_not_come_ends_the_connection():
    async def handler(request):
        return Response(body=b"no")

    async with served(handler, header_s=0.4) as peer:
        reader, _ = await peer.open(sent(b"abc")[:-3])
        assert [status for status, _ in answers(await asyncio.wait_for(reader.read(), 3))] == [200]


async def test_a_body_that_breaks_off_in_its_framing_is_a_400_for_who_reads_it():
    reading = asyncio.Event()

    async def handler(request):
        reading.set()
        try:
            return await echo(request)
        except ClientError as error:
            return Response(status=error.status, body=error.body(), close=True)

    async with served(handler) as peer:
        reader, writer = await peer.open(req(b"POST / HTTP/1.1", b"transfer-encoding: chunked"))
        await asyncio.wait_for(reading.wait(), 5)
        writer.write(b"zz\r\n")
        assert [status for status, _ in answers(await asyncio.wait_for(reader.read(), 5))] == [400]


@pytest.mark.parametrize(
    "piece", [b"x" * 1000, b"1;" + b"e" * 1000], ids=["a trailer without end", "a chunk size without end"]
)
async def test_a_body_that_sends_and_never_grows_is_ended(piece):
    async with served(echo) as peer:
        begin = b"0\r\nx: " if piece.startswith(b"x") else b""
        reader, writer = await peer.open(req(b"POST / HTTP/1.1", b"transfer-encoding: chunked", body=begin + piece))
        for _ in range(200):
            writer.write(b"y" * 1000)
            await asyncio.sleep(0)
        assert [status for status, _ in answers(await asyncio.wait_for(reader.read(), 5))] == [400]


async def test_a_head_without_end_is_ended_before_it_is_large():
    async with served(echo) as peer:
        reader, writer = await peer.open(b"GET / HTTP/1.1\r\n" + HOST + b"x: ")
        for _ in range(100):
            writer.write(b"y" * 1000)
            await asyncio.sleep(0)
        assert [status for status, _ in answers(await asyncio.wait_for(reader.read(), 5))] == [400]


@pytest.mark.parametrize(("longer", "status"), [(0, 200), (1, 400)])
async def test_a_header_may_be_as_long_as_the_limit_and_no_longer(longer, status):
    async with served(echo) as peer:
        got = await peer.talk(req(b"GET / HTTP/1.1", CLOSE, b"x: " + b"y" * (LINE_BYTES_MAX - 1 + longer)))
        assert [status for status, _ in answers(got)] == [status]


async def test_blanks_behind_a_value_are_no_part_of_it():
    async def handler(request):
        return Response(body=request.headers["x"].encode() + await request.read())

    async with served(handler) as peer:
        data = req(
            b"POST / HTTP/1.1",
            b"X:  \t a b \t ",
            b"transfer-encoding: chunked",
            CLOSE + b" ",
            body=b"1\r\nc\r\n0\r\n\r\n",
            host=b"host: a.example \r\n",
        )
        assert answers(await peer.talk(data)) == [(200, b"a bc")]


async def test_the_rest_of_a_body_has_a_limit_where_the_handler_has_none():
    async with served(echo, body_s=0.2) as peer:
        assert await peer.talk(sent(b"abc")[:-1]) == b""


# failures -------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_fails_is_a_constant_500_and_its_words_are_nowhere(caplog):
    async def handler(request):
        raise ValueError(f"secret {request.headers['x-secret']}")

    with caplog.at_level(logging.DEBUG):
        async with served(handler) as peer:
            got = await peer.talk(req(b"GET / HTTP/1.1", b"x-secret: hunter2"))
    assert got.startswith(b"HTTP/1.1 500 ")
    assert "a call failed in Bursar itself: ValueError" in caplog.text
    assert "hunter2" not in caplog.text + got.decode()


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\rb", "a\0b"])
async def test_a_header_with_a_line_in_it_is_never_written(value):
    with pytest.raises(ValueError, match="line"):
        header_lines({"x": value})

    async def handler(request):
        return Response(headers={"x": value}, body=b"x")

    async with served(handler) as peer:
        assert (await peer.talk(req(b"GET / HTTP/1.1"))).startswith(b"HTTP/1.1 500 ")


async def test_a_handler_that_fails_within_its_stream_cuts_it_and_says_nothing_more():
    async def handler(request):
        answer = StreamedResponse(headers={})
        await answer.prepare(request)
        await answer.write(b"abc")
        raise ValueError

    async with served(handler) as peer:
        reader, _ = await peer.open(req(b"GET / HTTP/1.1"))
        got = b""
        try:
            while piece := await asyncio.wait_for(reader.read(1000), 5):
                got += piece
        except ConnectionError:
            pass
        assert got.count(b"HTTP/1.1") <= 1
        assert not got.endswith(b"0\r\n\r\n")


async def test_a_client_that_leaves_cancels_its_call():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(request):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Response()

    async with served(handler) as peer:
        _, writer = await peer.open(req(b"GET / HTTP/1.1"))
        await asyncio.wait_for(begun.wait(), 5)
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)
        await peer.until(lambda: not peer.server.connections)


async def test_a_refused_client_can_read_why_though_it_is_still_sending():
    """A connection that is closed with unread bytes is reset, and a reset takes the answer back."""
    async with served(echo) as peer:
        for _ in range(20):
            reader, writer = await peer.open(b"BREW / HTTP/1.1\r\n\r\n")
            for _ in range(20):
                writer.write(b"x" * 20_000)
                await asyncio.sleep(0)
            assert (await asyncio.wait_for(reader.readexactly(12), 5)) == b"HTTP/1.0 400"


# many connections -----------------------------------------------------------------------------------------------------


async def test_the_connection_that_has_waited_longest_makes_room_not_the_oldest():
    async with served(echo, max_connections=3) as peer:
        three = [await peer.open(sent(b"1")) for _ in range(3)]
        for reader, _ in three:
            await asyncio.wait_for(reader.readuntil(b"POST / 1"), 5)
        first, second, _ = three
        first[1].write(sent(b"2"))
        await asyncio.wait_for(first[0].readuntil(b"POST / 2"), 5)
        fourth, _ = await peer.open(sent(b"4"))
        await asyncio.wait_for(fourth.readuntil(b"POST / 4"), 5)
        assert await asyncio.wait_for(second[0].read(), 5) == b""
        first[1].write(sent(b"5"))
        await asyncio.wait_for(first[0].readuntil(b"POST / 5"), 5)


async def test_an_answer_that_nobody_reads_is_cut_after_the_limit_of_its_own_call():
    async def handler(request):
        request.protocol.stall_s = 0.2
        return Response(body=bytes(20 * 2**20))

    async with served(handler, header_s=0.4, stall_s=60) as peer:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", peer.port))
        await asyncio.get_running_loop().sock_sendall(raw, req(b"GET / HTTP/1.1"))
        await peer.until(lambda: peer.server.connections)
        await peer.until(lambda: not peer.server.connections, 3)
        raw.close()


async def test_a_closing_server_lets_calls_end_and_tells_their_clients_that_it_was_the_last():
    begun = asyncio.Event()

    async def handler(request):
        begun.set()
        await asyncio.sleep(0.1)
        return await echo(request)

    async with served(handler) as peer:
        waiting, _ = await peer.open()
        busy, _ = await peer.open(sent(b"abc"))
        await asyncio.wait_for(begun.wait(), 5)
        await peer.server.close(2)
        got = await busy.read()
        assert got.endswith(b"POST / abc")
        assert b"Connection: close" in got
        assert await waiting.read() == b""


async def test_a_closing_server_cancels_what_does_not_end():
    cancelled = asyncio.Event()

    async def handler(request):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Response()

    async with served(handler) as peer:
        await peer.open(sent(b"abc"))
        await peer.until(lambda: any(not c.is_idle for c in peer.server.connections))
        async with asyncio.timeout(3):
            await peer.server.close(0.1)
        assert cancelled.is_set()


# pure -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "query", "plain"),
    [
        ("/v1/x", "/v1/x", "", "/v1/x"), ("/a%20b?x=%20", "/a%20b", "x=%20", "/a b"), ("http://a.example", "/", "", "/"), ("http://a.example?x", "/", "x", "/"),
        ("http://a.example/p%2Fq?x", "/p%2Fq", "x", "/p/q"), ("//evil.example/x", "//evil.example/x", "", "//evil.example/x"), ("/%ff%20", "/%ff%20", "", "/%ff%20"),
        ("/%ff/%C3%BC", "/%ff/%C3%BC", "", "/%ff/ü"), ("/a#b?c", "/a#b", "c", "/a#b"), ("/100%", "/100%", "", "/100%"), ("*", "/", "", "/"), ("", "/", "", "/"),
    ],
)  # fmt: skip
def test_a_target_has_a_path_and_a_query(target, path, query, plain):
    assert split(target) == (path, query)
    assert decoded(path) == plain


@given(st.text(max_size=60))
def test_any_target_is_taken_apart(target):
    path, query = split(target)
    decoded(path)
    fields(query)


def test_of_a_field_that_is_there_twice_the_first_counts():
    assert fields("x=1&y&x=2&z=%C3%BC+") == {"x": "1", "y": "", "z": "ü "}


@pytest.mark.parametrize(
    ("at_s", "date"), [(0, "Thu, 01 Jan 1970 00:00:00 GMT"), (784111777, "Sun, 06 Nov 1994 08:49:37 GMT")]
)
def test_a_date_is_written_as_http_has_it(at_s, date):
    assert http_date(at_s) == date
