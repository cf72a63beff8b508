"""One coarse timer for all calls in flight, so that a deadline costs nothing per piece.

A deadline is an attribute that its owner moves as it likes; one sweep every TICK_S looks at all of them. Limits therefore
fire up to TICK_S late, never early. Nothing is scheduled while nothing is watched.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

TICK_S = 0.05


class Watched(Protocol):
    """Something with a deadline."""

    deadline: float  # in the loop's time

    def expire(self) -> None:
        """Act on the deadline that has passed, or move it."""


class Timers:
    """The calls in flight of one transport, on one loop."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._handle: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[Watched]:
        return iter(tuple(self._watched))

    def add(self, watched: Watched) -> None:
        """Begin to watch; it is unwatched by `discard` only."""
        self._watched.add(watched)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(TICK_S, self._sweep)

    def discard(self, watched: Watched) -> None:
        """Stop to watch; also when it was not watched."""
        self._watched.discard(watched)

    def close(self) -> None:
        """Stop the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for watched in tuple(self._watched):
            if watched.deadline <= now:
                watched.expire()
        self._handle = loop.call_later(TICK_S, self._sweep) if self._watched else None
