"""When a sidecar speaks to the store unasked: every few seconds, and at once when it loses sight of it.

A store that lost writes learns from all who hold something, and ends its lesson when they have spoken: whoever waits for his turn
makes all others wait. One that has just come holds the store to its word more often: the store may have forgotten that it came at
all, and then waits for it only a little.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from accounting.store.errors import StoreError

SOON_SHARE = 10  # of the regular distance: after a failure, and while one is new
_log = logging.getLogger("bursar")


async def beat(
    every_s: Callable[[], float], lost: asyncio.Event, holding: Callable[[], bool], act: Callable[[], Awaitable[None]]
) -> None:
    """Call `act` for ever; StoreError from it means soon again. `lost` is set when the connection breaks; cleared here."""
    loop = asyncio.get_running_loop()
    soon_s = every_s() / SOON_SHARE
    # Sidecars that start together must not beat together. All others have heard of this one after their next beat.
    new_until_s = loop.time() + every_s() * random.uniform(1.2, 2.2)  # noqa: S311
    wait_s, failed = soon_s, False
    while True:
        hurried = await _waited(lost, wait_s)
        if hurried:
            lost.clear()
            await asyncio.sleep(soon_s * random.uniform(0, 0.5))  # noqa: S311 - all of them notice at once
        new = loop.time() < new_until_s
        wait_s = soon_s if new else every_s()  # never more: a store that lost writes waits for us only a little longer
        if new and not (hurried or failed or holding()):
            continue
        try:
            await act()
            failed = False
        except StoreError as error:
            wait_s, failed = soon_s, True
            _log.debug("heartbeat failed: %s", error)


async def _waited(lost: asyncio.Event, most_s: float) -> bool:
    """Wait until it is set, but no longer than that; return whether it is."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await lost.wait()
    return lost.is_set()
