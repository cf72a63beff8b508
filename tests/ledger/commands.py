"""The scripts with the model's signatures, on a clock of ours; and all counters as the model has them."""

from typing import Any

from tests.ledger.model import Ask, Counters, Draw
from tests.ledger.seam import Clocked

ROOT = "b:{t}:"
DAY_MS = 86_400_000


def key(*parts: str) -> str:
    return ROOT + ":".join(parts)


class Lua:
    """The ledger as it is."""

    def __init__(self, clocked: Clocked) -> None:
        self.redis = clocked

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
            args += [d.budget, d.version, d.limit, d.fixed, d.per, int(d.binds), int(d.full), d.start, d.end, d.bucket]
        for r in ask.rates:
            keys.append(key("q", r.key))
            args += [r.limit, r.window, r.fixed, r.per]
        return keys, args

    def reserve(self, run_id: str, cfg: int, sid: str, seq: int, ttl: int, ask: Ask) -> list[Any]:
        return self.redis.run("reserve", *self.reserve_command(run_id, cfg, sid, seq, ttl, ask))

    def settle(
        self, run_id: str, sid: str, seq: int, ack: int, print_: str, told: bool,
        rows: list[tuple[str, str, bytes, int, int]], expiry: int = 0,
    ) -> list[Any]:  # fmt: skip
        keys = [key("s", sid), key("u"), key("day", "20260101"), key("g")]
        record = '{"r":1}' if told else ""
        args: list[Any] = [sid, seq, ack, print_, record, 1000, "", "k|u|t|m", 1, 2, 3, 400 * DAY_MS, len(rows), run_id]
        for budget, pid, name, held, actual in rows:
            keys += [key("b", budget, pid), key("x", budget, pid)]
            args += [name, held, actual, expiry]
        return self.redis.run("settle", keys, args)

    def extend(
        self, run_id: str, sid: str, ttl: int, holds: list[tuple[int, int, list[tuple[str, str, int]]]], expiry: int = 0
    ) -> list[Any]:
        keys = [key("g"), key("s", sid), key("sess")]
        args: list[Any] = [run_id, sid, ttl, len(holds)]
        for seq, granted, draws in holds:
            args += [seq, granted, len(draws)]
            for budget, pid, amount in draws:
                keys += [key("b", budget, pid), key("x", budget, pid)]
                args += [amount, expiry]
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

    def configure(self, budget: str) -> int:
        keys = [key("g"), key("budgets"), key("lim"), key("audit")]
        return self.redis.run("configure", keys, ["f", "v", "{}", budget])

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
