"""Token usage by user and billing cycle on Redis, for services that call LLMs themselves. Not a second ledger.

What the proxy relays is in its ledger alone, and `get_settled_usage` reads it from there; what a service counts itself is
here. Every write is one script that carries a mark, so a command that is sent again after a broken connection counts once.
A store that cannot be reached raises StoreError: it never means "not exceeded".

Keys: hash `token_usage:{user}:{cycle}` with prompt_tokens, completion_tokens, total_tokens; `token_usage_limit:{user}`;
`token_usage_op:{user}:{mark}`. Each has a TTL. The user is percent-encoded, so that no user's key can be another's.
"""

import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypedDict
from urllib.parse import quote

from accounting.callbacks.handler import JSON, healthy, unhealthy
from accounting.periods import Period
from accounting.reading import Reader
from accounting.store.anywhere import StoreAnywhere
from accounting.store.packing import Argument
from accounting.store.resp import Address
from accounting.store.scripts import script
from accounting.store.sentinel import locate_primary
from accounting.store.store import Store
from accounting.store.url import read_url

USAGE_KEPT_S = 100 * 86_400  # a cycle, and three more to look back on
LIMIT_KEPT_S = 400 * 86_400  # counted from its last use
MARK_KEPT_S = 300  # far longer than a command may be under way
DEADLINE_S = 5.0
AMOUNT_MAX = 2**40


class UsageStats(TypedDict):
    """Tokens of one user in one cycle; the total is what counts against the limit."""

    user_id: str
    cycle: str  # its first day, YYYY-MM-DD
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class LimitStatus(TypedDict):
    """Where a user stands; limit and remaining are None without a limit."""

    exceeded: bool  # nothing remains
    current_usage: int
    limit: int | None
    remaining: int | None


class Reservation(TypedDict):
    """What `reserve_within_limit` found; the numbers are those after it."""

    allowed: bool
    current_usage: int
    limit: int | None
    remaining: int | None


class TokenUsageRepository:
    """`store` is a URL as in `store.url` (not embedded), or a `Store` that its owner closes.

    Cycles are named by their first day; None is the current month in UTC. Methods raise ValueError for an empty user, a
    date that is none and an amount that is no count, and StoreError when the store does not take it.
    """

    def __init__(self, store: Store | str, *, prefix: str = "bursar", tenant: str = "default") -> None:
        if isinstance(store, Store):
            self._store = StoreAnywhere(store=store)
            self._root = store.key("") if store.url.kind == "cluster" else ""
            return
        url = read_url(store)
        if url.kind == "embedded":
            raise ValueError("the embedded store belongs to a proxy: give its unix:// address, or a Redis URL")

        async def locate() -> Sequence[Address]:
            return tuple(await locate_primary(url))

        find = locate if url.kind == "sentinel" else None
        self._store = StoreAnywhere(
            lambda: Store(url, prefix=prefix, tenant=tenant, deadline_s=DEADLINE_S, locate=find)
        )
        self._root = f"{prefix}:{{{tenant}}}:" if url.kind == "cluster" else ""

    async def increment_prompt_tokens(self, user_id: str, tokens: int, cycle_start_date: str | None = None) -> int:
        """Add prompt tokens; return the total of the cycle, which moves with them."""
        return await self.increment_detailed_usage(user_id, tokens, 0, cycle_start_date)

    async def increment_completion_tokens(self, user_id: str, tokens: int, cycle_start_date: str | None = None) -> int:
        """Add completion tokens; return the total of the cycle, which moves with them."""
        return await self.increment_detailed_usage(user_id, 0, tokens, cycle_start_date)

    async def increment_total_usage(self, user_id: str, tokens: int, cycle_start_date: str | None = None) -> int:
        """Add tokens of which only the total is known; return the total of the cycle."""
        return (await self._take(user_id, (0, 0, tokens), cycle_start_date, checked=False))["current_usage"]

    async def increment_detailed_usage(
        self, user_id: str, prompt_tokens: int, completion_tokens: int, cycle_start_date: str | None = None
    ) -> int:
        """Add both parts and their sum in one step; return the total of the cycle."""
        amounts = (prompt_tokens, completion_tokens, 0)
        return (await self._take(user_id, amounts, cycle_start_date, checked=False))["current_usage"]

    async def get_usage_stats(self, user_id: str, cycle_start_date: str | None = None) -> UsageStats:
        """Return what was counted here; zeros where nothing was."""
        cycle = cycle_of(cycle_start_date)
        fields = ("prompt_tokens", "completion_tokens", "total_tokens")
        found = await self._call("HMGET", self._usage_key(user_id, cycle), *fields)
        prompt, completion, total = (int(value or 0) for value in found)
        return UsageStats(
            user_id=user_id, cycle=cycle, prompt_tokens=prompt, completion_tokens=completion, total_tokens=total
        )

    async def get_settled_usage(self, user_id: str, cycle_start_date: str | None = None) -> UsageStats:
        """Return what the proxy settled for this user in that cycle, from its ledger's totals by day (UTC)."""
        cycle = cycle_of(cycle_start_date)
        _named(user_id)
        days = days_of(cycle)
        totals = await self._store.use(lambda store: Reader(store).totals(days))
        rows = [row for (_, user, _, _), row in totals.items() if user == user_id]
        prompt, completion = sum(row["input"] for row in rows), sum(row["output"] for row in rows)
        return UsageStats(
            user_id=user_id,
            cycle=cycle,
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
        )

    async def reset_usage(self, user_id: str, cycle_start_date: str | None = None) -> None:
        """Forget what was counted in that cycle; the limit stays."""
        await self._call("DEL", self._usage_key(user_id, cycle_of(cycle_start_date)))

    async def set_usage_limit(self, user_id: str, limit: int | None) -> None:
        """Set how many tokens each cycle may have, for this and all later ones; None removes the limit."""
        key = self._limit_key(user_id)
        if limit is None:
            await self._call("DEL", key)
        else:
            await self._call("SET", key, _amount(limit), "EX", LIMIT_KEPT_S)

    async def check_usage_limit(self, user_id: str, cycle_start_date: str | None = None) -> LimitStatus:
        """Return where the user stands. Two callers may see the same remainder: to spend it, use `reserve_within_limit`."""
        limit = await self._call("GET", self._limit_key(user_id))
        if limit is not None:
            await self._call("EXPIRE", self._limit_key(user_id), LIMIT_KEPT_S)
        used = (await self.get_usage_stats(user_id, cycle_start_date))["total_tokens"]
        if limit is None:
            return LimitStatus(exceeded=False, current_usage=used, limit=None, remaining=None)
        return LimitStatus(
            exceeded=used >= int(limit), current_usage=used, limit=int(limit), remaining=max(0, int(limit) - used)
        )

    async def reserve_within_limit(
        self, user_id: str, tokens: int, cycle_start_date: str | None = None, *, operation_id: str | None = None
    ) -> Reservation:
        """Check the limit and take the tokens in one atomic step; without a limit they are always taken.

        The same `operation_id` within five minutes takes once and answers the same.
        """
        return await self._take(user_id, (0, 0, tokens), cycle_start_date, checked=True, mark=operation_id)

    async def settle_reservation(
        self,
        user_id: str,
        reserved: int,
        prompt_tokens: int,
        completion_tokens: int,
        cycle_start_date: str | None = None,
        *,
        operation_id: str | None = None,
    ) -> int:
        """Put the real numbers in the place of what was reserved; return the total of the cycle."""
        prompt, completion = _amount(prompt_tokens), _amount(completion_tokens)
        keys = [self._usage_key(user_id, cycle_of(cycle_start_date)), self._mark_key(user_id, "s", operation_id)]
        args: list[Argument] = [prompt, completion, prompt + completion - _amount(reserved), USAGE_KEPT_S, MARK_KEPT_S]
        return int(await self._run("usage_adjust", keys, args))

    async def health_check(self) -> JSON:
        """Return `{"status": "healthy" | "unhealthy", "error"?, "timestamp"}`; never raises."""
        try:
            await self._call("PING", deadline_s=2.0)
        except Exception as error:  # noqa: BLE001 - a health check tells, it never raises
            return unhealthy(error)
        return healthy()

    async def close(self) -> None:
        """Cut the connections that this repository made."""
        await self._store.close()

    async def _take(
        self,
        user_id: str,
        amounts: tuple[int, int, int],
        cycle_start_date: str | None,
        *,
        checked: bool,
        mark: str | None = None,
    ) -> Reservation:
        keys = [
            self._usage_key(user_id, cycle_of(cycle_start_date)),
            self._limit_key(user_id),
            self._mark_key(user_id, "t", mark),
        ]
        args: list[Argument] = [*map(_amount, amounts), int(checked), USAGE_KEPT_S, LIMIT_KEPT_S, MARK_KEPT_S]
        taken, total, limit = await self._run("usage", keys, args)
        none = limit < 0
        return Reservation(
            allowed=bool(taken),
            current_usage=total,
            limit=None if none else limit,
            remaining=None if none else max(0, limit - total),
        )

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await self._store.use(lambda store: store.run(script(name), keys, args, deadline_s=DEADLINE_S))

    async def _call(self, *command: Argument, deadline_s: float = DEADLINE_S) -> Any:
        return await self._store.use(lambda store: store.call(*command, deadline_s=deadline_s))

    def _usage_key(self, user_id: str, cycle: str) -> str:
        return f"{self._root}token_usage:{_named(user_id)}:{cycle}"

    def _limit_key(self, user_id: str) -> str:
        return f"{self._root}token_usage_limit:{_named(user_id)}"

    def _mark_key(self, user_id: str, kind: str, mark: str | None) -> str:
        return f"{self._root}token_usage_op:{_named(user_id)}:{kind}:{quote(mark, safe='') if mark else os.urandom(12).hex()}"


def cycle_of(start_date: str | None) -> str:
    """Return the name of a cycle: the date itself, or the first day of this month in UTC. Raises ValueError."""
    if start_date is None:
        return datetime.now(UTC).strftime("%Y-%m-01")
    try:
        if date.fromisoformat(start_date).isoformat() == start_date:
            return start_date
    except (ValueError, TypeError):
        pass
    raise ValueError(f"cycle_start_date wants YYYY-MM-DD, not {start_date!r}")


def days_of(cycle: str) -> list[str]:
    """Return the days of a cycle that begins on that day, YYYYMMDD: one month, ending before the same day of the next."""
    first = date.fromisoformat(cycle)
    noon = datetime(first.year, first.month, first.day, 12, tzinfo=UTC)
    window = Period(kind="cycle", starts=first).window(int(noon.timestamp() * 1000))
    assert window.end_ms is not None
    end = datetime.fromtimestamp(window.end_ms / 1000, UTC).date()
    return [(first + timedelta(days=n)).strftime("%Y%m%d") for n in range((end - first).days)]


def _named(user_id: object) -> str:
    if not isinstance(user_id, str) or not user_id.strip():
        raise ValueError("user_id must not be empty")
    return quote(user_id, safe="@+=,")


def _amount(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= AMOUNT_MAX:
        raise ValueError(f"a number of tokens is an integer from 0 to {AMOUNT_MAX}")
    return value
