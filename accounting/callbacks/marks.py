"""Marks in the store, so that of all sidecars one tells of a thing, once: claimed first, confirmed when it was told.

A claim that is not confirmed before its lease ends may be taken over: whoever claimed it may have died.
"""

import os

from accounting.store.anywhere import StoreAnywhere
from accounting.store.packing import Argument
from accounting.store.scripts import script
from accounting.store.store import Store

DEADLINE_S = 2.0
FIRST, AGAIN, NO = 1, 2, 0


class Marks:
    """All methods raise StoreError."""

    def __init__(self, store: Store | StoreAnywhere) -> None:
        self._store = store if isinstance(store, StoreAnywhere) else StoreAnywhere(store=store)
        self._token = os.urandom(12).hex()

    async def claim(self, name: str, *, lease_s: float, ttl_ms: int) -> int:
        """Return FIRST, AGAIN (a claim that was never confirmed), or NO: told already, or being told."""
        return await self._run(name, int(lease_s * 1000), ttl_ms, 0)

    async def confirm(self, name: str, *, ttl_ms: int) -> None:
        """Say that it was told: nobody claims it again until the TTL is over."""
        await self._run(name, 0, ttl_ms, 1)

    async def _run(self, name: str, lease_ms: int, ttl_ms: int, confirm: int) -> int:
        args: list[Argument] = [self._token, lease_ms, max(1, ttl_ms), confirm]
        reply = await self._store.use(
            lambda store: store.run(script("mark"), [store.key("alert", name)], args, deadline_s=DEADLINE_S)
        )
        return int(reply)
