"""The rest of the model: holds that grow, what is stored, what a person corrects, who tells what, and the client library's usage."""

from typing import Any

from tests.ledger.model import AMOUNT_MAX, Draw, Model


class Whole(Model):
    """All commands that there are."""

    def __init__(self, now: int) -> None:
        super().__init__(now)
        self.stored: dict[tuple[str, str], str] = {}
        self.corrected: dict[str, list[Any]] = {}
        self.marks: dict[str, tuple[str, int] | None] = {}  # None: it was told
        self.usages: dict[str, list[int]] = {}  # prompt, completion, total
        self.usage_limits: dict[str, int] = {}
        self.usage_done: dict[str, int] = {}

    def grow(
        self, run_id: str, sid: str, seq: int, ttl: int, wanted: int, least: int, draws: tuple[Draw, ...]
    ) -> list[Any]:
        """A hold has one size for all, however often it is asked: `wanted` is the whole."""
        now = self._now()
        if self.gen != run_id:
            return [b"GEN", now]
        session, rid = self.sessions.get(sid), f"{sid}.{seq}"
        known = session.held.get(seq) if session and not session.terminal(seq) else None
        holds = [self._counters(draw).holds.get(rid) for draw in draws]
        if known is None or len(known[1]) != len(draws) or any(h is None or h.expiry <= now for h in holds):
            return [b"LOST", now]
        before, granted = known[0], wanted
        if self.learn > now and wanted > before:
            return [b"LEARN", now, self.learn]
        others = []
        for number, (draw, was) in enumerate(zip(draws, known[1], strict=True), 1):
            version, limit = self.limits.get(draw.budget, (-1, 0))
            limit = limit if version > draw.version else draw.limit
            used, living = self._used(draw, now), self._counters(draw).holds.values()
            held = sum(hold.amount for hold in living if hold.expiry > now)
            free, need = limit - used - (held - was), draw.fixed + draw.per * least
            if draw.binds and least > before and need > free:
                return [b"DENY", now, number, limit, used, held, need]
            if draw.binds and draw.per:
                granted = min(granted, (free - draw.fixed) // draw.per)
            others.append(used + held - was)
        if any(hold.expiry <= now for draw in draws for hold in self._counters(draw).holds.values()):
            self.clk = now  # their room is taken: they never live again
        self._tick(now)
        granted, amounts = max(granted, before), []
        for draw, was, other in zip(draws, known[1], others, strict=True):
            amount = max(draw.fixed + draw.per * granted, was)
            if not draw.binds:
                amount = min(amount, max(was, AMOUNT_MAX - other))
            amounts.append(was if granted == before else amount)
            hold = self._counters(draw).holds[rid]
            hold.amount, hold.expiry = amounts[-1], now + ttl
        assert session is not None
        session.held[seq] = (granted, tuple(amounts))
        return [b"OK", now, granted, *amounts]

    def configure(self, *forget: str, what: str = "budgets", field: str = "f", value: str = "v") -> int:
        if value:
            self.stored[what, field] = value
        elif self.stored.pop((what, field), None) is None:
            return -1
        for budget in forget:
            self.limits.pop(budget, None)
        self.cfg += 1
        return self.cfg

    def adjust(self, budget: str, pid: str, bucket: int, change: int, mark: str) -> list[Any]:
        """Never below 0; of a rolling window what is added counts now, and what is taken is taken from the latest first."""
        if mark in self.corrected:
            return self.corrected[mark]
        c, now = self.counters_of(budget, pid), self._now()
        draw = Draw(budget, pid, 1, 0, 0, 0, bucket=bucket)
        before = self._used(draw, now)
        after = min(AMOUNT_MAX, max(0, before + change))
        c.corrected += max(0, after - before)
        if not bucket or change > 0:
            name = f"u{now // bucket}" if bucket else "used"
            c.used[name] = c.used.get(name, 0) + after - before
        else:
            left = before - after
            for number in range(now // bucket, now // bucket - 61, -1):
                part = min(left, c.used.get(f"u{number}", 0))
                left -= part
                if part:
                    c.used[f"u{number}"] -= part
        self.corrected[mark] = [before, after]
        return [before, after]

    def mark(self, name: str, token: str, lease: int, confirm: bool) -> int:
        if confirm:
            self.marks[name] = None
            return 1
        first = name not in self.marks
        owner = self.marks.get(name)
        if not first and (owner is None or (owner[0] != token and owner[1] > self.now)):
            return 0
        self.marks[name] = (token, self.now + lease)
        return 1 if first else 2

    def usage(self, who: str, mark: str, parts: tuple[int, int, int], checked: bool) -> list[Any]:
        used, limit = self.usages.get(who, [0, 0, 0]), self.usage_limits.get(who, -1)
        if mark not in self.usage_done:
            fits = not checked or limit < 0 or used[2] + sum(parts) <= limit
            self.usage_done[mark] = int(fits)
            if fits:
                used = self.usages[who] = [used[0] + parts[0], used[1] + parts[1], used[2] + sum(parts)]
        return [self.usage_done[mark], used[2], limit]

    def usage_adjust(self, who: str, mark: str, change: tuple[int, int, int]) -> int:
        used = self.usages.get(who, [0, 0, 0])
        if mark not in self.usage_done:
            self.usage_done[mark] = 1
            used = self.usages[who] = [max(0, n + by) for n, by in zip(used, change, strict=True)]
        return used[2]

    def usage_limit(self, who: str, limit: int) -> None:
        self.usage_limits[who] = limit
