"""What both transports promise, against a provider on real sockets that misbehaves on purpose."""

import asyncio
import gzip
import socket
import ssl
import zlib

import pytest
import trustme

from adapters.base import UpstreamRequest
from adapters.errors import (
    AdapterError,
    InvalidRequestError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from adapters.transport.base import Timeouts
from adapters.transport.options import TransportOptions
from adapters.transport.plain import PlainTransport
from adapters.transport.raw import RawTransport
from tests.misbehaving import CHUNKED_HEAD, Peer, chunked, ok, provider


class ForWhole(RawTransport):
    """The fast transport, as it is used for answers that are read whole."""

    async def send(self, request, timeouts):
        return await self.send_whole(request, timeouts)


KINDS = {"raw": RawTransport, "whole": ForWhole, "plain": PlainTransport}

SHORT = 0.15


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
async def make(kind):
    made = []

    def build(**options):
        made.append(KINDS[kind](TransportOptions(**options)))
        return made[-1]

    yield build
    for transport in made:
        await transport.close()


@pytest.fixture
def transport(make):
    return make()


@pytest.fixture
def by_pieces(kind):
    if kind == "whole":
        pytest.skip("who wants the pieces as they come does not send for a whole answer")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority, *names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def post(url, body=b"{}", headers=(("content-type", "application/json"),), method="POST"):
    return UpstreamRequest(method=method, url=url, headers=headers, body=body)


def scripted(*pieces: bytes, then="close"):
    """A provider that reads one request, writes pieces, and closes, resets, or waits for the client to go."""

    async def script(peer: Peer):
        await peer.request()
        for piece in pieces:
            await peer.write(piece)
            await asyncio.sleep(0.005)
        if then == "reset":
            peer.reset()
        if then == "wait":
            await peer.gone()

    return script


async def drain(transport, url, **timeouts):
    response = await transport.send(post(url), Timeouts(**timeouts))
    while await response.next_piece():
        pass


async def fetch(transport, url, **timeouts):
    response = await transport.send(post(url), Timeouts(**timeouts))
    return response.status, await response.read(1 << 24)


# what is sent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "body", "lengths"), [("GET", b"", []), ("GET", b"x", [b"1"]), ("POST", b"", [b"0"])]
)
async def test_only_a_get_without_a_body_carries_no_length(transport, method, body, lengths):
    async def script(peer):
        await peer.answer()

    async with provider(script) as server:
        await (await transport.send(post(server.url("/"), body, (), method), Timeouts())).read(10)
        lines = server.requests[0].lower().partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line.partition(b": ")[2] for line in lines if line.startswith(b"content-length")] == lengths


async def test_a_request_carries_one_length_the_host_of_its_url_and_identity(transport):
    async def script(peer):
        await peer.answer()

    async with provider(script) as server:
        headers = (
            ("content-type", "application/json"),
            ("Host", "evil.example"),
            ("Content-Length", "99"),
            ("Transfer-Encoding", "chunked"),
            ("Accept-Encoding", "gzip"),
            ("Connection", "upgrade"),
            ("x-kept", "a b\tc"),
        )
        response = await transport.send(post(server.url("/v1/a%2Fb?c=d%20e"), b"12345", headers), Timeouts())
        assert await response.read(10) == b"ok"
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"post /v1/a%2fb?c=d%20e http/1.1"
        assert body == b"12345"
        assert [line for line in lines if line.startswith(b"content-length")] == [b"content-length: 5"]
        assert [line for line in lines if line.startswith(b"host")] == [b"host: 127.0.0.1:%d" % server.port]
        assert [line for line in lines if line.startswith(b"accept-encoding")] == [b"accept-encoding: identity"]
        assert not [line for line in lines if line.startswith(b"transfer-encoding")]
        assert b"connection: upgrade" not in lines
        assert b"x-kept: a b\tc" in lines


@pytest.mark.parametrize(
    "change",
    [
        {"headers": (("x-a", "b\r\nx-injected: 1"),)},
        {"headers": (("x-a", "b\nc"),)},
        {"headers": (("x-a", "b\rc"),)},
        {"headers": (("x-a", "b\0c"),)},
        {"headers": (("x-a", "\u010a"),)},  # its low byte is a line feed
        {"headers": (("x-a\r\nx-injected", "b"),)},
        {"headers": (("x a", "b"),)},
        {"headers": (("", "b"),)},
        {"headers": (("x-a:", "b"),)},
        {"method": "GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST"},
        {"path": "/a b"},
        {"path": "/a\r\nx-injected: 1"},
        {"path": "/a\nb"},
        {"path": "/\u00e4"},
        {"url": "http://user:password@127.0.0.1/"},
        {"url": "ftp://127.0.0.1/"},
        {"url": "http:///x"},
        {"url": "http://127.0.0.1:99999/"},
        {"url": "http://a%0d%0ab/"},
        {"url": "//127.0.0.1/"},
    ],
    ids=repr,
)
async def test_nothing_is_sent_when_a_url_or_header_could_be_read_as_more_than_one(transport, change):
    async def script(peer):
        await peer.answer()

    async with provider(script) as server:
        url = change.get("url") or server.url(change.get("path", "/"))
        request = UpstreamRequest(method=change.get("method", "POST"), url=url, headers=change.get("headers", ()))
        with pytest.raises(InvalidRequestError) as caught:
            await transport.send(request, Timeouts())
        assert "injected" not in str(caught.value)
        assert "password" not in str(caught.value)
        assert server.connections == 0


async def test_a_large_body_arrives_whole(transport):
    async def script(peer):
        await peer.answer()

    async with provider(script, limit=1 << 24) as server:
        body = bytes(range(256)) * 8192
        response = await transport.send(post(server.url(), body), Timeouts())
        assert await response.read(10) == b"ok"
        assert server.requests[0].endswith(body)


# what comes back -----------------------------------------------------------------------------------------------------

STREAM = CHUNKED_HEAD + chunked(b"hello")
HELLO = chunked(b"hel", b"lo")
WELL_FORMED = {
    "content-length": [ok(b"hello")],
    "in single bytes": [bytes([byte]) for byte in ok(b"hello")],
    "chunked": [CHUNKED_HEAD + HELLO + b"0\r\n\r\n"],
    "chunked in single bytes": [bytes([byte]) for byte in CHUNKED_HEAD + HELLO + b"0\r\n\r\n"],
    "chunked with trailers": [CHUNKED_HEAD + HELLO + b"0\r\nx-late: 1\r\n\r\n"],
    "chunk extensions": [CHUNKED_HEAD + b"5;a=b\r\nhello\r\n0\r\n\r\n"],
    "until close": [b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"],
    "HTTP/1.0": [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    "after interim responses": [b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 9 + ok(b"hello")],
    "no reason phrase": [b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello"],
    "gzip": [ok(gzip.compress(b"hello"), b"content-encoding: gzip\r\n")],
    "deflate": [ok(zlib.compress(b"hello"), b"content-encoding: deflate\r\n")],
    "raw deflate": [ok(zlib.compress(b"hello", wbits=-15), b"Content-Encoding: Deflate\r\n")],
    "a 9 KB header": [ok(b"hello", b"x-big: " + b"a" * 9000 + b"\r\n")],
}  # fmt: skip


@pytest.mark.parametrize("case", WELL_FORMED)
async def test_every_well_formed_framing_gives_the_same_body(transport, case):
    async with provider(scripted(*WELL_FORMED[case])) as server:
        response = await transport.send(post(server.url()), Timeouts())
        assert response.status == 200
        pieces = []
        while piece := await response.next_piece():
            pieces.append(piece)
        assert b"".join(pieces) == b"hello"
        assert await response.next_piece() == b""
        assert "content-encoding" not in response.headers
        response.close()


@pytest.mark.parametrize("head", [b"204 No Content", b"304 Not Modified"])
async def test_a_status_without_body_ends_at_its_head(transport, head):
    async with provider(scripted(b"HTTP/1.1 " + head + b"\r\n\r\n", then="wait")) as server:
        assert await fetch(transport, server.url()) == (int(head[:3]), b"")


async def test_the_answer_to_head_has_no_body_whatever_its_length_says(transport):
    async with provider(scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", then="wait")) as server:
        response = await transport.send(post(server.url(), b"", (), "HEAD"), Timeouts())
        assert (response.status, await response.read(10)) == (200, b"")


async def test_header_names_are_lower_case_and_the_last_of_a_repeated_one_wins(transport):
    async with provider(
        scripted(ok(b"", b"X-Request-ID: a\r\nx-request-id: b\r\nRetry-After-MS:   7  \r\n"))
    ) as server:
        response = await transport.send(post(server.url()), Timeouts())
        assert response.headers["x-request-id"] == "b"
        assert response.headers["retry-after-ms"] == "7"
        response.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_answers_and_are_never_followed(transport, status):
    head = b"HTTP/1.1 %d Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n" % status
    async with provider(scripted(head, then="wait")) as server:
        assert await fetch(transport, server.url()) == (status, b"")
        assert len(server.requests) == 1


async def test_an_answer_that_comes_before_the_request_was_read_is_delivered(transport):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")
        await peer.server.go.wait()

    async with provider(script) as server:
        response = await transport.send(post(server.url(), b"a" * 30_000_000), Timeouts())
        assert (response.status, await response.read(10)) == (413, b"large")
        server.go.set()


async def test_cookies_are_not_kept(transport):
    async def script(peer):
        while await peer.answer(headers=b"set-cookie: a=b\r\n"):
            pass

    async with provider(script) as server:
        await fetch(transport, server.url())
        await fetch(transport, server.url())
        assert b"cookie" not in server.requests[1].lower()


# what is broken ------------------------------------------------------------------------------------------------------

MALFORMED = {
    "garbage": b"garbage\r\n\r\n",
    "another protocol": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\x05hello",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhey",
    "length and chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhe",
    "space before colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nhe",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nhe",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\nhe",
    "status 999": b"HTTP/1.1 999 OK\r\ncontent-length: 2\r\n\r\nhe",
    "switching protocols": b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "a huge header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"x-y: 0123456789\r\n" * 5000 + b"\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_head_is_a_protocol_error(kind, transport, case):
    if kind == "plain" and case == "space before colon":
        pytest.skip("aiohttp's client takes it, and only for one connection that is not used again")
    async with provider(scripted(MALFORMED[case], then="wait")) as server:
        with pytest.raises(UpstreamProtocolError):
            await transport.send(post(server.url()), Timeouts())
        await asyncio.wait_for(server.gone.wait(), 5)


MALFORMED_BODIES = {
    "no chunk size": CHUNKED_HEAD + b"zz\r\nhello\r\n",
    "0x in chunk size": CHUNKED_HEAD + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk longer than said": CHUNKED_HEAD + b"3\r\nhello\r\n0\r\n\r\n",
    "not gzip": ok(b"hello", b"content-encoding: gzip\r\n"),
    "gzip cut off": ok(gzip.compress(b"hello" * 99)[:-9], b"content-encoding: gzip\r\n"),
    "bytes after gzip": ok(gzip.compress(b"hello") + b"x", b"content-encoding: gzip\r\n"),
    "a bomb": ok(gzip.compress(bytes(20_000_000)), b"content-encoding: gzip\r\n"),
}


@pytest.mark.parametrize("case", MALFORMED_BODIES)
async def test_a_malformed_body_is_a_protocol_error_and_never_an_end(transport, case):
    async with provider(scripted(MALFORMED_BODIES[case], then="wait")) as server:
        with pytest.raises(UpstreamProtocolError):
            await drain(transport, server.url())
        if "gzip" not in case and case != "a bomb":  # there the connection itself is whole, and may be kept
            await asyncio.wait_for(server.gone.wait(), 5)


TRUNCATED = {
    "content-length": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
    "content-length, no body": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
    "chunked inside a chunk": CHUNKED_HEAD + b"a\r\nhello",
    "chunked between chunks": CHUNKED_HEAD + b"5\r\nhello\r\n",
    "chunked before the last line": CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n",
    "chunked, no body": CHUNKED_HEAD,
}


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("case", TRUNCATED)
async def test_a_body_that_breaks_off_is_an_error_and_never_an_end(transport, case, then):
    async with provider(scripted(TRUNCATED[case], then=then)) as server:
        with pytest.raises(UpstreamUnavailableError) as caught:
            await drain(transport, server.url())
        assert caught.value.delivered
        assert len(server.requests) == 1


async def test_a_body_without_length_that_is_reset_is_an_error(kind, transport):
    if kind == "plain":
        pytest.skip("aiohttp's client tells a reset there as an end; the translator asks for its dialect's own end")
    async with provider(scripted(b"HTTP/1.1 200 OK\r\n\r\n", b"hello", then="reset")) as server:
        with pytest.raises(UpstreamUnavailableError):
            await fetch(transport, server.url())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le"], ids=["nothing", "half a head"])
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_new_connection_that_closes_before_a_head_is_reported_and_not_tried_again(transport, answer, then):
    async with provider(scripted(*([answer] if answer else []), then=then)) as server:
        with pytest.raises(UpstreamUnavailableError) as caught:
            await transport.send(post(server.url()), Timeouts())
        assert caught.value.delivered
        assert server.connections == 1


async def test_a_refused_connection_was_certainly_not_delivered(transport):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        with pytest.raises(UpstreamUnavailableError) as caught:
            await transport.send(post(url), Timeouts())
    assert not caught.value.delivered


async def test_a_name_that_does_not_exist_was_certainly_not_delivered(transport):
    with pytest.raises(UpstreamUnavailableError) as caught:
        await transport.send(post("http://no-such-name.invalid/"), Timeouts())
    assert not caught.value.delivered


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_read_refuses_more_than_it_may_take_and_cuts(transport, framing):
    big = b"a" * 100_000
    answer = ok(big) if framing == "length" else CHUNKED_HEAD + chunked(big)
    async with provider(scripted(answer, then="wait")) as server:
        response = await transport.send(post(server.url()), Timeouts())
        with pytest.raises(UpstreamProtocolError):
            await response.read(99_999)
        response.close()
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_read_takes_exactly_as_much_as_it_may(transport):
    async with provider(scripted(ok(b"a" * 100_000), then="wait")) as server:
        response = await transport.send(post(server.url()), Timeouts())
        assert await response.read(100_000) == b"a" * 100_000


async def test_compressed_data_grows_in_small_pieces(transport):
    body = bytes(range(256)) * 4000
    async with provider(scripted(ok(gzip.compress(body), b"content-encoding: gzip\r\n"))) as server:
        response = await transport.send(post(server.url()), Timeouts())
        pieces = []
        while piece := await response.next_piece():
            pieces.append(piece)
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= 64 * 1024


async def test_an_error_is_told_again_to_whoever_asks_again(transport):
    async with provider(scripted(STREAM, b"zz\r\n")) as server:
        response = await transport.send(post(server.url()), Timeouts())
        for _ in range(2):
            with pytest.raises(UpstreamProtocolError):
                await response.read(100)
            with pytest.raises(UpstreamProtocolError):
                await response.next_piece()


# limits --------------------------------------------------------------------------------------------------------------

SLOW = {
    "no head": ("first_token", {"first_token": SHORT}, []),
    "half a head": ("first_token", {"first_token": SHORT}, [b"HTTP/1.1 200 OK\r\nx: "]),
    "interim only": ("first_token", {"first_token": SHORT}, [b"HTTP/1.1 100 Continue\r\n\r\n"]),
    "no body": ("first_token", {"first_token": SHORT}, [CHUNKED_HEAD]),
    "no second piece": ("idle", {"idle": SHORT}, [STREAM]),
    "no end": ("idle", {"idle": SHORT}, [ok(b"hello")[:-1]]),
    "total before head": ("total", {"total": SHORT}, []),
    "total in body": ("total", {"total": SHORT}, [STREAM]),
}


@pytest.mark.parametrize("case", SLOW)
async def test_each_limit_names_its_phase_and_cuts(transport, case):
    phase, limits, answer = SLOW[case]
    async with provider(scripted(*answer, then="wait")) as server:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await drain(transport, server.url(), **limits)
        assert caught.value.phase == phase
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_the_total_limit_holds_against_a_drip(transport):
    async def script(peer):
        await peer.request()
        await peer.write(CHUNKED_HEAD)
        while True:
            await peer.write(chunked(b"a"))
            await asyncio.sleep(0.01)

    async with provider(script) as server:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await fetch(transport, server.url(), total=SHORT)
        assert caught.value.phase == "total"


@pytest.mark.slow
@pytest.mark.usefixtures("by_pieces")
async def test_silence_counts_from_the_last_piece_also_where_a_taker_took_it(transport):
    idle_s, came_s = 0.4, []

    async def script(peer):
        await peer.request()
        await peer.write(STREAM)
        for _ in range(6):
            await asyncio.sleep(idle_s / 4)
            await peer.write(chunked(b"a"))
        await peer.gone()

    def taken(piece, now_s):
        assert piece == b"a"
        came_s.append(now_s)
        return True

    async def read():
        while await response.next_piece():
            came_s.append(asyncio.get_running_loop().time())

    async with provider(script) as server:
        response = await transport.send(post(server.url()), Timeouts(idle=idle_s))
        assert await response.next_piece() == b"hello"
        response.taker = taken  # aiohttp's client asks none
        with pytest.raises(UpstreamTimeoutError) as caught:
            await read()
        assert caught.value.phase == "idle"
        assert len(came_s) == 6
        assert idle_s <= asyncio.get_running_loop().time() - came_s[-1] < idle_s + 2


@pytest.mark.usefixtures("by_pieces")
async def test_a_reader_that_pauses_is_not_the_providers_idleness(transport):
    async def script(peer):
        await peer.request()
        await peer.write(STREAM)
        await peer.server.go.wait()
        await peer.write(chunked(b"again") + b"0\r\n\r\n")
        await peer.gone()

    async with provider(script) as server:
        response = await transport.send(post(server.url()), Timeouts(idle=SHORT, first_token=SHORT))
        assert await response.next_piece() == b"hello"
        await asyncio.sleep(3 * SHORT)
        server.go.set()
        assert await response.read(100) == b"again"


async def test_a_connection_that_is_not_accepted_is_a_connect_timeout(transport):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        try:
            with pytest.raises(UpstreamTimeoutError) as caught:
                await transport.send(post(url), Timeouts(connect=SHORT, tls=SHORT))
        finally:
            for filler in fillers:
                filler.close()
    assert caught.value.phase == "connect"


async def test_a_server_that_does_not_speak_tls_is_a_tls_timeout(kind, transport):
    async with provider(scripted(then="wait")) as server:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await transport.send(post(server.url(scheme="https")), Timeouts(connect=SHORT, tls=SHORT))
        assert caught.value.phase == ("connect" if kind == "plain" else "tls")


# back-pressure and cancellation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "tls"])
async def test_a_reader_that_does_not_come_back_stops_the_provider(make, authority, ca_file, secure):
    written = 0
    limit = 64_000_000

    async def script(peer):
        nonlocal written
        await peer.request()
        await peer.write(CHUNKED_HEAD)
        block = chunked(b"a" * 16384)
        while written < limit:
            try:
                await asyncio.wait_for(peer.write(block), 0.3)
            except TimeoutError:
                break
            written += 16384
        peer.server.go.set()
        peer.reset()

    context = server_context(authority, "localhost") if secure else None
    async with provider(script, context) as server:
        transport = make(ca_file=ca_file)
        url = server.url(scheme="https" if secure else "http", host="localhost" if secure else "127.0.0.1")
        response = await transport.send(post(url), Timeouts())
        assert await response.next_piece()
        await asyncio.wait_for(server.go.wait(), 20)
        assert written < 20_000_000  # the kernel's buffers on both sides, and little more
        response.close()


@pytest.mark.parametrize("step", ["head", "first piece", "later piece", "read"])
async def test_a_task_cancelled_while_it_waits_cuts_the_connection(transport, step):
    answer = {"head": [], "first piece": [CHUNKED_HEAD], "later piece": [STREAM], "read": [STREAM]}[step]
    waiting = asyncio.Event()

    async def script(peer):
        await peer.request()
        for piece in answer:
            await peer.write(piece)
        waiting.set()
        await peer.gone()

    async def call(url):
        response = await transport.send(post(url), Timeouts())
        if step == "read":
            await response.read(100)
        while await response.next_piece():
            pass

    async with provider(script) as server:
        task = asyncio.create_task(call(server.url()))
        await asyncio.wait_for(waiting.wait(), 5)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_a_call_cancelled_at_any_moment_never_spoils_another(transport):
    async def script(peer):
        while request := await peer.request():
            number = request.rpartition(b"\r\n\r\n")[2]
            await peer.write(CHUNKED_HEAD)
            await peer.write(chunked(number[:1]))
            await peer.write(chunked(number[1:]) + b"0\r\n\r\n")

    async def call(url, number):
        response = await transport.send(post(url, b"%05d" % number), Timeouts())
        try:
            return await response.read(100)
        finally:
            response.close()

    async with provider(script) as server:
        for turns in range(40):
            victim = asyncio.create_task(call(server.url(), turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            victim.cancel()
            answers = await asyncio.gather(*(call(server.url(), 100 + i) for i in range(3)))
            assert answers == [b"%05d" % (100 + i) for i in range(3)]
            await asyncio.gather(victim, return_exceptions=True)


@pytest.mark.usefixtures("by_pieces")
async def test_close_ends_a_read_in_another_task_and_may_be_called_twice(transport):
    async with provider(scripted(STREAM, then="wait")) as server:
        response = await transport.send(post(server.url()), Timeouts())
        assert await response.next_piece() == b"hello"
        reader = asyncio.create_task(response.next_piece())
        await asyncio.sleep(0.02)
        response.close()
        response.close()
        with pytest.raises(UpstreamUnavailableError):
            await asyncio.wait_for(reader, 5)
        with pytest.raises(UpstreamUnavailableError):
            await response.next_piece()
        await asyncio.wait_for(server.gone.wait(), 5)


@pytest.mark.usefixtures("by_pieces")
async def test_closing_the_transport_cuts_calls_in_flight_and_refuses_new_ones(transport):
    async with provider(scripted(STREAM, then="wait")) as server:
        response = await transport.send(post(server.url()), Timeouts())
        assert await response.next_piece() == b"hello"
        await transport.close()
        await asyncio.wait_for(server.gone.wait(), 5)
        with pytest.raises(UpstreamUnavailableError):
            await response.next_piece()
        with pytest.raises(UpstreamUnavailableError) as caught:
            await transport.send(post(server.url()), Timeouts())
        assert not caught.value.delivered


async def test_hundreds_of_concurrent_calls_each_get_their_own_answer(transport):
    async def script(peer):
        while request := await peer.request():
            number = request.rpartition(b"\r\n\r\n")[2]
            await asyncio.sleep(int(number) % 7 / 1000)
            await peer.write(ok(number) if int(number) % 2 else CHUNKED_HEAD + chunked(number) + b"0\r\n\r\n")

    async def call(url, number):
        response = await transport.send(post(url, b"%d" % number), Timeouts())
        return await response.read(100)

    async with provider(script, backlog=512) as server:
        for _ in range(2):
            answers = await asyncio.gather(*(call(server.url(), i) for i in range(300)))
            assert answers == [b"%d" % i for i in range(300)]


# TLS and proxies -----------------------------------------------------------------------------------------------------


async def test_tls_with_a_known_authority_works_and_is_http_1_1(make, authority, ca_file):
    context = server_context(authority, "localhost")
    context.set_alpn_protocols(["h2", "http/1.1"])
    agreed = []

    async def script(peer):
        agreed.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await peer.answer(b"a" * 1_000_000)

    async with provider(script, context) as server:
        status, body = await fetch(make(ca_file=ca_file), server.url(scheme="https", host="localhost"))
        assert (status, len(body)) == (200, 1_000_000)
        assert agreed == ["http/1.1"]


@pytest.mark.parametrize("names", [["127.0.0.1"], ["localhost"]], ids=["unknown authority", "another name"])
async def test_a_certificate_that_is_not_valid_is_refused_before_anything_is_sent(make, authority, ca_file, names):
    async def script(peer):
        await peer.answer()

    options = {} if names == ["127.0.0.1"] else {"ca_file": ca_file}
    async with provider(script, server_context(authority, *names)) as server:
        with pytest.raises(UpstreamUnavailableError) as caught:
            await make(**options).send(post(server.url(scheme="https", host="127.0.0.1")), Timeouts())
        assert not caught.value.delivered
        assert "certificate" in caught.value.message
        assert server.requests == []


async def test_a_certificate_is_not_looked_at_only_when_told_so(make, authority):
    async def script(peer):
        await peer.answer()

    async with provider(script, server_context(authority, "other.example")) as server:
        url = server.url(scheme="https", host="localhost")
        assert await fetch(make(verify=False), url) == (200, b"ok")


async def test_a_client_certificate_is_shown(make, authority, ca_file, tmp_path):
    mine = authority.issue_cert("bursar@example.org")
    path = tmp_path / "mine.pem"
    mine.private_key_and_cert_chain_pem.write_to_path(str(path))
    context = server_context(authority, "localhost")
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def script(peer):
        await peer.answer()

    async with provider(script, context) as server:
        url = server.url(scheme="https", host="localhost")
        assert await fetch(make(ca_file=ca_file, client_cert=(str(path), None)), url) == (200, b"ok")
        with pytest.raises(AdapterError):
            await fetch(make(ca_file=ca_file), url)


@pytest.mark.parametrize("framing", [b"content-length: 10\r\n", b"transfer-encoding: chunked\r\n"])
async def test_a_body_that_breaks_off_over_tls_is_an_error(make, authority, ca_file, framing):
    async with provider(
        scripted(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n5\r\nhi", then="close"),
        server_context(authority, "localhost"),
    ) as server:
        with pytest.raises(UpstreamUnavailableError):
            await fetch(make(ca_file=ca_file), server.url(scheme="https", host="localhost"))


async def test_a_body_without_length_ends_with_its_tls_connection(make, authority, ca_file):
    async with provider(
        scripted(b"HTTP/1.1 200 OK\r\n\r\n", b"hello", then="close"), server_context(authority, "localhost")
    ) as server:
        url = server.url(scheme="https", host="localhost")
        assert await fetch(make(ca_file=ca_file), url) == (200, b"hello")


async def test_a_body_without_length_may_end_without_a_farewell_of_tls(make, authority, ca_file):
    async def script(peer):
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        peer.writer.transport.abort()  # closes the socket, no close_notify

    async with provider(script, server_context(authority, "localhost")) as server:
        url = server.url(scheme="https", host="localhost")
        assert await fetch(make(ca_file=ca_file), url) == (200, b"hello")


async def relay(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def proxy_to(port, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
    async def script(peer):
        await peer.request()
        await peer.write(answer)
        if answer.startswith(b"HTTP/1.1 200"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.gather(relay(peer.reader, writer), relay(reader, peer.writer))
            finally:
                writer.close()

    return script


async def test_a_proxy_is_asked_for_a_tunnel_with_its_credentials_and_sees_nothing_else(make, authority, ca_file):
    async def script(peer):
        await peer.answer(b"through")

    async with (
        provider(script, server_context(authority, "localhost")) as server,
        provider(proxy_to(server.port)) as proxy,
    ):
        transport = make(ca_file=ca_file, proxy=f"http://user:pass%20word@127.0.0.1:{proxy.port}")
        url = server.url(scheme="https", host="localhost")
        response = await transport.send(post(url, b"{}", (("authorization", "Bearer secret"),)), Timeouts())
        assert await response.read(100) == b"through"
        asked = proxy.requests[0].lower()
        assert asked.startswith(b"connect localhost:%d http/1.1\r\n" % server.port)
        assert b"proxy-authorization: basic dxnlcjpwyxnzihdvcmq=" in asked
        assert b"secret" not in asked
        assert b"proxy-authorization" not in server.requests[0].lower()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n"])
async def test_a_proxy_that_refuses_means_not_delivered(make, answer):
    async with provider(proxy_to(0, answer)) as proxy:
        transport = make(proxy=f"http://user:password@127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamUnavailableError) as caught:
            await transport.send(post("https://localhost/"), Timeouts())
        assert not caught.value.delivered
        assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://proxy:1", "socks5://proxy:1", "proxy:1", "http://:password@", "http://a:b@c:x"]
)
def test_a_proxy_that_cannot_be_used_is_refused_without_showing_its_password(make, url):
    with pytest.raises(ValueError, match="http://") as caught:
        make(proxy=url)
    assert "password@" not in str(caught.value).replace("[user:password@]", "")


def test_options_do_not_show_the_proxys_password():
    assert "hidden" not in repr(TransportOptions(proxy="http://user:hidden@proxy:1"))
