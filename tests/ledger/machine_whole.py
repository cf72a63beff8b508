"""What else may happen: holds that grow, calls that live on an escrow, corrections, stored changes, claims, the client library."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.ledger import machine
from tests.ledger.machine import BUDGETS, NAMES, SIDS, TALLY, TTL
from tests.ledger.model import Ask, Draw

ESCROWED = [i for i, (name, _, _, binds) in enumerate(BUDGETS) if binds and name != "calls"]
WHO = st.sampled_from(("u1", "u2"))


class Machine(machine.Machine):
    """All commands, in all the forms in which they are sent."""

    def __init__(self) -> None:
        super().__init__()
        self.escrows: dict[tuple[str, int], tuple[Draw, int]] = {}
        self.names = 0

    def new_name(self) -> str:
        self.names += 1
        return f"n{self.names}"

    def streams(self) -> list[tuple[str, int]]:
        """Who may ask to grow: an escrow does not."""
        return sorted(self.held.keys() - self.escrows.keys())

    @precondition(lambda self: self.streams())
    @rule(data=st.data(), wanted=st.integers(0, 900), least=st.sampled_from((0, 0, 0, 5, 150, 600)))
    def grow(self, data: Any, wanted: int, least: int) -> None:
        sid, seq = data.draw(st.sampled_from(self.streams()))
        self.grows(sid, seq, wanted, least)

    @rule(sid=st.sampled_from(SIDS), which=st.sampled_from(ESCROWED), more=st.integers(1, 300))
    def a_stream_begins_with_a_slice_and_grows(self, sid: str, which: int, more: int) -> None:
        self.all_is_well()
        self.seqs[sid] += 1
        seq = self.seqs[sid]
        self.ask(sid, seq, Ask((self.draw_of(which, 10, 1, False, 0), self.draw_of(4, 0, 2, False, 0)), (), 20, 20, 0))
        if (sid, seq) in self.held:
            self.grows(sid, seq, 20 + more, 0)

    def grows(self, sid: str, seq: int, wanted: int, least: int) -> None:
        """What the draws say of limits is as the sidecar knows it now, as after a reload."""
        ask, granted, amounts, names = self.held[sid, seq]
        draws = tuple(
            Draw(d.budget, d.pid, *(self.limits[d.budget] if d.budget != "calls" else (d.version, d.limit)), d.fixed, d.per,
                 d.binds, d.full, d.start, d.end, d.bucket)
            for d in ask.draws
        )  # fmt: skip
        reply = self.both("grow", self.run, sid, seq, TTL, wanted, least, draws)
        if reply[0] == b"OK":
            assert reply[2] >= granted or self.rolled_back, "it never shrinks"
            self.held[sid, seq] = (ask, reply[2], reply[3:], names)

    @precondition(lambda self: self.streams())
    @rule(data=st.data(), wanted=st.integers(0, 900))
    def its_answer_is_lost(self, data: Any, wanted: int) -> None:
        """It grew, and its owner does not know: the settlement tells the old size."""
        sid, seq = data.draw(st.sampled_from(self.streams()))
        known = self.held[sid, seq]
        self.grows(sid, seq, wanted, 0)
        self.held[sid, seq] = known

    @precondition(lambda self: any((args[2], args[3]) not in self.escrows for args in self.sent))
    @rule(data=st.data(), wanted=st.integers(0, 100))
    def what_may_be_over_grows(self, data: Any, wanted: int) -> None:
        args = data.draw(st.sampled_from([each for each in self.sent if (each[2], each[3]) not in self.escrows]))
        self.both("grow", self.run, args[2], args[3], TTL, wanted, 0, args[5].draws)

    @rule(sid=st.sampled_from(SIDS), which=st.sampled_from(ESCROWED), size=st.integers(1, 300))
    def an_escrow_is_taken(self, sid: str, which: int, size: int) -> None:
        self.all_is_well()
        self.seqs[sid] += 1
        seq, draw = self.seqs[sid], self.draw_of(which, 0, 1, False, 0)
        self.ask(sid, seq, Ask((draw,), (), size, size, 0))
        if (sid, seq) in self.held:
            self.escrows[sid, seq] = (draw, size)

    @precondition(lambda self: self.escrows)
    @rule(
        data=st.data(), actual=st.integers(0, 200), beyond=st.sampled_from((0, 0, 0, 50)), acked=st.booleans(),
        other=st.sampled_from((None, None, "soft", "total")),
    )  # fmt: skip
    def a_call_that_lived_on_it_is_settled(
        self, data: Any, actual: int, beyond: int, acked: bool, other: str | None
    ) -> None:
        """Its worst case was taken off the escrow while the store was away; another budget of it may let all pass."""
        sid, cover = data.draw(st.sampled_from(sorted(self.escrows)))
        draw, room = self.escrows[sid, cover]
        self.seqs[sid] += 1
        seq, worst = self.seqs[sid], max(0, min(room, actual))
        self.escrows[sid, cover] = (draw, room - actual - beyond)
        field = f"u{max(self.model.now, self.model.clk) // draw.bucket}".encode() if draw.bucket else b"used"
        rows: list[Any] = [(draw.budget, draw.pid, field, f"{worst}@{cover}", actual + beyond)]
        if other is not None and other != draw.budget:
            second = self.draw_of(NAMES.index(other), 0, 1, False, 0)
            rows.append((second.budget, second.pid, b"used", 0, actual))
            self.seen.add((second.budget, second.pid))
        self.seen.add((draw.budget, draw.pid))
        args = (sid, seq, self.ack(sid) if acked and not self.rolled_back else 0, f"e{actual}", True)
        self.settled.append((*args, rows))
        self.sent.append((self.run, self.cfg, sid, seq, TTL, Ask((draw,), (), worst, worst, 0)))
        late = self.model.counters_of(draw.budget, draw.pid).late
        self.both("settle", self.run, *args, rows)
        covered = self.model.counters_of(draw.budget, draw.pid).late == late
        TALLY["settled from an escrow", b"covered" if covered else b"late"] += 1
        self.acks[sid].add(seq)

    @precondition(lambda self: self.escrows)
    @rule(data=st.data())
    def an_escrow_is_given_back(self, data: Any) -> None:
        """Told with the size that it was taken with, whatever was spent from it since."""
        sid, seq = data.draw(st.sampled_from(sorted(self.escrows)))
        (draw, _), (ask, *_) = self.escrows.pop((sid, seq)), self.held.pop((sid, seq), (None,))
        size = ask.wanted if ask is not None else -1
        name = b"u1" if draw.bucket else b"used"
        self.seen.add((draw.budget, draw.pid))
        self.both("settle", self.run, sid, seq, 0, "released", False, [(draw.budget, draw.pid, name, size, 0)])
        self.acks[sid].add(seq)

    @rule(
        which=st.sampled_from(NAMES), change=st.integers(-400, 400), again=st.booleans(), rarely=st.integers(0, 3)
    )  # fmt: skip
    def a_person_corrects(self, which: str, change: int, again: bool, rarely: int) -> None:
        if rarely:  # what was added widens what may be used
            return self.all_is_well()
        draw, mark = self.draw_of(NAMES.index(which), 0, 0, False, 0), self.new_name()
        self.seen.add((draw.budget, draw.pid))
        for _ in range(1 + again):
            before, after = self.both("adjust", draw.budget, draw.pid, draw.bucket, change, mark)
            assert after >= 0
        self.used_before.pop((draw.budget, draw.pid), None)
        return None

    @rule(
        what=st.sampled_from(("budgets", "keys")), field=st.sampled_from("fg"), value=st.sampled_from(("v", "w", "")),
        forget=st.sets(st.sampled_from(NAMES), max_size=2), rarely=st.integers(0, 3),
    )  # fmt: skip
    def what_is_stored_changes(self, what: str, field: str, value: str, forget: set[str], rarely: int) -> None:
        if not rarely:  # each makes every sidecar look anew
            cfg = self.both("configure", *sorted(forget), what=what, field=field, value=value)
            assert cfg in (-1, self.model.cfg)

    @rule(what=st.sampled_from((1, 2, 3)), data=st.data())
    def something_happens_beside(self, what: int, data: Any) -> None:
        who, parts, again = (
            data.draw(WHO),
            [data.draw(st.integers(-90, 90)) for _ in range(3)],
            data.draw(st.booleans()),
        )
        mark = self.new_name()
        for _ in range(1 + again):
            if what == 1:
                lease, confirm = data.draw(st.sampled_from((0, 1_000, 60_000))), data.draw(st.integers(0, 3)) == 0
                self.both("mark", data.draw(st.sampled_from(("a1", "a2"))), who, lease, confirm)
            elif what == 2:
                if (limit := data.draw(st.sampled_from((None, 100, 1000)))) is not None:
                    self.both("usage_limit", who, limit)
                self.both("usage", who, mark, tuple(map(abs, parts)), data.draw(st.booleans()))
            else:
                assert self.both("usage_adjust", who, mark, tuple(parts)) >= 0
