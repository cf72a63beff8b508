"""A plain model of the ledger, written from its documentation and not from its scripts: what each command must answer.

There are no counters of what is held: that is the sum of the holds that are there. Replies have the shapes that the scripts
document. One object is one tenant on one server.
"""

from dataclasses import dataclass, field
from typing import Any

AMOUNT_MAX = 2**53 - 1
MARKS_AT_ONCE = 1000
JUMP_MS = 600_000
LIVE_SLACK_MS = 50  # the store notes its clock this coarsely


@dataclass(frozen=True)
class Draw:
    """One budget's part of a reservation."""

    budget: str
    pid: str
    version: int
    limit: int
    fixed: int
    per: int
    binds: bool = True
    full: bool = False
    start: int = 0
    end: int = 0
    bucket: int = 0

    def need(self, wanted: int, least: int) -> int:
        return self.fixed + self.per * (wanted if self.full else least)


@dataclass(frozen=True)
class Rate:
    """A limit per window; the model is exact where the window divides by the limit."""

    key: str
    limit: int
    window: int
    fixed: int
    per: int


@dataclass(frozen=True)
class Ask:
    draws: tuple[Draw, ...] = ()
    rates: tuple[Rate, ...] = ()
    wanted: int = 0
    least: int = 0
    share: int = 0


@dataclass
class Hold:
    amount: int
    expiry: int


@dataclass
class Counters:
    """Of one budget in one window. `used` by field: one, or one for each bucket of a rolling window."""

    used: dict[str, int] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    n: int = 0
    over: int = 0
    late: int = 0
    expired: int = 0
    adopted: int = 0  # of the model alone: what was taken back without asking for room
    corrected: int = 0  # of the model alone: what a person added

    @property
    def held(self) -> int:
        return sum(hold.amount for hold in self.holds.values())


@dataclass
class Session:
    low: int = 0
    done: dict[int, str] = field(default_factory=dict)
    held: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    begun: bool = False

    def terminal(self, seq: int) -> bool:
        return seq <= self.low or seq in self.done


class Model:
    """All that one store knows."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.clk = 0
        self.gen: str | None = None
        self.learn = 0
        self.epoch: str | None = None
        self.cfg = 0
        self.limits: dict[str, tuple[int, int]] = {}
        self.counters: dict[tuple[str, str], Counters] = {}
        self.sessions: dict[str, Session] = {}
        self.heard: dict[str, int] = {}
        self.born = 0
        self.awaited: set[str] = set()
        self.soon = 0
        self.rates: dict[str, float] = {}
        self.records: list[str] = []  # whose usage record was written

    # Commands

    def reserve(self, run_id: str, cfg: int, sid: str, seq: int, ttl: int, ask: Ask) -> list[Any]:
        now = self._now()
        if self.gen != run_id or self._jumped(now, ttl):
            return [b"GEN", now]
        session = self.sessions.get(sid, Session())
        if session.terminal(seq):
            return [b"TERMINAL", now]
        mine = session.held.get(seq)
        if mine is not None:
            for draw in ask.draws:
                hold = self._counters(draw).holds.get(f"{sid}.{seq}")
                if hold is None or hold.expiry <= now:
                    return [b"TERMINAL", now]
        else:
            if self.learn > now and any(draw.binds for draw in ask.draws):
                return [b"LEARN", now, self.learn]
            if cfg != self.cfg:
                return [b"CONFIG", now, str(self.cfg).encode()]
            for number, draw in enumerate(ask.draws, 1):
                if now < draw.start or (draw.end and now >= draw.end):
                    return [b"CLOCK", now, number]
        limits = [self._limit(draw) for draw in ask.draws]
        for draw in ask.draws:
            self._reap(self._counters(draw), now)
            self._forget_buckets(self._counters(draw), draw, now)
        used = [self._used(draw, now) for draw in ask.draws]
        held = [self._counters(draw).held for draw in ask.draws]
        rows = list(zip(ask.draws, limits, used, held, strict=True))
        if mine is not None:
            granted, amounts = mine
            reply: list[Any] = [b"OK", now, granted]
            for (draw, limit, use, hold_now), amount in zip(rows, amounts, strict=True):
                reply += [self._field(draw, now), limit, use, hold_now, amount]
            for rate in ask.rates:
                reply += [rate.limit, 0, 0]
            return reply
        return self._decide(sid, seq, ttl, ask, rows, now)

    def settle(
        self, run_id: str, sid: str, seq: int, ack: int, print_: str, told: bool,
        rows: list[tuple[str, str, bytes, int | str, int]],
    ) -> list[Any]:  # fmt: skip
        """`rows`: budget, pid, field, held (-1: whatever was; "500@12": taken from what seq 12 holds), actual."""
        session = self.sessions.setdefault(sid, Session())
        if seq in session.done:
            return [b"DUP"] if session.done[seq] == print_ else [b"MISMATCH"]
        if seq <= session.low:
            return [b"DUP"]
        reply: list[Any] = [b"OK"]
        for budget, pid, name, noted, actual in rows:
            c = self.counters.setdefault((budget, pid), Counters())
            hold = c.holds.pop(f"{sid}.{seq}", None)
            use = c.used.get(name.decode(), 0)
            add = min(actual, AMOUNT_MAX - use)
            taken, _, cover = str(noted).partition("@")
            if hold is None and not (cover and self._covered(sid, session, c, int(cover), add)):
                c.late += add
            bound = hold.amount if hold is not None else max(0, int(taken))
            c.over += max(0, add - bound)
            if add:
                c.used[name.decode()] = use + add
            c.n += told
            reply += [c.used.get("used", 0) if name == b"used" else self._newest(c), c.held]
        if told:
            self.records.append(f"{sid}.{seq}")
        session.done[seq] = print_
        session.held.pop(seq, None)
        if ack > session.low and self.gen == run_id:
            session.low = min(ack, session.low + MARKS_AT_ONCE)
            session.done = {s: p for s, p in session.done.items() if s > session.low}
        return reply

    def extend(
        self, run_id: str, sid: str, ttl: int, holds: list[tuple[int, int, list[tuple[str, str, int]]]]
    ) -> list[Any]:
        """`holds`: seq, granted, and budget, pid, amount of each draw."""
        now = self._now()
        if self.gen != run_id or self._jumped(now, ttl):
            return [b"GEN", now]
        session = self.sessions.get(sid, Session())
        self._hear(sid, now, ttl)
        learning = self.learn > now
        lost = []
        for seq, granted, draws in holds:
            adopt = learning and not session.terminal(seq)
            known = session.held.get(seq)
            grew = adopt and known is not None and granted > known[0]  # since what was lost
            most = max(granted, known[0]) if known else granted
            amounts, there, adopted = [], True, False
            for i, (budget, pid, told) in enumerate(draws):
                had = known[1][i] if known else told
                amount = max(had, told) if grew else had
                amounts.append(amount)
                c = self.counters.setdefault((budget, pid), Counters())
                hold = c.holds.get(f"{sid}.{seq}")
                if hold is not None and hold.expiry > now and amount == had:
                    hold.expiry = now + ttl
                elif adopt:
                    c.holds[f"{sid}.{seq}"] = Hold(amount, now + ttl)
                    c.adopted += amount
                    adopted = True
                else:
                    there = False
            if adopted:
                self.sessions.setdefault(sid, session).held[seq] = (most, tuple(amounts))
            if not there:
                lost.append(str(seq).encode())
        return [b"OK", now, self.learn if learning else 0, self.born, *lost]

    def generation(
        self, run_id: str, learn_ms: int, live_ms: int, epoch: str, remembered: str, sid: str = "g", arrivals: int = 0, told: bool = False,
        ttl: int = 30_000,
    ) -> list[Any]:  # fmt: skip
        now, clk = max(self.now, self.clk), self.clk
        changed, gen = self.gen != run_id, self.gen
        known = self.epoch if self.epoch is not None else epoch
        lost = remembered not in ("", known)
        listed = sid in self.heard and self.heard[sid] * 3 >= clk * 3 - ttl * 4
        if changed or lost:
            live = remembered != "" or gen == "" or any(t >= now - live_ms for t in self.heard.values())
            if changed:
                self.learn = 0
            if live and learn_ms:
                self.learn = max(self.learn, now + learn_ms)
            self.soon, self.awaited = self.learn, set()
            if self.learn and gen and self.epoch is not None and not lost:
                self.awaited = {s for s, t in self.heard.items() if t * 3 >= clk * 3 - ttl * 4}
                if self.awaited:
                    self.soon = min(self.learn, now + learn_ms // 3)
            self.gen, self.epoch = run_id, known
        if remembered and (not listed or arrivals > self.born):
            self.soon = self.learn
        self.born = max(self.born, arrivals)
        if not listed:
            self.heard[sid] = now
            self.born += 1
        if told and not (changed or lost):
            self.awaited.discard(sid)
            if self.learn > now and not self.awaited:
                self.learn = max(now, self.soon)
        self.clk = now
        return [
            now, self.learn if self.learn > now else 0, (self.epoch or known).encode(), self.born, int(told and (changed or lost))
        ]  # fmt: skip

    def read(self, draws: list[Draw]) -> list[Any]:
        now = self._now()
        reply: list[Any] = [now]
        for draw in draws:
            c = self._counters(draw)
            dead = sum(h.amount for h in c.holds.values() if h.expiry <= now)
            version, limit = self.limits.get(draw.budget, (None, 0))
            stored = b"" if version is None else f"{version}|{limit}".encode()
            reply += [stored, self._used(draw, now), c.held - dead, c.n, c.over, c.late, c.expired + dead]
        return reply

    # What the commands share

    def counters_of(self, budget: str, pid: str) -> Counters:
        return self.counters.setdefault((budget, pid), Counters())

    def _now(self) -> int:
        """The clock never goes back."""
        return max(self.now, self.clk)

    def _tick(self, now: int) -> None:
        if now > self.clk + LIVE_SLACK_MS:
            self.clk = now

    def _hear(self, sid: str, now: int, ttl: int, after: int = 0) -> None:
        """Note when it was heard of, if the last time is more than `after` ago; and that it arrives, if that is long ago."""
        silent = now - self.heard[sid] if sid in self.heard else None
        self.born += silent is None or silent * 3 > ttl * 4
        if silent is None or silent > after:
            self.heard[sid] = now
        self._tick(now)

    def _jumped(self, now: int, ttl: int) -> bool:
        """A leap of the clock under living sessions makes the store learn."""
        jumped = self.clk > 0 and now > self.clk + JUMP_MS and any(t >= self.clk - ttl for t in self.heard.values())
        if jumped:
            self.gen, self.clk = "", now
        return jumped

    def _counters(self, draw: Draw) -> Counters:
        return self.counters_of(draw.budget, draw.pid)

    def _limit(self, draw: Draw) -> int:
        """The higher version wins; of equals, the one who speaks."""
        version, limit = self.limits.get(draw.budget, (-1, 0))
        if version > draw.version:
            return limit
        self.limits[draw.budget] = (draw.version, draw.limit)
        return draw.limit

    @staticmethod
    def _covered(sid: str, session: Session, c: Counters, cover: int, add: int) -> bool:
        """What a call spent shrinks the hold that covers it; False if that is gone."""
        hold = c.holds.get(f"{sid}.{cover}")
        if hold is None or cover not in session.held:
            return False
        hold.amount -= min(add, hold.amount)
        session.held[cover] = (hold.amount, (hold.amount,))
        return True

    @staticmethod
    def _reap(c: Counters, now: int) -> None:
        for rid in [rid for rid, hold in c.holds.items() if hold.expiry <= now]:
            c.expired += c.holds.pop(rid).amount

    @staticmethod
    def _newest(c: Counters) -> int:
        """What a rolling window counts, seen without a clock: its newest bucket and the 60 before."""
        buckets = {int(name[1:]): n for name, n in c.used.items()}
        return sum(n for bucket, n in buckets.items() if bucket >= max(buckets) - 60)

    @staticmethod
    def _forget_buckets(c: Counters, draw: Draw, now: int) -> None:
        """Buckets that no window can reach any more are dropped; what is settled into one later counts nowhere."""
        if draw.bucket:
            c.used = {name: n for name, n in c.used.items() if int(name[1:]) >= now // draw.bucket - 60}

    def _field(self, draw: Draw, now: int) -> bytes:
        return f"u{now // draw.bucket}".encode() if draw.bucket else b"used"

    def _used(self, draw: Draw, now: int) -> int:
        c = self._counters(draw)
        if not draw.bucket:
            return c.used.get("used", 0)
        return sum(n for name, n in c.used.items() if int(name[1:]) >= now // draw.bucket - 60)

    def _grant(self, ask: Ask, rows: list[tuple[Draw, int, int, int]], idle: bool) -> tuple[int, int | None]:
        granted, refuses = ask.wanted, None
        for number, (draw, limit, used, held) in enumerate(rows, 1):
            if not draw.binds:
                continue
            free = limit - used - (0 if idle else max(0, held))
            if draw.need(ask.wanted, ask.least) > free:
                refuses = refuses or number
            elif draw.per:
                granted = min(granted, self._output(ask, free - draw.fixed, draw.per, draw.full))
        for rate in ask.rates:
            if rate.per and rate.fixed + rate.per * ask.least <= rate.limit:
                granted = min(granted, self._output(ask, rate.limit - rate.fixed, rate.per, False))
        return granted, refuses

    @staticmethod
    def _output(ask: Ask, free: int, per: int, whole: bool) -> int:
        fit = free // per
        return fit if whole or not ask.share else min(fit, max(ask.least, fit * ask.share // 1000))

    def _too_fast(self, ask: Ask, granted: int, now: int) -> list[Any] | None:
        for number, rate in enumerate(ask.rates, 1):
            each = rate.window // rate.limit
            after = max(now, self.rates.get(rate.key, 0)) + (rate.fixed + rate.per * granted) * each
            if after - now > rate.window:
                return [b"RATE", now, number, rate.limit, min(after - now - rate.window, rate.window)]
        return None

    def _decide(
        self, sid: str, seq: int, ttl: int, ask: Ask, rows: list[tuple[Draw, int, int, int]], now: int
    ) -> list[Any]:
        most, spent = self._grant(ask, rows, idle=True)
        granted, held = self._grant(ask, rows, idle=False)
        refuses = spent or held
        if refuses:
            if not spent and (slow := self._too_fast(ask, most, now)):
                return slow
            draw, limit, used, holding = rows[refuses - 1]
            why = b"spent" if spent else b"held"
            return [b"DENY", now, why, refuses, limit, used, holding, draw.need(ask.wanted, ask.least)]
        if slow := self._too_fast(ask, granted, now):
            return slow
        reply: list[Any] = [b"OK", now, granted]
        amounts = []
        for draw, limit, used, holding in rows:
            amount = draw.fixed + draw.per * granted
            if not draw.binds:
                amount = min(amount, max(0, AMOUNT_MAX - used - holding))
            amounts.append(amount)
            self._counters(draw).holds[f"{sid}.{seq}"] = Hold(amount, now + ttl)
            reply += [self._field(draw, now), limit, used, holding + amount, amount]
        for rate in ask.rates:
            each = rate.window // rate.limit
            after = max(now, self.rates.get(rate.key, 0)) + (rate.fixed + rate.per * granted) * each
            self.rates[rate.key] = after
            reply += [rate.limit, max(0, (rate.window - (after - now)) // each), after - now]
        session = self.sessions.setdefault(sid, Session())
        session.held[seq] = (granted, tuple(amounts))
        self._hear(sid, now, ttl, ttl // 3)
        self._tick(now)
        return reply
