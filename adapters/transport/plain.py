"""The plain transport: aiohttp's client under the same promises, for where the fast one does not apply.

It keeps no connection after a call. aiohttp hands out idle connections whatever they have received meanwhile, so that one
call's late bytes could become the next one's answer; a new connection each time rules that out, at the price of a handshake.
aiohttp connects and agrees on TLS in one step: a limit that passes there has the phase `connect`. It knows no limit for 1xx
responses but the one on the first token.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import HttpVersion10, HttpVersion11, hdrs
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from adapters.base import UpstreamRequest
from adapters.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeoutError, UpstreamUnavailableError
from adapters.transport.base import Timeouts, Transport, UpstreamResponse
from adapters.transport.decode import BodyDecoder, decoder_for
from adapters.transport.incoming import HEAD_BYTES_MAX
from adapters.transport.options import TransportOptions, tls_context
from adapters.transport.outgoing import checked_method, is_sendable, parse_url
from adapters.transport.tunnel import parse_proxy

_BUFFER_BYTES = 16 * 1024  # aiohttp holds back the provider at twice this
_AT_ONCE_BYTES = 512 * 1024  # aiohttp warns of longer bytes, since it would send them in one step
_SKIPPED = frozenset({hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.CONTENT_TYPE})  # what aiohttp would add by itself


class PlainTransport(Transport):
    """One aiohttp session; made on first use, on the loop that sends. Raises ValueError."""

    def __init__(self, options: TransportOptions | None = None) -> None:
        self._options = options or TransportOptions()
        self._proxy = parse_proxy(self._options.proxy) if self._options.proxy else None
        self._session: aiohttp.ClientSession | None = None
        self._responses: set[PlainResponse] = set()
        self._closed = False

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send as Transport.send says. Raises InvalidRequestError too, for a URL or header that must not be sent."""
        target = parse_url(request.url)
        checked_method(request.method)  # the same refusals as in `raw`
        sendable = [(name, value) for name, value in request.headers if is_sendable(name, value)]
        if self._closed:
            raise UpstreamUnavailableError("the transport was closed", delivered=False)
        clock = _Clock(timeouts, target.origin.host)
        headers = CIMultiDict([*sendable, ("accept-encoding", "identity"), ("host", target.authority)])
        async with clock.limit(*clock.first()), _mapped(target.origin.host):
            answer = await self._open_session().request(
                request.method,
                URL(request.url, encoded=True),
                headers=headers,
                data=_payload(request.body),
                allow_redirects=False,
                skip_auto_headers=_SKIPPED,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect + timeouts.tls),
                proxy=None if self._proxy is None else f"http://{self._proxy.host}:{self._proxy.port}",
                proxy_headers=self._proxy_headers(),
            )
        try:
            response = PlainResponse(self, answer, clock, bodiless=request.method == "HEAD")
        except UpstreamProtocolError:
            answer.close()
            raise
        self._responses.add(response)
        return response

    async def close(self) -> None:
        self._closed = True
        for response in tuple(self._responses):
            response.close()
        if self._session is not None:
            await self._session.close()

    def release(self, response: "PlainResponse") -> None:
        """Forget a response that has ended; for PlainResponse only."""
        self._responses.discard(response)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    force_close=True,
                    ssl=tls_context(self._options),
                    ttl_dns_cache=int(self._options.dns_ttl_s),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=_BUFFER_BYTES,
                max_line_size=HEAD_BYTES_MAX,
                max_field_size=HEAD_BYTES_MAX,
            )
        return self._session

    def _proxy_headers(self) -> dict[str, str] | None:
        if self._proxy is None or self._proxy.authorization is None:
            return None
        return {hdrs.PROXY_AUTHORIZATION: self._proxy.authorization}


class PlainResponse(UpstreamResponse):
    """A response of aiohttp's."""

    def __init__(
        self, transport: PlainTransport, answer: aiohttp.ClientResponse, clock: "_Clock", *, bodiless: bool
    ) -> None:
        self.status = answer.status
        self.headers = headers = {name.lower(): value for name, value in answer.headers.items()}
        if not 200 <= answer.status <= 599 or answer.version not in {HttpVersion10, HttpVersion11}:  # noqa: PLR2004 - what HTTP defines as a final status
            raise UpstreamProtocolError("the provider's response is not HTTP/1.1")
        if headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise UpstreamProtocolError("the provider's response has a transfer-encoding that was not asked for")
        if sum(len(name) + len(value) + 4 for name, value in answer.raw_headers) > HEAD_BYTES_MAX:
            raise UpstreamProtocolError("the provider's response has too large a head")
        self._decoder: BodyDecoder | None = decoder_for(headers, bodiless=bodiless)
        self._transport, self._answer, self._clock = transport, answer, clock
        self._failure: UpstreamError | None = None
        self._ended = self._begun = False
        _tell_of_broken_framing(answer)

    async def read(self, max_bytes: int) -> bytes:
        pieces, size = [], 0
        while piece := await self.next_piece():
            size += len(piece)
            if size > max_bytes:
                self._failure = UpstreamProtocolError(f"the provider's response is larger than {max_bytes} bytes")
                self.close()
                raise self._failure
            pieces.append(piece)
        return b"".join(pieces)

    async def next_piece(self) -> bytes:
        if self._decoder is None:
            return await self._wire_piece()
        try:
            while not (out := self._decoder.pull()):
                piece = await self._wire_piece()
                if not piece:
                    self._decoder.finish()
                    return b""
                self._decoder.push(piece)
        except UpstreamProtocolError as error:
            self._failure = error
            self.close()
            raise
        return out

    def close(self) -> None:
        if not self._ended:
            if self._failure is None and not self._answer.content.at_eof():
                self._failure = UpstreamUnavailableError("the response was closed before its end")
            self._end()

    async def _wire_piece(self) -> bytes:
        if self._ended:
            if self._failure is not None:
                raise self._failure
            return b""
        limit = self._clock.idle() if self._begun else self._clock.first()
        done = False
        try:
            async with self._clock.limit(*limit), _mapped(self._clock.host):
                piece = await self._answer.content.readany()
            done = True
        except UpstreamError as error:
            self._failure = self._failure or error
            raise
        finally:
            if not done:
                self.close()
        self._begun = True
        if self._failure is not None:  # closed meanwhile by another task
            raise self._failure
        if not piece:
            self._end()
        return piece

    def _end(self) -> None:
        self._ended = True
        self._answer.close()
        self._transport.release(self)


def _tell_of_broken_framing(answer: aiohttp.ClientResponse) -> None:
    """Wake the reader of a body whose framing broke after its head; aiohttp closes the connection and tells nobody."""
    content = answer.content
    protocol = answer.connection.protocol if answer.connection is not None else None
    closed = protocol.closed if protocol is not None else None

    def tell(done: "asyncio.Future[None]") -> None:
        done.exception()  # else asyncio reports that nobody has asked for it
        if not content.is_eof() and content.exception() is None:
            content.set_exception(UpstreamProtocolError("the provider's response is malformed"))

    if closed is not None:
        closed.add_done_callback(tell)


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    return io.BytesIO(body) if len(body) > _AT_ONCE_BYTES else body or None


class _Clock:
    """The limits of one call."""

    def __init__(self, timeouts: Timeouts, host: str) -> None:
        self.host = host
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._begun_at = self._loop.time()

    def first(self) -> tuple[str, float]:
        """Return the phase and the time by which the first body byte must have come."""
        return "first_token", self._begun_at + self._timeouts.first_token

    def idle(self) -> tuple[str, float]:
        """Return the phase and the time by which the next piece must have come."""
        return "idle", self._loop.time() + self._timeouts.idle

    @asynccontextmanager
    async def limit(self, phase: str, at: float) -> AsyncIterator[None]:
        """Give what is inside until `at`, or until the total limit. Raises UpstreamTimeoutError."""
        total_at = self._begun_at + self._timeouts.total
        if total_at <= at:
            phase, at = "total", total_at
        try:
            async with asyncio.timeout_at(at):
                yield
        except TimeoutError as error:
            raise UpstreamTimeoutError(f"{self.host} passed the {phase} limit", phase=phase) from error


@asynccontextmanager
async def _mapped(host: str) -> AsyncIterator[None]:
    """Map aiohttp's errors. `from None` where its own error shows the request's headers or bytes of the answer."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise UpstreamTimeoutError(f"{host} passed the connect limit", phase="connect") from error
    except aiohttp.ClientConnectorCertificateError as error:
        reason = getattr(error.certificate_error, "verify_message", "it does not match")
        raise UpstreamUnavailableError(f"the certificate of {host} is not valid: {reason}", delivered=False) from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
        raise UpstreamUnavailableError(f"no connection to {host} could be made", delivered=False) from error
    except aiohttp.ClientPayloadError as error:
        if isinstance(error.__cause__, HttpProcessingError) and "Not enough data" not in str(error.__cause__):
            raise UpstreamProtocolError("the provider's response is malformed") from None
        raise UpstreamUnavailableError(f"{host} closed the connection before the end of its response") from None
    except aiohttp.ClientResponseError:
        raise UpstreamProtocolError("the provider's response is malformed") from None
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise UpstreamUnavailableError(f"{host} closed the connection before the end of its response") from error
