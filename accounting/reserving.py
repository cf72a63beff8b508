"""How a reservation is spelled for the scripts, and how their replies are read. Pure; the layout is described in the scripts."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from accounting.ask import Ask, Draw
from accounting.budgets import Budget
from accounting.escrow import ESCROW_ID, Allowance
from accounting.hold import (
    BudgetRefusedError,
    ConfigChangedError,
    HeldRow,
    Hold,
    LearningError,
    RateRefusedError,
    RateRow,
)
from accounting.periods import ROLLING_BUCKETS, Window
from accounting.store.errors import StoreUnavailableError
from accounting.store.packing import Packed, fresh, number, piece, text

EXPIRY_AFTER_END_MS = 45 * 86_400_000
_WINDOWS_MAX = _RATES_MAX = 20_000
_OWN_KEYS, _HEAD, _DRAW, _RATE = 4, 10, 4, 4  # as `reserve.lua` has them

Key = Callable[..., str]  # parts of a key -> the key


class Counted:
    """A budget in one window: its keys, and its name and terms as `reserve.lua` reads them: the same for every call."""

    __slots__ = (
        "budget", "counters_key", "end_ms", "expiry_ms", "holds_key", "keys", "start_ms", "terms", "window",
    )  # fmt: skip

    def __init__(self, budget: Budget, window: Window, key: Key) -> None:
        self.budget, self.window = budget, window
        self.start_ms, self.end_ms = window.start_ms, window.end_ms
        self.expiry_ms = None if window.bucket_ms else _expiry_ms(window, 0)  # None: as long after each call
        self.counters_key, self.holds_key = counter_keys(key, budget, window)
        self.keys = piece(self.counters_key, self.holds_key)
        self.terms = piece(
            budget.id,
            f"{budget.version}|{budget.limit}|{budget.binds:d}|{budget.hold == 'full':d}"
            f"|{window.start_ms}|{window.end_ms or 0}|{window.bucket_ms}",
        )


class Windows:
    """The current window of each budget in use, spelled once."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._known: dict[str, Counted] = {}

    def of(self, budget: Budget, now_ms: int) -> Counted:
        """Return the budget in its window at `now_ms`."""
        known = self._known.get(budget.id)
        if (
            known is None or known.budget is not budget or now_ms < known.start_ms
            or (known.end_ms is not None and now_ms >= known.end_ms)
        ):  # fmt: skip
            if len(self._known) >= _WINDOWS_MAX:
                self._known.clear()
            known = self._known[budget.id] = Counted(budget, budget.period.window(now_ms), self._key)
        return known


def counter_keys(key: Key, budget: Budget, window: Window) -> tuple[str, str]:
    """Return the keys of a budget's counters and holds in one window."""
    return key("b", budget.id, window.key), key("x", budget.id, window.key)


class Reservations:
    """Spells the reservations of one session, from pieces that change with a window, a limit or the store's process at most."""

    def __init__(self, key: Key, sid: str, ttl_ms: int) -> None:
        self._sid = sid
        self._rate_key = lru_cache(_RATES_MAX)(lambda subject, what: piece(key("q", subject, what)))
        self._own_keys = piece(key("g"), key("s", sid), key("lim"), key("sess"))
        self._ttl = number(ttl_ms)

    def packed(self, ask: Ask, counted: Sequence[Counted], run_id: str, config_version: str, seq: int) -> Packed:
        """Return KEYS and ARGV of `reserve.lua`; `counted` is each draw's budget in its window."""
        draws, rates = ask.draws, ask.rates
        keys_count = _OWN_KEYS + 2 * len(draws) + len(rates)
        keys = [number(keys_count), self._own_keys]
        args = [
            text(run_id, config_version, self._sid), fresh(seq), self._ttl, number(ask.wanted), number(ask.least),
            number(ask.share_permille), number(len(draws)), number(len(rates)),
        ]  # fmt: skip
        for (_, fixed, per_output), one in zip(draws, counted, strict=True):
            keys.append(one.keys)
            args += (one.terms, number(fixed), number(per_output))
        for rate in rates:
            keys.append(self._rate_key(rate.subject, rate.what))
            args += (number(rate.limit), number(rate.window_ms), number(rate.fixed), number(rate.per_output))
        words = 1 + keys_count + _HEAD + _DRAW * len(draws) + _RATE * len(rates)
        return Packed(words, b"".join(keys + args))


def extend_arguments(
    holds: Sequence[Hold], key: Key, sid: str, ttl_ms: int
) -> tuple[list[str], list[str | bytes | int]]:
    """Return KEYS, and ARGV without the run id, of `extend.lua`. Of an escrow the store alone knows how much is left."""
    keys = [key("g"), key("s", sid), key("sess")]
    args: list[str | bytes | int] = [sid, ttl_ms, len(holds)]
    for hold in holds:
        args += (hold.seq, 0 if hold.request_id == ESCROW_ID else hold.granted, len(hold.rows))
        for row in hold.rows:
            keys += (row.counters_key, row.holds_key)
            args += (row.amount, row.expiry_ms)
    return keys, args


def held(seq: int, ask: Ask, counted: Sequence[Counted], reply: Sequence[Any], request_id: str) -> Hold:
    """Read an OK reply."""
    rows, rates, at, now_ms = [], [], 3, int(reply[1])
    for one in counted:
        field, limit, used, holding, amount = reply[at : at + 5]
        at += 5
        expiry_ms = _expiry_ms(one.window, now_ms) if one.expiry_ms is None else one.expiry_ms
        rows.append(
            HeldRow(
                one.budget, one.counters_key, one.holds_key, field.decode(), amount, expiry_ms, one.end_ms,
                limit, used, holding,
            )
        )  # fmt: skip
    for rate in ask.rates:
        limit, remaining, reset_ms = reply[at : at + 3]
        at += 3
        rates.append(RateRow(rate.subject, rate.what, limit, remaining, reset_ms))
    return Hold(seq, request_id, reply[2], tuple(rows), tuple(rates))


def unreserved(
    seq: int, counted: Sequence[Counted], ask: Ask, now_ms: int, request_id: str, *, allowance: Allowance
) -> Hold:
    """Return the hold of a call that an outage policy lets pass: nothing is held for it alone, all of it is settled later."""
    rows = []
    for draw, one, escrow in zip(ask.draws, counted, allowance.escrows, strict=True):
        amount, window = draw.fixed + draw.per_output * allowance.granted if escrow else 0, one.window
        field = f"u{now_ms // window.bucket_ms}" if window.bucket_ms else "used"
        rows.append(
            HeldRow(
                budget=draw.budget, counters_key=one.counters_key, holds_key=one.holds_key, field=field, amount=amount,
                expiry_ms=_expiry_ms(window, now_ms),
                resets_ms=window.end_ms, limit=escrow.room if escrow else draw.budget.limit, used=0, held=amount,
                cover_seq=escrow.hold.seq if escrow else 0,
            )
        )  # fmt: skip
    return Hold(
        seq=seq,
        request_id=request_id,
        granted=allowance.granted,
        rows=tuple(rows),
        reserved=False,
        escrow=allowance.covered,
    )


def refusal(verdict: bytes, ask: Ask, counted: Sequence[Counted], reply: Sequence[Any]) -> Exception:
    """Read any reply that is neither OK nor a call to ask again."""
    now_ms = int(reply[1])
    if verdict == b"DENY":
        kind, number, limit, used, holding, need = reply[2:8]
        draw = ask.draws[number - 1]
        if draw.budget.unit == "concurrency":
            row = RateRow(subject=draw.budget.subject, what="concurrency", limit=limit, remaining=0, reset_ms=1000)
            return RateRefusedError(row, wait_ms=1000)
        bare = _bare_row(draw, counted[number - 1].window, limit, used, holding)
        return BudgetRefusedError(bare, requested=need, held_only=kind == b"held", now_ms=now_ms)
    if verdict == b"RATE":
        number, limit, wait_ms = reply[2:5]
        rate = ask.rates[number - 1]
        bare_rate = RateRow(subject=rate.subject, what=rate.what, limit=limit, remaining=0, reset_ms=wait_ms)
        return RateRefusedError(bare_rate, wait_ms=wait_ms)
    if verdict == b"CONFIG":
        return ConfigChangedError(reply[2].decode())
    if verdict == b"LEARN":
        return LearningError(max(1, int(reply[2]) - now_ms))
    return StoreUnavailableError(f"the store answers {verdict.decode('ascii', 'replace')} to a new call")


def _expiry_ms(window: Window, now_ms: int) -> int:
    if window.end_ms is not None:
        return window.end_ms + EXPIRY_AFTER_END_MS
    if window.bucket_ms:
        return now_ms + 2 * ROLLING_BUCKETS * window.bucket_ms + EXPIRY_AFTER_END_MS
    return 0


def _bare_row(draw: Draw, window: Window, limit: int, used: int, holding: int) -> HeldRow:
    return HeldRow(
        budget=draw.budget, counters_key="", holds_key="", field="", amount=0, expiry_ms=0,
        resets_ms=window.end_ms, limit=limit, used=used, held=holding,
    )  # fmt: skip
