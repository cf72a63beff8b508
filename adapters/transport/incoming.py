"""Reads one response at a time from the bytes of a connection; no I/O.

httptools (llhttp) is strict about framing but knows no limits, and says nothing of bytes that come after a response. Both
are kept here: `poisoned` is set by whatever follows a complete response, and such a connection must not be used again.
The parser is not asked for each header, which would cost more than all the rest: once it has found a head to be well formed, it
is kept as it came, and `Headers` takes it apart for whoever looks.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import httptools

from adapters.errors import UpstreamProtocolError
from adapters.transport.headers import Headers

HEAD_BYTES_MAX = 64 * 1024  # of all heads of one response; also of trailers and chunk extensions
INTERIM_MAX = 16  # 1xx responses before the real one
_END = b"\r\n\r\n"
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL, _LAST = 200, 599
_NONE = Headers(b"")
_CONTENT_ENCODING, _TRANSFER_ENCODING = b"\r\ncontent-encoding:", b"\r\ntransfer-encoding:"
_ENCODING = b"-encoding:"  # one search for both
_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"  # as nearly all write it


class _StopParsingError(Exception):
    """Raised inside a callback of the parser to end it; what is wrong is already noted."""


class Incoming:
    """The response as far as it has come. `feed` never raises: what is broken becomes `error`."""

    __slots__ = (
        "_bodiless", "_head", "_head_at", "_interim", "_interims", "_parser", "_quiet_bytes",
        "body_bytes", "complete", "encoded", "error", "head_done", "headers", "parts", "poisoned", "reusable", "status",
        "waiting_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.expect()

    def expect(self, *, bodiless: bool = False) -> None:
        """Get ready for the next response; `bodiless` for the answer to HEAD."""
        self._bodiless = bodiless
        self._head: bytes | bytearray = b""  # what has come before the end of the last head
        self._head_at = self._quiet_bytes = self._interims = 0
        self._interim = False
        self.status = 0
        self.headers = _NONE
        self.parts: list[bytes] = []  # of the body, not yet taken
        self.waiting_bytes = 0  # of `parts`
        self.body_bytes = 0  # that have come in all
        self.head_done = False
        self.complete = False
        self.encoded = False  # there is a content-encoding
        self.reusable = False  # the connection may serve another call once this is complete
        self.poisoned = False
        self.error: UpstreamProtocolError | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take what was received; `data` is not kept."""
        body_bytes = self.body_bytes
        if not self.head_done:
            if not self._head:
                self._head = bytes(data)
            else:
                self._gather(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self.complete:
                self.poisoned = True
            elif self.error is None:
                self.error = UpstreamProtocolError(f"the provider's response is malformed: {error}")
        if self.body_bytes == body_bytes:
            self._quiet_bytes += len(data)
            if self._quiet_bytes > HEAD_BYTES_MAX and not self.complete and self.error is None:
                self.error = UpstreamProtocolError("the provider's response has too large a head")
        else:
            self._quiet_bytes = 0

    @property
    def until_close(self) -> bool:
        """True when the body ends with the connection, so that it cannot be seen if it was cut."""
        framed = self._bodiless or self.status in {204, 304}
        headers = self.headers
        return self.head_done and not framed and "content-length" not in headers and "transfer-encoding" not in headers

    def take(self) -> bytes:
        """Return the body received since the last `take`, as one piece."""
        parts = self.parts
        piece = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.waiting_bytes = 0
        return piece

    def give_back(self, piece: bytes) -> None:
        """Have again what `take` returned just now."""
        self.parts.append(piece)
        self.waiting_bytes = len(piece)

    def forget(self) -> None:
        """Break the cycle between this and its parser, so that both go without a garbage collection."""
        del self._parser

    # called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise _StopParsingError

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        head = self._next_head()
        low = head.lower()
        if _ENCODING in low:
            self._check_encodings(low)
        if status < _FIRST_FINAL:
            self._take_interim(status)
            return
        modern = low.startswith(b"http/1.1 ")
        if status > _LAST or not (modern or low.startswith(b"http/1.0 ")):
            self._stop("the provider's response is not HTTP/1.1")
        self.status = status
        self.headers = Headers(head)
        self.head_done = True
        self._head = b""
        if self._bodiless:
            self.complete = True  # the parser expects a body now, so the connection ends here
            return
        self.reusable = modern

    def on_body(self, body: bytes) -> None:
        if self.complete:
            raise _StopParsingError
        self.parts.append(body)
        size = len(body)
        self.body_bytes += size
        self.waiting_bytes += size

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = self.encoded = False
            return
        self.complete = True
        self.reusable = self.reusable and self._parser.should_keep_alive()

    def _gather(self, data: bytes | memoryview) -> None:
        if isinstance(self._head, bytes):
            self._head = bytearray(self._head)
        self._head += data

    def _next_head(self) -> bytes:
        """Return the head that the parser has just read, from its status line up to the empty line."""
        all_heads, start = self._head, self._head_at
        while all_heads[start] in b"\r\n":
            start += 1  # the parser lets empty lines come first
        end = all_heads.find(_END, start)
        self._head_at = end + len(_END)
        if end < 0 or self._head_at > HEAD_BYTES_MAX:
            self._stop("the provider's response has too large a head")
        return bytes(all_heads[start:end])

    def _check_encodings(self, low: bytes) -> None:
        if low.count(_ENCODING) == 1 and _CHUNKED in low + b"\r\n":
            return
        if _TRANSFER_ENCODING in low and Headers(low).all("transfer-encoding") != ["chunked"]:
            self._stop("the provider's response has a transfer-encoding that was not asked for")
        self.encoded = _CONTENT_ENCODING in low

    def _take_interim(self, status: int) -> None:
        self._interims += 1
        if status == _SWITCHING_PROTOCOLS or status < 100:  # noqa: PLR2004 - no status is below 100
            self._stop("the provider answered with a protocol that was not asked for")
        if self._interims > INTERIM_MAX:
            self._stop("the provider sent too many interim responses")
        self._interim = True

    def _stop(self, message: str) -> None:
        self.error = UpstreamProtocolError(message)
        raise _StopParsingError
