"""Reads one response at a time from the bytes of a connection; no I/O.

httptools (llhttp) is strict about framing but knows no limits, and says nothing of bytes that come after a response. Both
are kept here: `poisoned` is set by whatever follows a complete response, and such a connection must not be used again.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import httptools

from adapters.errors import UpstreamProtocolError

HEAD_BYTES_MAX = 64 * 1024  # of all heads of one response; also of trailers and chunk extensions
INTERIM_MAX = 16  # 1xx responses before the real one
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL, _LAST = 200, 599


class _StopParsingError(Exception):
    """Raised inside a callback of the parser to end it; what is wrong is already noted."""


class Incoming:
    """The response as far as it has come. `feed` never raises: what is broken becomes `error`."""

    __slots__ = (
        "_bodiless", "_head_bytes", "_interim", "_interims", "_parser", "_quiet_bytes",
        "body_bytes", "complete", "error", "head_done", "headers", "parts", "poisoned", "reusable", "status",
        "until_close", "waiting_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.expect()

    def expect(self, *, bodiless: bool = False) -> None:
        """Get ready for the next response; `bodiless` for the answer to HEAD."""
        self._bodiless = bodiless
        self._head_bytes = self._quiet_bytes = self._interims = 0
        self._interim = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []  # of the body, not yet taken
        self.waiting_bytes = 0  # of `parts`
        self.body_bytes = 0  # that have come in all
        self.head_done = False
        self.complete = False
        self.until_close = False  # the body ends with the connection: truncation cannot be seen
        self.reusable = False  # the connection may serve another call once this is complete
        self.poisoned = False
        self.error: UpstreamProtocolError | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take what was received; `data` is not kept."""
        body_bytes = self.body_bytes
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

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:
            return  # a trailer: nothing that Bursar relays may come so late
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_BYTES_MAX:
            self._stop("the provider's response has too large a head")
        key = name.lower().decode("latin-1")
        if key == "transfer-encoding" and (key in self.headers or value.strip().lower() != b"chunked"):
            self._stop("the provider's response has a transfer-encoding that was not asked for")
        self.headers[key] = value.decode("latin-1").rstrip(" \t")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL:
            self._take_interim(status)
            return
        version = self._parser.get_http_version()
        if status > _LAST or version not in {"1.1", "1.0"}:
            self._stop("the provider's response is not HTTP/1.1")
        self.status = status
        self.head_done = True
        if self._bodiless:
            self.complete = True  # the parser expects a body now, so the connection ends here
            return
        headers = self.headers
        self.until_close = (
            "content-length" not in headers and "transfer-encoding" not in headers and status not in {204, 304}
        )
        self.reusable = version == "1.1"

    def on_body(self, body: bytes) -> None:
        if self.complete:
            raise _StopParsingError
        self.parts.append(body)
        self.body_bytes += len(body)
        self.waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self.headers = {}
            return
        self.complete = True
        self.reusable = self.reusable and self._parser.should_keep_alive()

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
