"""Reads one request at a time from the bytes of a connection; no I/O.

httptools (llhttp) is strict about framing but knows no limits; those are kept here. What a stranger would get wrong: an offer to
speak another protocol ends HTTP for the parser, body or not, so the body behind an offer that we decline is read by a fresh one.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import httptools

from proxy.serving.headers import Headers
from proxy.serving.request import Connection, Request
from proxy.wellformed import HEAD_BYTES_MAX, LINE_BYTES_MAX

QUIET_BYTES_MAX = 64 * 1024  # of a chunked body that hold no byte of it
_VERSIONS = {"1.1": (1, 1), "1.0": (1, 0)}


class _StopParsingError(Exception):
    """Raised inside a callback of the parser to end it."""


class Incoming:
    """`request` is there once its head is, and `behind` set once something came after its body."""

    __slots__ = (
        "_again",
        "_by_name",
        "_connection",
        "_declining",
        "_grew",
        "_max_body_bytes",
        "_parser",
        "_target",
        "behind",
        "fed_bytes",
        "request",
    )

    def __init__(self, connection: Connection, max_body_bytes: int) -> None:
        self._connection, self._max_body_bytes = connection, max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self.expect()

    def expect(self) -> None:
        """Get ready for a request."""
        self.request: Request | None = None
        self.behind = False
        self.fed_bytes = 0  # of a head, or since the last byte of a body
        self._by_name: dict[bytes, bytes] = {}
        self._again: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._grew = False  # the body, since this was looked at
        self._declining = False  # an offer to speak another protocol

    def end(self) -> None:
        """Let go of the parser, which holds this, so that nothing waits for the garbage collector."""
        self.request = None
        del self._parser

    def feed(self, data: bytes) -> bool:
        """Take what came; False if it is no HTTP, or too much of it."""
        request, count = self.request, len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as stop:
            if not self._goes_on(stop, data):
                return False
        if self.request is None:
            self.fed_bytes += count
            return self.fed_bytes <= HEAD_BYTES_MAX + LINE_BYTES_MAX
        if request is None:
            long, self.fed_bytes = self.fed_bytes + count > LINE_BYTES_MAX, 0
            return not (long and self._too_long())
        if self._grew:
            self._grew, self.fed_bytes = False, 0
        else:
            self.fed_bytes += count
        return request.complete or self.fed_bytes <= QUIET_BYTES_MAX

    def _goes_on(self, stop: Exception, data: bytes) -> bool:
        """Say whether there is a request to serve although the parser stopped in this data."""
        if isinstance(stop, httptools.HttpParserUpgrade):
            try:
                self._decline(data[stop.args[0] :])
                return True
            except httptools.HttpParserError:
                pass
        self.behind = True
        return self.request is not None and self.request.complete

    def _decline(self, rest: bytes) -> None:
        """Read on after a head that offers another protocol. Raises HttpParserError."""
        assert self.request is not None
        self._parser, self.request.complete, self._declining = httptools.HttpRequestParser(self), False, True
        headers = (*self._by_name.items(), *self._again)
        framing = [header for header in headers if header[0] in (b"content-length", b"transfer-encoding")]
        head = b"POST / HTTP/1.1\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % header for header in framing])
        self._parser.feed_data(head + rest)

    def _too_long(self) -> bool:
        headers = (*self._by_name.items(), *self._again)
        return any(len(name) + len(value) > LINE_BYTES_MAX for name, value in headers)

    # what the parser calls --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins, which is one too many while there is another."""
        if self.request is not None and not self._declining:
            raise _StopParsingError

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url
        if len(self._target) > LINE_BYTES_MAX:
            raise _StopParsingError

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody reads."""
        if self.request is not None:
            return
        name, value = name.lower(), value.rstrip(b" \t")  # which is no part of it, and left to us
        if name in self._by_name:
            self._again.append((name, value))
        else:
            self._by_name[name] = value

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self._declining:
            self._declining = False
            return
        parser, said = self._parser, self._parser.get_http_version()
        self.request = Request(
            self._connection, parser.get_method().decode("latin-1"), self._target.decode("utf-8", "surrogateescape"),
            _VERSIONS.get(said) or (int(said[0]), int(said[2:])), Headers(self._by_name, self._again),
            max_body_bytes=self._max_body_bytes, keep_alive=parser.should_keep_alive(),
        )  # fmt: skip

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        assert self.request is not None
        self.request.take(data)
        self._grew = True

    def on_message_complete(self) -> None:
        """The body has come to its end."""
        assert self.request is not None
        self.request.complete = True
        self.request.wake()
