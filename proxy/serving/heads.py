"""The bytes of an answer's head.

Names and order are those that clients have always had from us. A value with a line's end in it would be a header of somebody
else's making: such a head is never written.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

SERVER = "bursar"  # which software in which version is nobody's business
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NO_CONTENT, _NOT_MODIFIED, _OK = 204, 304, 200


class Dates:
    """The lines of an answer that say when and by whom; written anew once a second."""

    __slots__ = ("_at_s", "_lines")

    def __init__(self) -> None:
        self._at_s, self._lines = -1, b""

    def lines(self) -> bytes:
        """Return both lines."""
        now_s = int(time.time())  # noqa: TID251 - a Date header is wall time
        if now_s != self._at_s:
            self._at_s, self._lines = (
                now_s,
                b"Date: %b\r\nserver: %b\r\n" % (http_date(now_s).encode(), SERVER.encode()),
            )
        return self._lines


def http_date(at_s: int) -> str:
    """Return a time as HTTP has it. Source: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7"""
    t = time.gmtime(at_s)
    clock = f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
    return f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} {clock} GMT"


@lru_cache(maxsize=256)
def status_line(status: int, version: tuple[int, int]) -> bytes:
    """Return the first line of an answer to a request of this version."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/{version[0]}.{version[1]} {status} {phrase}\r\n".encode()


@lru_cache(maxsize=16)
def type_line(content_type: str) -> bytes:
    """Return the line that says what a body is."""
    return f"Content-Type: {content_type}\r\n".encode()


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Return headers as they are sent. Raises ValueError for one that would be more than one line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    count = len(headers)
    if text.count("\n") != count or text.count("\r") != count or "\0" in text:
        raise ValueError("a header of an answer has a line's end in it")
    return text.encode("utf-8", "surrogateescape")


def connection_line(version: tuple[int, int], *, keep_alive: bool) -> bytes:
    """Return what says that the connection stays or ends, where the version's own rule does not."""
    if keep_alive:
        return b"Connection: keep-alive\r\n" if version == (1, 0) else b""
    return b"Connection: close\r\n" if version == (1, 1) else b""


def bodiless(method: str, status: int) -> bool:
    """Whether an answer ends with its head, whatever that says. Source: https://www.rfc-editor.org/rfc/rfc9112#section-6.3"""
    return method == "HEAD" or status in (_NO_CONTENT, _NOT_MODIFIED) or status < _OK
