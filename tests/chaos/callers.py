"""Clients that call without end, of several users, in every way that a provider and a client can misbehave; each notes what it saw."""

import asyncio
import json
import random
from dataclasses import dataclass

import aiohttp

USERS = ("alice", "bob", "carol")
LIMIT = 300
_LOST = (aiohttp.ClientError, TimeoutError, ConnectionError, json.JSONDecodeError)


def key_of(user: str) -> str:
    return f"sk-{user}-0123456789abcdef0123456789"


@dataclass(eq=False)
class Seen:
    """One call, as its client saw it. `status` is 0 if there was no answer; `done`: it came to its end."""

    user: str
    model: str
    request_id: str = ""
    status: int = 0
    tokens: int = 0
    done: bool = False
    error: bool = False


class Caller:
    """One client of one place; `url` tells where that is now, None while it is gone."""

    def __init__(self, user: str, place, http: aiohttp.ClientSession, rng: random.Random, seen: list[Seen]) -> None:
        self._user, self._place, self._http, self._rng, self._seen = user, place, http, rng, seen

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            if self._place.url is None:
                await asyncio.sleep(0.05)
                continue
            seen = await self.call(self._place.url)
            await asyncio.sleep(1 if seen.status in (0, 503) else self._rng.expovariate(4))

    async def call(self, url: str) -> Seen:
        rng = self._rng
        k, pace = rng.randrange(1, 120), rng.choice((100, 400, 400, 2000))
        script, leaves = rng.choice((
            (f"length={rng.randrange(1, 290)}", None), (f"length={rng.randrange(1, 290)}", None),
            (f"length={k}&no_usage", None), ("length=200", k), (f"length=200&stall={k}", k), (f"length=200&cut={k}", None),
            (f"length=200&error_after={k}", None), (f"length=200&reset={k}", None), ("status=500", None), ("status=429", None),
        ))  # fmt: skip
        seen = Seen(self._user, f"gpt-4o?{script}&pace={pace}")
        self._seen.append(seen)
        body = {
            "model": seen.model,
            "messages": [{"role": "user", "content": "Say hello " + "again " * rng.randrange(40)}],
        }
        if rng.random() < 0.8:
            body["max_tokens"] = LIMIT
        stream = leaves is not None or rng.random() < 0.75
        try:
            async with asyncio.timeout(90):
                await self._ask(url, body | {"stream": stream}, seen, leaves)
        except _LOST:
            pass
        return seen

    async def _ask(self, url: str, body: dict, seen: Seen, leaves: int | None) -> None:
        headers = {"authorization": f"Bearer {key_of(self._user)}"}
        async with self._http.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
            seen.status, seen.request_id = answer.status, answer.headers.get("x-request-id", "")
            if answer.status != 200 or not body["stream"]:
                told = json.loads(await answer.read())
                if usage := told.get("usage"):
                    seen.done, seen.tokens = True, usage["completion_tokens"]
                return
            async for line in answer.content:
                self._take(seen, line)
                if leaves is not None and seen.tokens >= leaves:
                    answer.close()
                    return

    @staticmethod
    def _take(seen: Seen, line: bytes) -> None:
        if line == b"data: [DONE]\n":
            seen.done = True
        elif line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            seen.error = seen.error or "error" in chunk
            choices = chunk.get("choices")
            if choices and choices[0]["delta"].get("content"):
                seen.tokens += 1
