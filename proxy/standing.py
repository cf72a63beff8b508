"""What is the same for every call of a caller to the same targets: the budgets, limits, prices and ceilings, and what follows from them.

What a stranger would get wrong: it belongs to one version of the rules, and is gone with them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from accounting.ask import Rate, Worst
from accounting.budgets import Budget
from accounting.prices.price import Price
from proxy.config.policy import Limit
from proxy.limits import rates
from proxy.upstreams import Target

FAR = 50  # a call whose cheap bound is less than this part of every limit need not be counted exactly
_NO_LIMIT = 1 << 62
_NOTHING = Worst(0, 0, 0)


class Standing(msgspec.Struct, frozen=True):
    """`prices` and `ceilings` belong to the targets, in their order. `far_nanousd` and `far_tokens`: so much input is far from every limit."""

    budgets: tuple[Budget, ...]  # with those of calls at once
    limits: tuple[tuple[str, Limit], ...]
    rates: tuple[Rate, ...] | None  # None: some are of tokens, so each call has its own
    ceilings: tuple[int, ...]
    ceiling: int  # the highest of them
    prices: tuple[Price | None, ...] | None  # None: one is not known, and that refuses the call
    costs: bool  # some budget in USD binds
    clamps: bool  # some budget of output tokens binds
    slices: bool  # some budget that binds is held slice by slice
    far_nanousd: int
    far_tokens: int


class Way(NamedTuple):
    """Where a call may be tried, first the best, and what it may draw on there."""

    targets: Sequence[Target]
    standing: Standing


def standing_of(
    budgets: tuple[Budget, ...],
    limits: Sequence[tuple[str, Limit]],
    ceilings: tuple[int, ...],
    prices: tuple[Price | None, ...] | None,
) -> Standing:
    """Return what follows from these."""
    binding = [budget for budget in budgets if budget.binds]
    return Standing(
        budgets=budgets,
        limits=tuple(limits),
        rates=None if any(limit.tpm is not None for _, limit in limits) else rates(limits, _NOTHING),
        ceilings=ceilings,
        ceiling=max(ceilings),
        prices=prices,
        costs=binds_cost(binding),
        clamps=any(budget.unit in ("tokens", "output_tokens") for budget in binding),
        slices=any(budget.hold == "slice" for budget in binding),
        far_nanousd=_far(budget.limit for budget in binding if budget.unit == "usd"),
        far_tokens=_far(budget.limit for budget in binding if budget.unit in ("tokens", "input_tokens")),
    )


def binds_cost(budgets: Iterable[Budget]) -> bool:
    """Tell whether what a call costs may have it refused."""
    return any(budget.unit == "usd" and budget.binds for budget in budgets)


def _far(limits: Iterable[int]) -> int:
    return min(limits, default=_NO_LIMIT) // FAR
