"""The scripts with the model's signatures, on a clock of ours; and all counters as the model has them."""

from collections.abc import Callable
from typing import Any

from tests.ledger.model import Ask, Counters, Draw
from tests.ledger.seam import Clocked

ROOT = "b:{t}:"
DAY_MS = 86_400_000


def key(*parts: str) -> str:
    return ROOT + ":".join(parts)


class Lua:
    """The ledger as it is. `expiry` says when the counters of a budget in a window end, in ms (0: never)."""

    def __init__(self, clocked: Clocked) -> None:
        self.redis = clocked
        self.expiry: Callable[[str, str], int] = lambda _budget, _pid: 0

    @property
    def now(self) -> int:
        return self.redis.now_ms

    @now.setter
    def now(self, now_ms: int) -> None:
        self.redis.at(now_ms)

    def reserve_command(
        self, run_id: str, cfg: int, sid: str, seq: int, ttl: int, ask: Ask
    ) -> tuple[list[str], list[Any]]:
        keys = [key("g"), key("s", sid), key("lim"), key("sess")]
        args: list[Any] = [run_id, cfg, sid, seq, ttl, ask.wanted, ask.least, ask.share, len(ask.draws), len(ask.rates)]
        for d in ask.draws:
            keys += [key("b", d.budget, d.pid), key("x", d.budget, d.pid)]
            terms = f"{d.version}|{d.limit}|{d.binds:d}|{d.full:d}|{d.start}|{d.end}|{d.bucket}"
            args += [d.budget, terms, d.fixed, d.per]
        for r in ask.rates:
            keys.append(key("q", r.key))
            args += [r.limit, r.window, r.fixed, r.per]
        return keys, args

    def reserve(self, run_id: str, cfg: int, sid: str, seq: int, ttl: int, ask: Ask) -> list[Any]:
        return self.redis.run("reserve", *self.reserve_command(run_id, cfg, sid, seq, ttl, ask))

    def settle(
        self, run_id: str, sid: str, seq: int, ack: int, print_: str, told: bool,
        rows: list[tuple[str, str, bytes, int | str, int]], expiry: int | None = None,
    ) -> list[Any]:  # fmt: skip
        keys = [key("s", sid), key("u"), key("day", "20260101"), key("g")]
        record = '{"r":1}' if told else ""
        args: list[Any] = [sid, seq, ack, print_, record, 1000, "", "k|u|t|m", 1, 2, 3, 400 * DAY_MS, len(rows), run_id]
        for budget, pid, name, held, actual in rows:
            keys += [key("b", budget, pid), key("x", budget, pid)]
            args += [name, held, actual, self.expiry(budget, pid) if expiry is None else expiry]
        return self.redis.run("settle", keys, args)

    def extend(
        self, run_id: str, sid: str, ttl: int, holds: list[tuple[int, int, list[tuple[str, str, int]]]],
        expiry: int | None = None,
    ) -> list[Any]:  # fmt: skip
        keys = [key("g"), key("s", sid), key("sess")]
        args: list[Any] = [run_id, sid, ttl, len(holds)]
        for seq, granted, draws in holds:
            args += [seq, granted, len(draws)]
            for budget, pid, amount in draws:
                keys += [key("b", budget, pid), key("x", budget, pid)]
                args += [amount, self.expiry(budget, pid) if expiry is None else expiry]
        return self.redis.run("extend", keys, args)

    def generation(
        self, run_id: str, learn_ms: int, live_ms: int, epoch: str, remembered: str, sid: str = "g", arrivals: int = 0, told: bool = False,
        ttl: int = 30_000,
    ) -> list[Any]:  # fmt: skip
        args = [run_id, learn_ms, live_ms, epoch, remembered, sid, learn_ms // 3, ttl, arrivals, int(told)]
        return self.redis.run("generation", [key("g"), key("sess"), key("awaited")], args)

    def read(self, draws: list[Draw]) -> list[Any]:
        keys, args = [key("g"), key("lim")], []
        for d in draws:
            keys += [key("b", d.budget, d.pid), key("x", d.budget, d.pid)]
            args += [d.budget, d.bucket]
        return self.redis.run("read", keys, args)

    def grow(
        self, run_id: str, sid: str, seq: int, ttl: int, wanted: int, least: int, draws: tuple[Draw, ...]
    ) -> list[Any]:
        keys = [key("g"), key("s", sid), key("lim")]
        args: list[Any] = [run_id, sid, seq, ttl, wanted, least, len(draws)]
        for d in draws:
            keys += [key("b", d.budget, d.pid), key("x", d.budget, d.pid)]
            args += [d.budget, d.version, d.limit, d.fixed, d.per, int(d.binds), d.bucket]
        return self.redis.run("grow", keys, args)

    def configure(self, *forget: str, what: str = "budgets", field: str = "f", value: str = "v") -> int:
        keys = [key("g"), key(what), key("lim"), key("audit")]
        return self.redis.run("configure", keys, [field, value, "{}", *forget])

    def adjust(self, budget: str, pid: str, bucket: int, change: int, mark: str) -> list[Any]:
        keys = [key("b", budget, pid), key("audit"), key("adj", mark), key("g")]
        return self.redis.run("adjust", keys, [bucket, change, "{}", self.expiry(budget, pid)])

    def mark(self, name: str, token: str, lease: int, confirm: bool) -> int:
        return self.redis.run("mark", [key("alert", name)], [token, lease, DAY_MS, int(confirm)])

    def usage(self, who: str, mark: str, parts: tuple[int, int, int], checked: bool) -> list[Any]:
        keys = [key("usage", who), key("limit", who), key("op", mark)]
        return self.redis.run("usage", keys, [*parts, int(checked), 86_400, 86_400, 86_400])

    def usage_adjust(self, who: str, mark: str, change: tuple[int, int, int]) -> int:
        return self.redis.run("usage_adjust", [key("usage", who), key("op", mark)], [*change, 86_400, 86_400])

    def usage_limit(self, who: str, limit: int) -> None:
        self.redis("SET", key("limit", who), limit)

    def told(self) -> list[str]:
        """Whose usage records there are, and (as its last) how many calls the day's totals count."""
        entries, calls = self.redis.pipe(
            [("XRANGE", key("u"), "-", "+"), ("HGET", key("day", "20260101"), "k|u|t|m|n")]
        )
        return [*(entry[1][1].decode() for entry in entries), str(int(calls or 0))]

    def counters(self, budget: str, pid: str) -> tuple[dict[str, int], dict[str, tuple[int, int]], int]:
        """Return the numbers of one budget, its holds (rid -> amount, expiry), and the held counter."""
        fields, members = self.redis.pipe(
            [
                ("HGETALL", key("b", budget, pid)),
                ("ZRANGE", key("x", budget, pid), 0, -1, "WITHSCORES"),
            ]
        )
        numbers = {k.decode(): int(v) for k, v in zip(fields[::2], fields[1::2], strict=True)}
        holds = {}
        for member, score in zip(members[::2], members[1::2], strict=True):
            rid, _, amount = member.decode().partition("|")
            assert rid not in holds, "one call holds one amount"
            holds[rid] = (int(amount), int(float(score)))
        return numbers, holds, numbers.pop("held", 0)


def differences(lua: Lua, budget: str, pid: str, c: Counters) -> list[str]:
    """What the scripts' counters say otherwise than the model's."""
    numbers, holds, held = lua.counters(budget, pid)
    wanted = {"n": c.n, "over": c.over, "late": c.late, "expired": c.expired, **c.used}
    found = [
        f"{name}: {numbers.get(name, 0)} != {n}"
        for name, n in wanted.items()
        if numbers.get(name, 0) != n and not (name.startswith("u") and name[1:].isdigit() and name not in numbers)
    ]
    if any(n < 0 for n in numbers.values()) or held < 0:
        found.append(f"negative: {numbers} held {held}")
    if held != sum(amount for amount, _ in holds.values()):
        found.append(f"held {held} is not the sum of {holds}")
    mine = {rid: (hold.amount, hold.expiry) for rid, hold in c.holds.items()}
    if holds != mine:
        found.append(f"holds {holds} != {mine}")
    return found
