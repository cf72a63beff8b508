"""Keeps one token fresh for all calls that need it.

A token is renewed by one call, ahead of its end; the others go on with the old one meanwhile, and wait only when there is
none that is valid. There is no task in the background: where nobody calls, nothing is fetched, and a call that is
cancelled while it fetches hands the fetch to the next that waits.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from adapters.credentials.files import CredentialsError
from adapters.errors import UpstreamAuthError, UpstreamError

T = TypeVar("T")

AHEAD_S = 300  # so long before its end a token is renewed, and up to AHEAD_JITTER_S earlier
AHEAD_JITTER_S = 60  # or all sidecars that started together would renew together
SKEW_S = 10  # so close to its end a token is not used any more
WAIT_S = 15  # the longest that a call waits for a token
WAIT_AHEAD_S = 3  # … while the old one is still valid
BACKOFF_MAX_S = 30  # between attempts that fail


@dataclass(frozen=True, slots=True)
class Lease(Generic[T]):
    """Something that is valid until a time, in Unix seconds."""

    value: T
    expires_at_s: float


class Renewed(Generic[T]):
    """A value that `fetch` leases; `clock` gives Unix seconds, `source` is how an error calls it."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Lease[T]]],
        clock: Callable[[], float],
        *,
        source: str,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._fetch, self._clock, self._source, self._jitter = fetch, clock, source, jitter
        self._lease: Lease[T] | None = None
        self._renew_at_s = 0.0
        self._lock = asyncio.Lock()
        self._flights = 0  # fetches that ended, well or not
        self._failures = 0  # in a row
        self._retry_at_s = 0.0
        self._error = f"{source}: no answer in time"

    async def get(self) -> T:
        """Return a valid value. Raises UpstreamAuthError when none can be had; waits WAIT_S at most."""
        lease, now_s = self._lease, self._clock()
        if lease is not None and now_s < self._renew_at_s:
            return lease.value
        valid = lease is not None and now_s < lease.expires_at_s - SKEW_S
        may_wait = not (valid and self._lock.locked())
        if may_wait and now_s >= self._retry_at_s:
            await self._renew(WAIT_AHEAD_S if valid else WAIT_S)
        lease = self._lease
        if lease is not None and self._clock() < lease.expires_at_s - SKEW_S:
            return lease.value
        raise UpstreamAuthError(self._error)

    async def _renew(self, limit_s: float) -> None:
        flight = self._flights
        try:
            async with asyncio.timeout(limit_s), self._lock:
                if self._flights == flight:  # else another call has fetched while this one waited
                    await self._fly()
        except TimeoutError:
            self._failed(flight, "no answer in time")

    async def _fly(self) -> None:
        flight = self._flights
        try:
            lease = await self._fetch()
        except (UpstreamError, CredentialsError) as error:
            self._failed(flight, str(error))
            return
        now_s = self._clock()
        if lease.expires_at_s - SKEW_S <= now_s:
            self._failed(flight, "what it gave has already expired; is this machine's clock right?")
            return
        ahead_s = min(AHEAD_S + self._jitter() * AHEAD_JITTER_S, (lease.expires_at_s - now_s) / 2)
        self._lease, self._renew_at_s = lease, lease.expires_at_s - ahead_s
        self._flights, self._failures, self._retry_at_s = flight + 1, 0, 0

    def _failed(self, flight: int, why: str) -> None:
        if self._flights != flight:  # another call has already said so, or has succeeded
            return
        self._flights += 1
        self._retry_at_s = self._clock() + min(2**self._failures, BACKOFF_MAX_S)
        self._failures = min(self._failures + 1, 10)
        self._error = why if why.startswith(self._source) else f"{self._source}: {why}"
