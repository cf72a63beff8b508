"""What a call that a crash cut short comes to. Pure: two processes that find the same journal charge the same.

A call without progress is released: it was never sent, since the first progress (no output yet) is written before it is. A call
with progress is charged that and one interval more, within its hold: never less than was relayed. What a provider wrote of a
whole answer that nobody saw nobody knows; one interval of it is charged, too, beside its input.
"""

from typing import Any

import orjson

from accounting.budgets import amounts
from accounting.journal.format import Progress
from accounting.settlement import Row, Settlement, Spent

INTERVAL_TOKENS = 240  # 256 are promised: the marks around an answer are counted before they come


def crashed(note: dict[str, Any], progress: Progress | None, day: str) -> Settlement:
    """Return the settlement of a call, given its note, its last progress, and the UTC day (YYYYMMDD).

    Raises KeyError, ValueError and TypeError if the note is not one.
    """
    seq, rows = int(note["seq"]), note["rows"]
    if progress is None:
        return Settlement(seq=seq, rows=tuple(_row(row, 0) for row in rows), spent=Spent())
    reserved = bool(note.get("reserved", True))
    output = _output_tokens(note, progress)
    more = (output - progress.output_tokens) * int(note.get("output_nanousd", 0))
    cost = progress.cost_nanousd + more
    if reserved:
        cost = min([cost, *(int(row[3]) for row in rows if row[5] == "usd")])
    charged = []
    for row in rows:
        actual = amounts(
            row[5], requests=1, input_tokens=progress.input_tokens, output_tokens=output, cost_nanousd=cost
        )
        charged.append(_row(row, min(actual, int(row[3])) if reserved else actual))
    spent = Spent(
        input_tokens=progress.input_tokens, output_tokens=output, cost_nanousd=cost, day=day, totals_row=_totals_row(note),
        record=_record(note, progress.input_tokens, output, cost),
    )  # fmt: skip
    return Settlement(seq=seq, rows=tuple(charged), spent=spent)


def _output_tokens(note: dict[str, Any], progress: Progress) -> int:
    """One interval more than was surely relayed, but no more than was granted or held, nor less than was relayed."""
    most = progress.output_tokens + INTERVAL_TOKENS
    granted = int(note.get("granted", 0)) * int(note.get("choices", 1))
    if granted or not progress.output_tokens:  # nothing is granted to what has no output, as an embedding
        most = min(most, granted)
    return max(progress.output_tokens, most)


def _row(row: list[Any], actual: int) -> Row:
    counters, holds, field, held, expiry_ms, _ = row
    return str(counters), str(holds), str(field), held if isinstance(held, str) else int(held), actual, int(expiry_ms)


def _totals_row(note: dict[str, Any]) -> str:
    parts = [note.get("key"), note.get("user"), note.get("team"), f"{note.get('provider')}/{note.get('model')}"]
    return "|".join(str(part or "").replace("|", "%7C") for part in parts)


def _record(note: dict[str, Any], input_tokens: int, output_tokens: int, cost_nanousd: int) -> bytes:
    """Return the usage record, of the same shape as that of a call that ended."""
    return orjson.dumps({
        "id": note.get("id"), "key": note.get("key"), "user": note.get("user"), "team": note.get("team"),
        "org": note.get("org"), "tags": note.get("tags", []), "model": note.get("asked"), "provider": note.get("provider"),
        "upstream_model": note.get("model"), "response_model": None, "input": input_tokens, "cached": 0, "cache_write": 0,
        "output": output_tokens, "reasoning": 0, "cost_nanousd": cost_nanousd, "price": None, "estimated": True,
        "outcome": "crashed", "ms": None, "reserved": bool(note.get("reserved", True)),
    })  # fmt: skip
