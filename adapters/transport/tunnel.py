"""The first words on a new connection: nothing, or CONNECT to an HTTP proxy.

Until the connection is handed over, the peer has nothing to say but the proxy's answer; anything else would later be read
as a response. Source: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
"""

import asyncio
import base64
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from adapters.errors import UpstreamUnavailableError
from adapters.transport.outgoing import Origin

_ANSWER_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy. `authorization` is the value of its header, or None."""

    host: str
    port: int
    authorization: str | None

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


def parse_proxy(url: str) -> Proxy:
    """Take `http://[user:password@]host:port` apart. Raises ValueError; its message does not hold the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme != "http" or not host or parts.path not in {"", "/"} or parts.query:
        raise ValueError("a proxy is given as http://[user:password@]host:port")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host=host, port=port or 80, authorization=authorization)


class Opening(asyncio.Protocol):
    """The protocol of a connection until it is handed over."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None

    async def connect(self, transport: asyncio.Transport, proxy: Proxy, origin: Origin) -> None:
        """Ask the proxy for a tunnel. Raises UpstreamUnavailableError (`delivered=False`)."""
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        authority = f"{host}:{origin.port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}"]
        if proxy.authorization is not None:
            lines.append(f"proxy-authorization: {proxy.authorization}")
        transport.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        while b"\r\n\r\n" not in self._received:
            if self._lost or len(self._received) > _ANSWER_BYTES_MAX:
                raise UpstreamUnavailableError(f"the proxy {proxy.host} refused the connection", delivered=False)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        answer, _, rest = bytes(self._received).partition(b"\r\n\r\n")
        status = answer.split(b" ", 2)[1:2]
        if not answer.startswith(b"HTTP/1.") or not status or not status[0].startswith(b"2") or len(status[0]) != 3:  # noqa: PLR2004
            said = status[0].decode("ascii", "replace")[:3] if status else "nothing"
            raise UpstreamUnavailableError(f"the proxy {proxy.host} answered {said} to CONNECT", delivered=False)
        self._received[:] = rest

    def check_silent(self, host: str) -> None:
        """Refuse a peer that spoke unasked. Raises UpstreamUnavailableError (`delivered=False`)."""
        if self._received or self._lost:
            raise UpstreamUnavailableError(f"{host} spoke before it was asked", delivered=False)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
