"""Opens connections: resolve, connect, tunnel, TLS, each within its own limit.

A caller that is cancelled leaves nothing behind: the socket is closed in the same step. Nothing of the request has been
sent while this runs, so every failure here is `delivered=False`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.errors import UpstreamTimeoutError, UpstreamUnavailableError
from adapters.transport.base import Timeouts
from adapters.transport.connection import Connection
from adapters.transport.options import TransportOptions, tls_context
from adapters.transport.outgoing import Origin
from adapters.transport.resolver import Address, Resolver
from adapters.transport.tunnel import Opening, parse_proxy

_ADDRESS_SHARE_MIN_S = 0.25
_TLS_READ_AHEAD_BYTES = 64 * 1024
_TLS_READ_BYTES = 32 * 1024  # of what is encrypted, at once


class Dialer:
    """Opens connections with one set of options. The TLS context is made at the first need."""

    def __init__(self, options: TransportOptions, resolver: Resolver) -> None:
        self._options = options
        self._resolver = resolver
        self._proxy = parse_proxy(options.proxy) if options.proxy else None
        self._context: ssl.SSLContext | None = None
        self._space = bytearray(_TLS_READ_BYTES)
        self._view = memoryview(self._space)

    async def dial(self, connection: Connection, timeouts: Timeouts, total_at: float) -> None:
        """Open `connection` to its origin. Raises UpstreamUnavailableError and UpstreamTimeoutError."""
        origin = connection.origin
        transport: asyncio.Transport | None = None
        try:
            async with _phase("connect", timeouts.connect, total_at, origin.host):
                transport, opening = await self._connect(origin)
                if self._proxy is not None:
                    await opening.connect(transport, self._proxy, origin)
            opening.check_silent(origin.host)
            if origin.scheme == "https":
                async with _phase("tls", timeouts.tls, total_at, origin.host):
                    secure = await self._secure(transport, connection, origin)
                connection.attach(secure)
            else:
                transport.set_protocol(connection)
                connection.attach(transport)
            transport = None
        finally:
            if transport is not None:
                transport.abort()

    async def _connect(self, origin: Origin) -> tuple[asyncio.Transport, Opening]:
        host, port = (origin.host, origin.port) if self._proxy is None else (self._proxy.host, self._proxy.port)
        addresses = await self._resolver.resolve(host, port)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                return await self._connect_to(address, left)
            except OSError:
                continue
        self._resolver.forget(host, port)
        raise UpstreamUnavailableError(f"no connection to {host} could be made", delivered=False)

    async def _connect_to(self, address: Address, left: int) -> tuple[asyncio.Transport, Opening]:
        """Try one address; while others are left it gets no more than a share of the time. Raises OSError."""
        loop = asyncio.get_running_loop()
        share_s = None if left == 1 else _ADDRESS_SHARE_MIN_S
        async with asyncio.timeout(share_s):
            transport, opening = await loop.create_connection(
                Opening, address.sockaddr[0], address.sockaddr[1], family=address.family
            )
        return transport, opening

    async def _secure(self, transport: asyncio.Transport, connection: Connection, origin: Origin) -> asyncio.Transport:
        if self._context is None:
            self._context = tls_context(self._options)
        transport.set_write_buffer_limits(high=0)
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport, connection, self._context, server_hostname=origin.host
            )
        except ssl.SSLCertVerificationError as error:
            message = f"the certificate of {origin.host} is not valid: {error.verify_message}"
            raise UpstreamUnavailableError(message, delivered=False) from error
        except OSError as error:
            raise UpstreamUnavailableError(f"no TLS with {origin.host} could be agreed on", delivered=False) from error
        if secure is None:
            raise UpstreamUnavailableError(f"no TLS with {origin.host} could be agreed on", delivered=False)
        limit = getattr(secure, "set_read_buffer_limits", None)  # asyncio's own TLS transport only
        if limit is not None:
            limit(high=_TLS_READ_AHEAD_BYTES)
        self._share_space(secure)
        return secure

    def _share_space(self, secure: asyncio.Transport) -> None:
        """Let all connections read into one buffer: asyncio gives each its own, and empties it before it returns to the loop.

        Where asyncio's own TLS is another than the one known here, each keeps its own.
        """
        inner = getattr(secure, "_ssl_protocol", None)
        if isinstance(getattr(inner, "_ssl_buffer", None), bytearray) and hasattr(inner, "_ssl_buffer_view"):
            own = {"max_size": _TLS_READ_BYTES, "_ssl_buffer": self._space, "_ssl_buffer_view": self._view}
            for name, value in own.items():
                setattr(inner, name, value)


@asynccontextmanager
async def _phase(phase: str, limit_s: float, total_at: float, host: str) -> AsyncIterator[None]:
    at = asyncio.get_running_loop().time() + limit_s
    if at >= total_at:
        at, phase = total_at, "total"
    scope = asyncio.timeout_at(at)
    try:
        async with scope:
            yield
    except TimeoutError as error:
        raise UpstreamTimeoutError(f"{host} passed the {phase} limit of a connection", phase=phase) from error
