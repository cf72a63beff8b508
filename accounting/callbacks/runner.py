"""Tells handlers of calls without the call waiting: telling is one entry in a queue, everything else happens in other threads.

Each handler added by name has a lane of its own, each kind of handler given with a call has one too. Rules: a time limit for
each run, at most `at_once` runs together, a bounded queue that says what it drops, retries where wanted. The first failure
of a kind is logged with the handler's name, never with the error's text, which may hold a prompt; all are counted.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from accounting.callbacks.entry import Entry, Policy, close_quietly, health_of, tried
from accounting.callbacks.event import Event, Kind
from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler, healthy, unhealthy
from accounting.callbacks.lane import Job, Lane

AT_ONCE = 100
QUEUE_MAX = 10_000
LANES_MAX = 64  # threads; kinds of handlers beyond that share one
NAP_S = 0.005
_INBOX_MAX = 100_000  # what the sorting thread is behind, before telling itself drops
_FAILURES_TOLD_MAX = 1000
_log = logging.getLogger("bursar.callbacks")

OnRun: TypeAlias = Callable[[str, str, float, str | None], None]  # name, status, seconds, kind of error


_Told: TypeAlias = tuple[Event, tuple[Entry, ...], Callable[[], Any] | None, Callable[[], dict[str, Any]] | None]


class CallbackRunner:
    """Safe to tell from any thread. `on_run` hears of each run: ok, error, timeout or dropped."""

    def __init__(
        self,
        handlers: Sequence[CustomAsyncCallbackHandler] = (),
        *,
        policy: Policy | None = None,
        at_once: int = AT_ONCE,
        queue_max: int = QUEUE_MAX,
        on_run: OnRun | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.counts: Counter[tuple[str, str]] = Counter()  # (name, status) -> runs
        self._at_once, self._queue_max = at_once, queue_max
        self._on_run = on_run
        self._entries: tuple[Entry, ...] = ()
        self._lanes: dict[str, Lane] = {}
        self._inbox: queue.SimpleQueue[_Told | threading.Event | None] = queue.SimpleQueue()
        self._sorter: threading.Thread | None = None
        self._told: set[tuple[str, str, str]] = set()
        self._undone = 0
        self._idle = threading.Condition()
        self._making = threading.Lock()
        self._closed = False
        for handler in handlers:
            self.add(handler)

    @property
    def names(self) -> tuple[str, ...]:
        """The handlers that hear of every call."""
        return tuple(entry.name for entry in self._entries)

    @property
    def idle(self) -> bool:
        """Whether nobody hears of calls."""
        return not self._entries

    @property
    def active(self) -> int:
        """Runs that are under way now."""
        return sum(lane.running for lane in tuple(self._lanes.values()))

    @property
    def dropped(self) -> int:
        """Events that a handler did not get because its queue was full."""
        return sum(count for (_, status), count in self.counts.items() if status == "dropped")

    def add(self, handler: CustomAsyncCallbackHandler, *, name: str = "", policy: Policy | None = None) -> str:
        """Let a handler hear of every call from now on; return its name. Raises ValueError when there are too many."""
        if len(self._entries) >= self._at_once:
            raise ValueError(f"more than {self._at_once} callbacks cannot run at once")
        name, number = name or type(handler).__name__, 2
        wanted = name
        while any(entry.name == name for entry in self._entries):
            name, number = f"{wanted}-{number}", number + 1
        self._entries = (*self._entries, Entry(name, handler, policy or self.policy))
        return name

    def remove(self, handler: CustomAsyncCallbackHandler | str) -> bool:
        """Let a handler, or the one of that name, hear of no further event; False if there is none."""
        kept = tuple(e for e in self._entries if e.handler is not handler and e.name != handler)
        found = len(kept) != len(self._entries)
        self._entries = kept
        return found

    def start(
        self, messages: list[JSON], *, handlers: Sequence[CustomAsyncCallbackHandler] = (), **kwargs: Any
    ) -> None:
        """Tell of a call that is sent. Returns at once, raises nothing."""
        self.tell("start", messages, kwargs, handlers)

    def end(self, response: JSON, *, handlers: Sequence[CustomAsyncCallbackHandler] = (), **kwargs: Any) -> None:
        """Tell of an answer."""
        self.tell("end", response, kwargs, handlers)

    def error(self, error: Exception, *, handlers: Sequence[CustomAsyncCallbackHandler] = (), **kwargs: Any) -> None:
        """Tell of a failure."""
        self.tell("error", error, kwargs, handlers)

    def tell(
        self, kind: Kind, what: Any, kwargs: dict[str, Any], handlers: Sequence[CustomAsyncCallbackHandler] = (),
        *, size_bytes: int = 0, lazily: bool = False, more: Callable[[], dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Tell all handlers, and those of this call alone. Takes no lock: a call never waits for another thread.

        `lazily`: `what` is a function that makes it. `more` makes further keyword arguments. Both are called in another
        thread: what takes long to count is counted there.
        """
        entries = self._entries
        if handlers:
            entries += tuple(Entry(type(h).__name__, h, self.policy) for h in handlers)
        if not entries or self._closed:
            return
        if self._sorter is None:
            self._start_sorter()
        if self._inbox.qsize() >= _INBOX_MAX:
            for entry in entries:
                self._dropped(entry)
            return
        event = Event(kind=kind, what=what, kwargs=kwargs, size_bytes=size_bytes)
        self._inbox.put((event, entries, what if lazily else None, more))

    async def drain(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything told so far has been handled; False if that takes longer."""
        return await asyncio.get_running_loop().run_in_executor(None, self._wait, timeout_s)

    async def close(self, timeout_s: float = 5.0) -> bool:
        """Drain, close the handlers that hear of every call, end the threads. True if nothing was left; twice is fine."""
        if self._closed:
            return True
        done = await self.drain(timeout_s)
        self._closed = True
        used = [(entry, self._lanes[entry.name]) for entry in self._entries if entry.name in self._lanes]
        closing = {asyncio.wrap_future(lane.run(close_quietly(entry.handler))) for entry, lane in used}
        if closing:
            await asyncio.wait(closing, timeout=1.0)
        self._inbox.put(None)
        for lane in self._lanes.values():
            lane.stop()
        return done

    async def health_check(self) -> JSON:
        """Return whether every handler says that it is healthy, and which one does not; never raises."""
        for entry in self._entries:
            try:
                answer = await asyncio.wait_for(
                    asyncio.wrap_future(self._lane(entry.name).run(health_of(entry.handler))), 5
                )
            except Exception as error:  # noqa: BLE001 - a health check tells, it never raises
                return unhealthy(f"{entry.name}: {type(error).__name__}")
            if answer.get("status") != "healthy":
                return unhealthy(f"{entry.name}: {answer.get('error', 'unhealthy')}")
        return healthy()

    def _start_sorter(self) -> None:
        with self._idle:
            if self._sorter is None:
                self._sorter = threading.Thread(target=self._sort, name="callbacks", daemon=True)
                self._sorter.start()

    def _sort(self) -> None:
        """Hand each event to the lanes of its handlers."""
        while (item := self._inbox.get()) is not None:
            if self._inbox.empty():
                time.sleep(NAP_S)  # a burst is sorted in one go, after the calls that make it have gone on
            if isinstance(item, threading.Event):  # whoever drains wants to know that all before it is sorted
                item.set()
                continue
            told, entries, make, more = item
            try:
                event = _made(told, make, more)
            except Exception as error:  # noqa: BLE001 - one call that cannot be told must not end the telling
                _log.warning("a call's %s could not be told: %s", told.kind, type(error).__name__)
                continue
            with self._idle:
                self._undone += len(entries)
            for entry in entries:
                lane = self._lane(entry.name)
                job = Job(partial(self._run, entry, event), event.call, event.size_bytes)
                if not lane.offer(job):
                    self._dropped(entry)
                    self._did_one()

    def _lane(self, name: str) -> Lane:
        with self._making:
            if name not in self._lanes and len(self._lanes) >= LANES_MAX:
                name = "others"
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = Lane(name, at_once=1, queue_max=self._queue_max)
                share = max(1, self._at_once // len(self._lanes))
                for each in self._lanes.values():
                    each.at_once = share
            return lane

    async def _run(self, entry: Entry, event: Event) -> None:
        """Run one handler for one event, in its lane's thread. Raises nothing but cancellation."""
        loop = asyncio.get_running_loop()
        began_s, status, failure = loop.time(), "ok", None
        try:
            for attempt in range(entry.policy.attempts):
                if attempt:
                    await asyncio.sleep(entry.policy.delay_s * 2 ** (attempt - 1))
                status, failure = await tried(entry, event)
                if failure is None:
                    break
            if failure is not None:
                self._tell_failure(entry, event.kind, failure)
        finally:
            self._ran(entry.name, status, loop.time() - began_s, failure)
            self._did_one()

    def _tell_failure(self, entry: Entry, kind: Kind, failure: str) -> None:
        known = (entry.name, kind, failure)
        if known in self._told or len(self._told) >= _FAILURES_TOLD_MAX:
            return
        self._told.add(known)
        _log.warning(
            "callback %s failed at the call's %s: %s (further ones are only counted)", entry.name, kind, failure
        )

    def _dropped(self, entry: Entry) -> None:
        first = not self.counts[entry.name, "dropped"]
        self._ran(entry.name, "dropped", 0.0, None)
        if first:
            _log.warning("callback %s is too slow: its queue is full, events are dropped and counted", entry.name)

    def _ran(self, name: str, status: str, seconds: float, failure: str | None) -> None:
        with self._idle:
            self.counts[name, status] += 1
        if self._on_run is not None:
            self._on_run(name, status, seconds, failure)

    def _did_one(self) -> None:
        with self._idle:
            self._undone -= 1
            if self._undone <= 0:
                self._idle.notify_all()

    def _wait(self, timeout_s: float) -> bool:
        if self._sorter is None or self._closed:
            return True
        until_s = time.monotonic() + timeout_s
        sorted_so_far = threading.Event()
        self._inbox.put(sorted_so_far)
        if not sorted_so_far.wait(timeout_s):
            return False
        with self._idle:
            return self._idle.wait_for(lambda: self._undone <= 0, max(0.0, until_s - time.monotonic()))


def _made(told: Event, make: Callable[[], Any] | None, more: Callable[[], dict[str, Any]] | None) -> Event:
    if make is None and more is None:
        return told
    what = told.what if make is None else make()
    kwargs = told.kwargs if more is None else {**told.kwargs, **more()}
    return Event(kind=told.kind, what=what, kwargs=kwargs, size_bytes=told.size_bytes)
