"""Looks after all streams with one timer: a comment into long silence, an end for a client that takes nothing.

The comment is there so that nobody between takes a stream for dead. What a stranger would get wrong: a sweep sees only that there
was silence since the one before, so both come up to one sweep late.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Stream(Protocol):
    """What is looked after."""

    wrote: int  # grows with every write
    writing_since_s: float | None  # on the loop's clock; set while the client does not take what it is sent

    def comment(self) -> None:
        """Write a comment, if that can be done now."""


class _Tended:
    __slots__ = ("abort", "comment_s", "silent_since_s", "stall_s", "wrote")

    def __init__(
        self, stream: Stream, now_s: float, comment_s: float, stall_s: float, abort: Callable[[], None]
    ) -> None:
        self.wrote, self.silent_since_s = stream.wrote, now_s
        self.comment_s, self.stall_s, self.abort = comment_s, stall_s, abort


class Tender:
    """The open streams of one loop. Nothing is scheduled while there is none."""

    def __init__(self) -> None:
        self._tended: dict[Stream, _Tended] = {}
        self._every_s = self._next_s = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._tended)

    def add(self, stream: Stream, *, comment_s: float, stall_s: float, abort: Callable[[], None]) -> None:
        """Look after a stream until `discard`; no comments if `comment_s` is 0. `abort` ends one that is stalled, once."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._tended[stream] = _Tended(stream, now_s, comment_s, stall_s, abort)
        self._every_s = min(self._every_s, (comment_s or stall_s) / 2, stall_s / 2)
        if now_s + self._every_s < self._next_s:
            self._schedule(loop)

    def discard(self, stream: Stream) -> None:
        """Leave a stream alone from now on; also one that was not looked after."""
        self._tended.pop(stream, None)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = loop.time() + self._every_s
        self._timer = loop.call_at(self._next_s, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for stream, tended in tuple(self._tended.items()):
            self._look(stream, tended, now_s)
        if self._tended:
            self._schedule(loop)
        else:
            self._every_s = self._next_s = float("inf")
            self._timer = None

    def _look(self, stream: Stream, tended: _Tended, now_s: float) -> None:
        if stream.writing_since_s is not None:
            if now_s - stream.writing_since_s > tended.stall_s:
                self.discard(stream)
                tended.abort()
        elif stream.wrote != tended.wrote:
            tended.wrote, tended.silent_since_s = stream.wrote, now_s
        elif tended.comment_s and now_s - tended.silent_since_s >= tended.comment_s:
            tended.silent_since_s = now_s
            stream.comment()
