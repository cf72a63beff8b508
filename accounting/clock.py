"""The clock of the loop that runs us, at the price of one call into C.

What a stranger would get wrong: it must be the loop's own, since a simulation has loops whose time is not the machine's.
"""

import asyncio
import time
from collections.abc import Callable


def loop_clock() -> Callable[[], float]:
    """Return what tells the running loop's time in seconds."""
    loop = asyncio.get_running_loop()
    # asyncio's own `time` is a function around this one.
    return time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time


def loop_time_s() -> float:
    """Return the running loop's time, whichever loop that is."""
    return asyncio.get_running_loop().time()
