"""Writes a stream's bytes to its client: through the answer until its head is out, from then on straight to the socket.

What a stranger would get wrong: `put` neither waits nor looks whether the client reads, so it is only for `ready`; `write` waits,
and after it no more than the transport's own limit is held.
"""

from proxy.serving.request import Request
from proxy.serving.response import StreamedResponse


class Outlet:
    """The body of one streamed answer."""

    def __init__(self, request: Request, response: StreamedResponse) -> None:
        self._response, self._protocol = response, request.protocol

    @property
    def ready(self) -> bool:
        """Whether the client takes what it is sent, as far as is known."""
        transport = self._protocol.transport
        return (
            self._response.head_is_out and transport is not None
            and not (self._protocol.writing_paused or transport.is_closing())
        )  # fmt: skip

    def put(self, data: bytes) -> None:
        """Send, without waiting. Only while `ready`, and not nothing: an empty chunk would end the answer."""
        transport = self._protocol.transport
        assert transport is not None
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._response.chunked else data)

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send, and wait until the client has taken enough of it. Raises ConnectionResetError."""
        await (self._response.write_eof(data) if is_last else self._response.write(data))
