"""The fast transport keeps connections: what it may use again, what it must not, and when a call may go twice."""

import asyncio
import contextlib
import socket

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import UpstreamRequest
from adapters.errors import InvalidRequestError, UpstreamProtocolError, UpstreamTimeoutError, UpstreamUnavailableError
from adapters.transport import connection as connection_module
from adapters.transport.base import Timeouts
from adapters.transport.heads import Heads
from adapters.transport.incoming import INTERIM_MAX, Incoming
from adapters.transport.options import TransportOptions
from adapters.transport.outgoing import Origin, parse_url
from adapters.transport.raw import RawTransport
from adapters.transport.resolver import HOSTS_MAX, Address, Resolver
from tests.misbehaving import CHUNKED_HEAD, chunked, ok, provider
from tests.test_transport import authority, ca_file, server_context  # noqa: F401 - the first two are fixtures


@pytest.fixture
async def make():
    made = []

    def build(resolver=None, **options):
        made.append(RawTransport(TransportOptions(**options), resolver=resolver))
        return made[-1]

    yield build
    for transport in made:
        await transport.close()
        assert transport.idle == 0


@pytest.fixture
def transport(make):
    return make()


async def send(transport, url, body=b"{}", method="POST", **timeouts):
    return await transport.send(UpstreamRequest(method=method, url=url, body=body), Timeouts(**timeouts))


async def call(transport, url, body=b"{}", **timeouts):
    return await (await send(transport, url, body, **timeouts)).read(1 << 20)


async def numbered(peer):
    """Answer every request with the connection's number."""
    while await peer.answer(b"%d" % peer.number):
        pass


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


# reuse ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "tls"])
async def test_a_connection_is_used_again_and_again(make, authority, ca_file, secure):  # noqa: F811
    context = server_context(authority, "localhost") if secure else None
    async with provider(numbered, context) as server:
        transport = make(ca_file=ca_file)
        url = server.url(scheme="https" if secure else "http", host="localhost")
        assert [await call(transport, url) for _ in range(5)] == [b"0"] * 5
        assert transport.idle == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"0"),
        CHUNKED_HEAD + chunked(b"0") + b"0\r\n\r\n",
        b"HTTP/1.1 204 No\r\n\r\n",
        b"HTTP/1.1 304 No\r\n\r\n",
        ok(b""),
    ],
    ids=["length", "chunked", "204", "304", "empty"],
)
async def test_every_framing_with_an_end_keeps_the_connection(transport, answer):
    async def script(peer):
        while await peer.request():
            await peer.write(answer)

    async with provider(script) as server:
        for _ in range(3):
            assert await call(transport, server.url()) in {b"0", b""}
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"0", b"connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n0",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n0",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n0\r\n0\r\n\r\n",
    ],
    ids=["close", "1.0", "1.0 keep-alive", "1.0 chunked"],
)
async def test_a_connection_that_the_provider_will_not_keep_is_not_kept(transport, answer):
    async def script(peer):
        while await peer.request():
            await peer.write(answer)

    async with provider(script) as server:
        for _ in range(3):
            assert await call(transport, server.url()) == b"0"
        assert server.connections == 3
        assert transport.idle == 0


async def test_the_answer_to_head_does_not_shift_the_next_answer(transport):
    async def script(peer):
        while request := await peer.request():
            await peer.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + (b"" if request.startswith(b"HEAD") else b"ok")
            )

    async with provider(script) as server:
        for _ in range(3):
            assert await (await send(transport, server.url(), b"", "HEAD")).read(10) == b""
            assert await call(transport, server.url()) == b"ok"


async def test_the_connection_used_last_is_used_first(transport):
    async with provider(numbered) as server:
        responses = [await send(transport, server.url()) for _ in range(3)]
        order = [await response.read(9) for response in responses]
        assert order == [b"0", b"1", b"2"]
        assert [await call(transport, server.url()) for _ in range(3)] == [b"2", b"2", b"2"]


async def test_connections_are_not_shared_between_origins(transport):
    async with provider(numbered) as server, provider(numbered) as other:
        for _ in range(2):
            await call(transport, server.url())
            await call(transport, server.url(host="localhost"))
            await call(transport, other.url())
        assert (server.connections, other.connections) == (2, 1)


async def test_a_response_gives_its_connection_back_with_its_last_piece(transport):
    async with provider(numbered) as server:
        response = await send(transport, server.url())
        assert transport.idle == 0
        assert await response.next_piece() == b"0"
        assert transport.idle == 1
        other = await send(transport, server.url())
        response.close()  # must not touch the connection that is another's now
        assert await response.next_piece() == b""
        assert await other.read(9) == b"0"
        assert server.connections == 1


@pytest.mark.parametrize("read_first", [True, False])
async def test_a_response_closed_before_its_end_cuts_its_connection(transport, read_first):
    async def script(peer):
        await peer.request()
        await peer.write(CHUNKED_HEAD + chunked(b"hello"))
        await peer.gone()

    async with provider(script) as server:
        response = await send(transport, server.url())
        if read_first:
            assert await response.next_piece() == b"hello"
        response.close()
        await asyncio.wait_for(server.gone.wait(), 5)
        assert transport.idle == 0
        with pytest.raises(UpstreamUnavailableError):
            await response.next_piece()


# bounds --------------------------------------------------------------------------------------------------------------


async def test_idle_connections_are_closed_when_they_grow_old(make):
    transport = make(idle_s=0.05)
    async with provider(numbered) as server:
        assert await call(transport, server.url()) == b"0"
        assert transport.idle == 1
        await until(lambda: transport.idle == 0 and transport.open == 0)
        assert await call(transport, server.url()) == b"1"


async def test_a_connection_too_old_is_not_taken_even_before_it_is_swept(make):
    transport = make(idle_s=15)
    async with provider(numbered) as server:
        assert await call(transport, server.url()) == b"0"
        (idle,) = next(iter(transport._pool._idle.values()))
        idle.idle_since -= 16
        assert await call(transport, server.url()) == b"1"


@pytest.mark.parametrize("bound", [{"idle_per_origin": 2}, {"idle_total": 2}])
async def test_no_more_connections_are_kept_than_allowed(make, bound):
    transport = make(**bound)
    async with provider(numbered) as server:
        responses = [await send(transport, server.url()) for _ in range(5)]
        for response in responses:
            await response.read(9)
        assert transport.idle == 2
        await until(lambda: transport.open == 2)


# poison --------------------------------------------------------------------------------------------------------------

EVIL = ok(b"evil")
POISONED = {
    "after a body": ok(b"good") + EVIL,
    "after an empty body": ok(b"") + EVIL,
    "after chunks": CHUNKED_HEAD + chunked(b"good") + b"0\r\n\r\n" + EVIL,
    "after 204": b"HTTP/1.1 204 No\r\n\r\n" + EVIL,
    "a body after 204": b"HTTP/1.1 204 No\r\ncontent-length: 4\r\n\r\nevil",
    "after 304": b"HTTP/1.1 304 No\r\ncontent-length: 4\r\n\r\n" + EVIL,
    "after an interim response": b"HTTP/1.1 100 Go\r\n\r\n" + ok(b"good") + EVIL,
    "an interim response after": ok(b"good") + b"HTTP/1.1 100 Go\r\n\r\n",
    "part of a head after": ok(b"good") + b"HTTP/1.1 200",
    "one byte after": ok(b"good") + b"H",
    "garbage after": ok(b"good") + b"\0\0\0",
}


@pytest.mark.parametrize("case", POISONED)
async def test_bytes_after_a_response_in_the_same_segment_never_become_the_next_answer(transport, case):
    async def script(peer):
        await peer.request()
        await peer.write(POISONED[case])
        if await peer.request():
            await peer.write(ok(b"good"))

    async with provider(script) as server:
        assert await call(transport, server.url()) in {b"good", b""}
        assert transport.idle == 0
        assert await call(transport, server.url()) in {b"good", b""}
        assert server.connections == 2


@pytest.mark.parametrize("late", [EVIL, b"H", b"\r\n", b""], ids=["a response", "a byte", "a line end", "its end"])
@pytest.mark.parametrize("seen", [True, False], ids=["seen by the loop", "not yet seen"])
async def test_what_comes_while_idle_discards_the_connection(transport, late, seen):
    """`b""` is a half-close: the provider ends its side and goes on reading."""
    wrote = asyncio.Event()

    async def script(peer):
        await peer.answer(b"good")
        if peer.number == 0:
            await peer.server.go.wait()
            raw = peer.writer.get_extra_info("socket")
            if late:
                raw._sock.send(late)
            else:
                raw.shutdown(socket.SHUT_WR)
            wrote.set()
        await peer.gone()

    async with provider(script) as server:
        assert await call(transport, server.url()) == b"good"
        assert transport.idle == 1
        if seen:
            server.go.set()
            await until(lambda: transport.idle == 0)
        else:
            (idle,) = next(iter(transport._pool._idle.values()))
            idle._transport.pause_reading()  # the loop looks away, as when it is busy
            server.go.set()
            await wrote.wait()
        assert await call(transport, server.url()) == b"good"
        assert server.connections == 2


async def test_a_second_answer_to_the_last_call_after_a_pause_never_becomes_the_next_answer(transport):
    async def script(peer):
        while request := await peer.request():
            await peer.write(ok(request[-1:]))
            await asyncio.sleep(0)
            await peer.write(ok(b"x"))

    async with provider(script) as server:
        for number in range(30):
            assert await call(transport, server.url(), b"%d" % (number % 10)) == b"%d" % (number % 10)
            await asyncio.sleep(0.002)


async def test_a_request_not_wholly_written_is_the_last_on_its_connection(transport):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await peer.server.go.wait()

    async with provider(script) as server:
        response = await send(transport, server.url(), b"a" * 30_000_000)
        assert (response.status, await response.read(9)) == (413, b"")
        assert transport.idle == 0
        server.go.set()


async def test_too_many_interim_responses_are_an_error(transport):
    async def script(peer):
        await peer.request()
        count = INTERIM_MAX + (1 if b"over" in peer.server.requests[-1] else 0)
        await peer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * count + ok(b"good"))
        await peer.gone()

    async with provider(script) as server:
        assert await call(transport, server.url("/under")) == b"good"
        with pytest.raises(UpstreamProtocolError):
            await call(transport, server.url("/over", host="localhost"))


# the stale rule ------------------------------------------------------------------------------------------------------


def stale_script(ending, answers=1):
    """The first connection answers `answers` calls, reads one more and ends without a byte; later ones answer."""

    async def script(peer):
        if peer.number > 0:
            await numbered(peer)
            return
        for _ in range(answers):
            await peer.answer(b"first")
        await peer.request()
        if ending == "reset":
            peer.reset()

    return script


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_kept_connection_that_closes_without_a_byte_gives_the_call_one_new_one(transport, ending):
    async with provider(stale_script(ending)) as server:
        assert await call(transport, server.url(), b"one") == b"first"
        assert await call(transport, server.url(), b"two") == b"1"
        assert [request[-3:] for request in server.requests] == [b"one", b"two", b"two"]


async def test_the_second_try_takes_a_new_connection_even_if_others_are_idle_and_is_the_last(transport):
    async def script(peer):
        await peer.answer(b"%d" % peer.number)
        await peer.request()

    async with provider(script) as server:
        responses = [await send(transport, server.url()) for _ in range(3)]
        for response in responses:
            await response.read(9)
        assert transport.idle == 3
        assert await call(transport, server.url()) == b"3"
        assert server.connections == 4


async def test_a_second_try_that_fails_too_is_reported(transport):
    async def script(peer):
        if peer.number == 0:
            await peer.answer(b"first")
        await peer.request()

    async with provider(script) as server:
        assert await call(transport, server.url()) == b"first"
        with pytest.raises(UpstreamUnavailableError) as caught:
            await call(transport, server.url())
        assert caught.value.delivered
        assert server.connections == 2


async def test_a_kept_connection_that_closes_after_one_byte_is_not_tried_again(transport):
    async def script(peer):
        await peer.answer(b"first")
        await peer.request()
        await peer.write(b"H")

    async with provider(script) as server:
        assert await call(transport, server.url()) == b"first"
        with pytest.raises(UpstreamUnavailableError) as caught:
            await call(transport, server.url())
        assert caught.value.delivered
        assert server.connections == 1


async def test_a_kept_connection_that_closes_long_after_the_call_is_not_tried_again(transport, monkeypatch):
    monkeypatch.setattr(connection_module, "STALE_S", 0.0)
    async with provider(stale_script("close")) as server:
        assert await call(transport, server.url()) == b"first"
        with pytest.raises(UpstreamUnavailableError) as caught:
            await call(transport, server.url())
        assert caught.value.delivered
        assert server.connections == 1


async def test_a_timeout_on_a_kept_connection_is_not_tried_again(transport):
    async def script(peer):
        await peer.answer(b"first")
        await peer.gone()

    async with provider(script) as server:
        assert await call(transport, server.url()) == b"first"
        with pytest.raises(UpstreamTimeoutError):
            await call(transport, server.url(), first_token=0.1)
        assert server.connections == 1


async def test_when_the_new_connection_of_a_second_try_fails_the_call_may_have_been_delivered(transport):
    async def script(peer):
        await peer.answer(b"first")
        peer.server.listener.close()
        await peer.request()

    async with provider(script) as server:
        assert await call(transport, server.url()) == b"first"
        with pytest.raises(UpstreamUnavailableError) as caught:
            await call(transport, server.url())
        assert caught.value.delivered
        assert server.connections == 1


async def test_a_call_cancelled_while_connecting_leaves_nothing_open(make):
    class Slow(Resolver):
        async def resolve(self, host, port):
            asking.set()
            await asyncio.sleep(60)

    asking = asyncio.Event()
    transport = make(resolver=Slow())
    task = asyncio.create_task(call(transport, "http://127.0.0.1/"))
    await asking.wait()
    assert transport.open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert transport.open == 0


async def test_a_call_cancelled_in_a_tls_handshake_closes_its_socket(transport):
    async def script(peer):
        await peer.gone()

    async with provider(script) as server:
        task = asyncio.create_task(call(transport, server.url(scheme="https")))
        await until(lambda: server.connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.gone.wait(), 5)
        assert transport.open == 0


async def test_a_proxy_that_never_answers_is_a_connect_timeout_and_is_left(make):
    async def script(peer):
        await peer.gone()

    async with provider(script) as proxy:
        transport = make(proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamTimeoutError) as caught:
            await call(transport, "https://a.example/", connect=0.1)
        assert caught.value.phase == "connect"
        await asyncio.wait_for(proxy.gone.wait(), 5)
        assert transport.open == 0


# names and addresses -------------------------------------------------------------------------------------------------


async def test_a_dead_address_is_followed_by_the_next(make):
    class Two(Resolver):
        async def resolve(self, host, port):
            dead = [Address(socket.AF_INET, ("127.0.0.1", 1)), Address(socket.AF_INET6, ("::1", 1, 0, 0))]
            return [*dead, Address(socket.AF_INET, ("127.0.0.1", port))]

    async with provider(numbered) as server:
        assert await call(make(resolver=Two()), server.url(host="anything.example")) == b"0"


async def test_a_name_is_looked_up_once_while_it_is_known(monkeypatch):
    asked = []
    real = socket.getaddrinfo

    def counting(host, *args, **kwargs):
        asked.append(host)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    resolver = Resolver(ttl_s=30)
    found = await asyncio.gather(*(resolver.resolve("a.example", 80) for _ in range(10)))
    assert asked == ["a.example"]
    assert {tuple(addresses) for addresses in found} == {(Address(socket.AF_INET, ("127.0.0.1", 80)),)}
    await resolver.resolve("a.example", 80)
    assert asked == ["a.example"]
    resolver.forget("a.example", 80)
    await resolver.resolve("a.example", 80)
    assert len(asked) == 2
    expired = Resolver(ttl_s=0)
    await expired.resolve("a.example", 80)
    await expired.resolve("a.example", 80)
    assert len(asked) == 4
    for number in range(HOSTS_MAX + 10):
        await resolver.resolve(f"{number}.example", 80)
    assert len(resolver._known) == HOSTS_MAX


async def test_a_caller_cancelled_while_a_name_is_looked_up_does_not_spoil_it_for_the_others(monkeypatch):
    go = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = socket.getaddrinfo

    def slow(host, *args, **kwargs):
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(5)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = Resolver()
    first = asyncio.create_task(resolver.resolve("a.example", 80))
    second = asyncio.create_task(resolver.resolve("a.example", 80))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.wait_for(second, 5)


@pytest.mark.parametrize(
    ("url", "origin", "path", "authority_"),
    [
        ("https://API.example/v1/x?a=b#c", Origin("https", "api.example", 443), "/v1/x?a=b", "api.example"),
        ("https://api.example:443", Origin("https", "api.example", 443), "/", "api.example"),
        ("http://api.example:443/", Origin("http", "api.example", 443), "/", "api.example:443"),
        ("http://[::1]:80/a%2Fb:c", Origin("http", "::1", 80), "/a%2Fb:c", "[::1]"),
        ("HTTP://a/?x", Origin("http", "a", 80), "/?x", "a"),
    ],
)
def test_a_url_is_taken_apart_without_changing_its_path(url, origin, path, authority_):
    assert parse_url(url) == (origin, path, authority_)


# TLS -------------------------------------------------------------------------------------------------------------------


async def test_all_tls_connections_read_into_one_buffer_and_none_gets_anothers_bytes(make, authority, ca_file):  # noqa: F811 - the fixtures
    async def script(peer):
        while request := await peer.request():
            number = int(request.rpartition(b"\r\n\r\n")[2])
            await peer.write(ok(b"%04d" % number * 50_000))

    transport = make(ca_file=ca_file)
    async with provider(script, server_context(authority, "localhost")) as server:
        url = server.url(scheme="https", host="localhost")
        answers = await asyncio.gather(*(call(transport, url, b"%d" % number, tls=30) for number in range(20)))
        assert transport.idle > 1
        buffers = [connection._transport._ssl_protocol._ssl_buffer for connection in transport._open]
        assert len({id(buffer) for buffer in buffers}) == 1
        assert len(buffers[0]) <= 32 * 1024
    assert answers == [b"%04d" % number * 50_000 for number in range(20)]


# answers that are read whole --------------------------------------------------------------------------------------------


def at_once(coroutine):
    """Return what it returns, if it does without waiting."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


async def in_two(peer, first, last):
    while await peer.request():
        await peer.write(first)
        await peer.server.go.wait()
        await peer.write(last)


async def test_a_small_answer_in_pieces_is_there_when_its_head_is_returned(transport):
    answer = ok(b"hello world")
    async with provider(lambda peer: in_two(peer, answer[:-4], answer[-4:])) as server:
        request = UpstreamRequest(url=server.url(), body=b"{}")
        sending = asyncio.create_task(transport.send_whole(request, Timeouts()))
        await asyncio.sleep(0.02)
        assert not sending.done()
        server.go.set()
        assert at_once((await sending).read(100)) == b"hello world"
        assert transport.idle == 1


async def test_a_large_answer_is_not_gathered_and_holds_its_provider_back(transport):
    answer = ok(b"a" * 20_000)
    async with provider(lambda peer: in_two(peer, answer[:-4], answer[-4:])) as server:
        response = await transport.send_whole(UpstreamRequest(url=server.url(), body=b"{}"), Timeouts())
        server.go.set()
        assert await response.read(20_000) == b"a" * 20_000


async def test_what_breaks_off_after_its_head_is_told_by_read(transport):
    async with provider(lambda peer: in_two(peer, ok(b"hello")[:-4], b"")) as server:
        sending = asyncio.create_task(
            transport.send_whole(UpstreamRequest(url=server.url(), body=b"{}"), Timeouts(idle=0.1))
        )
        response = await sending
        assert response.status == 200
        with pytest.raises(UpstreamTimeoutError) as caught:
            await response.read(100)
        assert caught.value.phase == "idle"


# the heads of requests -------------------------------------------------------------------------------------------------


def head_of(heads, *headers, url="http://a/b?c", **more):
    return heads.of(UpstreamRequest(url=url, headers=headers, **more))[1]


def test_a_head_is_written_alike_the_first_time_and_when_its_lines_are_known():
    heads = Heads()
    expected = b"POST /b?c HTTP/1.1\r\nhost: a\r\nX-Key: k\r\nx-id: 1\r\ncontent-length: 2\r\naccept-encoding: identity\r\n\r\n"
    for _ in range(2):
        assert head_of(heads, ("X-Key", "k"), ("Host", "evil"), ("te", "x"), ("x-id", "1"), body=b"{}") == expected
    assert head_of(heads, ("x-id", "2"), method="GET") == (
        b"GET /b?c HTTP/1.1\r\nhost: a\r\nx-id: 2\r\naccept-encoding: identity\r\n\r\n"
    )


@pytest.mark.parametrize("pair", [("x-key", "k\r\nx: y"), ("x-key", "é"), ("x key", "k"), ("", "k")])
def test_a_header_is_checked_also_when_others_of_its_name_were_sent(pair):
    heads = Heads()
    head_of(heads, ("x-key", "k"), ("x", "k"))
    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            head_of(heads, ("x-key", "k"), pair)


def test_the_lines_that_are_known_do_not_grow_with_the_calls():
    heads = Heads()
    for number in range(2000):
        head_of(heads, ("x-id", f"{number}"), ("x-token", f"{number}" + "t" * 2000), url=f"http://a/{number}")
    assert len(heads._lines) <= 256
    assert len(heads._targets) <= 512
    assert max(map(len, heads._lines.values())) <= 1024


# the parser alone ----------------------------------------------------------------------------------------------------

STREAMS = [
    ok(b"hello", b"x-a: b\r\n"),
    CHUNKED_HEAD + chunked(b"hello", b"a" * 300, b"c") + b"0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 204 No\r\nx: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    ok(b"hello") + b"HTTP",
    CHUNKED_HEAD + b"zz\r\n",
]


def facts(incoming):
    return (
        incoming.status, incoming.headers, incoming.complete, incoming.poisoned, incoming.error is None,
        incoming.reusable, incoming.until_close, incoming.body_bytes,
    )  # fmt: skip


@given(stream=st.sampled_from(STREAMS), cuts=st.sets(st.integers(1, 400)))
def test_any_split_of_a_response_is_read_alike(stream, cuts):
    whole = Incoming()
    whole.feed(stream)
    split = Incoming()
    body = b""
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in zip(edges, edges[1:], strict=False):
        if split.complete:
            split.poisoned = True  # what Connection does with a later segment
        elif split.error is None:
            split.feed(stream[start:end])
        body += split.take()
    assert facts(split) == facts(whole)
    assert body == whole.take()


class Told:
    """What the parser itself says of the headers of the last head."""

    def __init__(self):
        self.headers = {}
        self.done = False

    def on_message_begin(self):
        if not self.done:
            self.headers = {}

    def on_header(self, name, value):
        if not self.done:
            self.headers[name.lower().decode("latin-1")] = value.decode("latin-1").rstrip(" \t")

    def on_headers_complete(self):
        self.done = self.parser.get_status_code() >= 200


NAMES = st.sampled_from([b"a", b"B", b"X-c", b"content-length", b"Transfer-Encoding", b"a ", b"\r\na", b""])
VALUES = st.lists(
    st.sampled_from([b"5", b"hello", b"chunked", b":", b" ", b"\t", b"\n", b"\xe9", b"\x00", b"\x85", b"\xa0", b"\r\n "]), max_size=3
).map(b"".join)  # fmt: skip
LINES = st.builds(
    lambda name, gap, value, last: name + b":" + gap + value + last,
    NAMES,
    st.sampled_from([b"", b" ", b"\t"]),
    VALUES,
    st.just(b"\r\n"),
)


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from([b"\r\n", b"HTTP/1.1 100 Go\r\na: b\r\n\r\n"]), max_size=2),
    st.lists(LINES, max_size=4),
)
def test_headers_are_read_as_the_parser_reads_them(before, lines):
    head = b"".join(before) + b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\n"
    told, ours = Told(), Incoming()
    told.parser = httptools.HttpResponseParser(told)
    with contextlib.suppress(httptools.HttpParserError):
        told.parser.feed_data(head)
    ours.feed(head)
    if ours.head_done:
        assert told.done
        assert dict(ours.headers) == told.headers
    elif told.done:
        assert "transfer-encoding" in told.headers  # which is looked at more strictly


@given(st.lists(st.binary(max_size=200), max_size=10), st.sampled_from([b"", CHUNKED_HEAD, b"HTTP/1.1 200 OK\r\n"]))
def test_no_bytes_make_the_parser_raise(pieces, start):
    incoming = Incoming()
    incoming.feed(start)
    for piece in pieces:
        incoming.feed(piece)


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\nx: ", b"a" * 1000),
        (b"HTTP/1.1 ", b"2" * 0 + b"00 " + b"a" * 900),
        (b"\r\n", b"\r\n" * 500),
        (CHUNKED_HEAD + b"0\r\n", b"x-late: " + b"a" * 900 + b"\r\n"),
        (CHUNKED_HEAD + b"5;", b"a" * 1000),
    ],
    ids=["a header", "a status", "empty lines", "trailers", "a chunk extension"],
)
def test_what_has_no_end_is_stopped_before_it_fills_the_memory(start, drip):
    incoming = Incoming()
    incoming.feed(start)
    for _ in range(80):
        incoming.feed(drip)
    assert incoming.error is not None
    assert not incoming.complete
