"""Cuts a stream of server-sent events into whole events without changing a byte of them.

`adapters.sse.Decoder` says what the events mean; this says where they end, for relaying them as received. What a stranger
would get wrong: a CR at the end of a piece may be half of a CRLF, so an event that seems to end there is not whole yet.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re

from adapters.sse import EVENT_BYTES_MAX, EventTooLargeError

_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"


class Frames:
    """Holds back the event that is not whole yet, at most EVENT_BYTES_MAX of it."""

    def __init__(self) -> None:
        self.rest = bytearray()  # what is held back

    def feed(self, piece: bytes) -> bytes:
        """Return the bytes of all events that are whole now, perhaps none. Raises EventTooLargeError."""
        if not self.rest and piece.endswith(b"\n\n"):
            return piece
        start = max(0, len(self.rest) - 3)  # an end is at most four bytes, and this piece holds the last of them
        self.rest += piece
        end = self._last_end(start)
        if end:
            whole = bytes(self.rest[:end])
            del self.rest[:end]
        else:
            whole = b""
        if len(self.rest) > EVENT_BYTES_MAX:
            raise EventTooLargeError
        return whole

    def flush(self) -> bytes:
        """Return, once, what was never made whole."""
        rest = bytes(self.rest)
        self.rest.clear()
        return rest

    def _last_end(self, start: int) -> int:
        if self.rest.find(b"\r", start) < 0:
            return self.rest.rfind(b"\n\n", start) + 2 if self.rest.find(b"\n\n", start) >= 0 else 0
        last, size = 0, len(self.rest)
        for match in _END.finditer(self.rest, start):
            if match.end() < size or self.rest.endswith(b"\n"):
                last = match.end()
        return last


def events(block: bytes) -> list[bytes]:
    """Cut a block of whole events into events, each with the blank line that ends it."""
    if b"\r" not in block:
        return _events_of_lf(block)
    found, start = [], 0
    for match in _END.finditer(block):
        found.append(block[start : match.end()])
        start = match.end()
    if start < len(block):
        found.append(block[start:])
    return found


def is_one_data_line(event: bytes) -> bool:
    """Tell whether an event is one line of data and nothing else, as most are."""
    return (
        event.startswith(b"data:")
        and event.find(b"\n") == len(event) - 2
        and event.endswith(b"\n")
        and b"\r" not in event
    )


def is_whole(event: bytes) -> bool:
    """Tell whether the event ends with its blank line."""
    return _END.fullmatch(event, len(event.rstrip(b"\r\n"))) is not None


def data_of(event: bytes) -> bytes:
    """Return the event's data, its lines joined with LF; b"" when it has none."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in _lines(event) if line.startswith(b"data:")]
    return b"\n".join(lines)


def field_names(event: bytes) -> set[bytes]:
    """Return the names of the event's fields; a comment's is b""."""
    return {line.partition(b":")[0] for line in _lines(event) if line}


def name_of(event: bytes) -> bytes:
    """Return the event's name, b"" if it has none."""
    names = [line[6:].strip() for line in _lines(event) if line.startswith(b"event:")]
    return names[-1] if names else b""


def _events_of_lf(block: bytes) -> list[bytes]:
    """As `events`, where every line ends in LF."""
    found, start = [], 0
    while (end := block.find(b"\n\n", start) + 2) > 1:
        found.append(block[start:end])
        start = end
    if start < len(block):
        found.append(block[start:])
    return found


def _lines(event: bytes) -> list[bytes]:
    return _LINE_END.split(event.removeprefix(BOM))
