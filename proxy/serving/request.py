"""One request, from its head to the last byte of its body.

The body is kept whole and never above its limit. What a stranger would get wrong: when `complete` is set, as it mostly is when the
handler begins, `read` does not wait; and a request that nobody reads holds its client back instead of growing.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from proxy.errors import ClientError
from proxy.serving.headers import Headers
from proxy.serving.heads import Dates
from proxy.serving.target import fields, parts

if TYPE_CHECKING:
    from proxy.serving.response import StreamedResponse

UNREAD_BYTES_MAX = 64 * 1024  # of a body that nobody has asked for yet


class BodyTooLargeError(ClientError):
    """413: a body is larger than its limit; what came of it is gone."""

    def __init__(self) -> None:
        super().__init__(413, "The body is too large.", code="request_too_large")


class Connection(Protocol):
    """What a request and its answer need of the connection they are on."""

    stall_s: float  # how long the client of the answer under way may refuse to read
    dates: Dates

    @property
    def transport(self) -> asyncio.Transport | None:
        """What to write to; None once the client is gone."""

    @property
    def writing_paused(self) -> bool:
        """Whether the client has more to read than is held for it."""

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ConnectionResetError."""

    def pause_body(self) -> None:
        """Let the client wait with the rest of the body."""

    def resume_body(self) -> None:
        """Let it come, and tell a client that waits for this that it is wanted."""

    def answering(self, stream: "StreamedResponse") -> None:
        """An answer leaves in pieces from now on."""


class Request:
    """`target` is as sent; `keep_alive` whether another request may follow."""

    __slots__ = (
        "_body", "_max_bytes", "_waiter", "broken", "complete", "expects", "headers", "keep_alive", "method", "path",
        "protocol", "raw_path", "raw_query", "target", "too_large", "unwanted", "version",
    )  # fmt: skip

    def __init__(
        self,
        protocol: Connection,
        method: str,
        target: str,
        version: tuple[int, int],
        headers: Headers,
        *,
        max_body_bytes: int,
        keep_alive: bool,
    ) -> None:
        self.protocol, self.method, self.target, self.version = protocol, method, target, version
        self.headers, self.keep_alive = headers, keep_alive
        self.raw_path, self.raw_query, self.path = parts(target)  # the first two as sent, without the question mark
        self.expects = b"expect" in headers.by_name  # the client waits to be told that its body is wanted
        self.complete = False  # the body has come to its end
        self.broken = False  # it never will
        self.too_large = False
        self.unwanted = False  # nobody will read it
        self._max_bytes = max_body_bytes
        self._body: bytes | bytearray = b""
        self._waiter: asyncio.Future[None] | None = None

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection's; None once the client is gone."""
        return self.protocol.transport

    @property
    def query(self) -> Mapping[str, str]:
        """The query's fields."""
        return fields(self.raw_query)

    @property
    def content_length(self) -> int | None:
        """What the head says; None for a body in chunks, and for none."""
        said = self.headers.by_name.get(b"content-length")
        return None if said is None else int(said)

    async def read(self) -> bytes:
        """Return the whole body. Raises BodyTooLargeError, ClientError 400 (what came is no HTTP) and ConnectionResetError."""
        if not self.complete:
            await self._rest()
        if self.too_large:
            raise BodyTooLargeError
        if not isinstance(self._body, bytes):
            self._body = bytes(self._body)
        return self._body

    async def _rest(self) -> None:
        self.protocol.resume_body()
        while not (self.complete or self.broken or self.too_large):
            if self.protocol.transport is None:
                raise ConnectionResetError("the client is gone")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.broken:
            raise malformed()

    def take(self, data: bytes) -> None:
        """Add what came of the body."""
        if self.unwanted or self.too_large:
            return
        body = self._body
        size_bytes = len(body) + len(data)
        if size_bytes > self._max_bytes:
            self.too_large, self._body = True, b""
            self.wake()
            return
        if not body:
            self._body = data
        else:
            if isinstance(body, bytes):
                self._body = body = bytearray(body)
            body += data
        if size_bytes > UNREAD_BYTES_MAX and self._waiter is None:
            self.protocol.pause_body()

    def discard(self) -> None:
        """Keep nothing of it: nobody will read it."""
        self.unwanted, self._body = True, b""

    def wake(self) -> None:
        """Let a reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def malformed() -> ClientError:
    """400: what came is no HTTP. A constant, since the line that could not be read may hold a key."""
    error = ClientError(400, "We could not read your HTTP request.")
    error.close = True
    return error
