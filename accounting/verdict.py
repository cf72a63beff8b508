"""What `reserve.lua` would say to a call, given what the counters hold: for explaining, never for admitting.

It mirrors the part of that script between "Decide" and "Do", and a test compares the two. Pure: nothing is held.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from accounting.ask import Ask, Draw, Rate
from accounting.hold import HeldRow

Kind = Literal["admit", "clamp", "held", "spent", "rate"]
Says = Literal["yes", "held", "spent", "counts"]  # counts: it does not bind


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawVerdict:
    """One budget's arithmetic. `need` is the least that must fit, `fit` the output tokens that it can grant (None: any)."""

    draw: Draw
    row: HeldRow
    need: int
    free: int
    fit: int | None
    says: Says


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the script would answer. `granted` is 0 where it refuses; `draw` and `rate` number what refuses, from 0."""

    kind: Kind
    granted: int
    draws: tuple[DrawVerdict, ...]
    draw: int | None = None
    rate: int | None = None
    wait_ms: int = 0


def decide(ask: Ask, rows: Sequence[HeldRow], tats_ms: Sequence[float], now_ms: int) -> Verdict:
    """Return the verdict; `rows` are the balances of the ask's draws, `tats_ms` what the store keeps of each rate (0: nothing)."""
    draws = tuple(_draw(ask, draw, row) for draw, row in zip(ask.draws, rows, strict=True))
    spent, held = _first(draws, ("spent",)), _first(draws, ("spent", "held"))
    # A call that only waits for holds would then get what fits if nothing were held: is that too fast?
    idle = spent is None and held is not None
    granted = _granted(ask, draws, idle=idle)
    if spent is None:
        for number, (rate, tat_ms) in enumerate(zip(ask.rates, tats_ms, strict=True)):
            wait_ms = _wait_ms(rate, tat_ms, granted, now_ms)
            if wait_ms:
                return Verdict(kind="rate", granted=0, draws=draws, rate=number, wait_ms=wait_ms)
    if held is not None:
        no = held if spent is None else spent
        return Verdict(kind="held" if spent is None else "spent", granted=0, draws=draws, draw=no)
    return Verdict(kind="clamp" if granted < ask.wanted else "admit", granted=granted, draws=draws)


def _draw(ask: Ask, draw: Draw, row: HeldRow) -> DrawVerdict:
    need = draw.fixed + draw.per_output * (ask.wanted if draw.budget.hold == "full" else ask.least)
    free = row.limit - row.used - row.held
    says: Says = "counts" if not draw.budget.binds else "yes"
    if draw.budget.binds and need > free:
        says = "spent" if need > row.limit - row.used else "held"
    fit = _fit(ask, draw, free) if says == "yes" and draw.per_output > 0 else None
    return DrawVerdict(draw=draw, row=row, need=need, free=free, fit=fit, says=says)


def _granted(ask: Ask, draws: Sequence[DrawVerdict], *, idle: bool) -> int:
    """What all budgets agree on; more than a whole rate limit can never be granted."""
    granted = ask.wanted
    for each in draws:
        if (
            each.draw.budget.binds
            and each.draw.per_output > 0
            and each.says != "spent"
            and (idle or each.says == "yes")
        ):
            granted = min(granted, _fit(ask, each.draw, each.free + (each.row.held if idle else 0)))
    for rate in ask.rates:
        if rate.per_output > 0 and rate.fixed + rate.per_output * ask.least <= rate.limit:
            granted = min(granted, _shared(ask, (rate.limit - rate.fixed) // rate.per_output))
    return granted


def _fit(ask: Ask, draw: Draw, free: int) -> int:
    fit = (free - draw.fixed) // draw.per_output
    return fit if draw.budget.hold == "full" else _shared(ask, fit)


def _shared(ask: Ask, fit: int) -> int:
    """The part of what fits that a call without a limit of its own gets."""
    return min(fit, max(ask.least, fit * ask.share_permille // 1000)) if ask.share_permille > 0 else fit


def _first(draws: Sequence[DrawVerdict], says: tuple[Says, ...]) -> int | None:
    return next((number for number, each in enumerate(draws) if each.says in says), None)


def _wait_ms(rate: Rate, tat_ms: float, granted: int, now_ms: int) -> int:
    cost = rate.fixed + rate.per_output * granted
    each_ms = rate.window_ms / rate.limit if rate.limit else rate.window_ms * 1000
    after_ms = max(float(now_ms), tat_ms) + cost * each_ms - now_ms
    if after_ms <= rate.window_ms + 0.001 and not (rate.limit == 0 and cost):
        return 0
    return math.ceil(min(after_ms - rate.window_ms, rate.window_ms))
