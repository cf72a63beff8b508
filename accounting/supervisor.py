"""Tasks that outlive the request that began them: each is held, none is lost at shutdown, and whatever one raises is logged."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger("bursar")


class Supervisor:
    """Holds tasks until they end; `drain` waits for them, and then cancels what is left."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run `work` in a task that nobody cancels but `drain`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def drain(self, timeout_s: float) -> int:
        """Wait for all tasks; return how many had to be cancelled."""
        tasks = set(self._tasks)
        if not tasks:
            return 0
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)
        return len(late)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed: %s", task.get_name(), type(error).__name__, exc_info=error)
