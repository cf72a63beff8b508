"""One store for callers on several event loops: handlers run on loops of their own, and a connection belongs to one loop.

Of a URL each loop gets a connection; a store that is given is only ever used on the loop that it lives on.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from accounting.store.store import Store

_T = TypeVar("_T")


class StoreAnywhere:
    """`make` makes a store not yet connected; or give a `store` that somebody else closes."""

    def __init__(self, make: Callable[[], Store] | None = None, *, store: Store | None = None) -> None:
        assert (make is None) != (store is None)
        self._make, self._store = make, store
        self._home = _running() if store is not None else None
        self._guard = threading.Lock()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Store] = WeakKeyDictionary()

    async def use(self, act: Callable[[Store], Awaitable[_T]]) -> _T:
        """Do something with the store, on the loop that it belongs to. Raises what `act` raises."""
        here = asyncio.get_running_loop()
        if self._store is None:
            return await act(self._here(here))
        if self._home is None:
            self._home = here
        if self._home is here:
            return await act(self._store)
        store = self._store

        async def there() -> _T:
            return await act(store)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self._home))

    async def close(self) -> None:
        """Cut the connections that were made here, each on its own loop."""
        with self._guard:
            stores = list(self._by_loop.items())
            self._by_loop.clear()
        here = asyncio.get_running_loop()
        for loop, store in stores:
            if loop is here:
                await store.close()
            elif loop.is_running():
                await asyncio.wait(
                    {asyncio.wrap_future(asyncio.run_coroutine_threadsafe(store.close(), loop))}, timeout=1
                )

    def _here(self, loop: asyncio.AbstractEventLoop) -> Store:
        with self._guard:
            store = self._by_loop.get(loop)
            if store is None:
                assert self._make is not None
                store = self._by_loop[loop] = self._make()
            return store


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
