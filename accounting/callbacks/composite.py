"""Several handlers as one: together, in an order of priorities, or as a chain in which one gets the result of another.

A handler that raises or takes too long changes nothing for the others; its failure is one of the collected results.
Members share the thread that the composite runs in, so one that blocks without awaiting is better given to the runner itself.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from accounting.callbacks.event import Event
from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler, healthy, unhealthy

LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackResult:
    """What one member returned or raised; `skipped` where an earlier link of its chain failed."""

    name: str
    value: Any = None
    error: Exception | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class _Member:
    links: tuple[CustomAsyncCallbackHandler, ...]  # one, or those of a chain in their order
    priority: int


class CompositeCallbackHandler(CustomAsyncCallbackHandler):
    """Each method returns the list of `CallbackResult`s, by priority and then in the order of adding."""

    def __init__(self, handlers: Iterable[CustomAsyncCallbackHandler] = (), *, limit_s: float = LIMIT_S) -> None:
        self._members: tuple[_Member, ...] = ()
        self._limit_s = limit_s
        for handler in handlers:
            self.add_handler(handler)

    @property
    def handlers(self) -> tuple[CustomAsyncCallbackHandler, ...]:
        """All members, those of chains included."""
        return tuple(link for member in self._members for link in member.links)

    def add_handler(self, handler: CustomAsyncCallbackHandler, priority: int = 0) -> None:
        """Add a member: all of a lower priority have ended before it begins, equal ones run together."""
        self.add_chain([handler], priority)

    def add_chain(self, links: Sequence[CustomAsyncCallbackHandler], priority: int = 0) -> None:
        """Add members that run one after the other; each gets `previous`, what the one before it returned.

        Raises TypeError for what is no handler, and ValueError for a composite that would hold itself.
        """
        for link in links:
            if not isinstance(link, CustomAsyncCallbackHandler):
                raise TypeError(f"{type(link).__name__} is not a CustomAsyncCallbackHandler")
            if link is self or (isinstance(link, CompositeCallbackHandler) and self in _all_within(link)):
                raise ValueError("a composite cannot be a member of itself")
        members = [*self._members, _Member(tuple(links), priority)]
        self._members = tuple(sorted(members, key=lambda member: member.priority))

    def remove_handler(self, handler: CustomAsyncCallbackHandler) -> bool:
        """Remove a member, also out of a chain; False if it is none. Calls that are under way still tell it."""
        kept = []
        for member in self._members:
            links = tuple(link for link in member.links if link is not handler)
            if links:
                kept.append(_Member(links, member.priority))
        found = len(self.handlers) != sum(len(member.links) for member in kept)
        self._members = tuple(kept)
        return found

    async def on_llm_start(self, messages: list[JSON], **kwargs: Any) -> list[CallbackResult]:
        return await self._all(Event(kind="start", what=messages, kwargs=kwargs))

    async def on_llm_end(self, response: JSON, **kwargs: Any) -> list[CallbackResult]:
        return await self._all(Event(kind="end", what=response, kwargs=kwargs))

    async def on_llm_error(self, error: Exception, **kwargs: Any) -> list[CallbackResult]:
        return await self._all(Event(kind="error", what=error, kwargs=kwargs))

    async def health_check(self) -> JSON:
        for handler in self.handlers:
            answer = await handler.health_check()
            if answer.get("status") != "healthy":
                return unhealthy(f"{type(handler).__name__}: {answer.get('error', 'unhealthy')}")
        return healthy()

    async def close(self) -> None:
        await asyncio.gather(*(handler.close() for handler in self.handlers), return_exceptions=True)

    async def _all(self, event: Event) -> list[CallbackResult]:
        members, results = self._members, []
        for priority in sorted({member.priority for member in members}):
            group = [self._chain(member.links, event) for member in members if member.priority == priority]
            for found in await asyncio.gather(*group):
                results += found
        return results

    async def _chain(self, links: Sequence[CustomAsyncCallbackHandler], event: Event) -> list[CallbackResult]:
        results: list[CallbackResult] = []
        for link in links:
            if results and (results[-1].error is not None or results[-1].skipped):
                results.append(CallbackResult(name=type(link).__name__, skipped=True))
                continue
            more = {"previous": results[-1].value} if results else {}
            results.append(await self._one(link, event, more))
        return results

    async def _one(self, handler: CustomAsyncCallbackHandler, event: Event, more: JSON) -> CallbackResult:
        name = type(handler).__name__
        try:
            async with asyncio.timeout(self._limit_s):
                return CallbackResult(name=name, value=await event.told_to(handler, **more))
        except Exception as error:  # noqa: BLE001 - one member's failure is a result, not the others' end
            return CallbackResult(name=name, error=error)


def _all_within(composite: CompositeCallbackHandler) -> list[CustomAsyncCallbackHandler]:
    found: list[CustomAsyncCallbackHandler] = []
    for handler in composite.handlers:
        found.append(handler)
        if isinstance(handler, CompositeCallbackHandler):
            found += _all_within(handler)
    return found
