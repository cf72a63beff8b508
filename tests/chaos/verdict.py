"""What must be true after all of it: the store's counters, its usage records, the provider's invoice and what clients saw agree.

What is not exact is bounded: a call that was cut is charged no less than its client saw, and no more than the provider made or one
interval beyond that (256 tokens).
"""

import asyncio
import json
from collections import Counter, defaultdict

from tests.chaos.mix import PREFIX, Mix

INTERVAL = 256
TTL_S = 31
_ENDLESS = ("g", "lim", "sess", "u", "budgets", "keys", "audit", "pepper")  # keys that last as long as the store does


class Found:
    """All that the store knows: counters and holds by budget and window, records, keys that never end."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[str, int]] = {}
        self.holds: dict[str, list[tuple[str, int, int]]] = {}
        self.records: list[dict] = []
        self.endless: list[str] = []
        self.now_ms = 0

    @property
    def living(self) -> list[str]:
        return [rid for holds in self.holds.values() for rid, _, until_ms in holds if until_ms > self.now_ms]


async def look(mix: Mix) -> Found:
    found, call = Found(), mix.store.command
    seconds, _ = await call("TIME")
    found.now_ms = int(seconds) * 1000
    root = f"{PREFIX}:{{default}}:"
    for key in [key.decode() for key in await call("KEYS", f"{root}*")]:
        kind, _, rest = key.removeprefix(root).partition(":")
        if await call("PTTL", key) == -1:
            found.endless.append(key.removeprefix(root))
        if kind == "b":
            flat = await call("HGETALL", key)
            found.counters[rest] = {k.decode(): int(v) for k, v in zip(flat[::2], flat[1::2], strict=True)}
        elif kind == "x":
            flat = await call("ZRANGE", key, 0, -1, "WITHSCORES")
            found.holds[rest] = []
            for member, until_ms in zip(flat[::2], flat[1::2], strict=True):
                rid, _, amount = member.decode().partition("|")
                found.holds[rest].append((rid, int(amount), int(float(until_ms))))
        elif kind == "u":
            for _, fields in await call("XRANGE", key, "-", "+"):
                found.records.append(json.loads(dict(zip(fields[::2], fields[1::2], strict=True))[b"r"]))
    return found


async def at_rest(mix: Mix) -> Found:
    """Wait until all is settled, then end the sidecars, and wait for one lease: then nobody holds anything."""
    before = None
    async with asyncio.timeout(60):
        while before != (before := len((await look(mix)).records)):
            await asyncio.sleep(4)
    await mix.stop()
    async with asyncio.timeout(TTL_S):
        while (found := await look(mix)).living:
            await asyncio.sleep(1)
    return found


def judge(mix: Mix, found: Found) -> list[str]:
    """Return what is wrong."""
    exits = [f"sidecar {place.number} ended with {place.exit_code}" for place in mix.places if place.exit_code != 0]
    return [*exits, *_counters(found), *_records(mix, found), *_sums(found), *_keys(found), *_logs(mix)]


def _counters(found: Found) -> list[str]:
    """I1, I2, I4: nothing is negative, what is held is the sum of the holds, nothing passes its limit unexplained."""
    wrong = []
    limits = {"user:alice|tokens|minute": 5000, "user:bob|tokens|minute": 5000,
              "team:lab|usd|minute": 30_000_000, "user:carol|tokens|total": 25_000}  # fmt: skip
    for place, c in found.counters.items():
        held = sum(amount for _, amount, _ in found.holds.get(place, ()))
        if min(c.values()) < 0 or c.get("held", 0) != held:
            wrong.append(f"I2: {place} says {c}, and holds {held}")
        limit = limits.get(place.rpartition(":")[0])
        if limit is not None and c.get("used", 0) > limit + c.get("over", 0) + c.get("late", 0):
            wrong.append(f"I1: {place} says {c} of {limit}")
    return wrong


def _records(mix: Mix, found: Found) -> list[str]:
    """I3, I14: each call has one record at most, and it says what the client saw and the provider billed."""
    wrong = []
    records = {record["id"]: record for record in found.records}
    for name, times in Counter(record["id"] for record in found.records).items():
        if times > 1:
            wrong.append(f"I3: call {name} has {times} records")
    billed: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for line in mix.invoice.read_text().splitlines():
        entry = json.loads(line)
        billed[entry["request_id"]][0] += entry["prompt_tokens"]
        billed[entry["request_id"]][1] += entry["completion_tokens"]
    for seen in mix.seen:
        record = records.get(seen.request_id)
        if record is None:
            if seen.tokens:
                wrong.append(f"P4: {seen} has no record")
            continue
        made = billed[seen.request_id][1]
        if (
            record["outcome"] == "ok"
            and not record["estimated"]
            and [record["input"], record["output"]] != billed[seen.request_id]
        ):
            wrong.append(f"I14: {seen} was billed {billed[seen.request_id]}, its record is {record}")
        if not seen.tokens <= record["output"] <= max(seen.tokens + INTERVAL, made):
            wrong.append(f"P4: {seen} was billed {made}, its record is {record}")
        if seen.done and record["outcome"] == "ok" and record["output"] != seen.tokens:
            wrong.append(f"I3: {seen} came to its end, its record is {record}")
    return wrong


def _sums(found: Found) -> list[str]:
    """I9: over all its windows a budget has used what the records of its subject say."""
    wrong, used, told = [], Counter(), Counter()
    for place, c in found.counters.items():
        used[place.rpartition(":")[0]] += c.get("used", 0)
    for record in found.records:
        tokens, cost = record["input"] + record["output"], record["cost_nanousd"] or 0
        own = "total" if record["user"] == "carol" else "minute"
        told[f"user:{record['user']}|tokens|{own}"] += tokens
        told["team:lab|usd|minute"] += cost
        told["tenant:default|tokens|total"] += tokens
        told["tenant:default|usd|total"] += cost
    for name, amount in told.items():
        if used[name] != amount:
            wrong.append(f"I9: {name} has used {used[name]}, and its records say {amount}")
    return wrong


def _keys(found: Found) -> list[str]:
    """I12: what has no end is one of few, or counts without end."""
    return [
        f"I12: {key} never ends"
        for key in found.endless
        if key.split(":")[0] not in _ENDLESS and not (key.startswith(("b:", "x:")) and key.endswith("|total:total"))
    ]


def _logs(mix: Mix) -> list[str]:
    """Nobody saw amounts that contradict each other, or a failure of our own."""
    signs = ("Traceback", "with other amounts", "rejects the settlement", "rejects seq", " failed: ")
    return [
        f"log of {place.number}: {line[:300]}"
        for place in mix.places
        for log in [*place.logs, place.running.log if place.running else ""]
        for line in log.splitlines()
        if any(sign in line for sign in signs)
    ]
