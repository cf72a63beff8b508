"""What must be true of a world: while it goes on, when it has come to rest, and after everybody told everything once more.

The numbers are those of the test plan (I1 to I14). What this cannot see: that keys end (I12; there are none here), and that the
scripts say what the model says (I13; the differential test's).
"""

import json
from collections import Counter
from typing import Any

from accounting.ask import Ask, Draw
from accounting.budgets import Budget, amounts
from accounting.hold import BudgetRefusedError
from accounting.journal.aftermath import INTERVAL_TOKENS
from accounting.renewing import leased
from tests.simulated.books import Row
from tests.simulated.calls import LEASE_S, Call, cost
from tests.simulated.scenario import Scene

PEACE_S = 240.0
LEARN_S = 6.0
TTL_S = 30.0
_PROMISED_TOKENS = 256


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
                if not leased(hold) or hold.lost or now_s >= hold.until_s or _shaken(scene, began_s):
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
                if call.admitted_s >= until_s + 0.01 and not _shaken(scene, until_s - LEASE_S):
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


def _shaken(scene: Scene, since_s: float) -> bool:
    """Whether the store lost something or its clock leapt since then."""
    return any(t >= since_s for t in (*scene.server.lost_s, *scene.server.jumped_s))


def rest(scene: Scene, verdict: Verdict) -> list[str]:
    """Let peace come, and look at everything. Returns what is wrong."""
    wrong, world = verdict(), scene.world
    if wrong:
        return wrong
    for sidecar in scene.sidecars:
        if sidecar.alive:
            scene.network.heal(sidecar.loop)
    if not world.run_until(lambda: _calm(scene), PEACE_S):
        return [f"P6: no rest after {PEACE_S} s of peace: {_restless(scene)}"]
    world.run(world.now_s + 6)  # the last copies have arrived
    wrong = [*verdict(), *_orphans(scene)]
    for sidecar in scene.sidecars:
        sidecar.loop.call_soon(sidecar.ledger.give_up_escrows)
        sidecar.ledger.escrows.noticed = lambda *_: False  # type: ignore[method-assign]
    world.run(
        world.now_s + TTL_S + 2 + (20 if scene.server.jumped_s else 0)
    )  # a clock that was set back stands for so long
    if not world.run_until(lambda: _calm(scene), 60):
        return [*wrong, f"P6: no rest: {_restless(scene)}"]
    wrong += _stranded(scene) + _truth(scene, verdict) + _once_more(scene) + _fits(scene)
    wrong += [f"failed: {f}" for sidecar in scene.sidecars for f in sidecar.loop.failures]
    return wrong


def _calm(scene: Scene) -> bool:
    if scene.frozen or not scene.network.open or scene.server.learning:
        return False
    return all(s.quiet and all(dead.done for dead in s.recovery._dead) for s in scene.sidecars)


def _restless(scene: Scene) -> list[str]:
    return [
        f"{s.name} ready {s.ready} open {list(s.ledger.open)} pending {list(s.ledger.settler.pending)} "
        f"trusts {s.ledger.settler.trusted_run_id!r} of {s.store.run_id!r}"
        for s in scene.sidecars
    ]


def _orphans(scene: Scene) -> list[str]:
    """Nothing is held that nobody knows of, but for what crashed, or was released before the store lost it."""
    if _shaken(scene, scene.world.now_s - TTL_S - 10):
        return []
    scene.server.tell_time()
    known = {f"{s.ledger.sid}.{h.seq}" for s in scene.sidecars for h in s.ledger.escrows.holds()}
    dead = {sid for s in scene.sidecars for sid in s.dead_sids}
    orphans = [rid for rid in scene.server.books.living() if rid not in known and rid.partition(".")[0] not in dead]
    orphans = [
        rid for rid in orphans if rid not in scene.server.refused
    ]  # for one lease, as a late copy may be granted
    return [f"P5: {rid} is held, and nobody knows of it" for rid in orphans]


def _stranded(scene: Scene) -> list[str]:
    """I7: nothing is held any more, and every number that was used is known to be over."""
    scene.server.tell_time()
    wrong = [f"I7: {rid} is still held" for rid in scene.server.books.living()]
    for sidecar in scene.sidecars:
        ledger, tally = sidecar.ledger, sidecar.ledger.settler.tally
        if ledger.settler.low != ledger._seq:
            wrong.append(f"I7: {sidecar.name} knows of {ledger.settler.low} of {ledger._seq} calls that they are over")
        if tally.mismatch_total or tally.rejected_total:
            wrong.append(f"I6: {sidecar.name} was told {tally}")
    return wrong


def _truth(scene: Scene, verdict: Verdict) -> list[str]:
    """I3, I9, I14: each call has one record, of what its client got, and the counters are the sum of these."""
    wrong, used = [], Counter[tuple[str, str]]()
    records: dict[str, list[dict[str, Any]]] = {}
    for receipt in scene.server.books.receipts.values():
        record = json.loads(receipt)
        records.setdefault(record["id"], []).append(record)
    for call in scene.calls.all:
        mine = records.pop(call.id, [])
        wrong += _fair(call, mine)
        if mine and call.hold is not None:
            for row in call.hold.rows:
                used[row.budget.id, row.counters_key.rpartition(":")[2]] += _charged(call, row, mine[0])
    wrong += [f"I3: a record of call {number}, which was not made" for number in records]
    for place in {*used, *scene.server.books.counters}:
        c = scene.server.books.counters.get(place)
        found = sum(c.used.values()) if c else 0
        if found != used[place]:
            wrong.append(f"I3: {place} says {found}, and the truth is {used[place]}")
        for limit in [b.limit for b in scene.budgets if b.id == place[0] and b.binds]:
            more = verdict.excused[place[0]] + (c.over if c else 0)
            if used[place] > limit + more and not scene.server.unlearnt_s:
                wrong.append(f"P1: {used[place]} of {limit} of {place} were used, and only {more} more are excused")
    return wrong


def _fair(call: Call, records: list[dict[str, Any]]) -> list[str]:
    """Whether a call's record is what it has to be. Of a crashed one: all that was relayed, and one interval more at most."""
    said = [(r["input"], r["output"], r["cost_nanousd"], r["outcome"]) for r in records]
    if call.state == "open":
        return [f"I8: call {call.id} never ended"]
    if call.state == "settled":
        assert call.usage is not None
        wanted = (call.usage.input, call.usage.output, cost(call.usage.input, call.usage.output))
        return (
            []
            if [s[:3] for s in said] == [wanted]
            else [f"I3: call {call.id} used {wanted}, and its records say {said}"]
        )
    if call.state != "dead" or call.noted < 0:
        return [f"I3: call {call.id} ({call.state}) got nothing, and its records say {said}"] if said else []
    assert call.hold is not None
    most = max(call.relayed, min(call.noted + INTERVAL_TOKENS, call.hold.granted))
    fair = len(said) == 1 and call.relayed <= said[0][1] <= min(most, call.relayed + _PROMISED_TOKENS)
    return (
        []
        if fair
        else [f"P4: call {call.id} crashed after {call.relayed} of {call.hold.granted} tokens, its records say {said}"]
    )


def _charged(call: Call, row: Any, record: dict[str, Any]) -> int:
    """What a call takes from one budget, given its record."""
    refused = call.plan.ends == "refused" and call.state == "settled"
    requests = 0 if refused or (call.state == "settled" and not record["input"]) else 1
    amount = amounts(
        row.budget.unit, requests=requests, input_tokens=record["input"], output_tokens=record["output"],
        cost_nanousd=record["cost_nanousd"] or 0,
    )  # fmt: skip
    reserved = call.hold is not None and call.hold.reserved
    return min(amount, row.amount) if call.state == "dead" and reserved else amount


def _once_more(scene: Scene) -> list[str]:
    """I10: telling all again changes nothing."""
    before = _books(scene)
    for sidecar in scene.sidecars:
        sidecar.spawn(sidecar.recovery.replay())
    scene.world.run(scene.world.now_s + 3)
    return [] if _books(scene) == before else ["I10: what was told again counted again"]


def _books(scene: Scene) -> Any:
    books = scene.server.books
    return len(books.receipts), {place: (dict(c.used), c.held, c.late) for place, c in books.counters.items()}


def _fits(scene: Scene) -> list[str]:
    """I8: through every sidecar, what is left of a budget can be had, and not one more."""
    wrong: list[str] = []
    for sidecar in scene.sidecars:
        sidecar.spawn(_probe(scene, sidecar, wrong))
    scene.world.run(scene.world.now_s + 8)
    return wrong


async def _probe(scene: Scene, sidecar: Any, wrong: list[str]) -> None:
    import asyncio

    await asyncio.sleep({"a": 0, "b": 2, "c": 4}[sidecar.name])
    for budget in scene.budgets:
        if not budget.binds or budget.period.kind != "total":
            continue
        c = scene.server.books.counters_of(budget.id, "total")
        left = budget.limit - sum(c.used.values())
        if left <= 0:
            continue
        hold = await sidecar.ledger.reserve(_exactly(budget, left), request_id="probe")
        sidecar.ledger.release(hold)
        try:
            hold = await sidecar.ledger.reserve(_exactly(budget, left + 1), request_id="probe")
            wrong.append(f"P1: {sidecar.name} was granted {left + 1} of the {left} that are left of {budget.id}")
            sidecar.ledger.release(hold)
        except BudgetRefusedError:
            pass


def _exactly(budget: Budget, amount: int) -> Ask:
    return Ask(draws=(Draw(budget, amount, 0),))
