"""One connection: one request at a time, each of its waits with a limit.

There is no timer here: the server looks at `deadline_s` from time to time. What a stranger would get wrong: bytes behind a request are not read. The first is answered, then
the connection ends, since where the next request begins is just what an attacker would like to choose.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import asyncio
import contextlib
import logging
import math
import socket
from typing import TYPE_CHECKING

from proxy.errors import ClientError
from proxy.serving.headers import Headers
from proxy.serving.incoming import Incoming
from proxy.serving.refusing import FULL, INTERNAL, MALFORMED, broken
from proxy.serving.request import Request
from proxy.serving.response import Answer, Response, StreamedResponse

if TYPE_CHECKING:
    from proxy.serving.server import Server

SEND_BYTES = 64 * 1024
WRITE_BYTES = 16 * 1024  # waiting for one client; above it the provider is held back
KEEPALIVE_S = 75.0
LINGER_S = 1.0  # for what a client still sends, so that it comes to read what it was told
EARLY_BYTES_MAX = 64 * 1024  # of a next request, sent while the last one is being put away
_FAR_S = math.inf


class Connection(asyncio.Protocol):
    """`deadline_s` is when it is cut off, on the loop's clock; `stall_s` how long the client of this answer may refuse to read."""

    __slots__ = (
        "_deaf", "_drained", "_early", "_incoming", "_loop", "_server", "_stream", "_task",
        "dates", "deadline_s", "stall_s", "transport", "writing_paused",
    )  # fmt: skip

    def __init__(self, server: "Server") -> None:
        self._server, self._loop, self.dates = server, asyncio.get_running_loop(), server.dates
        self.transport: asyncio.Transport | None = None
        self.stall_s, self.deadline_s = server.stall_s, _FAR_S
        self.writing_paused = False
        self._incoming = Incoming(self, server.max_body_bytes)
        self._task: asyncio.Task[None] | None = None
        self._drained: list[asyncio.Future[None]] = []
        self._deaf = False  # whatever comes now is not read
        self._stream: StreamedResponse | None = None  # the answer under way, if it leaves in pieces
        self._early = b""  # of the next request

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of a request's head."""
        return self._incoming.request is None and not self._deaf

    @property
    def unsent_bytes(self) -> int:
        """What the client has not taken yet, as far as we hold it."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def cut(self) -> None:
        """Close at once, whatever is still to be written."""
        if self.transport is not None:
            self.transport.abort()

    def cancel(self) -> asyncio.Task[None] | None:
        """Cancel the call under way, if there is one; return its task."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What serves the call under way."""
        return self._task

    # asyncio's side ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # the kernel's part grows to megabytes otherwise, and is the pod's memory too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self.deadline_s = self._loop.time() + self._server.header_s
        if not self._server.admit(self):
            transport.write(FULL)
            self._linger() if self._server.may_linger else self.end()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport, self._deaf = None, True
        self._server.lost(self)
        self._let_go()
        if self._incoming.request is not None:
            self._incoming.request.wake()
        self._incoming.end()
        self.cancel()

    def eof_received(self) -> bool:
        return False  # half a connection is none: whoever sends no more is taken to be gone

    def pause_writing(self) -> None:
        self.writing_paused = True
        self.deadline_s = self._loop.time() + self.stall_s

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._task is not None:
            self.deadline_s = _FAR_S
        self._let_go()

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ConnectionResetError."""
        if self.transport is not None and self.writing_paused:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            try:
                await waiter
            finally:
                self._drained.remove(waiter)
        if self.transport is None:
            raise ConnectionResetError("the client is gone")

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        request = self._incoming.request
        if request is not None and request.complete:
            self._behind(data)
            return
        incoming = self._incoming
        begins = not incoming.fed_bytes
        if not incoming.feed(data):
            self._malformed()
        elif request is not None:
            if request.complete and self._task is None:  # the answer went out before the last of the body came in
                self._next()
        elif incoming.request is not None:
            self._server.busy(self)
            self._begin(incoming.request)
        elif begins:
            self.deadline_s = min(self.deadline_s, self._loop.time() + self._server.header_s)

    # what comes -------------------------------------------------------------------------------------------------------

    def _behind(self, data: bytes) -> None:
        """Bytes behind a whole request: those of the next one if this one has its answer, else one too many."""
        if self._stream is not None and self._stream.ended:
            self._early += data
            if len(self._early) > EARLY_BYTES_MAX and self.transport is not None:
                self.transport.pause_reading()
        elif data.strip(b"\r\n"):
            self._incoming.behind = True

    def _malformed(self) -> None:
        """Answer with a constant, or let who reads the body do so."""
        request, self._deaf = self._incoming.request, True
        if request is not None and self._task is not None:
            request.broken, request.keep_alive = True, False
            request.wake()
            return
        if request is not None and request.unwanted:  # it has its answer
            self._linger()
            return
        nobody = Request(self, "", "/", (1, 0), Headers({}), max_body_bytes=0, keep_alive=False)
        self._refuse(nobody, broken(400, MALFORMED))

    def pause_body(self) -> None:
        """Let the client wait with the rest of the body."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_body(self) -> None:
        """Let it come, and tell a client that waits for this that it is wanted."""
        if self.transport is None:
            return
        self.transport.resume_reading()
        request = self._incoming.request
        if request is not None and request.expects and self._stream is None:
            request.expects = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # what goes --------------------------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        self.stall_s, self.deadline_s = self._server.stall_s, _FAR_S
        wrong = self._server.judge(request)
        if wrong is not None:
            self._refuse(request, wrong)
            return
        if not request.complete:
            self.deadline_s = self._loop.time() + self._server.body_s
        self._task = self._loop.create_task(self._serve(request))

    def answering(self, stream: StreamedResponse) -> None:
        """An answer leaves in pieces from now on."""
        self._stream = stream
        if self._incoming.request is not None:
            self._judge_keep_alive(self._incoming.request)

    def _judge_keep_alive(self, request: Request) -> None:
        """After this answer it ends if we end, if more came than a request, or if the client may keep its body to itself."""
        if self._incoming.behind or self._server.closing or (request.expects and not request.complete):
            request.keep_alive = False

    async def _serve(self, request: Request) -> None:
        served = False
        try:
            answer = await self._server.handler(request)
            await self._send(request, answer)
            served = True
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the client gets an answer or an end
            served = await self._failed(request, error)
        finally:
            self._task = None
            if not served:
                self.cut()
        self._next()

    async def _send(self, request: Request, answer: Answer) -> None:
        """Raises ConnectionResetError and ValueError."""
        if not isinstance(answer, Response):
            await answer.write_eof()
            return
        if self.transport is None:
            raise ConnectionResetError("the client is gone")
        self._judge_keep_alive(request)
        answer.send(request, self.transport)
        if self.writing_paused:
            await self.drain()

    async def _failed(self, request: Request, error: Exception) -> bool:
        """Say that it was us, if nothing has been said yet; return whether the connection is still whole."""
        if self.transport is None or (self._stream is not None and isinstance(error, ConnectionError)):
            return False
        told = (error.status, error.body()) if isinstance(error, ClientError) else (500, INTERNAL)
        if not isinstance(error, ClientError):
            logging.getLogger("bursar").error(
                "a call failed in Bursar itself: %s", type(error).__name__, exc_info=_without_message(error)
            )
        if self._stream is None:
            await self._send(request, broken(*told))
        return self._stream is None

    def _refuse(self, request: Request, answer: Response) -> None:
        """Answer without asking anybody; then the connection ends."""
        self._deaf = True
        if self.transport is not None:
            answer.send(request, self.transport)
            self._linger()

    def _next(self) -> None:
        """Go on after an answer: to the next request, to the rest of this one, or to the end."""
        request, transport = self._incoming.request, self.transport
        if transport is None or request is None:
            return
        if not request.keep_alive or self._incoming.behind or self._deaf:
            if request.complete and not self._incoming.behind:
                self.end()
            else:
                self._linger()
        elif not request.complete:
            request.discard()
            self.deadline_s = self._loop.time() + LINGER_S
            transport.resume_reading()
        else:
            early, self._early, self._stream = self._early, b"", None
            self._incoming.expect()
            self._server.idle(self)
            self.deadline_s = self._loop.time() + KEEPALIVE_S
            if early:
                transport.resume_reading()
                self.data_received(early)

    def end(self) -> None:
        """Close as soon as everything is written."""
        self._deaf = True
        if self.transport is not None:
            self.deadline_s = self._loop.time() + self.stall_s
            self.transport.close()

    def _linger(self) -> None:
        """Say no more, and wait a little for the client to say no more either: closing in its face would take our answer back."""
        self._deaf = True
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        unread = transport.get_write_buffer_size()
        self.deadline_s = self._loop.time() + (self.stall_s if unread else LINGER_S)
        transport.resume_reading()
        transport.write_eof()

    def _let_go(self) -> None:
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)


def _without_message(error: BaseException) -> BaseException:
    """The same kind of error and trace, without its text, which may hold a prompt."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
