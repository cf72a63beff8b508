"""How a hold that grows is spelled for `grow.lua`, and how its reply is read. For `hold: slice`: a stream holds piece by piece.

A stream that may be cut needs no hold of all that it might say. It holds its input and a slice, asks for the next slice in good
time, and ends when that is refused. What the store says it holds is the truth: an answer that was lost is made up for by asking
again, or by the settlement.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from accounting.ask import Ask
from accounting.hold import Hold
from accounting.reserving import Key


def grow_arguments(
    hold: Hold, ask: Ask, key: Key, head: Sequence[str | bytes | int], wanted: int, least: int
) -> tuple[list[str], list[str | bytes | int]]:
    """Return KEYS and ARGV; `head` is run id, sid and ttl_ms. `ask` is what the hold was reserved with."""
    run_id, sid, ttl_ms = head
    keys = [key("g"), key("s", str(sid)), key("lim")]
    args: list[str | bytes | int] = [run_id, sid, hold.seq, ttl_ms, wanted, least, len(hold.rows)]
    for draw, row in zip(ask.draws, hold.rows, strict=True):
        budget = draw.budget
        keys += (row.counters_key, row.holds_key)
        bucket_ms = budget.period.window(0).bucket_ms if row.field != "used" else 0
        args += (
            budget.id, budget.version, budget.limit, draw.fixed, draw.per_output, int(budget.binds), bucket_ms,
        )  # fmt: skip
    return keys, args


def grown(hold: Hold, reply: Sequence[Any]) -> None:
    """Write an OK reply into the hold."""
    hold.granted = int(reply[2])
    hold.rows = tuple(
        replace(row, amount=int(amount), held=row.held + int(amount) - row.amount)
        for row, amount in zip(hold.rows, reply[3:], strict=True)
    )
