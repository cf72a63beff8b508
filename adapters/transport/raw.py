"""The fast transport: asyncio's protocols and httptools, a pool of kept connections, nothing per piece but the piece.

A response gives its connection back by itself as soon as the last piece was taken. One that is dropped without `close` holds
its connection until the total limit.
"""

from collections.abc import Coroutine, Mapping
from time import monotonic  # what asyncio's loops tell the time by, without two calls
from typing import Any

from adapters.base import UpstreamRequest
from adapters.errors import UpstreamError, UpstreamProtocolError, UpstreamUnavailableError
from adapters.transport.base import Timeouts, Transport, UpstreamResponse
from adapters.transport.connection import READ_BYTES, Connection, StaleConnectionError
from adapters.transport.decode import BodyDecoder, decoder_for
from adapters.transport.dial import Dialer
from adapters.transport.heads import Heads
from adapters.transport.options import TransportOptions
from adapters.transport.outgoing import Origin
from adapters.transport.pool import Pool
from adapters.transport.resolver import Resolver
from adapters.transport.timers import Timers


class RawTransport(Transport):
    """One pool for all providers that share these options; belongs to the loop that first sends. Raises ValueError.

    `resolver` decides where connections may lead.
    """

    def __init__(self, options: TransportOptions | None = None, *, resolver: Resolver | None = None) -> None:
        options = options or TransportOptions()
        self._dialer = Dialer(options, resolver or Resolver(options.dns_ttl_s))
        self._timers = Timers()
        self._pool = Pool(idle_s=options.idle_s, per_origin=options.idle_per_origin, total=options.idle_total)
        self._heads = Heads()
        self._open: set[Connection] = set()
        self._space = memoryview(bytearray(READ_BYTES))  # one read at a time, on one loop
        self._closed = False

    def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send as Transport.send says. Raises InvalidRequestError too, for a URL or header that must not be sent."""
        return self._send(request, timeouts, whole=False)

    def send_whole(self, request: UpstreamRequest, timeouts: Timeouts) -> Coroutine[Any, Any, UpstreamResponse]:
        return self._send(request, timeouts, whole=True)

    async def close(self) -> None:
        self._closed = True
        self._pool.close()
        for connection in tuple(self._open):
            connection.cut()
        self._timers.close()

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return len(self._pool)

    @property
    def open(self) -> int:
        """The number of connections, idle, in use or being opened."""
        return len(self._open)

    def release(self, connection: Connection) -> None:
        """End a connection's call; for RawResponse only."""
        if connection.end() and not self._closed:
            self._pool.put(connection)
        else:
            connection.cut()

    async def _send(self, request: UpstreamRequest, timeouts: Timeouts, *, whole: bool) -> UpstreamResponse:
        origin, head = self._heads.of(request)
        total_at = monotonic() + timeouts.total
        connection = self._pool.take(origin)
        bodiless, tried = request.method == "HEAD", False
        while True:
            if connection is None:
                try:
                    connection = await self._dial(origin, timeouts, total_at)
                except UpstreamUnavailableError as error:
                    error.delivered = tried  # the first try did write
                    raise
            connection.begin(head, request.body, timeouts=timeouts, total_at=total_at, bodiless=bodiless, whole=whole)
            try:
                await connection.head()
                break
            except StaleConnectionError:  # never of one that was dialled just now
                connection, tried = None, True
        if not connection.incoming.encoded:
            return RawResponse(self, connection, connection.incoming.headers)
        headers = dict(connection.incoming.headers)
        try:
            decoder = decoder_for(headers, bodiless=bodiless)
        except UpstreamProtocolError:
            connection.cut()
            raise
        return RawResponse(self, connection, headers, decoder)

    async def _dial(self, origin: Origin, timeouts: Timeouts, total_at: float) -> Connection:
        connection = Connection(origin, self._timers, self._lost, self._space)
        self._open.add(connection)
        ready = False
        try:
            await self._dialer.dial(connection, timeouts, total_at)
            ready = not self._closed
        finally:
            if not ready:
                self._open.discard(connection)
                connection.cut()
        if not ready:
            raise UpstreamUnavailableError("the transport was closed", delivered=False)
        return connection

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._pool.discard(connection)


class RawResponse(UpstreamResponse):
    """A response on one connection; after its end, its failure or `close` it has none and cannot touch it any more."""

    __slots__ = ("_connection", "_decoder", "_failure", "_transport", "headers", "status")

    def __init__(
        self,
        transport: RawTransport,
        connection: Connection,
        headers: Mapping[str, str],
        decoder: BodyDecoder | None = None,
    ) -> None:
        incoming = connection.incoming
        self.status = incoming.status
        self.headers = headers
        self._transport = transport
        self._connection: Connection | None = connection
        self._decoder = decoder
        self._failure: UpstreamError | None = None
        if incoming.complete and not incoming.parts:  # there is no body
            self._end()

    @property
    def ended(self) -> bool:
        return self._connection is None

    async def read(self, max_bytes: int) -> bytes:
        connection = self._connection
        if connection is not None and self._decoder is None:
            incoming = connection.incoming
            if incoming.waiting_bytes > max_bytes or (not incoming.complete and _told_bytes(self.headers) > max_bytes):
                self._too_large(max_bytes)
            if incoming.complete:
                body = incoming.take()
                self._end()
                return body
        pieces, size = [], 0
        while piece := await self.next_piece():
            size += len(piece)
            if size > max_bytes:
                self._too_large(max_bytes)
            pieces.append(piece)
        return b"".join(pieces)

    async def next_piece(self) -> bytes:
        if self._decoder is None:
            return await self._wire_piece()
        decoder = self._decoder
        try:
            while not (out := decoder.pull()):
                piece = await self._wire_piece()
                if not piece:
                    decoder.finish()
                    return b""
                decoder.push(piece)
        except UpstreamProtocolError as error:
            self._failure = error
            self.close()
            raise
        return out

    def close(self) -> None:
        if self._connection is not None:
            if self._failure is None and not self._connection.drained:
                self._failure = UpstreamUnavailableError("the response was closed before its end")
            self._end()

    async def _wire_piece(self) -> bytes:
        connection = self._connection
        if connection is None:
            if self._failure is not None:
                raise self._failure
            return b""
        done = False
        try:
            piece = await connection.piece(self.taker if self._decoder is None else None)
            done = True
        except UpstreamError as error:
            self._failure = self._failure or error
            raise
        finally:
            if not done:
                self.close()
        if connection.drained:
            self._end()
        return piece

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport.release(connection)

    def _too_large(self, max_bytes: int) -> None:
        self._failure = UpstreamProtocolError(f"the provider's response is larger than {max_bytes} bytes")
        self.close()
        raise self._failure


def _told_bytes(headers: Mapping[str, str]) -> int:
    """Return how long the body is said to be, 0 where that is not told."""
    length = headers.get("content-length", "")
    return int(length) if len(length) <= 20 and length.isdecimal() else 0  # noqa: PLR2004 - a 64-bit number
