"""Lets peace come to a world, then looks at everything: who still holds something, what each call is said to have used, and the truth.

And after everybody has told everything once more, nothing may have changed.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from accounting.ask import Ask, Draw
from accounting.budgets import Budget, amounts
from accounting.hold import BudgetRefusedError
from accounting.journal.aftermath import INTERVAL_TOKENS
from tests.simulated.calls import Call, cost
from tests.simulated.scenario import Scene
from tests.simulated.verdict import TTL_S, Verdict, shaken

PEACE_S = 240.0
_PROMISED_TOKENS = 256


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
    if not all(task.done() or task.get_loop() in scene.world.graves for task in scene.tasks):
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
    if shaken(scene, scene.world.now_s - TTL_S - 10):
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
            if used[place] > limit + more and not scene.server.unlearnt_s and not _lapsed_and_lost(scene):
                wrong.append(f"P1: {used[place]} of {limit} of {place} were used, and only {more} more are excused")
    return wrong


def _lapsed_and_lost(scene: Scene) -> bool:
    """Whether a hold may have lapsed, its room gone to another, and it then been taken back by a store that had lost writes."""
    lapsed = scene.server.jumped_s or any(s.impaired_s(0, scene.world.now_s) >= 20 for s in scene.sidecars)
    return bool(scene.server.lost_s and lapsed)


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

    async def unknown(seqs: Sequence[int], _sid: str) -> set[int]:
        return set(seqs)  # else it would not be told what it knows

    before = _books(scene)
    for sidecar in scene.sidecars:
        vars(sidecar.ledger.settler)["unknown"] = unknown
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
