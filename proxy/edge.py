"""The data listener's protocol: aiohttp's own, with the limits that it lacks and without the echoes that it has.

aiohttp waits for ever for a request's head, answers a malformed one with the offending line, key and all, and logs it. Here a head
has a time limit, and every failure before routing is a constant answer in OpenAI's shape.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.errors import ClientError
from proxy.wellformed import LINE_BYTES_MAX, fault, foreign

SEND_BYTES = 64 * 1024
WRITE_BYTES = 16 * 1024  # waiting for one client; above it the provider is held back
SERVER = "bursar"  # which software in which version is nobody's business
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_silent = logging.getLogger("bursar.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class EdgeServer(web.Server):
    """Makes one protocol per connection, and refuses connections above a bound.

    `open_to_all`: no key is asked for, so pages of other sites must be kept out.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        max_body_bytes: int,
        header_s: float,
        max_connections: int,
        stall_s: float = 60.0,
        open_to_all: bool = False,
    ) -> None:
        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            return EdgeRequest(
                message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=max_body_bytes
            )

        async def guarded(request: web.BaseRequest) -> web.StreamResponse:
            let_stall(request, stall_s)
            wrong = fault(request.method, request.raw_path, request.version, request.raw_headers)
            if wrong is None and open_to_all and foreign(request.raw_headers):
                wrong = 403, "Without keys, only programs of this machine are answered; set auth: {mode: keys}."
            if wrong is not None:
                return _refused(*wrong)
            if "expect" in request.headers and not request.content.is_eof() and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return await handler(request)

        super().__init__(guarded, request_factory=request, handler_cancellation=True)
        self.header_s, self.stall_s, self.max_connections = header_s, stall_s, max_connections
        self.open_total = 0

    def __call__(self) -> RequestHandler:
        return EdgeProtocol(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            logger=_silent,
            keepalive_timeout=75.0,
            lingering_time=1.0,
            read_bufsize=2**16,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            auto_decompress=False,  # an encoded body is refused, not unpacked: it may be a bomb
        )

    def make_room(self) -> bool:
        """Cut the connection that has waited longest between requests; False if all are at work."""
        for protocol in self.connections:
            if isinstance(protocol, EdgeProtocol) and protocol.is_idle:
                protocol.cut()
                return True
        return False


class EdgeRequest(web.BaseRequest):
    """A request whose answer does not say what serves it."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers["server"] = SERVER


class EdgeProtocol(RequestHandler):
    """One connection: one request at a time, each of its waits with a limit. `stall_s` is that of the answer under way."""

    __slots__ = ("_edge", "_head_timer", "_stall_timer", "stall_s")

    def __init__(self, manager: EdgeServer, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._edge, self.stall_s = manager, manager.stall_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of a request's head."""
        return self._waiter is not None and not self._waiter.done()

    def cut(self) -> None:
        """Close at once, whatever is still to be written."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        full = self._edge.open_total >= self._edge.max_connections and not self._edge.make_room()
        super().connection_made(transport)
        self._edge.open_total += 1
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        with contextlib.suppress(
            OSError
        ):  # the kernel's part grows to megabytes otherwise, and is the pod's memory too
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if full:
            transport.write(_FULL)
            transport.close()
            return
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._edge.open_total -= 1
        self._end_head()
        self._end_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        idle = self.is_idle
        if idle and self._head_timer is None:
            self._await_head()
        super().data_received(data)
        if self._messages:
            self._end_head()
            if len(self._messages) > idle:
                self.close()  # a request behind a request: the first is answered, then the connection ends

    def pause_writing(self) -> None:
        super().pause_writing()
        self._end_stall()
        self._stall_timer = asyncio.get_running_loop().call_later(self.stall_s, self.cut)

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        if isinstance(transport, asyncio.Transport) and transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self.stall_s, transport.abort)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer with a constant: what aiohttp would say holds the line that it could not read."""
        error = ClientError(400, "We could not read your HTTP request.") if status < 500 else _internal()  # noqa: PLR2004
        if exc is not None and status >= 500:  # noqa: PLR2004
            logging.getLogger("bursar").error(
                "a call failed in Bursar itself: %s", type(exc).__name__, exc_info=_without_message(exc)
            )
        return web.Response(
            status=error.status, body=error.body(), content_type="application/json", headers={"connection": "close"}
        )

    def log_access(self, *_: Any) -> None:
        """Write nothing: a call's own line is written where the call ends."""

    def _await_head(self) -> None:
        self._head_timer = asyncio.get_running_loop().call_later(self._edge.header_s, self.cut)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


def let_stall(request: web.BaseRequest, stall_s: float) -> None:
    """Let the client of this request refuse to read for so long, instead of the listener's own limit."""
    if isinstance(request.protocol, EdgeProtocol):
        request.protocol.stall_s = stall_s


def _refused(status: int, message: str) -> web.Response:
    error = ClientError(status, message)
    response = web.Response(status=status, body=error.body(), content_type="application/json")
    response.force_close()
    return response


def _internal() -> ClientError:
    return ClientError(500, "Bursar failed to handle this request.", type="server_error", code="internal_error")


def _without_message(error: BaseException) -> BaseException:
    """The same kind of error and trace, without its text, which may hold a prompt."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)


_FULL_BODY = ClientError(503, "Too many connections.", type="server_error", code="overloaded").body()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    + b"server: %s\r\n" % SERVER.encode()
    + b"content-length: %d\r\n\r\n" % len(_FULL_BODY)
    + _FULL_BODY
)
