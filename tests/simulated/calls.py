"""Calls as the proxy makes them: reserved, noted, relayed piece by piece under a lease that is renewed, settled, or left in the middle.

Each writes down what its client really got, apart from the books.
"""

import asyncio
from dataclasses import dataclass, field

from accounting.ask import Ask, Worst, draws_for
from accounting.budgets import Budget, Caller
from accounting.charge import Attempt, Charge, charged
from accounting.hold import Hold, RefusedError
from accounting.journal.aftermath import INTERVAL_TOKENS
from accounting.journal.errors import JournalError
from accounting.journal.format import Progress
from accounting.renewing import leased, renewed
from accounting.store.errors import StoreError
from accounting.usage import Usage
from tests.simulated.sidecar import Sidecar

LEASE_S = 29.65  # from when it was asked for, by the holder's clock
INPUT_NANOUSD, OUTPUT_NANOUSD = 1000, 2000
ALICE = Caller(key="alice-laptop", user="alice", team="lab")


class Price:
    """Linear, so that a share of a call costs its share."""

    version = "1"

    def cost_nanousd(self, usage: Usage) -> int:
        return cost(usage.input, usage.output)


def cost(input_tokens: int, output_tokens: int) -> int:
    return INPUT_NANOUSD * input_tokens + OUTPUT_NANOUSD * output_tokens


@dataclass
class Counts:
    """What the meter is to a charge. `excess`: the provider bills more than it said."""

    input_tokens: int
    relayed: int = 0
    reported: Usage | None = None
    response_model: str | None = None

    def usage(self) -> Usage:
        return Usage(input=self.input_tokens, output=self.relayed, estimated=True)


@dataclass(frozen=True)
class Plan:
    """One call as it is to be. `pieces`: seconds before each, and its tokens."""

    number: int
    budgets: tuple[Budget, ...]
    input_tokens: int
    wanted: int
    least: int
    share: int
    pieces: tuple[tuple[float, int], ...]
    ends: str = "ok"  # ok, refused (by the provider), leaves (the client), early (while it is reserved)
    slice: int = 0
    excess: int = 0

    def ask(self) -> Ask:
        worst = Worst(
            input_tokens=self.input_tokens, input_nanousd=cost(self.input_tokens, 0), output_nanousd=OUTPUT_NANOUSD
        )
        wanted = min(self.wanted, self.slice) if self.slice else self.wanted
        return Ask(
            draws=draws_for(self.budgets, worst),
            wanted=wanted,
            least=min(self.least, wanted),
            share_permille=self.share,
        )


@dataclass(eq=False)
class Call:
    """What became of one. `state`: new, refused, open, settled, and dead with its process (then it was open)."""

    plan: Plan
    sidecar: Sidecar
    sid: str = ""
    state: str = "new"
    hold: Hold | None = None
    admitted_s: float = 0.0
    relayed: int = 0
    noted: int = -1
    usage: Usage | None = None
    rids: list[str] = field(default_factory=list)
    why: str = ""

    @property
    def id(self) -> str:
        return str(self.plan.number)


class Calls:
    """All calls of one world, by number and by rid."""

    def __init__(self) -> None:
        self.all: list[Call] = []
        self.by_rid: dict[str, Call] = {}
        self.admitted: list[Call] = []

    async def make(self, plan: Plan, sidecar: Sidecar) -> None:
        """Make one call; cancel the task, and its client has left."""
        call = Call(plan, sidecar, sidecar.ledger.sid)
        self.all.append(call)
        ask = plan.ask()
        notes = {
            "key": ALICE.key, "user": ALICE.user, "team": ALICE.team, "org": None, "tags": [], "asked": "m",
            "input": plan.input_tokens, "choices": 1, "output_nanousd": OUTPUT_NANOUSD, "provider": "p", "model": "m",
        }  # fmt: skip
        try:
            async with charged(
                sidecar.till, ask, request_id=call.id, caller=ALICE, model="m", notes=notes
            ) as charge:  # fmt: skip
                await self._relay(call, charge, ask)
        except (RefusedError, StoreError, JournalError) as error:
            if call.state != "new":
                raise
            call.state, call.why = "refused", type(error).__name__

    def _admitted(self, call: Call, hold: Hold) -> None:
        call.hold, call.state = hold, "open"
        loop = call.sidecar.loop  # it may have been stalled since the store said yes
        call.admitted_s = loop.world.now_s - (loop.time() - hold.until_s + LEASE_S) / loop.rate
        self._named(call, hold)
        self.admitted.append(call)

    def _named(self, call: Call, hold: Hold) -> None:
        call.rids.append(f"{call.sid}.{hold.seq}")
        self.by_rid[call.rids[-1]] = call

    async def _relay(self, call: Call, charge: Charge, ask: Ask) -> None:
        plan, hold, ledger = call.plan, charge.hold, call.sidecar.ledger
        self._admitted(call, hold)
        counts = Counts(plan.input_tokens)
        attempt = charge.begin(Attempt("p", "m", Price(), counts))  # type: ignore[arg-type]
        try:
            await asyncio.sleep(plan.pieces[0][0])
            if plan.ends == "refused":
                await self._finish(call, charge, Usage(), "upstream_error")
                return
            attempt.billable = True
            most = plan.wanted
            for pause_s, tokens in plan.pieces[1:]:
                await asyncio.sleep(pause_s)
                if leased(hold) and (hold.lost or asyncio.get_running_loop().time() >= hold.until_s):
                    seq = hold.seq
                    if not await renewed(ledger, hold):
                        break
                    if hold.seq != seq:
                        self._named(call, hold)
                        if call.noted >= 0:
                            self._note(call, call.noted)
                tokens = min(tokens, most - call.relayed)
                if plan.slice and call.relayed + tokens > hold.granted and not await self._grows(call, ask, tokens):
                    break
                tokens = min(tokens, hold.granted - call.relayed)
                if tokens <= 0:
                    break
                after = call.relayed + tokens
                if call.noted < 0:
                    self._note(call, 0)
                if after > call.noted + INTERVAL_TOKENS:
                    self._note(call, max(call.relayed, after - INTERVAL_TOKENS))
                call.relayed = counts.relayed = after
            output = call.relayed + (plan.excess if call.relayed else 0)
            counts.reported = Usage(input=plan.input_tokens, output=output)
            await self._finish(call, charge, counts.reported, "ok")
        finally:
            if call.state == "open":
                call.usage, call.state = counts.usage() if attempt.billable else Usage(), "settled"

    async def _finish(self, call: Call, charge: Charge, usage: Usage, outcome: str) -> None:
        call.usage, call.state = usage, "settled"
        await charge.finish(outcome)

    async def _grows(self, call: Call, ask: Ask, tokens: int) -> bool:
        assert call.hold is not None
        hold, least = call.hold, call.relayed + tokens
        try:
            return await call.sidecar.ledger.grow(
                hold, ask, min(hold.granted + call.plan.slice, call.plan.wanted), least
            )
        except StoreError:
            return False

    def _note(self, call: Call, output: int) -> None:
        assert call.hold is not None
        call.noted = output
        tokens = call.plan.input_tokens
        note = Progress(
            seq=call.hold.seq, input_tokens=tokens, output_tokens=output, cost_nanousd=cost(tokens, output)
        )  # fmt: skip
        call.sidecar.ledger.progress(call.hold, note.dump())
