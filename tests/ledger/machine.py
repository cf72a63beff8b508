"""What may happen to a ledger, in random order, on a server and on the model at once: every reply and every counter compared."""

import copy
from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.ledger.commands import Lua, differences, key
from tests.ledger.model import LIVE_SLACK_MS, Ask, Draw, Rate
from tests.ledger.model_whole import Whole
from tests.ledger.seam import Clocked

START = 1_800_000_000_000
TTL = 30_000
HOUR = 3_600_000
SIDS = ("aa", "bb", "cc")
UNLIMITED = ("g", "lim", "sess", "u", "audit", "budgets", "keys")  # keys that have an owner instead of a TTL

# name, window width (0: for ever), bucket, binds
BUDGETS = (
    ("hour", HOUR, 0, True),
    ("minute", 60_000, 0, True),
    ("total", 0, 0, True),
    ("rolling", 0, 1_000, True),
    ("soft", HOUR, 0, False),
    ("calls", HOUR, 0, True),
)
NAMES = [budget[0] for budget in BUDGETS]
KEPT_MS = 45 * 86_400_000
amounts = st.integers(0, 400)
TALLY: Counter[tuple[str, bytes]] = (
    Counter()
)  # what was answered how often: a test that only hears one answer proves little


def expiry_ms(budget: str, pid: str) -> int:
    """When a budget's counters may be forgotten, as the ledger says it at each settlement."""
    _, width, bucket, _ = BUDGETS[NAMES.index(budget)]
    if width:
        return int(pid) + width + KEPT_MS
    return START + 120 * bucket + KEPT_MS if bucket else 0


class Machine(RuleBasedStateMachine):
    """The things that may happen. `clocked` is set by the test."""

    clocked: Clocked

    def __init__(self) -> None:
        super().__init__()
        self.clocked("FLUSHALL")
        self.lua, self.model = Lua(self.clocked), Whole(START)
        self.lua.now = START
        self.lua.expiry = expiry_ms
        self.run, self.runs = "run1", 1
        self.cfg, self.epoch = 0, ""
        self.seqs = dict.fromkeys(SIDS, 0)
        self.acks: dict[str, set[int]] = {sid: set() for sid in SIDS}
        self.sent: list[tuple[Any, ...]] = []  # every reserve, as it was sent
        self.held: dict[tuple[str, int], tuple[Ask, int, list[int], list[bytes]]] = {}
        self.settled: list[tuple[Any, ...]] = []
        self.limits = {name: (1, 1000) for name, *_ in BUDGETS}
        self.top = {name: 1000 for name, *_ in BUDGETS}
        self.seen: set[tuple[str, str]] = set()
        self.saved: Any = None
        self.rolled_back = False
        self.used_before: dict[tuple[str, str], int] = {}

    @initialize()
    def meet(self) -> None:
        self.both("generation", self.run, 0, 15_000, "e1", "")
        self.epoch = "e1"

    def both(self, name: str, *args: Any, **named: Any) -> Any:
        """Do it on both sides; the replies must be the same."""
        mine = getattr(self.model, name)(*args, **named)
        TALLY[name, bytes(mine[0]) if isinstance(mine, list) and isinstance(mine[0], bytes) else b""] += 1
        theirs = getattr(self.lua, name)(*args, **named)
        assert theirs == mine, f"{name}{args}{named or ''}: the script says {theirs}, the model {mine}"
        return theirs

    def draw_of(self, number: int, fixed: int, per: int, full: bool, skew: int) -> Draw:
        name, width, bucket, binds = BUDGETS[number]
        version, limit = self.limits[name]
        now = max(self.model.now, self.model.clk) + skew
        start = now // width * width if width else 0
        pid = str(start) if width else "rolling" if bucket else "total"
        if name == "calls":
            fixed, per, limit = 1, 0, 4
        return Draw(name, pid, version, limit, fixed, per, binds, full, start, start + width if width else 0, bucket)

    @rule(
        data=st.data(),
        sid=st.sampled_from(SIDS),
        which=st.sets(st.integers(0, len(BUDGETS) - 1), max_size=4),
        wanted=st.integers(0, 600),
        share=st.sampled_from((0, 0, 250, 1000)),
        rated=st.booleans(),
        skew=st.sampled_from((0, 0, 0, 0, HOUR)),
    )
    def reserve(self, data: Any, sid: str, which: set[int], wanted: int, share: int, rated: bool, skew: int) -> None:
        draws = tuple(
            self.draw_of(i, data.draw(st.integers(0, 90)), data.draw(st.integers(0, 3)), data.draw(st.booleans()), skew)
            for i in sorted(which)
        )
        rates = (
            (Rate("rpm", 6, 60_000, 1, 0), Rate("tpm", 600, 60_000, data.draw(st.integers(0, 50)), 1)) if rated else ()
        )
        least = data.draw(st.integers(0, wanted))
        self.seqs[sid] += 1
        self.ask(sid, self.seqs[sid], Ask(draws, rates, wanted, least, share))

    @rule(
        sid=st.sampled_from(SIDS),
        which=st.integers(0, len(BUDGETS) - 1),
        fixed=st.integers(0, 300),
        per=st.integers(0, 2),
    )
    def reserve_on_one(self, sid: str, which: int, fixed: int, per: int) -> None:
        self.all_is_well()
        self.seqs[sid] += 1
        self.ask(sid, self.seqs[sid], Ask((self.draw_of(which, fixed, per, False, 0),), (), 100, 10, 0))

    @rule(sid=st.sampled_from(SIDS), fixed=st.integers(0, 200), share=st.sampled_from((0, 250)), full=st.booleans())
    def reserve_on_all(self, sid: str, fixed: int, share: int, full: bool) -> None:
        self.all_is_well()
        self.seqs[sid] += 1
        draws = tuple(self.draw_of(i, fixed, 1, full, 0) for i in range(len(BUDGETS)))
        self.ask(sid, self.seqs[sid], Ask(draws, (), 150, 5, share))

    def ask(self, sid: str, seq: int, ask: Ask) -> None:
        args = (self.run, self.cfg, sid, seq, TTL, ask)
        self.sent.append(args)
        before = {(d.budget, d.pid): len(self.lua.counters(d.budget, d.pid)[1]) for d in ask.draws}
        reply = self.both("reserve", *args)
        self.seen |= {(d.budget, d.pid) for d in ask.draws}
        has = [f"{sid}.{seq}" in self.lua.counters(d.budget, d.pid)[1] for d in ask.draws]
        if reply[0] == b"OK":
            assert all(has), "I5: all hold"
            rows = [reply[3 + 5 * i : 8 + 5 * i] for i in range(len(ask.draws))]
            for draw, (_, limit, used, held, _) in zip(ask.draws, rows, strict=True):
                assert not draw.binds or used + held <= limit, "P1: used and held never pass the limit"
            self.held[sid, seq] = (ask, reply[2], [row[4] for row in rows], [row[0] for row in rows])
        else:
            assert not any(has), f"I5: none holds {before}"

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_reserve_comes_again(self, data: Any) -> None:
        args = data.draw(st.sampled_from(self.sent))
        self.both("reserve", *args)

    def settle_rows(self, ask: Ask, held: list[int], names: list[bytes], actuals: list[int]) -> list[Any]:
        return [
            (d.budget, d.pid, name, amount, actual)
            for d, amount, name, actual in zip(ask.draws, held, names, actuals, strict=True)
        ]

    def ack(self, sid: str) -> int:
        low = 0
        while low + 1 in self.acks[sid]:
            low += 1
        return low

    @precondition(lambda self: self.held)
    @rule(data=st.data(), honest=st.booleans(), acked=st.booleans())
    def settle(self, data: Any, honest: bool, acked: bool) -> None:
        sid, seq = data.draw(st.sampled_from(sorted(self.held)))
        ask, _, held, names = self.held.pop((sid, seq))
        actuals = [data.draw(st.integers(0, amount)) if honest else data.draw(amounts) for amount in held]
        args = (sid, seq, self.ack(sid) if acked and not self.rolled_back else 0, str(actuals), True)
        rows = self.settle_rows(ask, held, names, actuals)
        self.settled.append((*args, rows))
        self.both("settle", self.run, *args, rows)
        self.acks[sid].add(seq)

    @precondition(lambda self: self.settled)
    @rule(data=st.data(), other=st.booleans())
    def a_settlement_comes_again(self, data: Any, other: bool) -> None:
        sid, seq, _, print_, told, rows = data.draw(st.sampled_from(self.settled))
        reply = self.both("settle", self.run, sid, seq, 0, "other" if other else print_, told, rows)
        assert reply[0] != b"OK" or self.rolled_back, "I6: terminal is terminal"

    @rule(data=st.data(), sid=st.sampled_from(SIDS), sent=st.booleans())
    def release(self, data: Any, sid: str, sent: bool) -> None:
        """A tombstone: of a call that holds, that was refused, or whose reserve is yet to come."""
        mine = [args for args in self.sent if args[2] == sid and args[3] not in self.acks[sid]]
        if sent and mine:
            args = data.draw(st.sampled_from(mine))
            seq, ask = args[3], args[5]
        else:
            self.seqs[sid] += 1
            seq, ask = self.seqs[sid], Ask((self.draw_of(0, 1, 0, False, 0),))
            self.sent.append((self.run, self.cfg, sid, seq, TTL, ask))
        rows = [(d.budget, d.pid, b"u1" if d.bucket else b"used", -1, 0) for d in ask.draws]
        self.seen |= {(d.budget, d.pid) for d in ask.draws}
        self.both("settle", self.run, sid, seq, 0, "released", False, rows)
        self.held.pop((sid, seq), None)
        self.acks[sid].add(seq)

    @rule(data=st.data(), sid=st.sampled_from(SIDS))
    def extend(self, data: Any, sid: str) -> None:
        mine = [seq for owner, seq in self.held if owner == sid]
        chosen = data.draw(st.lists(st.sampled_from(mine), unique=True)) if mine else []
        holds = []
        for seq in chosen:
            ask, granted, held, _ = self.held[sid, seq]
            if ask.draws:
                holds.append((seq, granted, [(d.budget, d.pid, n) for d, n in zip(ask.draws, held, strict=True)]))
        self.both("extend", self.run, sid, TTL, holds)

    @rule(step=st.sampled_from((1, 49, 51, 999, 1_000, 5_000, 29_999, 30_000, 30_001, 61_000, HOUR, -5_000)))
    def time_passes(self, step: int) -> None:
        if step > 600_000:  # not a leap: someone is alive meanwhile
            self.both("generation", self.run, 0, 15_000, "e", self.epoch)
        self.model.now += step
        self.lua.now = self.model.now
        if step > 600_000:
            self.both("generation", self.run, 0, 15_000, "e", self.epoch)

    @rule(what=st.integers(0, 9), data=st.data())
    def something_rare_happens(self, what: int, data: Any) -> None:
        if what == 0:
            self.the_clock_leaps()
        elif what == 1:
            self.a_server_is_met(
                data.draw(st.sampled_from((0, 6_000))), data.draw(st.booleans()), data.draw(st.booleans()),
                data.draw(st.sampled_from(SIDS)), data.draw(st.integers(0, 9)),
            )  # fmt: skip
        elif what == 2:
            self.what_came_since_is_lost()
        elif what == 3:
            self.the_stored_configuration_changes(data.draw(st.sampled_from(NAMES)), data.draw(st.booleans()))
        elif what == 4:
            self.it_is_saved()
        elif what == 5:
            self.a_limit_changes(
                data.draw(st.sampled_from(NAMES)), data.draw(st.integers(0, 2000)), data.draw(st.booleans())
            )
        else:
            self.all_is_well()

    def all_is_well(self) -> None:
        """What proxies do when they are told GEN or CONFIG."""
        self.cfg = self.model.cfg
        if self.model.gen != self.run:
            self.both("generation", self.run, 0, 15_000, "e", "")

    def the_clock_leaps(self) -> None:
        self.model.now += 700_000
        self.lua.now = self.model.now

    def a_limit_changes(self, name: str, limit: int, up: bool) -> None:
        """The higher version wins; sometimes an older file speaks again."""
        version = self.limits[name][0]
        self.limits[name] = (version + 1 if up else max(1, version - 1), limit)
        self.top[name] = max(self.top[name], limit)

    def the_stored_configuration_changes(self, name: str, seen: bool) -> None:
        cfg = self.both("configure", name)
        if seen:
            self.cfg = cfg

    @rule(sid=st.sampled_from(SIDS), arrivals=st.integers(0, 4))
    def all_is_told(self, sid: str, arrivals: int) -> None:
        self.both("generation", self.run, 6_000, 15_000, "e", self.epoch, sid, arrivals, told=True)

    def a_server_is_met(self, learn: int, fresh: bool, another: bool, sid: str, arrivals: int) -> None:
        if another:
            self.runs += 1
            self.run = f"run{self.runs}"
        self.both("generation", self.run, learn, 15_000, f"e{self.runs}", "" if fresh else self.epoch, sid, arrivals)

    def it_is_saved(self) -> None:
        keys = [k for k in self.clocked("KEYS", "*") if k != b"now"]
        dumps = self.clocked.pipe([c for k in keys for c in (("DUMP", k), ("PTTL", k))])
        self.saved = (
            [(k, dumps[2 * i], max(0, dumps[2 * i + 1])) for i, k in enumerate(keys)],
            copy.deepcopy(self.model),
        )

    def what_came_since_is_lost(self) -> None:
        """A replica that was behind takes over."""
        if self.saved is None:
            return
        now = self.model.now
        self.clocked("FLUSHALL")
        self.clocked.pipe([("RESTORE", k, ttl, dump) for k, dump, ttl in self.saved[0]])
        self.model = copy.deepcopy(self.saved[1])
        self.model.now = now
        self.lua.now = now
        self.rolled_back = True
        self.used_before.clear()
        self.cfg = self.model.cfg

    @rule(data=st.data())
    def read(self, data: Any) -> None:
        draws = [self.draw_of(i, 0, 0, False, 0) for i in range(len(BUDGETS))]
        reply = self.both("read", draws)
        assert all(held >= 0 for held in reply[3::7])

    @invariant()
    def the_books_agree(self) -> None:
        for budget, pid in self.seen:
            c = self.model.counters.get((budget, pid))
            if c is None:
                continue
            found = differences(self.lua, budget, pid, c)
            assert not found, f"{budget} {pid}: {found}"
            numbers, _, held = self.lua.counters(budget, pid)
            if pid != "rolling":
                used = numbers.get("used", 0)
                assert used >= self.used_before.get((budget, pid), 0), "I4: used never falls"
                self.used_before[budget, pid] = used
                binds = next(b[3] for b in BUDGETS if b[0] == budget)
                bound = self.top[budget] + c.over + c.late + c.adopted + c.corrected
                now = max(
                    self.model.now, self.model.clk
                )  # whose lease is over holds nothing, though nobody cleared it away
                held -= sum(hold.amount for hold in c.holds.values() if hold.expiry <= now)
                assert not binds or used + held <= bound, "I1: what is used and held is bounded"

    @invariant()
    def every_key_has_an_owner_or_an_end(self) -> None:
        if self.model.now % 7:
            return  # it is slow: look at some of the steps
        keys = self.clocked("KEYS", "*")
        for name, left in zip(keys, self.clocked.pipe([("PTTL", k) for k in keys]), strict=True):
            kept = name == b"now" or name.decode() in {key(k) for k in UNLIMITED} or name.endswith(b":total")
            assert kept or left > 0, f"I12: {name!r} is for ever"

    def teardown(self) -> None:
        """I7: when all is quiet and the leases are over, nothing is held; and each call that was told has one record."""
        told = self.lua.told()
        assert told[:-1] == self.model.records, "one usage record for each call"
        assert told[-1] == str(len(self.model.records)), "the day's totals count what the records tell"
        self.model.now = max(self.model.now, self.model.clk) + LIVE_SLACK_MS + TTL + 1
        self.lua.now = self.model.now
        self.both("generation", "end", 0, 15_000, "e", "")
        for name, pid in sorted(self.seen):
            bucket = next(b[2] for b in BUDGETS if b[0] == name)
            draw = Draw(name, pid, 10**9, 2**53 - 1, 0, 0, bucket=bucket)
            self.both("reserve", "end", self.model.cfg, "zz", self.seqs["aa"] + 1, TTL, Ask((draw,)))
            self.seqs["aa"] += 1
            _, holds, held = self.lua.counters(name, pid)
            assert held == 0, "I7: nothing is stranded"
            assert {h.split(".")[0] for h in holds} <= {"zz"}, "I7: nothing is stranded"
