"""Answers kept for equal requests: the same provider, address, model and body, within a time. Off unless given to a client.

Answers with tool calls and those cut off at their limit are kept too: an equal request gets an equal answer. Failures never.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import orjson

from adapters.clients.messages import JSON, LLMResponse


class ResponseCache:
    """The newest `entries_max` answers, each for `seconds`. May be shared by the clients of one event loop."""

    def __init__(
        self, entries_max: int = 1024, seconds: float = 300.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries_max, self._seconds, self._clock = entries_max, seconds, clock
        self._entries: OrderedDict[bytes, tuple[float, LLMResponse]] = OrderedDict()
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def key(provider: str, base_url: str, body: JSON) -> bytes:
        """Name a request; the order of its fields does not matter, `user` and `metadata` do: answers are not shared over them."""
        data = orjson.dumps([provider, base_url, body], option=orjson.OPT_SORT_KEYS, default=str)
        return hashlib.blake2b(data, digest_size=32).digest()

    def get(self, key: bytes) -> LLMResponse | None:
        """Return the answer, marked as cached: it used no tokens and cost nothing."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self._clock():
            self._entries.pop(key, None)
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return replace(
            entry[1],
            cached=True,
            tokens_used=0,
            prompt_tokens=0,
            completion_tokens=0,
            cost_estimate=0.0,
            response_time=0.0,
        )

    def put(self, key: bytes, response: LLMResponse) -> None:
        """Keep an answer."""
        self._entries[key] = (self._clock() + self._seconds, response)
        self._entries.move_to_end(key)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
