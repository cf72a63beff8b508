"""One settled call as the store and the journal take it. Pure: made once, applied any number of times, counted once."""

from typing import Any, TypeAlias

import orjson

from accounting.budgets import AMOUNT_MAX, amounts_by_unit
from accounting.hold import HeldRow, Hold
from accounting.record import record

# counters key, holds key, field, held ("500@12": taken from what seq 12 holds), actual, expiry_ms
Row: TypeAlias = tuple[str, str, str, int | str, int, int]

RECORDS_MAX = 100_000
DAYS_KEPT_MS = 400 * 86_400_000


@record
class Spent:
    """What a call used in the end. An empty record is a release: nothing was spent and nothing is told."""

    requests: int = 1  # 0: no provider took it, so it does not count as a call either
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanousd: int = 0
    record: bytes = b""  # the usage record, JSON
    totals_row: str = ""  # key|user|team|provider/model
    day: str = ""  # the UTC day the call was admitted, YYYYMMDD


@record
class Settlement:
    """Amounts for each budget, by key, and the usage record."""

    seq: int
    rows: tuple[Row, ...]
    spent: Spent

    def arguments(self, sid: str, ack: int, run_id: str = "") -> list[str | bytes | int]:
        """Return the ARGV of settle.lua; `run_id` names the server that `ack` was learnt from."""
        s = self.spent
        # The same call settled with other amounts is a bug, and is told apart by this.
        fingerprint = f"{s.requests}.{s.input_tokens}.{s.output_tokens}.{s.cost_nanousd}"
        head: list[str | bytes | int] = [
            sid, self.seq, ack, fingerprint, s.record, RECORDS_MAX, "", s.totals_row,
            _countable(s.input_tokens), _countable(s.output_tokens), _countable(s.cost_nanousd), DAYS_KEPT_MS, len(self.rows), run_id,
        ]  # fmt: skip
        for _, _, field, held, actual, expiry_ms in self.rows:
            head += (field, held, _countable(actual), expiry_ms)
        return head

    def dump(self) -> bytes:
        """Return it as JSON, for the journal."""
        s = self.spent
        return orjson.dumps([
            self.seq, self.rows, s.requests, s.input_tokens, s.output_tokens, s.cost_nanousd, s.record.decode(), s.totals_row, s.day
        ])  # fmt: skip

    @classmethod
    def load(cls, data: bytes) -> "Settlement":
        """Read what `dump` wrote. Raises ValueError and TypeError on anything else."""
        seq, rows, requests, input_tokens, output_tokens, cost, record, totals_row, day = orjson.loads(data)
        spent = Spent(
            requests=requests, input_tokens=input_tokens, output_tokens=output_tokens, cost_nanousd=cost,
            record=record.encode(), totals_row=totals_row, day=day,
        )  # fmt: skip
        return cls(seq=seq, rows=tuple(tuple(row) for row in rows), spent=spent)


def settlement(hold: Hold, spent: Spent) -> Settlement:
    """Return what settling `hold` with `spent` means for each of its budgets."""
    taken = amounts_by_unit(spent.requests, spent.input_tokens, spent.output_tokens, spent.cost_nanousd)
    if not spent.record:
        taken = dict.fromkeys(taken, 0)
    rows = [
        (
            row.counters_key,
            row.holds_key,
            row.field,
            _held(row),
            taken[row.budget.unit],
            row.expiry_ms,
        )
        for row in hold.rows
    ]
    return Settlement(seq=hold.seq, rows=tuple(rows), spent=spent)


def _held(row: HeldRow) -> int | str:
    return f"{row.amount}@{row.cover_seq}" if row.cover_seq else row.amount


def _countable(amount: int) -> int:
    """What the store can count: an absurd amount must not make it reject the settlement."""
    return min(amount, AMOUNT_MAX)


def overspent(item: Settlement, hold: Hold) -> dict[str, int]:
    """Return by unit what the call used beyond its hold; empty for every honest provider."""
    over: dict[str, int] = {}
    for row, (_, _, _, _, actual, _) in zip(hold.rows, item.rows, strict=True):
        if (hold.reserved or row.cover_seq) and actual > row.amount and row.budget.binds:
            over[row.budget.unit] = max(over.get(row.budget.unit, 0), actual - row.amount)
    return over


def open_note(hold: Hold) -> dict[str, Any]:
    """Return what the journal must know of a hold to settle it after a crash."""
    rows = [(r.counters_key, r.holds_key, r.field, _held(r), r.expiry_ms, r.budget.unit) for r in hold.rows]
    return {
        "seq": hold.seq,
        "id": hold.request_id,
        "granted": hold.granted,
        "reserved": hold.reserved,
        "rows": rows,
        **hold.notes,
    }
