"""Virtual time: event loops of several processes on one clock that only moves when nobody has anything to do.

Each process has a loop of its own, whose clock starts where it likes and runs a little fast or slow. A process that is stalled is
not given a turn: what arrives meanwhile waits for it, as in a socket's buffer. One that crashed never gets a turn again. What is
asynchronous in the product runs as it is; what it would do in a thread is done at once.
"""

import asyncio
import contextlib
import heapq
import warnings
from asyncio import events
from collections.abc import Callable
from typing import Any

_TICK_S = 1e-8  # time goes this far beyond a timer: whoever it wakes must see that its moment has come


class World:
    """All loops, and what happens outside of processes (`at`)."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.loops: list[Loop] = []
        self.graves: list[Loop] = []
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Have `act` called after `delay_s`; what is planned for the same moment keeps its order."""
        self._planned += 1
        heapq.heappush(self._plans, (self.now_s + delay_s, self._planned, act))

    def run(self, until_s: float) -> None:
        """Let time pass."""
        plans, loops = self._plans, self.loops
        while True:
            busy = False
            for loop in list(loops):
                if not loop.stalled and loop.due:
                    loop.turn()
                    busy = True
            if busy:
                continue
            next_s = plans[0][0] if plans else until_s + 1
            for loop in loops:
                if not loop.stalled:
                    next_s = min(next_s, loop.next_s + _TICK_S)
            if next_s > until_s:
                self.now_s = until_s
                return
            self.now_s = max(self.now_s, next_s)
            while plans and plans[0][0] <= self.now_s:
                heapq.heappop(plans)[2]()

    def run_until(self, done: Callable[[], bool], most_s: float) -> bool:
        """Let time pass until `done`, looked at every 100 ms; False if that takes longer than `most_s`."""
        end_s = self.now_s + most_s
        while not done():
            if self.now_s >= end_s:
                return False
            self.run(self.now_s + 0.1)
        return True

    def bury(self, loop: "Loop") -> None:
        """That process is gone: nothing of it runs any more, not even what it would do at its end."""
        self.loops.remove(loop)
        self.graves.append(loop)

    def close(self) -> None:
        """Let go of all tasks without noise. Their `finally` blocks run into the void."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for loop in [*self.loops, *self.graves]:
                for task in asyncio.all_tasks(loop):
                    task._log_destroy_pending = False
                    with contextlib.suppress(BaseException):
                        task.get_coro().close()
                loop.set_exception_handler(lambda _loop, _context: None)
                loop.close()
            self.loops.clear()
            self.graves.clear()


class Loop(asyncio.BaseEventLoop):
    """One process's loop. `offset_s`: its clock at the beginning of the world; `rate`: how fast that clock runs."""

    def __init__(self, world: World, connect: Callable[..., Any], *, offset_s: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.world, self.offset_s, self.rate, self.stalled = world, offset_s, rate, False
        self.failures: list[dict[str, Any]] = []
        self._connect = connect
        self._selector = _Nothing()
        self._clock_resolution = 0.0
        self.set_exception_handler(lambda _loop, context: self.failures.append(context))
        world.loops.append(self)

    @property
    def due(self) -> bool:
        """Whether there is something to do now."""
        if self._ready:
            return True
        return bool(self._scheduled) and self._scheduled[0]._when < self.time()

    @property
    def next_s(self) -> float:
        """When in the world's time the next timer is due."""
        if not self._scheduled:
            return float("inf")
        return (self._scheduled[0]._when - self.offset_s) / self.rate

    def turn(self) -> None:
        """Do what is due."""
        events._set_running_loop(self)
        try:
            self._run_once()
        finally:
            events._set_running_loop(None)

    def time(self) -> float:
        return self.offset_s + self.world.now_s * self.rate

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def create_unix_connection(self, factory: Any, path: Any = None, **_: Any) -> Any:
        protocol = factory()
        return await self._connect(self, protocol, path), protocol

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class _Nothing:
    """Where a loop would look for sockets."""

    def select(self, _timeout: float | None) -> tuple[()]:
        return ()
