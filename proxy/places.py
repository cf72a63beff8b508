"""How many calls may be in flight, how many more may wait for a place, and for how long. Beyond that the answer is no at once."""

import asyncio
from collections import deque

from proxy.errors import unavailable


class Places:
    """A bounded number of places with a bounded queue; first come, first served."""

    def __init__(self, *, most: int, queue: int, queue_s: float) -> None:
        self._most, self._queue_max, self._queue_s = most, queue, queue_s
        self._queue: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self.taken = 0

    async def take(self) -> None:
        """Take a place, waiting for one if need be. Raises ClientError 503."""
        if self.taken < self._most and not self._queue:
            self.taken += 1
            self._idle.clear()
            return
        if len(self._queue) >= self._queue_max:
            raise unavailable("Too many calls are in flight.", code="overloaded")
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._queue_s):
                await turn
        except TimeoutError as error:
            raise unavailable("Too many calls are in flight.", code="overloaded", retry_after_s=2) from error
        finally:
            if not turn.done() or turn.cancelled():
                self._leave_queue(turn)
            elif turn.done() and asyncio.current_task() is not None and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                self.give()  # the place came in the same moment as the cancellation

    def give(self) -> None:
        """Give a place back, to the next in the queue if there is one."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1
        if not self.taken:
            self._idle.set()

    async def until_idle(self, timeout_s: float) -> bool:
        """Wait until no place is taken; False if some still are after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def hurry(self) -> None:
        """Let whoever waits in `until_idle` go on."""
        self._idle.set()

    def _leave_queue(self, turn: asyncio.Future[None]) -> None:
        if turn in self._queue:
            self._queue.remove(turn)
