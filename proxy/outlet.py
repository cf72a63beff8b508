"""Writes a stream's bytes to its client: through aiohttp until the head is out, from then on straight to the socket.

aiohttp's `write` costs more than all else that is done with a chunk. What a stranger would get wrong: `put` neither waits nor looks
whether the client reads, so it is only for `ready`; `write` waits, and after it no more than the transport's own limit is held.
"""

from aiohttp import web


class Outlet:
    """The body of one streamed answer."""

    def __init__(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        self._response, self._writer = response, request.writer
        self._protocol = request.protocol
        self._head_is_out = self._chunked = False

    @property
    def ready(self) -> bool:
        """Whether the client takes what it is sent, as far as is known."""
        transport = self._protocol.transport
        return (
            self._head_is_out and transport is not None
            and not (self._protocol.writing_paused or transport.is_closing())
        )  # fmt: skip

    def put(self, data: bytes) -> None:
        """Send, without waiting. Only while `ready`, and not nothing: an empty chunk would end the answer."""
        transport = self._protocol.transport
        assert transport is not None
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def write(self, data: bytes) -> None:
        """Send, and wait until the client has taken enough of it. Raises ConnectionResetError."""
        if data and self.ready:
            self.put(data)
        else:
            await self._response.write(data)
            self._chunked = self._response.headers.get("transfer-encoding") == "chunked"
            self._head_is_out = True
        if self._protocol.writing_paused:
            await self._writer.drain()
