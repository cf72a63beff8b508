"""Answers: one that is whole and leaves in one write, and one that leaves piece by piece.

What a stranger would get wrong: `tail` is written as it is, so it is only for lines that we made ourselves; names of headers are in
lower case.
"""

import asyncio
from collections.abc import Mapping

from proxy.serving.heads import bodiless, connection_line, header_lines, status_line, type_line
from proxy.serving.request import Request

_UNTYPED = b"Content-Type: application/octet-stream\r\n"
_JOINED_BYTES_MAX = 64 * 1024  # above it, copying costs more than a second write


class Response:
    """A whole answer. `tail` is header lines that are encoded already, each with its CRLF, the type among them; `close` ends the connection."""

    __slots__ = ("body", "close", "content_type", "headers", "status", "tail")

    def __init__(
        self,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "",
        tail: bytes = b"",
        close: bool = False,
    ) -> None:
        self.status, self.headers, self.body = status, headers or {}, body
        self.content_type, self.tail, self.close = content_type, tail, close

    def send(self, request: Request, transport: asyncio.Transport) -> None:
        """Write it. `request.keep_alive` then says whether another request may follow. Raises ValueError before a byte is written."""
        version, headers, body = request.version, self.headers, self.body
        empty = bodiless(request.method, self.status)
        said = headers.get("connection")
        if self.close or (said is not None and said.lower() == "close"):
            request.keep_alive = False
        head = b"".join((
            status_line(self.status, version),
            header_lines(headers) if headers else b"",
            self.tail,
            type_line(self.content_type) if self.content_type else b"",
            _length_of_none(request.method, self.status, len(body)) if empty else b"Content-Length: %d\r\n" % len(body),
            _UNTYPED if not (self.content_type or empty or not body or self.tail or "content-type" in headers) else b"",
            request.protocol.dates.lines(),
            b"" if said is not None else connection_line(version, keep_alive=request.keep_alive),
            b"\r\n",
        ))  # fmt: skip
        if empty or not body:
            transport.write(head)
        elif len(body) <= _JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)


def _length_of_none(method: str, status: int, count: int) -> bytes:
    """What an answer that ends with its head says of the body that it would have."""
    said = method == "HEAD" and count and not bodiless("", status)
    return b"Content-Length: %d\r\n" % count if said else b""


class StreamedResponse:
    """An answer that leaves piece by piece: `prepare`, `write` as often as it takes, `write_eof`.

    The head leaves with the first piece, or by itself where that is not there at once.
    """

    __slots__ = ("_empty", "_head", "_request", "chunked", "ended", "head_is_out", "headers", "prepared", "status")

    def __init__(self, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, {} if headers is None else headers
        self.prepared = self.ended = self.chunked = False
        self.head_is_out = False  # what is written to the connection now belongs to the body
        self._head = b""
        self._empty = False
        self._request: Request | None = None

    async def prepare(self, request: Request) -> None:
        """Begin. Raises ValueError for a header that is none, and ConnectionResetError."""
        transport, version = _open(request), request.version
        request.protocol.answering(self)
        self._empty = bodiless(request.method, self.status)
        self.chunked = version == (1, 1) and not self._empty
        if not (self.chunked or self._empty):
            request.keep_alive = False  # the body's end is the connection's
        headers = self.headers
        said = headers.get("connection")
        if said is not None and said.lower() == "close":
            request.keep_alive = False
        self._head = b"".join((
            status_line(self.status, version),
            header_lines(headers),
            b"Transfer-Encoding: chunked\r\n" if self.chunked else b"",
            b"" if self._empty or "content-type" in headers else _UNTYPED,
            request.protocol.dates.lines(),
            b"" if said is not None else connection_line(version, keep_alive=request.keep_alive),
            b"\r\n",
        ))  # fmt: skip
        self._request, self.prepared = request, True
        asyncio.get_running_loop().call_soon(self._flush, transport)

    async def write(self, data: bytes) -> None:
        """Send a piece; wait until the client has taken enough. Raises ConnectionResetError."""
        assert self._request is not None
        if not data or self._empty:
            return
        transport, protocol = _open(self._request), self._request.protocol
        head, self._head, self.head_is_out = self._head, b"", True
        transport.write(head + self._framed(data))
        if protocol.writing_paused:
            await protocol.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Send a last piece, if there is one, and say that this was all. Raises ConnectionResetError."""
        if self.ended:
            return
        assert self._request is not None
        transport, protocol = _open(self._request), self._request.protocol
        last = self._head
        if data and not self._empty:
            last += self._framed(data)
        if self.chunked:
            last += b"0\r\n\r\n"
        self._head, self.head_is_out, self.ended = b"", False, True
        if last:
            transport.write(last)
        if protocol.writing_paused:
            await protocol.drain()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def _flush(self, transport: asyncio.Transport) -> None:
        if self._head and not transport.is_closing():
            head, self._head, self.head_is_out = self._head, b"", True
            transport.write(head)


Answer = Response | StreamedResponse


def _open(request: Request) -> asyncio.Transport:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    return transport
