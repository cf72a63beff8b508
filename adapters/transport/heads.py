"""The heads of one transport's requests: what was checked once is kept as bytes, since calls differ in little but their ids.

A line is kept by its name and value, so nothing is ever sent that was not checked as it stands. Lines may hold keys; nothing
here shows them, and they are forgotten by the hundred as others come.
"""

from adapters.base import UpstreamRequest
from adapters.transport.outgoing import Origin, checked_line, checked_method, parse_url

_TARGETS_MAX = 512
_LINES_MAX = 256
_LINE_BYTES_MAX = 1024  # longer ones are checked each time
_LAST = b"accept-encoding: identity\r\n\r\n"
_BODILESS = frozenset({"GET", "HEAD"})


class Heads:
    """Makes the bytes before a body, and tells where they go."""

    def __init__(self) -> None:
        self._targets: dict[str, tuple[Origin, bytes]] = {}
        self._lines: dict[tuple[str, str], bytes] = {}

    def of(self, request: UpstreamRequest) -> tuple[Origin, bytes]:
        """Return the origin, and request line and headers. Raises InvalidRequestError for what must not be sent."""
        origin, rest = self._targets.get(request.url) or self._target(request.url)
        method, body, lines = request.method, request.body, self._lines
        out = [b"POST" if method == "POST" else checked_method(method), rest]
        for pair in request.headers:
            line = lines.get(pair)
            out.append(self._line(pair) if line is None else line)
        out.append(b"content-length: %d\r\n%b" % (len(body), _LAST) if body or method not in _BODILESS else _LAST)
        return origin, b"".join(out)

    def _target(self, url: str) -> tuple[Origin, bytes]:
        target = parse_url(url)
        if len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
        rest = f" {target.path} HTTP/1.1\r\nhost: {target.authority}\r\n".encode("latin-1")
        self._targets[url] = found = (target.origin, rest)
        return found

    def _line(self, pair: tuple[str, str]) -> bytes:
        line = checked_line(*pair)
        if len(line) <= _LINE_BYTES_MAX:
            if len(self._lines) >= _LINES_MAX:
                self._lines.clear()
            self._lines[pair] = line
        return line
