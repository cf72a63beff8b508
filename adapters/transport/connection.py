"""One connection to a provider: at most one call at a time, and never a byte of one call in another.

Exactly one task at a time waits here, in `head` or in `piece`. Whatever ends that wait in another way than data (a
cancellation above all) cuts the connection. A deadline is one attribute that `Timers` looks at.
"""

import asyncio
import select
from collections.abc import Callable

from adapters.errors import UpstreamError, UpstreamTimeoutError, UpstreamUnavailableError
from adapters.transport.base import Timeouts
from adapters.transport.incoming import Incoming
from adapters.transport.outgoing import Origin
from adapters.transport.timers import Timers

BUFFER_BYTES = 8 * 1024  # received and not yet read; above it the provider is held back
READ_BYTES = 16 * 1024  # at once; one read more may come before the provider is held back
STALE_S = 2.0  # a connection that the provider had already closed shows it within a round trip
_ONE_WRITE_BYTES = 256 * 1024  # above it, copying the body costs more than a second write


class StaleConnectionError(Exception):
    """A connection used before was closed by the provider without a byte of a response: the call may go once more."""


class Connection(asyncio.BufferedProtocol):
    """The protocol of one open connection; made, attached to its transport, then used by one call after another.

    `space` is what it reads into, READ_BYTES long. All connections of one loop may share it: it is read out at once.
    """

    deadline = float("inf")

    def __init__(
        self, origin: Origin, timers: Timers, on_lost: Callable[["Connection"], None], space: memoryview | None = None
    ) -> None:
        self.origin = origin
        self.incoming = Incoming()
        self.idle_since = 0.0
        self.calls = 0
        self._loop = asyncio.get_running_loop()
        self._timers = timers
        self._on_lost = on_lost
        self._space = memoryview(bytearray(READ_BYTES)) if space is None else space
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        self._taker: Callable[[bytes, float], bool] | None = None
        self._taken_at = 0.0  # the time of the last piece that a taker took
        self._failure: UpstreamError | None = None
        self._busy = self._dead = self._paused = self._writing = self._received = self._lost = self._whole = False
        self._phase = "total"
        self._timeouts = Timeouts()
        self._total_at = self._first_at = self._sent_at = 0.0

    def attach(self, transport: asyncio.Transport) -> None:
        """Take over an open transport, behind its TLS if it has any."""
        self._transport = transport
        # So that it is known when a request has left entirely. With high=0, asyncio's TLS would call nothing enough.
        transport.set_write_buffer_limits(high=1, low=0)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    # one call ----------------------------------------------------------------------------------------------------

    def begin(
        self,
        head: bytes,
        body: bytes,
        *,
        timeouts: Timeouts,
        total_at: float,
        bodiless: bool = False,
        whole: bool = False,
    ) -> None:
        """Write a request. The connection is in use from here until `end` or `cut`.

        If the answer is wanted `whole`, `head` waits on for a body that has begun, as long as it is small.
        """
        assert not self._busy, "one call at a time"
        self._busy = True
        self.calls += 1
        self._received = False
        self._whole = whole
        self.incoming.expect(bodiless=bodiless)
        self._timeouts, self._total_at = timeouts, total_at
        self._sent_at = self._loop.time()
        self._first_at = self._sent_at + timeouts.first_token
        self._limit("first_token", self._first_at)
        self._timers.add(self)
        if self._dead or self._transport is None:
            self._lose()
            self.cut()
        elif len(body) <= _ONE_WRITE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def head(self) -> None:
        """Wait for the response's head. Raises StaleConnectionError, and before there is one as UpstreamResponse.next_piece."""
        incoming = self.incoming
        while not incoming.head_done:
            if self._failure is not None:
                if self._is_stale():
                    raise StaleConnectionError
                raise self._failure
            await self._wait()
        self._whole = False

    async def piece(self, taker: Callable[[bytes, float], bool] | None = None) -> bytes:
        """Return the next piece of the body that `taker` does not take, b"" at its end."""
        incoming = self.incoming
        if not self._ready():
            if incoming.body_bytes:
                self._limit("idle", self._loop.time() + self._timeouts.idle)
                self._taker = taker
            else:
                self._limit("first_token", self._first_at)
            while not self._ready():
                await self._wait()
        if incoming.parts:
            piece = incoming.take()
            if self._paused and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()
            return piece
        if incoming.complete:
            return b""
        assert self._failure is not None
        raise self._failure

    @property
    def drained(self) -> bool:
        """True when the whole response has come and has been taken."""
        return self.incoming.complete and not self.incoming.parts

    def end(self) -> bool:
        """End the call. Return True if the connection may serve another, else it is cut."""
        self._timers.discard(self)
        incoming = self.incoming
        clean = (
            self.drained and incoming.reusable and not (incoming.poisoned or self._writing or self._dead)
            and self._waiter is None and self._failure is None and self._transport is not None
            and not self._transport.is_closing()
        )  # fmt: skip
        if not clean:
            self.cut()
            return False
        self._busy = False
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return True

    def cut(self, reason: UpstreamError | None = None) -> None:
        """Close at once. A task that waits here gets `reason`."""
        self._timers.discard(self)
        self._dead = True
        if self._failure is None and not self.incoming.complete:
            self._failure = reason or UpstreamUnavailableError(f"the call to {self.origin.host} was closed")
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def is_quiet(self) -> bool:
        """Tell whether an idle connection is open and has nothing to read, not even what the loop has not seen yet."""
        return not (self._dead or self._transport is None or self._transport.is_closing() or self._poll.poll(0))

    # called by Timers --------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Cut the call that is late. A limit on a wait holds only while somebody waits; the total always holds."""
        if self._phase != "total" and (self._waiter is None or self._waiter.done()):
            self._limit("total", self._total_at)
            return
        if self._phase == "idle" and self._taken_at + self._timeouts.idle > self.deadline:
            self._limit("idle", self._taken_at + self._timeouts.idle)
            if self.deadline > self._loop.time():
                return
        limit_s = getattr(self._timeouts, self._phase)
        self.cut(
            UpstreamTimeoutError(
                f"{self.origin.host} passed the {self._phase} limit of {limit_s:g} s", phase=self._phase
            )
        )

    # called by asyncio -------------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        if not self._busy:
            self.cut()  # nobody asked: these bytes must not become the answer to the next call
            return
        if self._dead:
            return
        self._received = True
        incoming = self.incoming
        if incoming.complete:
            incoming.poisoned = True
            return
        incoming.feed(self._space[:nbytes])
        if incoming.error is not None:
            self.cut(incoming.error)
        elif self._taker is not None:
            if not self._is_taken(self._taker):
                self._wake()
        elif self._waiter is not None:
            if not (self._whole and self._gathers()):
                self._wake()
        elif incoming.waiting_bytes > BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._writing = True

    def resume_writing(self) -> None:
        self._writing = False
        self._sent_at = self._loop.time()
        self._first_at = self._sent_at + self._timeouts.first_token
        if self._phase == "first_token":
            self._limit("first_token", self._first_at)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timers.discard(self)
        incoming = self.incoming
        if self._busy and not incoming.complete and self._failure is None:
            if incoming.until_close and exc is None and not self._dead:
                incoming.complete, incoming.reusable = True, False
            else:
                self._lose()
        self._dead = True
        self._transport = None
        self._on_lost(self)
        self._wake()
        incoming.forget()

    # inside ------------------------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        return bool(self.incoming.parts) or self.incoming.complete or self._failure is not None

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        woken = False
        try:
            await waiter
            woken = True
        finally:
            self._waiter = self._taker = None
            if not woken:
                self.cut()

    def _gathers(self) -> bool:
        """Tell whether whoever waits for a whole answer is to wait on."""
        incoming = self.incoming
        if incoming.complete or incoming.waiting_bytes > BUFFER_BYTES:
            return False
        if incoming.parts:
            self._limit("idle", self._loop.time() + self._timeouts.idle)
        return True

    def _is_taken(self, taker: Callable[[bytes, float], bool]) -> bool:
        incoming = self.incoming
        if incoming.complete or not incoming.parts:
            return False
        piece, now_s = incoming.take(), self._loop.time()
        if not taker(piece, now_s):
            incoming.give_back(piece)
            return False
        self._taken_at = now_s  # `expire` moves the limit, if it comes to that
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _limit(self, phase: str, at: float) -> None:
        if at < self._total_at:
            self.deadline, self._phase = at, phase
        else:
            self.deadline, self._phase = self._total_at, "total"

    def _lose(self) -> None:
        self._dead = self._lost = True
        self._failure = UpstreamUnavailableError(
            f"{self.origin.host} closed the connection before the end of its response"
        )

    def _is_stale(self) -> bool:
        """Tell whether a provider that closed did so before it can have seen the call, as far as can be known."""
        return self._lost and self.calls > 1 and not self._received and self._loop.time() - self._sent_at < STALE_S
