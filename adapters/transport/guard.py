"""Fetches a file that a client named by URL, without becoming that client's way into the private network.

A name is resolved once, all its addresses are checked, and the connection is made to what was checked: a name that points
elsewhere a moment later gains nothing. No proxy, no credentials, no cookies. Of a refusal the client learns that it was one,
never what was found.
Source: https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from urllib.parse import quote, urljoin

from adapters.base import Media, UpstreamRequest
from adapters.errors import AdapterError, InvalidRequestError
from adapters.transport.base import Timeouts, UpstreamResponse
from adapters.transport.options import TransportOptions
from adapters.transport.raw import RawTransport
from adapters.transport.resolver import Address, Resolver

REDIRECTS_MAX = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's platform address, which is public by its number
    )
)  # fmt: skip
_GLOBAL_V6 = ipaddress.IPv6Network(
    "2000::/3"
)  # leaves out loopback, mapped and NAT64 forms, private, link-local, multicast
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )  # Teredo and others, examples, 6to4, examples
)
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
)


class AddressRefusedError(InvalidRequestError):
    """A URL leads where no client may send Bursar."""

    code = "invalid_image_url"


class MediaUnavailableError(InvalidRequestError):
    """A file cannot be fetched, is too large, or is none."""

    code = "invalid_image_url"


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet's own; every disguise of another one is not."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _REFUSED_V4)
    return ip in _GLOBAL_V6 and not any(ip in network for network in _REFUSED_V6)


class GuardedResolver(Resolver):
    """Resolves only to public addresses; one that is not makes the whole name refused. `allow` is for tests."""

    def __init__(self, ttl_s: float = 30.0, *, allow: Sequence[Network] = ()) -> None:
        super().__init__(ttl_s)
        self._allow = tuple(allow)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return as Resolver.resolve does. Raises AddressRefusedError."""
        addresses = await super().resolve(host, port)
        if not all(self._allowed(address.sockaddr[0]) for address in addresses):
            raise AddressRefusedError("the URL does not lead to a public address")
        return addresses

    def _allowed(self, address: str) -> bool:
        if is_public(address):
            return True
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._allow)


class MediaFetcher:
    """Fetches files for all clients; keeps no connection to a host longer than a moment. `close` it at the end."""

    def __init__(self, *, allow: Sequence[Network] = (), ca_file: str | None = None) -> None:
        options = TransportOptions(ca_file=ca_file, idle_s=1, idle_per_origin=1, idle_total=16)
        self._transport = RawTransport(options, resolver=GuardedResolver(allow=allow))

    async def fetch(self, url: str, max_bytes: int, timeout: float) -> Media:
        """Return the file at `url`, of at most `max_bytes`, within `timeout` seconds in all.

        Follows up to REDIRECTS_MAX redirects, each checked like the first and none from https to http.
        Raises AddressRefusedError and MediaUnavailableError.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._fetch(quote(url, safe=_PRINTABLE), max_bytes, timeout)
        except TimeoutError as error:
            raise MediaUnavailableError("the file took too long to fetch") from error
        except (AddressRefusedError, MediaUnavailableError):
            raise
        except AdapterError as error:
            raise MediaUnavailableError("the file cannot be fetched") from error

    async def close(self) -> None:
        """Cut what is still being fetched."""
        await self._transport.close()

    async def _fetch(self, url: str, max_bytes: int, timeout: float) -> Media:
        limits = Timeouts(connect=timeout, tls=timeout, first_token=timeout, idle=timeout, total=timeout)
        for _ in range(REDIRECTS_MAX + 1):
            request = UpstreamRequest(method="GET", url=url, headers=(("accept", "*/*"),))
            response = await self._transport.send(request, limits)
            try:
                if response.status not in _REDIRECTS:
                    return await _media(response, max_bytes)
                url = _next_url(url, response.headers.get("location", ""))
            finally:
                response.close()
        raise MediaUnavailableError("the file is redirected too often")


async def _media(response: UpstreamResponse, max_bytes: int) -> Media:
    if response.status != _OK:
        raise MediaUnavailableError(f"the file's server answered {response.status}")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 20 or int(length) > max_bytes):  # noqa: PLR2004 - a 64-bit number
        raise MediaUnavailableError(f"the file is larger than {max_bytes} bytes")
    data = await response.read(max_bytes)
    return Media(mime=_mime(response.headers.get("content-type", ""), data), data=data)


def _mime(content_type: str, data: bytes) -> str:
    """Return what the file is: by its first bytes where those are known, else as its server says."""
    for signature, mime in _SIGNATURES:
        if data.startswith(signature):
            return mime
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return content_type.partition(";")[0].strip().lower() or "application/octet-stream"


def _next_url(url: str, location: str) -> str:
    target = urljoin(url, quote(location, safe=_PRINTABLE))
    if not location or (url.lower().startswith("https:") and not target.lower().startswith("https:")):
        raise MediaUnavailableError("the file is redirected to where it must not be")
    return target
