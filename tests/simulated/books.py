"""A store server in this process: the ledger's model behind the Redis protocol, with a clock that may jump, and a memory that may lag.

It keeps all commands with the moment at which each came. So to lose what came after some moment is to do all before it once more,
on empty books, as a server does that reads its file, or a replica that was behind.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from accounting.store.scripts import script
from tests.ledger.model import Ask, Draw, Session
from tests.ledger.model_whole import Whole
from tests.simulated.loops import World

START_MS = 1_830_000_000_000
ROOT = b"b:{t}:"
NAMES = ("reserve", "settle", "extend", "grow", "generation")
_INFO = "redis_version:7.0.0\r\nrun_id:%s\r\nrole:master\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n"


@cache
def _shas() -> dict[bytes, str]:
    return {script(name).sha.encode(): name for name in NAMES}


@dataclass(frozen=True)
class Row:
    """One budget's part of a settlement that was applied. `covered`: there was a hold for it."""

    budget: str
    pid: str
    actual: int
    covered: bool
    outright: bool  # it was to be held for this call alone


class Books(Whole):
    """The model, and the usage records."""

    def __init__(self) -> None:
        super().__init__(START_MS)
        self.receipts: dict[str, bytes] = {}  # by rid

    def apply(self, name: str, args: tuple[Any, ...]) -> list[Any]:
        reply: list[Any] = getattr(self, name)(*args)
        return reply

    def settle_with(self, record: bytes, *args: Any) -> list[Any]:
        reply = self.settle(*args)
        if record and reply[0] == b"OK":
            self.receipts[f"{args[1]}.{args[2]}"] = record
        return reply

    def over(self, sid: str, fields: list[bytes]) -> list[bytes | None]:
        """Of a session's hash: `low`, and the marks of calls that are over."""
        session = self.sessions.get(sid, Session())
        marks = {b"d:%d" % seq: print_.encode() for seq, print_ in session.done.items()}
        return [b"%d" % session.low if name == b"low" else marks.get(name) for name in fields]

    def alive(self, rid: str, budget: str, pid: str) -> bool:
        """Whether it holds something now."""
        hold = self.counters_of(budget, pid).holds.get(rid)
        return hold is not None and hold.expiry > self._now()

    def living(self) -> list[str]:
        """All that hold something now."""
        now = self._now()
        return [rid for c in self.counters.values() for rid, hold in c.holds.items() if hold.expiry > now]


class Server:
    """Commands in, replies out. `settled` hears of each settlement that was applied: sid, seq, rows."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.books, self.run, self.skew_ms = Books(), 1, 0
        self.lost_s: list[float] = []  # when it lost writes
        self.jumped_s: list[float] = []
        # When it lost writes and did not learn. A known limit: it knew no living session, and a new process met it first.
        self.unlearnt_s: list[float] = []
        self.settled: Callable[[str, int, list[Row]], None] = lambda _sid, _seq, _rows: None
        self.wrong: list[str] = []
        self.refused: set[str] = set()  # rids: a late copy of what was refused may hold something for a while
        self._log: list[tuple[float, int, str, tuple[Any, ...]]] = []
        self._loaded: set[str] = set()
        self._met_run = 1

    @property
    def learning(self) -> bool:
        """Whether nothing that binds can be admitted: it learns, or was not yet told that it is another process."""
        return self.books.learn > self.books._now() or self.books.gen != f"run{self.run}"

    def tell_time(self) -> None:
        """Give the books the time that it is."""
        self.books.now = START_MS + int(self.world.now_s * 1000) + self.skew_ms

    def serve(self, words: list[bytes]) -> bytes:
        """Carry out one command."""
        verb = words[0]
        if verb == b"INFO":
            return _bulk((_INFO % f"run{self.run}").encode())
        if verb == b"CLIENT":
            return b"+OK\r\n"
        if verb == b"HMGET":
            return _encode(self.books.over(words[1].removeprefix(ROOT + b"s:").decode(), words[2:]))
        name = _shas().get(words[1]) if verb == b"EVALSHA" else _named(words[1])
        if name is None or (verb == b"EVALSHA" and name not in self._loaded):
            return b"-NOSCRIPT No matching script.\r\n"
        self._loaded.add(name)
        count = int(words[2])
        return _encode(self._script(name, words[3 : 3 + count], words[3 + count :]))

    def lose(self, since_s: float) -> None:
        """Become another process, which knows only what came before."""
        kept = [entry for entry in self._log if entry[0] < since_s]
        self.books, self._log = Books(), kept
        for _, now_ms, name, args in kept:
            self.books.now = now_ms
            self.books.apply(name, args)
        self.run += 1
        self._loaded.clear()
        self.lost_s.append(self.world.now_s)

    def jump(self, by_ms: int) -> None:
        """Have another idea of the time."""
        self.skew_ms += by_ms
        self.jumped_s.append(self.world.now_s)

    def _script(self, name: str, keys: list[bytes], args: list[bytes]) -> list[Any]:
        self.tell_time()
        method, told = _READ[name](keys, args)
        rows = self._uncovered(told) if name == "settle" else []
        self._log.append((self.world.now_s, self.books.now, method, told))
        reply = self.books.apply(method, told)
        if rows and reply[0] == b"OK":
            self.settled(told[2], told[3], rows)
        if name == "generation" and self.lost_s and self._met_run != self.run:
            self._met_run = self.run
            if not self.learning:
                self.unlearnt_s.append(self.lost_s[-1])
        if name == "reserve":
            if reply[0] == b"OK":
                self._within(told[5])
                self._met(told)
            else:
                self.refused.add(f"{told[2]}.{told[3]}")
        return reply

    def _uncovered(self, told: tuple[Any, ...]) -> list[Row]:
        """What a settlement takes from each budget, and whether that was held: looked at before it is."""
        _, _, sid, seq, _, _, _, parts = told
        rows = []
        for budget, pid, _, noted, actual in parts:
            cover = str(noted).partition("@")[2]
            holds = self.books.counters_of(budget, pid).holds
            covered = f"{sid}.{seq}" in holds or (cover != "" and f"{sid}.{cover}" in holds)
            rows.append(Row(budget, pid, actual, covered, not cover))
        return rows

    def _met(self, told: tuple[Any, ...]) -> None:
        """A process that may have lost writes grants nothing that binds before somebody told it that it is another."""
        if self.books.gen != f"run{self.run}" and any(draw.binds for draw in told[5].draws):
            self.wrong.append(f"P7: {told[2]}.{told[3]} was granted by a process that nobody has met")

    def _within(self, ask: Ask) -> None:
        """After a reserve nothing passes its limit, unless it was used without having been held."""
        for draw in ask.draws:
            c = self.books.counters_of(draw.budget, draw.pid)
            used = sum(c.used.values())
            if draw.binds and used + c.held > draw.limit + c.late + c.over + c.adopted:
                self.wrong.append(f"I1: {draw.budget} has used {used} and holds {c.held} of {draw.limit}")


def _reserve(keys: list[bytes], args: list[bytes]) -> tuple[str, tuple[Any, ...]]:
    run, cfg, sid, seq, ttl, wanted, least, share, count, _ = args[:10]
    draws = []
    for i in range(int(count)):
        budget, terms, fixed, per = args[10 + 4 * i : 14 + 4 * i]
        version, limit, binds, full, start, end, bucket = map(int, terms.split(b"|"))
        pid = _place(keys[4 + 2 * i])[1]
        draws.append(
            Draw(
                budget.decode(), pid, version, limit, int(fixed), int(per), bool(binds), bool(full), start, end, bucket
            )
        )
    ask = Ask(tuple(draws), (), int(wanted), int(least), int(share))
    return "reserve", (run.decode(), int(cfg), sid.decode(), int(seq), int(ttl), ask)


def _settle(keys: list[bytes], args: list[bytes]) -> tuple[str, tuple[Any, ...]]:
    sid, seq, ack, print_, record = args[:5]
    rows = []
    for i in range(int(args[12])):
        field, held, actual, _ = args[14 + 4 * i : 18 + 4 * i]
        rows.append((*_place(keys[4 + 2 * i]), field, held.decode() if b"@" in held else int(held), int(actual)))
    told = (record, args[13].decode(), sid.decode(), int(seq), int(ack), print_.decode(), record != b"", rows)
    return "settle_with", told


def _extend(keys: list[bytes], args: list[bytes]) -> tuple[str, tuple[Any, ...]]:
    holds, at, key = [], 4, 3
    for _ in range(int(args[3])):
        seq, granted, count = map(int, args[at : at + 3])
        at += 3
        draws = []
        for _ in range(count):
            draws.append((*_place(keys[key]), int(args[at])))
            at, key = at + 2, key + 2
        holds.append((seq, granted, draws))
    return "extend", (args[0].decode(), args[1].decode(), int(args[2]), holds)


def _grow(keys: list[bytes], args: list[bytes]) -> tuple[str, tuple[Any, ...]]:
    draws = []
    for i in range(int(args[6])):
        budget, *numbers = args[7 + 7 * i : 14 + 7 * i]
        version, limit, fixed, per, binds, bucket = map(int, numbers)
        pid = _place(keys[3 + 2 * i])[1]
        draws.append(Draw(budget.decode(), pid, version, limit, fixed, per, binds=bool(binds), bucket=bucket))
    run, sid, *numbers = args[:6]
    return "grow", (run.decode(), sid.decode(), *map(int, numbers), tuple(draws))


def _generation(_keys: list[bytes], args: list[bytes]) -> tuple[str, tuple[Any, ...]]:
    run, learn_ms, live_ms, epoch, remembered, sid, least_ms, ttl, arrivals, told = args
    assert int(least_ms) == int(learn_ms) // 3, "as the model has it"
    return "generation", (
        run.decode(), int(learn_ms), int(live_ms), epoch.decode(), remembered.decode(), sid.decode(), int(arrivals),
        told == b"1", int(ttl),
    )  # fmt: skip


_READ = {"reserve": _reserve, "settle": _settle, "extend": _extend, "grow": _grow, "generation": _generation}


@cache
def _named(text: bytes) -> str:
    return next(name for name in NAMES if script(name).text.encode() == text)


@cache
def _place(key: bytes) -> tuple[str, str]:
    """Return the budget and the window that a key of counters names."""
    budget, _, pid = key.removeprefix(ROOT + b"b:").decode().rpartition(":")
    return budget, pid


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def _encode(reply: list[Any]) -> bytes:
    return b"*%d\r\n" % len(reply) + b"".join(map(_value, reply))


def _value(value: int | bytes | None) -> bytes:
    if value is None:
        return b"$-1\r\n"
    return b":%d\r\n" % value if isinstance(value, int) else _bulk(value)
