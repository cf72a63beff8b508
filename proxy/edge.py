"""The data listener's protocol: aiohttp's own, with the limits that it lacks and without the echoes that it has.

aiohttp waits for ever for a request's head, answers a malformed one with the offending line, key and all, and logs it. Here a head
has a time limit, and every failure before routing is a constant answer in OpenAI's shape.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.errors import ClientError

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_silent = logging.getLogger("bursar.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class EdgeServer(web.Server):
    """Makes one protocol per connection, and refuses connections above a bound."""

    def __init__(self, handler: Handler, *, max_body_bytes: int, header_s: float, max_connections: int) -> None:
        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            return web.BaseRequest(
                message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=max_body_bytes
            )

        super().__init__(handler, request_factory=request, handler_cancellation=True)
        self.header_s, self.max_connections = header_s, max_connections
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
        )


class EdgeProtocol(RequestHandler):
    """One connection."""

    __slots__ = ("_edge", "_head_timer", "_seen_bytes")

    def __init__(self, manager: EdgeServer, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._edge = manager
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._edge.open_total += 1
        if self._edge.open_total > self._edge.max_connections and isinstance(transport, asyncio.Transport):
            transport.write(_FULL)
            transport.close()
            return
        self._await_head(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._edge.open_total -= 1
        self._cancel_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None and self._messages:
            self._cancel_timer()

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

    def _await_head(self, transport: asyncio.BaseTransport) -> None:
        def late() -> None:
            if isinstance(transport, asyncio.Transport):
                transport.abort()

        self._head_timer = asyncio.get_running_loop().call_later(self._edge.header_s, late)

    def _cancel_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _internal() -> ClientError:
    return ClientError(500, "Bursar failed to handle this request.", type="server_error", code="internal_error")


def _without_message(error: BaseException) -> BaseException:
    """The same kind of error and trace, without its text, which may hold a prompt."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)


_FULL_BODY = ClientError(503, "Too many connections.", type="server_error", code="overloaded").body()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    + b"content-length: %d\r\n\r\n" % len(_FULL_BODY)
    + _FULL_BODY
)
