"""Server-sent events: bytes in, events out, however the bytes are cut.

Lines end at CR, LF or CRLF and nowhere else (`splitlines()` would also cut at U+2028). An event without its blank line
at the end is not dispatched. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from dataclasses import dataclass

from adapters.base import JSON
from adapters.exact import dumps_exact

EVENT_BYTES_MAX = 4 * 1024 * 1024
_CR, _LF = 0x0D, 0x0A
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLargeError(Exception):
    """One event passed EVENT_BYTES_MAX before its end."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event: its name (empty if none was given) and its data lines, joined with LF."""

    name: str
    data: bytes


class Decoder:
    """Incremental decoder; `feed` may be called with pieces of any size."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._scanned = 0  # of the rest: it holds no line end, and a long line is not searched again with every piece
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._skip_lf = False  # the last piece ended in CR: a LF at the start of the next belongs to it
        self._first = True

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes. Raises EventTooLargeError."""
        if not piece:
            return []
        self._rest += piece
        if self._first:
            if len(self._rest) < 3 and b"\xef\xbb\xbf".startswith(bytes(self._rest)):  # noqa: PLR2004 - a BOM is three bytes
                return []
            if self._rest.startswith(b"\xef\xbb\xbf"):
                del self._rest[:3]
            self._first = False
        if self._skip_lf and self._rest:
            self._skip_lf = False
            if self._rest[0] == _LF:
                del self._rest[:1]
        return self._lines()

    def _lines(self) -> list[Event]:
        events: list[Event] = []
        start = 0
        for end in _LINE_END.finditer(self._rest, self._scanned):
            event = self._line(bytes(self._rest[start : end.start()]))
            start = end.end()
            if event is not None:
                events.append(event)
        self._skip_lf = start > 0 and start == len(self._rest) and self._rest[-1] == _CR
        del self._rest[:start]
        self._scanned = len(self._rest)
        if self._size + len(self._rest) > EVENT_BYTES_MAX:
            raise EventTooLargeError
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Event | None:
        event = Event(self._name, b"\n".join(self._data)) if self._data else None
        self._name, self._data, self._size = "", [], 0
        return event


def encode(chunk: JSON) -> bytes:
    """Return one OpenAI stream event; JSON escapes every line end, so no content can forge an event."""
    return b"data: " + dumps_exact(chunk) + b"\n\n"


DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n"  # one line end: a blank line after an `id:` field breaks an SDK
