"""What an upstream transport offers. Two implementations keep it: `raw` (fast) and `plain` (aiohttp's client)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import msgspec

from adapters.base import UpstreamRequest


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one upstream call, in seconds; `total` counts from `send`."""

    connect: float = 3
    tls: float = 5
    first_token: float = 120  # from the request's last byte to the response's first body byte
    idle: float = 60  # between two pieces of the body
    total: float = 1200


class UpstreamResponse(ABC):
    """A response whose head has come. Exactly one task reads it; `close` may be called at any time, also twice."""

    status: int
    headers: Mapping[str, str]  # names in lower case; of a repeated header the last
    # Asked first about a piece that comes while `next_piece` waits, and told the loop's time, if the transport is able to; what it
    # takes is not returned. It is not asked about the first piece.
    taker: Callable[[bytes, float], bool] | None = None

    @property
    def ended(self) -> bool:
        """Whether it is known to be over, so that `next_piece` would not wait and the connection is given back."""
        return False

    @abstractmethod
    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamProtocolError past `max_bytes`, and as `next_piece`."""

    @abstractmethod
    async def next_piece(self) -> bytes:
        """Return the next piece of the body as received (de-chunked), b"" at its end.

        At most one piece is buffered: a reader that does not come back stops the provider by TCP's own back-pressure.
        Raises UpstreamTimeoutError, UpstreamUnavailableError (broken off) and UpstreamProtocolError (malformed).
        """

    @abstractmethod
    def close(self) -> None:
        """Give the connection back if the body was read whole, else cut it at once."""


class Transport(ABC):
    """The one way to a provider. Safe to cancel at any await: a cancelled call's connection is never used again."""

    @abstractmethod
    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send, and return when the response's head is there.

        Raises UpstreamUnavailableError (`delivered=False` if not a byte of the request can have been acted on),
        UpstreamTimeoutError and UpstreamProtocolError.
        """

    async def send_whole(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """As `send`, for an answer that will be `read` whole: it may return only when there is something to read, or all of it.

        What goes wrong once there is a head is raised by `read`.
        """
        return await self.send(request, timeouts)

    @abstractmethod
    async def close(self) -> None:
        """Close all idle connections, and cut those in use."""
