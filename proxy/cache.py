"""Keeps answers to calls that would get the same answer again, for the same key only. Off by default: it stores completions.

Only what is deterministic by its own words is kept: embeddings, and calls at temperature 0 for one whole answer. A hit is told in
`x-bursar-cache` and `age`, is metered as `cached`, costs nothing, and still counts against rates and concurrency.
`cache-control: no-cache` asks the provider anew, `no-store` keeps nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from accounting.ask import Ask
from accounting.store.errors import StoreError
from accounting.store.store import Store
from proxy.asked import Asked
from proxy.config.model import Cache as CacheConfig
from proxy.principal import Principal
from proxy.upstreams import Target

ANSWER_BYTES_MAX = 256 * 1024
_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer that was kept; `age_s` since then."""

    body: bytes
    provider: str
    model: str
    age_s: int


class AnswerCache:
    """The cache of one sidecar; the store shares it with others of the same tenant. Without the store nothing is found."""

    def __init__(self, store: Store, config: CacheConfig) -> None:
        self._store, self.config = store, config

    def key(
        self, asked: Asked, principal: Principal, targets: Sequence[Target], headers: Mapping[str, str]
    ) -> str | None:
        """Return the key of a call; None for one that must not be answered from here."""
        if self.config.mode == "off" or not _is_deterministic(asked):
            return None
        if "no-store" in headers.get("cache-control", "").lower():
            return None
        caller = principal.caller
        places = sorted(target.place for target in targets)
        try:
            body = orjson.dumps(asked.body, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # an integer beyond 64 bits
            return None
        who = [_VERSION, caller.tenant, caller.key, caller.user, caller.team, asked.operation, places]
        return hashlib.sha256(orjson.dumps(who) + b"\n" + body).hexdigest()

    async def find(self, key: str | None, headers: Mapping[str, str], now_ms: int) -> Kept | None:
        """Return what was kept under `key`, unless the client wants an answer of its own."""
        if key is None or "no-cache" in headers.get("cache-control", "").lower():
            return None
        try:
            data = await self._store.call("GET", self._store.key("answer", key))
        except StoreError:
            return None
        if data is None:
            return None
        kept_ms, provider, model, body = data.split(b"\n", 3)
        age_s = max(0, (now_ms - int(kept_ms)) // 1000)
        return Kept(body=body, provider=provider.decode(), model=model.decode(), age_s=age_s)

    async def keep(self, key: str, target: Target, body: bytes, now_ms: int) -> None:
        """Keep an answer for as long as is configured; one that is too large is not kept."""
        provider, model = target.names
        if len(body) > ANSWER_BYTES_MAX or "\n" in model:
            return
        data = f"{now_ms}\n{provider}\n{model}\n".encode() + body
        life_ms = max(1, round(self.config.seconds * 1000))
        try:
            await self._store.call("SET", self._store.key("answer", key), data, "PX", life_ms)
        except StoreError:
            return


def headers_of(kept: Kept) -> dict[str, str]:
    """Return the headers of an answer from the cache."""
    return {
        "x-bursar-cache": "hit", "age": str(kept.age_s), "x-bursar-provider": kept.provider, "x-bursar-cost-usd": "0",
    }  # fmt: skip


def asks_only_for_speed(ask: Ask) -> Ask:
    """Return what an answer from the cache asks of the ledger: a place among the calls at once, and its turn."""
    draws = tuple(draw for draw in ask.draws if draw.budget.unit == "concurrency")
    rates = tuple(rate for rate in ask.rates if rate.what == "requests")
    return Ask(draws=draws, rates=rates)


def _is_deterministic(asked: Asked) -> bool:
    if asked.stream or asked.unbounded is not None or asked.choices != 1:
        return False
    if asked.operation == "embeddings":
        return True
    temperature: Any = asked.body.get("temperature")
    fixed = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return fixed and asked.operation in ("chat", "completions") and not asked.body.get("store")
