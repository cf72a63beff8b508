"""How replies of the store are read, field by field; and two things that only save work, and must do that."""

from dataclasses import replace

import pytest

import accounting.budgets
import accounting.reserving
from accounting.ask import Ask, Draw, Rate, Worst, draws_for
from accounting.budgets import Budget, BudgetBook, amounts
from accounting.escrow import Allowance
from accounting.hold import BudgetRefusedError, ConfigChangedError, LearningError, RateRefusedError
from accounting.meter import Meter
from accounting.periods import Period
from accounting.reserving import EXPIRY_AFTER_END_MS, Counted, Windows, held, refusal, unreserved
from accounting.settlement import Spent, overspent, settlement
from accounting.store.errors import StoreUnavailableError
from accounting.store.packing import piece
from tests.ledger.houses import ask, till, tokens
from tests.ledger.scenes import START, draw
from tests.ledger.test_escrow import escrowed

NOW = 1_800_000_000_000
DAY = Period(kind="day")
FIRST, SECOND = tokens(100, "user:a"), tokens(50, "team:b", period=DAY)
AT_ONCE = Budget(subject="key:k", unit="concurrency", limit=3, period=Period(kind="total"))
ASK = Ask(
    draws=(Draw(FIRST, 1, 1), Draw(SECOND, 2, 1), Draw(AT_ONCE, 1, 0)),
    rates=(
        Rate(subject="key:k", what="requests", limit=60, fixed=1, per_output=0),
        Rate(subject="key:k", what="tokens", limit=900, fixed=5, per_output=1),
    ),
    wanted=10,
)
WINDOWS = [draw.budget.period.window(NOW) for draw in ASK.draws]


def key(*parts):
    return ":".join(("b", *parts))


COUNTED = [Counted(d.budget, window, key) for d, window in zip(ASK.draws, WINDOWS, strict=True)]


def read(verdict, *rest):
    return refusal(verdict, ASK, COUNTED, [verdict, NOW, *rest])


@pytest.mark.parametrize(("kind", "held_only"), [(b"held", True), (b"spent", False)])
@pytest.mark.parametrize(("number", "budget"), [(1, FIRST), (2, SECOND)])
def test_a_refusal_names_its_budget_as_it_stands(kind, held_only, number, budget):
    error = read(b"DENY", kind, number, 70, 40, 25, 11)
    assert isinstance(error, BudgetRefusedError)
    assert (error.requested, error.held_only, error.now_ms) == (11, held_only, NOW)
    row = error.row
    assert (row.budget, row.limit, row.used, row.held, row.remaining) == (budget, 70, 40, 25, 5)
    assert (row.counters_key, row.holds_key, row.field, row.amount, row.expiry_ms, row.cover_seq) == (
        "",
        "",
        "",
        0,
        0,
        0,
    )
    assert row.resets_ms == WINDOWS[number - 1].end_ms


def test_too_many_at_once_is_a_rate():
    error = read(b"DENY", b"held", 3, 3, 0, 3, 1)
    assert isinstance(error, RateRefusedError)
    row = error.row
    assert (row.subject, row.what, row.limit, row.remaining, row.reset_ms, error.wait_ms) == (
        "key:k",
        "concurrency",
        3,
        0,
        1000,
        1000,
    )


@pytest.mark.parametrize(("number", "what"), [(1, "requests"), (2, "tokens")])
def test_a_rate_says_how_long_to_wait(number, what):
    error = read(b"RATE", number, 60, 250)
    assert isinstance(error, RateRefusedError)
    row = error.row
    assert (row.subject, row.what, row.limit, row.remaining, row.reset_ms, error.wait_ms) == (
        "key:k",
        what,
        60,
        0,
        250,
        250,
    )


def test_the_other_replies_are_told_apart():
    assert read(b"CONFIG", b"17").version == "17"
    assert isinstance(read(b"CONFIG", b"17"), ConfigChangedError)
    for until, wait_ms in ((NOW + 600, 600), (NOW + 1, 1), (NOW, 1), (NOW - 5, 1)):
        error = read(b"LEARN", until)
        assert isinstance(error, LearningError)
        assert error.wait_ms == wait_ms
    assert isinstance(read(b"TERMINAL"), StoreUnavailableError)


def test_what_was_admitted_is_read_field_by_field():
    names = [f"{kind}:{one.budget.id}:{one.window.key}" for one in COUNTED for kind in ("b:b", "b:x")]
    rows = [b"used", 100, 5, 16, 11, b"u9", 50, 6, 13, 12, b"used", 3, 0, 1, 1]
    hold = held(4, ASK, COUNTED, [b"OK", NOW, 10, *rows, 60, 59, 1000, 900, 885, 1001], "r")
    assert (hold.seq, hold.request_id, hold.granted, hold.reserved, hold.lost, hold.escrow) == (
        4,
        "r",
        10,
        True,
        False,
        False,
    )
    found = [(r.counters_key, r.holds_key, r.field, r.limit, r.used, r.held, r.amount, r.remaining) for r in hold.rows]
    assert found == [
        (names[0], names[1], "used", 100, 5, 16, 11, 79),
        (names[2], names[3], "u9", 50, 6, 13, 12, 31),
        (names[4], names[5], "used", 3, 0, 1, 1, 2),
    ]
    assert [r.budget for r in hold.rows] == [FIRST, SECOND, AT_ONCE]
    assert [r.expiry_ms for r in hold.rows] == [0, WINDOWS[1].end_ms + EXPIRY_AFTER_END_MS, 0]
    assert EXPIRY_AFTER_END_MS == 45 * 24 * 3600 * 1000, "a bill may be asked about for that long"
    assert [(r.subject, r.what, r.limit, r.remaining, r.reset_ms) for r in hold.rates] == [
        ("key:k", "requests", 60, 59, 1000), ("key:k", "tokens", 900, 885, 1001),
    ]  # fmt: skip


def test_a_call_let_pass_without_the_store_holds_nothing_and_is_no_overspending():
    rolling = tokens(100, "user:r", period=Period(kind="rolling:30d"))
    ask = Ask(draws=(Draw(FIRST, 1, 1), Draw(rolling, 1, 1)), wanted=10)
    windows = [draw.budget.period.window(NOW) for draw in ask.draws]
    counted = [Counted(d.budget, window, key) for d, window in zip(ask.draws, windows, strict=True)]
    hold = unreserved(4, counted, ask, NOW, "r", allowance=Allowance(10, (None, None)))
    assert (hold.reserved, hold.granted, hold.lost) == (False, 10, False)
    assert [(r.amount, r.used, r.held, r.limit) for r in hold.rows] == [(0, 0, 0, 100)] * 2
    bucket = windows[1].bucket_ms
    assert [r.field for r in hold.rows] == ["used", f"u{NOW // bucket}" if bucket else "used"]
    assert [r.expiry_ms for r in hold.rows] == [0, NOW + 2 * 60 * bucket + EXPIRY_AFTER_END_MS]
    item = settlement(hold, Spent(input_tokens=3, output_tokens=9, record=b"{}"))
    assert [row[3:5] for row in item.rows] == [(0, 12), (0, 12)]
    assert overspent(item, hold) == {}


@pytest.mark.parametrize(
    ("unit", "amount"),
    [("usd", 7), ("tokens", 5), ("input_tokens", 2), ("output_tokens", 3), ("requests", 1), ("concurrency", 0)],
)
def test_a_call_uses_of_each_unit_what_it_counts(unit, amount):
    assert amounts(unit, requests=1, input_tokens=2, output_tokens=3, cost_nanousd=7) == amount


def test_a_budget_is_spelled_in_the_order_in_which_the_script_reads_it():
    month = tokens(50, "user:m", mode="soft", hold="full", version=7, period=Period(kind="month"))
    window = month.period.window(NOW)
    assert Counted(month, window, key).terms == piece(month.id, f"7|50|0|1|{window.start_ms}|{window.end_ms}|0")
    rolling = tokens(9, "user:r", period=Period(kind="rolling:30d"))
    window = rolling.period.window(NOW)
    spelled = f"{rolling.version}|9|1|0|{window.start_ms}|0|{window.bucket_ms}"
    assert Counted(rolling, window, key).terms == piece(rolling.id, spelled)


def test_a_window_is_kept_while_it_lasts_and_not_too_many_are(monkeypatch):
    windows = Windows(key)
    first = windows.of(SECOND, NOW)
    assert windows.of(SECOND, NOW) is first
    assert windows.of(SECOND, first.start_ms) is first
    assert windows.of(SECOND, first.end_ms - 1) is first
    assert windows.of(SECOND, first.end_ms).start_ms == first.end_ms
    assert windows.of(SECOND, NOW).window == first.window, "and back, where the clock was wrong"
    again = replace(SECOND, limit=51)
    assert b"|51|" in windows.of(again, NOW).terms, "a limit that was changed counts at once"
    monkeypatch.setattr(accounting.reserving, "_WINDOWS_MAX", 2)
    first = windows.of(SECOND, NOW)
    other = windows.of(FIRST, NOW)
    assert (windows.of(SECOND, NOW) is first, windows.of(FIRST, NOW) is other) == (True, True)
    windows.of(AT_ONCE, NOW)
    assert len(windows._known) == 1


@pytest.mark.parametrize(
    ("text", "chunks", "reported", "granted", "worth"),
    [
        ("", 0, False, 10, False), ("a" * 11, 1, False, 11, False), ("a" * 30, 1, False, 10, False), ("a" * 31, 1, False, 10, True),
        ("a" * 11, 11, False, 10, True), ("a" * 10, 11, False, 10, False), ("a" * 1000, 50, True, 10, False),
    ],
)  # fmt: skip
def test_a_count_is_worth_it_only_where_the_grant_may_be_passed(text, chunks, reported, granted, worth):
    meter = Meter("gpt-4o", lambda: 0)
    for number in range(chunks):
        piece = text[number * len(text) // chunks : (number + 1) * len(text) // chunks]
        meter.observe([{"choices": [{"index": 0, "delta": {"content": piece}}]}])
    if reported:
        meter.observe([{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}])
    assert meter.chunks == chunks + reported
    assert meter.worth_counting(granted) is worth


async def test_after_each_call_the_ledger_knows_the_stores_clock(server, raw):
    async with till(server.address) as one:
        for lost in (False, True):
            if lost:
                one.ledger._offset_ms += 7_200_000
            await one.ledger.reserve(ask(FIRST, wanted=1), request_id="r")
            seconds, micro = await raw.call("TIME", deadline_s=5)
            assert abs(one.ledger.now_ms() - int(seconds) * 1000 - int(micro) // 1000) < 500


def test_a_call_without_a_number_of_choices_has_one():
    worst = Worst(input_tokens=5, input_nanousd=50, output_nanousd=7)
    assert draws_for([FIRST], worst) == (Draw(FIRST, 5, 1),)


def test_a_default_is_made_once_for_a_subject_and_not_too_many_are_kept(monkeypatch):
    monkeypatch.setattr(accounting.budgets, "DEFAULTS_MAX", 2)
    book = BudgetBook([tokens(10, "user:*")])
    first = book.for_subjects(["user:x"])[0]
    assert first.subject == "user:x"
    book.for_subjects(["user:y"])
    assert book.for_subjects(["user:x"])[0] is first
    assert len(book._defaults) == 2
    book.for_subjects(["user:z"])
    assert len(book._defaults) == 1


@pytest.mark.parametrize("actual", [0, 1, 2, 99, 100])
def test_what_is_spent_of_an_escrow_is_no_longer_held_to_the_unit(scene, actual):
    escrowed(scene)
    assert scene.settle(5, "60@1", actual) == [b"OK", actual, 100 - actual]
    assert scene.used_and_held() == (actual, 100 - actual)


def test_a_rolling_windows_counters_are_kept_for_two_windows_and_the_days_after(scene):
    assert scene.reserve(draw(100, 5, pid="rolling", bucket=60_000))[0] == b"OK"
    for name in ("b:{t}:b:b1:rolling", "b:{t}:x:b1:rolling"):
        assert scene.lua.redis("PEXPIRETIME", name) == START + 120 * 60_000 + EXPIRY_AFTER_END_MS
