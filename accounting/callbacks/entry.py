"""One handler as a runner knows it, and one attempt to tell it something. Nothing here raises what a handler raises."""

import asyncio
import logging
from dataclasses import dataclass

from accounting.callbacks.event import Event
from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler

LIMIT_S = 30.0
_log = logging.getLogger("bursar.callbacks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a handler is run: `attempts` in all, `delay_s` before the second, twice as much before each further one."""

    attempts: int = 1
    delay_s: float = 0.1
    limit_s: float = LIMIT_S


@dataclass(frozen=True, slots=True)
class Entry:
    """A handler by the name that its failures and counts are told under."""

    name: str
    handler: CustomAsyncCallbackHandler
    policy: Policy


async def tried(entry: Entry, event: Event) -> tuple[str, str | None]:
    """Return the status and the kind of error of one attempt."""
    try:
        async with asyncio.timeout(entry.policy.limit_s):
            await event.told_to(entry.handler)
    except TimeoutError:
        return "timeout", "TimeoutError"
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is its own matter
        return "error", type(error).__name__
    return "ok", None


async def close_quietly(handler: CustomAsyncCallbackHandler) -> None:
    """Close a handler; a failure is logged by its name."""
    try:
        await handler.close()
    except Exception as error:  # noqa: BLE001 - a handler that cannot close must not keep others from it
        _log.warning("callback %s did not close: %s", type(handler).__name__, type(error).__name__)


async def health_of(handler: CustomAsyncCallbackHandler) -> JSON:
    """Return its health, as a coroutine that a lane can run. Raises what the handler raises."""
    return await handler.health_check()
