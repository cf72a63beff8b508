"""Notices that a file has changed, also when it is a link that is put on another file, as Kubernetes does with a ConfigMap."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path


async def changes(source: str, every_s: float) -> AsyncIterator[None]:
    """Yield after each change of the file, looked for that often, for ever."""
    seen = _state(source)
    while True:
        await asyncio.sleep(every_s)
        now = await asyncio.to_thread(_state, source)
        if now != seen:
            seen = now
            yield


def _state(source: str) -> tuple[int, int] | None:
    try:
        state = Path(source).stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino
