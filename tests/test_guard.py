"""A client may name a file by URL; it may not see through Bursar what it could not see itself."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import InvalidRequestError
from adapters.transport.guard import (
    REDIRECTS_MAX,
    AddressRefusedError,
    GuardedResolver,
    MediaFetcher,
    MediaUnavailableError,
    is_public,
)
from tests.misbehaving import CHUNKED_HEAD, chunked, ok, provider
from tests.test_transport import authority, ca_file, server_context  # noqa: F401 - the first two are fixtures

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:8.8.8.8", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136::1",
    "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254",
    "fd20:ce::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "localhost", "", "1", "0x7f.1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_the_public_internets_own_is_refused(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address):
    assert is_public(address)


@given(st.ip_addresses())
def test_what_python_holds_for_private_is_never_public(ip):
    if not ip.is_global or ip.is_multicast or ip.is_link_local or ip.is_reserved:
        assert not is_public(str(ip))


@pytest.fixture
async def fetcher():
    made = MediaFetcher(allow=LOOPBACK)
    yield made
    await made.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "[::1]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "localhost.",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_private_address_is_connected_to(host):
    async def script(peer):
        await peer.answer(PNG)

    fetcher = MediaFetcher()
    try:
        async with provider(script) as server:
            with pytest.raises(InvalidRequestError) as caught:
                await fetcher.fetch(f"http://{host}:{server.port}/", 1000, 5)
            assert "127.0.0.1" not in str(caught.value)
            assert server.connections == 0
    finally:
        await fetcher.close()


async def test_a_name_with_one_private_address_is_refused_and_asked_for_once(monkeypatch):
    asked = []

    def both(host, port, *args, **kwargs):
        asked.append(host)
        return [(socket.AF_INET, 1, 6, "", (ip, port)) for ip in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    resolver = GuardedResolver()
    for _ in range(2):
        with pytest.raises(AddressRefusedError):
            await resolver.resolve("rebind.example", 80)
    assert asked == ["rebind.example"]


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch, fetcher):
    """The name would lead elsewhere the second time it is asked."""

    async def script(peer):
        await peer.answer(PNG)

    answers = ["127.0.0.1", "10.0.0.1"]
    real = socket.getaddrinfo

    def rebinding(host, port, *args, **kwargs):
        if host == "rebind.example":
            return [(socket.AF_INET, 1, 6, "", (answers.pop(0), port))]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with provider(script) as server:
        media = await fetcher.fetch(server.url(host="rebind.example"), 1000, 5)
        assert (media.mime, media.data) == ("image/png", PNG)
        assert answers == ["10.0.0.1"]
        assert b"host: rebind.example:" in server.requests[0]


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a/", "gopher://a/", "data:text/plain,a", "//a/", "/a", "", "http://user:pw@127.0.0.1/", "http://a b/", "http://\u2460/"],
)  # fmt: skip
async def test_only_plain_http_and_https_urls_are_fetched(fetcher, url):
    with pytest.raises(MediaUnavailableError):
        await fetcher.fetch(url, 1000, 5)


@pytest.mark.parametrize(
    ("body", "said", "mime"),
    [
        (PNG, b"text/html", "image/png"),
        (b"\xff\xd8\xff\xe0", b"image/jpeg", "image/jpeg"),
        (b"GIF89a", b"", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", b"", "image/webp"),
        (b"%PDF-1.7", b"application/octet-stream", "application/pdf"),
        (b"abc", b"Audio/WAV; rate=1", "audio/wav"),
        (b"abc", b"", "application/octet-stream"),
    ],
)
async def test_a_file_is_what_its_first_bytes_say_or_else_its_server(fetcher, body, said, mime):
    async def script(peer):
        await peer.answer(body, b"content-type: %s\r\n" % said if said else b"")

    async with provider(script) as server:
        media = await fetcher.fetch(server.url("/\u00e4"), 1000, 5)
        assert (media.mime, media.data) == (mime, body)


@pytest.mark.parametrize("framing", ["length", "chunked", "until close"])
async def test_a_file_larger_than_allowed_is_refused(fetcher, framing):
    answer = {
        "length": ok(b"a" * 1001),
        "chunked": CHUNKED_HEAD + chunked(b"a" * 1001),
        "until close": b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 1001,
    }[framing]

    async def script(peer):
        await peer.request()
        await peer.write(answer)

    async with provider(script) as server:
        with pytest.raises(MediaUnavailableError):
            await fetcher.fetch(server.url(), 1000, 5)


@pytest.mark.parametrize("answer", [b"", CHUNKED_HEAD + chunked(b"a")], ids=["no answer", "no end"])
async def test_a_file_that_takes_too_long_is_given_up(fetcher, answer):
    async def script(peer):
        await peer.request()
        await peer.write(answer)
        await peer.gone()

    async with provider(script) as server:
        with pytest.raises(MediaUnavailableError):
            await fetcher.fetch(server.url(), 1000, 0.2)
        await server.gone.wait()


@pytest.mark.parametrize("status", [404, 500, 204])
async def test_an_answer_that_is_no_file_is_refused(fetcher, status):
    async def script(peer):
        await peer.request()
        await peer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)

    async with provider(script) as server:
        with pytest.raises(MediaUnavailableError):
            await fetcher.fetch(server.url(), 1000, 5)


def redirecting(location):
    async def script(peer):
        while request := await peer.request():
            if request.startswith(b"GET /end"):
                await peer.write(ok(PNG))
            else:
                left = int(request.split(b" ")[1][1:] or 0)
                where = location % (left - 1) if "%d" in location else location
                where = "/end" if left == 1 and "%d" in location else where
                await peer.write(b"HTTP/1.1 302 Go\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % where.encode())

    return script


async def test_a_few_redirects_are_followed_and_no_more(fetcher):
    async with provider(redirecting("/%d")) as server:
        assert (await fetcher.fetch(server.url(f"/{REDIRECTS_MAX}"), 1000, 5)).data == PNG
        with pytest.raises(MediaUnavailableError):
            await fetcher.fetch(server.url(f"/{REDIRECTS_MAX + 1}"), 1000, 5)


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://10.0.0.1/", "//192.168.0.1/x", "file:///etc/passwd", ""],
)  # fmt: skip
async def test_a_redirect_is_checked_like_the_first_url(fetcher, location):
    async with provider(redirecting(location)) as server:
        with pytest.raises(InvalidRequestError):
            await fetcher.fetch(server.url("/1"), 1000, 5)
        assert len(server.requests) == 1


async def test_a_redirect_does_not_lead_from_https_to_http(authority, ca_file):  # noqa: F811 - fixtures
    async def script(peer):
        await peer.answer(PNG)

    fetcher = MediaFetcher(allow=LOOPBACK, ca_file=ca_file)
    try:
        async with provider(script) as plain:
            there = redirecting(plain.url())
            async with provider(there, server_context(authority, "127.0.0.1")) as server:
                with pytest.raises(MediaUnavailableError):
                    await fetcher.fetch(server.url("/1", scheme="https"), 1000, 5)
            assert plain.connections == 0
    finally:
        await fetcher.close()
