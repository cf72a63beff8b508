"""What must be true of a world while it goes on. What must be true at its end is in `peace`.

The numbers are those of the test plan (I1 to I14). What this cannot see: that keys end (I12; there are none here), and that the
scripts say what the model says (I13; the differential test's).
"""

from collections import Counter
from typing import Any

from accounting.renewing import leased
from tests.simulated.books import Row
from tests.simulated.calls import LEASE_S, Call
from tests.simulated.scenario import Scene

LEARN_S = 6.0
TTL_S = 30.0


class Verdict:
    """Looks at one world; collects what is `wrong` in it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.wrong: list[str] = []
        self.excused: Counter[str] = Counter()  # by budget: what was charged without being held, for a good reason
        scene.server.settled = self._settled
        self._seen = 0
        self._used: dict[tuple[str, str], int] = {}
        self._run = 0

    def __call__(self) -> list[str]:
        """While it goes on."""
        scene = self.scene
        scene.server.tell_time()
        self._leases(scene)
        self._escrows(scene)
        self._counters(scene)
        self.wrong += scene.server.wrong
        scene.server.wrong.clear()
        return self.wrong

    def _leases(self, scene: Scene) -> None:
        """I11: whoever believes to hold something holds it, unless the store forgot or its clock leapt."""
        for sidecar in scene.sidecars:
            if not sidecar.ready or sidecar.loop.stalled:
                continue
            now_s = sidecar.loop.time()
            for hold in [*sidecar.ledger.open.values(), *sidecar.ledger.escrows.holds()]:
                began_s = scene.world.now_s - (now_s - hold.until_s + LEASE_S) / sidecar.loop.rate
                if not leased(hold) or hold.lost or now_s >= hold.until_s or shaken(scene, began_s):
                    continue
                self._held(scene, f"{sidecar.ledger.sid}.{hold.seq}", hold.rows)

    def _escrows(self, scene: Scene) -> None:
        """Calls that live on what was held ahead of time began while it was held."""
        for call in scene.calls.admitted[self._seen :]:
            hold = call.hold
            assert hold is not None
            for row in hold.rows:
                kept = call.sidecar.ledger.escrows._kept.get(row.budget.id)
                if not row.cover_seq or kept is None or kept.hold.seq != row.cover_seq or call.state == "dead":
                    continue
                loop = call.sidecar.loop
                until_s = scene.world.now_s + (kept.hold.until_s - loop.time()) / loop.rate
                if call.admitted_s >= until_s + 0.01 and not shaken(scene, until_s - LEASE_S):
                    self.wrong.append(f"I11: call {call.id} began on an allowance that was over")
        self._seen = len(scene.calls.admitted)

    def _held(self, scene: Scene, rid: str, rows: Any) -> None:
        for row in rows:
            pid = row.counters_key.rpartition(":")[2]
            if not scene.server.books.alive(rid, row.budget.id, pid):
                self.wrong.append(f"I11: {rid} believes to hold {row.amount} of {row.budget.id}")

    def _counters(self, scene: Scene) -> None:
        """I4: nothing is negative, and nothing used becomes less, but with its store."""
        if scene.server.run != self._run:
            self._run, self._used = scene.server.run, {}
        for place, c in scene.server.books.counters.items():
            used = sum(c.used.values())
            if used < self._used.get(place, 0) or min(used, c.held, c.n, c.over, c.late, c.expired) < 0:
                self.wrong.append(f"I4: {place} went from {self._used.get(place, 0)} to {c}")
            self._used[place] = used

    def _settled(self, sid: str, seq: int, rows: list[Row]) -> None:
        """Hear of a settlement that the store applied: who charges without having held must have a good reason."""
        scene = self.scene
        call = scene.calls.by_rid.get(f"{sid}.{seq}")
        if call is None:
            return
        for row in rows:
            if row.covered or not row.actual or not _binds(call, row.budget):
                continue
            if _excused(scene, call, row):
                self.excused[row.budget] += row.actual
            elif not scene.server.learning:  # while it learns nobody else is given what this call had
                text = f"call {call.id} ({sid}.{seq}) spent {row.actual} of {row.budget} that it did not hold"
                self.wrong.append(f"P1: {text}")


def _excused(scene: Scene, call: Call, row: Row) -> bool:
    now_s, hold, sidecar = scene.world.now_s, call.hold, call.sidecar
    assert hold is not None
    if not hold.reserved and row.outright:
        return True  # this budget lets it pass without
    began_s = call.admitted_s - (TTL_S + 5 if hold.escrow else 0)
    if call.sid in sidecar.dead_sids or any(t >= began_s for t in scene.server.jumped_s):
        return True
    if sidecar.impaired_s(began_s, now_s) >= 20:
        return True
    if any(t >= began_s for t in scene.server.unlearnt_s):
        return True  # see Server.unlearnt_s
    return any(sidecar.impaired_s(t, t + LEARN_S + 1) > 0 for t in scene.server.lost_s if t >= began_s - 1)


def _binds(call: Call, budget: str) -> bool:
    return any(b.id == budget and b.binds for b in call.plan.budgets)


def shaken(scene: Scene, since_s: float) -> bool:
    """Whether the store lost something or its clock leapt since then."""
    return any(t >= since_s for t in (*scene.server.lost_s, *scene.server.jumped_s))
