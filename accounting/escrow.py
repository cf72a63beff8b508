"""A small allowance of a budget, held in the store ahead of time, to live on while the store is away (`outage: escrow`). Pure.

It is a hold like any other: nobody else can be given what it holds, so what is spent from it overspends nothing. It is used only
within its own lease, which by our clock is over before the store thinks so. What a call spends from it is taken off it by that
call's settlement, in one step (`settle.lua`), so nothing counts twice. An allowance that was spent from is given back and taken anew
once all of that is settled. A budget that runs low keeps none: its last part is for the calls that can still ask.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from accounting.ask import Ask, Draw
from accounting.budgets import Budget
from accounting.hold import Hold

ESCROW_ID = "escrow"  # in the place of a request's id: no call is behind it
PART = 50  # of the limit: 2 %
TOKENS_MAX = 20_000
ACTIVE_S = 600.0
KEPT_MAX = 1000
AGAIN_S = 4.0  # less than a heartbeat, more than a round trip
AMPLE, SCANT = 10, 5  # times its own size: what must be free to take one, and to keep one
_OF_TOKENS = ("tokens", "input_tokens", "output_tokens")


@dataclass(slots=True)
class Escrow:
    """One budget's allowance. `taken` by calls: their worst case while they are open, then what they used."""

    budget: Budget
    hold: Hold
    taken: int = 0
    calls: set[int] = field(default_factory=set)  # seqs, until the store has their settlements

    @property
    def room(self) -> int:
        """What may still be spent."""
        return self.hold.granted - self.taken

    def usable(self, counters_key: str, now_s: float) -> bool:
        """Tell whether the store surely still holds it, for the window that these counters belong to."""
        return not self.hold.lost and now_s < self.hold.until_s and self.hold.rows[0].counters_key == counters_key


@dataclass(frozen=True, slots=True)
class Allowance:
    """On what a call may go without the store: granted output tokens per choice, and each draw's escrow if it needs one."""

    granted: int
    escrows: tuple[Escrow | None, ...]

    @property
    def covered(self) -> bool:
        """Whether any budget's escrow pays for it."""
        return any(self.escrows)


@dataclass(slots=True)
class _Use:
    budget: Budget
    at_s: float
    token_worth: int  # of the dearest call so far
    free: int  # when last heard, but for our own allowance
    not_before_s: float = 0.0  # not to be asked for at each call

    @property
    def size(self) -> int:
        """The allowance that this budget is to have; 0: none."""
        part = self.budget.limit // PART
        if self.budget.unit in _OF_TOKENS:
            return min(part, TOKENS_MAX)
        return min(part, TOKENS_MAX * self.token_worth) if self.token_worth else part


class Escrows:
    """All allowances of one sidecar."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}
        self._kept: dict[str, Escrow] = {}

    def noticed(self, ask: Ask, hold: Hold, now_s: float) -> bool:
        """Note what a call drew on; True if there is an allowance to be taken now."""
        due = False
        for draw, row in zip(ask.draws, hold.rows, strict=True):
            budget = draw.budget
            if budget.outage != "escrow" or not budget.binds:
                continue
            use = self._uses.get(budget.id)
            if use is None:
                if len(self._uses) >= KEPT_MAX:
                    continue
                use = self._uses[budget.id] = _Use(budget, now_s, 0, 0)
            use.budget, use.at_s, use.free = budget, now_s, row.remaining + self._size(budget.id)
            use.token_worth = max(use.token_worth, draw.per_output)
            due = due or self._due(use, now_s)
        return due

    def scarce(self, budget: Budget) -> bool:
        """Note that a budget has no room; True if an allowance of it is to be given back now."""
        if (use := self._uses.get(budget.id)) is not None:
            use.free = 0
        return budget.id in self._kept

    def wanted(self, now_s: float) -> list[Ask]:
        """Return what is to be reserved now, one budget each."""
        due = [use for use in self._uses.values() if self._due(use, now_s)]
        for use in due:
            use.not_before_s = now_s + AGAIN_S
        return [Ask(draws=(Draw(use.budget, 0, 1),), wanted=use.size, least=use.size) for use in due]

    def took(self, ask: Ask, hold: Hold) -> None:
        """Keep what was reserved."""
        budget = ask.draws[0].budget
        self._kept[budget.id] = Escrow(budget, hold)

    def given_back(self, now_s: float, now_ms: int, unsettled: Sequence[Container[int]]) -> list[Hold]:
        """Forget allowances that are lost, spent from, out of their period, too large or no longer used; return their holds."""
        for id_ in [id_ for id_, use in self._uses.items() if now_s - use.at_s > ACTIVE_S]:
            del self._uses[id_]
        given = []
        for id_, escrow in list(self._kept.items()):
            escrow.calls = {seq for seq in escrow.calls if any(seq in some for some in unsettled)}
            if escrow.hold.lost or (not escrow.calls and self._stale(id_, escrow, now_ms)):
                given.append(self._kept.pop(id_).hold)
        return given

    def give_up(self) -> list[Hold]:
        """Forget all that no open call draws on; return their holds."""
        idle = [id_ for id_, escrow in self._kept.items() if not escrow.calls]
        self._uses.clear()
        return [self._kept.pop(id_).hold for id_ in idle]

    def holds(self) -> list[Hold]:
        """Return what a heartbeat must keep alive."""
        return [escrow.hold for escrow in self._kept.values()]

    def admit(self, ask: Ask, counters: Sequence[str], now_s: float) -> Allowance | None:
        """Decide on a call that the store cannot be asked about; None: refuse. `counters` are the keys of each draw's counters."""
        granted, found = ask.wanted, list[Escrow | None]()
        for draw, counters_key in zip(ask.draws, counters, strict=True):
            if not draw.budget.binds or draw.budget.outage == "allow":
                found.append(None)
                continue
            escrow = self._kept.get(draw.budget.id) if _escrowed(draw.budget) else None
            if escrow is None or not escrow.usable(counters_key, now_s):
                return None
            whole = draw.budget.hold == "full"
            if draw.fixed + draw.per_output * (ask.wanted if whole else ask.least) > escrow.room:
                return None
            if draw.per_output and not whole:
                granted = min(granted, _output(ask, escrow.room - draw.fixed, draw.per_output))
            found.append(escrow)
        return Allowance(granted, tuple(found))

    def opened(self, hold: Hold, allowance: Allowance) -> None:
        """Take a call's worst case off the allowances that cover it."""
        for row, escrow in zip(hold.rows, allowance.escrows, strict=True):
            if escrow is not None:
                escrow.taken += row.amount
                escrow.calls.add(hold.seq)

    def settled(self, hold: Hold, actuals: Iterable[int]) -> None:
        """Put back what a call did not use."""
        for row, actual in zip(hold.rows, actuals, strict=True):
            escrow = self._kept.get(row.budget.id)
            if escrow is not None and row.cover_seq and row.cover_seq == escrow.hold.seq:
                escrow.taken += actual - row.amount

    def _due(self, use: _Use, now_s: float) -> bool:
        return use.budget.id not in self._kept and now_s >= use.not_before_s and 0 < use.size * AMPLE <= use.free

    def _size(self, id_: str) -> int:
        escrow = self._kept.get(id_)
        return escrow.hold.granted if escrow else 0

    def _stale(self, id_: str, escrow: Escrow, now_ms: int) -> bool:
        use, resets_ms = self._uses.get(id_), escrow.hold.rows[0].resets_ms
        if use is None or escrow.taken or (resets_ms is not None and now_ms >= resets_ms):
            return True
        return use.free < use.size * SCANT or escrow.hold.granted > use.budget.limit // PART


def _escrowed(budget: Budget) -> bool:
    return budget.outage == "escrow" and budget.binds


def _output(ask: Ask, free: int, per_output: int) -> int:
    """How much output fits: as `reserve.lua` has it."""
    fit = free // per_output
    return min(fit, max(ask.least, fit * ask.share_permille // 1000)) if ask.share_permille else fit
