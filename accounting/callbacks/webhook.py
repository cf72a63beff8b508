"""Sends notices to a webhook: signed, retried, bounded. How a POST is made is given by the caller; nothing here opens a socket.

The signature is `x-bursar-signature: t=<Unix seconds>,v1=<hex>`, HMAC-SHA256 over `<t>.<body>` with the shared secret, so
that a receiver can refuse what is forged and what is old. A notice keeps its id (`x-bursar-event-id`) over all attempts.
"""

import asyncio
import hmac
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import orjson

from accounting.callbacks.handler import JSON

ATTEMPTS = 5
ATTEMPT_S = 10.0
BACKOFF_S = 0.5
BACKOFF_S_MAX = 15.0
LEASE_S = ATTEMPTS * (ATTEMPT_S + BACKOFF_S_MAX)  # no delivery takes longer
WAITING_MAX = 1000
AT_ONCE = 4
_AGAIN = frozenset({408, 409, 425, 429})
_log = logging.getLogger("bursar.alerts")

Post: TypeAlias = Callable[[str, Mapping[str, str], bytes], Awaitable[int]]  # URL, headers, body -> HTTP status


class Webhook:
    """`post` sends one request and returns the status; what it raises counts as not delivered. `secret` may be empty."""

    def __init__(
        self, url: str, post: Post, *, secret: str = "", attempts: int = ATTEMPTS, backoff_s: float = BACKOFF_S
    ) -> None:
        self._url, self._post, self._secret = url, post, secret.encode()
        self._attempts, self._backoff_s = attempts, backoff_s
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self.delivered_total = self.failed_total = self.dropped_total = 0

    async def send(self, notice: JSON) -> bool:
        """Deliver a notice; False when it was refused, could not be delivered, or too many wait. Raises nothing."""
        if self._waiting >= WAITING_MAX:
            self.dropped_total += 1
            return False
        self._waiting += 1
        try:
            async with self._places:
                delivered = await self._delivered(orjson.dumps(notice), os.urandom(8).hex())
        finally:
            self._waiting -= 1
        if delivered:
            self.delivered_total += 1
        else:
            self.failed_total += 1
        return delivered

    async def _delivered(self, body: bytes, event_id: str) -> bool:
        for attempt in range(self._attempts):
            if attempt:
                wait_s = min(BACKOFF_S_MAX, self._backoff_s * 2**attempt)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            status = await self._status(body, event_id)
            if 200 <= status < 300:  # noqa: PLR2004 - HTTP's classes
                return True
            if 300 <= status < 500 and status not in _AGAIN:  # noqa: PLR2004 - it will not be taken later either
                _log.warning("the alert webhook refuses a notice with status %d", status)
                return False
        _log.warning("the alert webhook did not take a notice in %d attempts", self._attempts)
        return False

    async def _status(self, body: bytes, event_id: str) -> int:
        """Return the status of one attempt, 0 when there was none."""
        headers = {"content-type": "application/json", "x-bursar-event-id": event_id}
        if self._secret:
            headers["x-bursar-signature"] = signature(self._secret, body, int(datetime.now(UTC).timestamp()))
        try:
            async with asyncio.timeout(ATTEMPT_S):
                return await self._post(self._url, headers, body)
        except Exception as error:  # noqa: BLE001 - whatever a transport raises means: not delivered
            _log.debug("the alert webhook cannot be reached: %s", type(error).__name__)
            return 0


def signature(secret: bytes, body: bytes, at_s: int) -> str:
    """Return the header's value for a body sent at that time."""
    digest = hmac.new(secret, f"{at_s}.".encode() + body, "sha256").hexdigest()
    return f"t={at_s},v1={digest}"


def verified(secret: bytes, body: bytes, header: str, *, now_s: int, tolerance_s: int = 300) -> bool:
    """Tell whether a notice is ours and fresh: what a receiver does."""
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    at = parts.get("t", "")
    if not at.isdecimal() or len(at) > 12 or abs(now_s - int(at)) > tolerance_s:  # noqa: PLR2004 - a date, not a novel
        return False
    return hmac.compare_digest(signature(secret, body, int(at)).partition("v1=")[2], parts.get("v1", ""))
