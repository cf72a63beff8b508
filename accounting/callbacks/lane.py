"""A thread with an event loop of its own, for one kind of handler: what blocks there holds up nobody else.

`offer` may be called from any one thread; it never waits. The queue is bounded by number and by size; what does not fit is
dropped and told. A handler that never returns from a blocking call keeps its thread: the thread is a daemon, so it ends
with the process, and only its own queue fills.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

QUEUE_BYTES_MAX = 64 * 1024 * 1024
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Job:
    """Work that waits for its turn; jobs of one `call` are done one after the other."""

    work: Callable[[], Awaitable[None]]
    call: str
    size_bytes: int


class Lane:
    """At most `at_once` jobs at a time; `queue_max` more may wait."""

    def __init__(self, name: str, *, at_once: int, queue_max: int) -> None:
        self.name = name
        self.at_once = at_once
        self.running = 0
        self._queue_max = queue_max
        self._queue: deque[Job] = deque()
        self._queued_bytes = 0
        self._guard = threading.Lock()
        self._scheduled = False
        self._last: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=f"callbacks {name}", daemon=True)
        self._thread.start()

    def offer(self, job: Job) -> bool:
        """Take a job to do later; False when the queue is full."""
        with self._guard:
            if len(self._queue) >= self._queue_max or self._queued_bytes + job.size_bytes > QUEUE_BYTES_MAX:
                return False
            self._queue.append(job)
            self._queued_bytes += job.size_bytes
            wake = not self._scheduled
            self._scheduled = True
        if wake:
            self.loop.call_soon_threadsafe(self._take)
        return True

    def run(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        """Run something now, outside of the queue; the future may be waited for in any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        """Let the thread end; what it is still doing is cancelled."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(_settled(self.loop))
        finally:
            self.loop.close()

    def _take(self) -> None:
        """Runs in the lane's thread: begin as many jobs as there are places."""
        with self._guard:
            self._scheduled = False
        while self.running < self.at_once:
            with self._guard:
                if not self._queue:
                    return
                job = self._queue.popleft()
                self._queued_bytes -= job.size_bytes
            self._begin(job)

    def _begin(self, job: Job) -> None:
        self.running += 1
        task = self.loop.create_task(self._in_turn(job, self._last.get(job.call)))
        self._tasks.add(task)
        if job.call:
            self._last[job.call] = task
        task.add_done_callback(lambda done: self._ended(job, done))

    async def _in_turn(self, job: Job, before: "asyncio.Task[None] | None") -> None:
        if before is not None and not before.done():
            await asyncio.wait({before})
        await job.work()

    def _ended(self, job: Job, task: "asyncio.Task[None]") -> None:
        self.running -= 1
        self._tasks.discard(task)
        if self._last.get(job.call) is task:
            del self._last[job.call]
        if not task.cancelled():
            task.exception()  # the runner's own work raises nothing; a bug there must not kill the lane
        self._take()


async def _settled(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    if tasks:
        await asyncio.wait(tasks, timeout=0.5)
