"""What a call asks of the ledger: its worst case on each budget, fixed before it is sent.

A draw's worst case is `fixed + per_output * granted`: the input and the call itself are fixed, each output token costs
`per_output`. So one number, the granted output, is what all budgets agree on.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from accounting.budgets import Budget


class Worst(NamedTuple):
    """A call's worst case. `choices` is n: each choice may use the whole output limit."""

    input_tokens: int
    input_nanousd: int
    output_nanousd: int  # of one token
    choices: int = 1


class Draw(NamedTuple):
    """One budget's part of a call."""

    budget: Budget
    fixed: int
    per_output: int


class Rate(msgspec.Struct, frozen=True):
    """A limit per minute on one subject: `what` is requests or tokens."""

    subject: str
    what: str
    limit: int
    fixed: int
    per_output: int
    window_ms: int = 60_000


class Ask(msgspec.Struct, frozen=True):
    """A request to reserve. `wanted` output tokens per choice; at least `least`, or nothing.

    `share_permille`: for a call that named no limit of its own, the most of what is free that it may be granted (0: all).
    """

    draws: tuple[Draw, ...] = ()
    rates: tuple[Rate, ...] = ()
    wanted: int = 0
    least: int = 0
    share_permille: int = 0


def draws_for(budgets: Iterable[Budget], worst: Worst) -> tuple[Draw, ...]:
    """Return each budget's part of a call's worst case, in the budget's own unit."""
    input_tokens, input_nanousd, output_nanousd, choices = worst
    found = []
    for budget in budgets:
        unit = budget.unit
        if unit == "usd":
            found.append(Draw(budget, input_nanousd, output_nanousd * choices))
        elif unit == "tokens":
            found.append(Draw(budget, input_tokens, choices))
        elif unit == "input_tokens":
            found.append(Draw(budget, input_tokens, 0))
        elif unit == "output_tokens":
            found.append(Draw(budget, 0, choices))
        else:  # requests, concurrency
            found.append(Draw(budget, 1, 0))
    return tuple(found)
