"""How many calls may be in flight, how many more may wait for a place, and for how long. Beyond that the answer is no at once.

What is said in `retry-after` is what the queue would take at the pace of the last calls, so that clients come back when there
is room, not all after a second.
"""

import asyncio
import contextlib
import math
from collections import deque

from proxy.errors import ClientError, unavailable

RETRY_S_MAX = 30
_WEIGHT = 0.1  # of the newest interval


class Places:
    """A bounded number of places with a bounded queue; first come, first served."""

    def __init__(self, *, most: int, queue: int, queue_s: float) -> None:
        self._most, self._queue_max, self._queue_s = most, queue, queue_s
        self._queue: deque[asyncio.Future[None]] = deque()
        self._news = asyncio.Event()  # for whoever waits in `until_idle`
        self._hurried = False
        self._interval_s: float | None = None  # between two places that come free while all are taken
        self._free_at_s: float | None = None
        self.taken = 0

    async def take(self) -> None:
        """Take a place, waiting for one if need be. Raises ClientError 503."""
        if self.taken < self._most and not self._queue:
            self.taken += 1
            return
        if len(self._queue) >= self._queue_max:
            raise self._full()
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._queue_s):
                await turn
        except TimeoutError as error:
            if turn.done() and not turn.cancelled():
                self.give()  # the place came in the same moment as the end of the wait
            self._leave(turn)
            raise self._full() from error
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()
            raise
        finally:
            self._leave(turn)

    def give(self) -> None:
        """Give a place back, to the next in the queue if there is one."""
        if self.taken >= self._most or self._free_at_s is not None:
            self._note_pace()
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1
        if not self.taken:
            self._news.set()

    async def until_idle(self, timeout_s: float) -> bool:
        """Wait until no place is taken; False if some still are after `timeout_s`, or when hurried."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.taken and not self._hurried:
                    self._news.clear()
                    await self._news.wait()
        return not self.taken

    def hurry(self) -> None:
        """Let whoever waits in `until_idle` go on."""
        self._hurried = True
        self._news.set()

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if turn in self._queue:
            self._queue.remove(turn)

    def _note_pace(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self.taken < self._most:
            self._free_at_s = None
            return
        if self._free_at_s is not None:
            took_s = now_s - self._free_at_s
            known_s = self._interval_s if self._interval_s is not None else took_s
            self._interval_s = known_s + _WEIGHT * (took_s - known_s)
        self._free_at_s = now_s

    def _full(self) -> ClientError:
        interval_s = self._interval_s if self._interval_s is not None else self._queue_s / max(1, self._queue_max)
        seconds = math.ceil(interval_s * (len(self._queue) + 1))
        return unavailable(
            "Too many calls are in flight.",
            code="overloaded",
            retry_after_s=max(1, min(seconds, RETRY_S_MAX)),
            close=True,
        )
