"""One settled call as the store and the journal take it. Pure: made once, applied any number of times, counted once."""

from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import orjson

from accounting.budgets import AMOUNT_MAX, amounts_by_unit
from accounting.hold import HeldRow, Hold
from accounting.store.packing import NUMBERS_MAX, Packed, blob, fresh, number, piece, text

# counters key, holds key, field, held ("500@12": taken from what seq 12 holds), actual, expiry_ms
Row: TypeAlias = tuple[str, str, str, int | str, int, int]

RECORDS_MAX = 100_000
DAYS_KEPT_MS = 400 * 86_400_000
_OWN_KEYS, _HEAD, _ROW = 4, 14, 4  # as `settle.lua` has them
_RECORDS_KEPT, _DAYS_KEPT = piece(RECORDS_MAX, ""), piece(DAYS_KEPT_MS)


class Spent(msgspec.Struct, frozen=True):
    """What a call used in the end. An empty record is a release: nothing was spent and nothing is told."""

    requests: int = 1  # 0: no provider took it, so it does not count as a call either
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanousd: int = 0
    record: bytes = b""  # the usage record, JSON
    totals_row: str = ""  # key|user|team|provider/model
    day: str = ""  # the UTC day the call was admitted, YYYYMMDD


class Settlement(msgspec.Struct, frozen=True):
    """Amounts for each budget, by key, and the usage record."""

    seq: int
    rows: tuple[Row, ...]
    spent: Spent

    def packed(self, own: bytes, sid: str, ack: int, run_id: str = "") -> Packed:
        """Return KEYS and ARGV of `settle.lua`; `own` are its first four keys, spelled, `run_id` names the server that `ack` was learnt from."""
        s, rows = self.spent, self.rows
        keys_count = _OWN_KEYS + 2 * len(rows)
        keys = [number(keys_count), own]
        # The same call settled with other amounts is a bug, and is told apart by this.
        fingerprint = b"%d.%d.%d.%d" % (s.requests, s.input_tokens, s.output_tokens, s.cost_nanousd)
        args = [
            text(sid), fresh(self.seq), fresh(ack), blob(fingerprint), blob(s.record), _RECORDS_KEPT, text(s.totals_row),
            _countable(s.input_tokens), _countable(s.output_tokens), _countable(s.cost_nanousd), _DAYS_KEPT,
            number(len(rows)), text(run_id),
        ]  # fmt: skip
        for counters_key, holds_key, field, held, actual, expiry_ms in rows:
            keys.append(text(counters_key, holds_key))
            held_piece = number(held) if isinstance(held, int) else text(held)
            args += (text(field), held_piece, _countable(actual), number(expiry_ms))
        return Packed(1 + keys_count + _HEAD + _ROW * len(rows), b"".join(keys + args))

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
            _covered(row) if row.cover_seq else row.amount,
            taken[row.budget.unit],
            row.expiry_ms,
        )
        for row in hold.rows
    ]
    return Settlement(hold.seq, tuple(rows), spent)


def _covered(row: HeldRow) -> str:
    return f"{row.amount}@{row.cover_seq}"


@lru_cache(NUMBERS_MAX)
def _countable(amount: int) -> bytes:
    """Spell what the store can count: an absurd amount must not make it reject the settlement."""
    return fresh(min(amount, AMOUNT_MAX))


def overspent(item: Settlement, hold: Hold) -> dict[str, int]:
    """Return by unit what the call used beyond its hold; empty for every honest provider."""
    over: dict[str, int] = {}
    for row, (_, _, _, _, actual, _) in zip(hold.rows, item.rows, strict=True):
        if actual > row.amount and (hold.reserved or row.cover_seq) and row.budget.binds:
            over[row.budget.unit] = max(over.get(row.budget.unit, 0), actual - row.amount)
    return over


def open_note(hold: Hold) -> dict[str, Any]:
    """Return what the journal must know of a hold to settle it after a crash."""
    rows = [
        (r.counters_key, r.holds_key, r.field, _covered(r) if r.cover_seq else r.amount, r.expiry_ms, r.budget.unit)
        for r in hold.rows
    ]
    return {
        "seq": hold.seq,
        "id": hold.request_id,
        "granted": hold.granted,
        "reserved": hold.reserved,
        "rows": rows,
        **hold.notes,
    }
