"""Windows of time: each instant lies in one, no call is counted in two, whatever clocks and calendars do (A9)."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting.periods import Period
from tests.ledger.scenes import draw

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Africa/Cairo",
    "Asia/Kathmandu",
)
KINDS = ("minute", "hour", "day", "week", "month", "cycle")
FROM, UNTIL = 1_100_000_000, 2_100_000_000


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).timestamp() * 1000)


def period(kind: str, tz: str, day: int = 31) -> Period:
    return Period(kind=kind, tz=tz, starts=date(2024, 1, day) if kind == "cycle" else None)


@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    tz=st.sampled_from(ZONES),
    at=st.integers(FROM * 1000, UNTIL * 1000),
    day=st.integers(1, 31),
)
def test_every_instant_lies_in_one_window_and_windows_meet(kind, tz, at, day):
    p = period(kind, tz, day)
    window = p.window(at)
    assert window.start_ms <= at < window.end_ms
    for inside in (window.start_ms, window.end_ms - 1):
        assert p.window(inside) == window
    assert p.window(window.end_ms).start_ms == window.end_ms
    assert p.window(window.start_ms - 1).end_ms == window.start_ms
    assert p.window(window.end_ms).key != window.key


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("year", [2011, 2018, 2024, 2026])
def test_days_follow_the_calendar_of_their_zone_through_a_whole_year(tz, year):
    """Days of 23, 23.5, 24.5 and 25 hours; a midnight that does not exist; a date that a whole island skipped."""
    p, at, zone = Period(kind="day", tz=tz), ms(f"{year}-01-01T12:00", tz), ZoneInfo(tz)
    window, dates = p.window(at), []
    while window.start_ms < ms(f"{year + 1}-01-01T00:00", tz):
        dates.append(datetime.fromtimestamp(window.start_ms / 1000, zone).date())
        assert 0 < window.end_ms - window.start_ms <= 25 * 3_600_000
        window = p.window(window.end_ms)
    assert all(a < b <= a + timedelta(days=2) for a, b in pairwise(dates))
    assert len(dates) in (364, 365, 366)


@pytest.mark.parametrize(
    ("tz", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23), ("Europe/Berlin", "2026-10-25", 25), ("America/New_York", "2026-03-08", 23),
        ("Australia/Lord_Howe", "2026-04-05", 24.5), ("Australia/Lord_Howe", "2026-10-04", 23.5), ("America/Sao_Paulo", "2018-11-04", 23),
        ("Asia/Kolkata", "2026-03-29", 24),
    ],
)  # fmt: skip
def test_a_day_on_which_clocks_change_is_as_long_as_it_is(tz, day, hours):
    window = Period(kind="day", tz=tz).window(ms(f"{day}T12:00", tz))
    assert window.end_ms - window.start_ms == hours * 3_600_000


@pytest.mark.parametrize("day", [1, 15, 28, 29, 30, 31])
def test_a_cycle_ends_with_a_short_month_and_never_drifts_for_48_months(day):
    p = Period(kind="cycle", starts=date(2023, 1, day))
    window, at = p.window(ms("2023-01-31T23:00")), []
    for _ in range(48):
        at.append(datetime.fromtimestamp(window.start_ms / 1000, UTC).date())
        window = p.window(window.end_ms)
    assert [(d.year, d.month) for d in at] == [(2023 + i // 12, i % 12 + 1) for i in range(48)]
    for d in at:
        last = (d.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        assert d.day == min(day, last.day)


@pytest.mark.parametrize(
    ("kind", "at", "start", "end"),
    [
        ("month", "2024-02-29T23:59:59", "2024-02-01", "2024-03-01"), ("month", "2023-02-28T00:00", "2023-02-01", "2023-03-01"),
        ("week", "2026-11-20T00:00", "2026-11-16", "2026-11-23"), ("week", "2024-12-31T00:00", "2024-12-30", "2025-01-06"),
        ("day", "2024-02-29T12:00", "2024-02-29", "2024-03-01"), ("month", "2100-02-28T12:00", "2100-02-01", "2100-03-01"),
    ],
)  # fmt: skip
def test_leap_years_and_weeks_across_a_year(kind, at, start, end):
    window = Period(kind=kind).window(ms(at))
    assert (window.start_ms, window.end_ms) == (ms(start), ms(end))


def test_hours_are_those_of_the_wall_where_the_offset_is_not_whole():
    assert Period(kind="hour", tz="Asia/Kolkata").window(ms("2026-01-01T10:40")).start_ms == ms("2026-01-01T10:30")
    assert Period(kind="minute", tz="Asia/Kathmandu").window(ms("2026-01-01T10:40:30")).start_ms == ms(
        "2026-01-01T10:40"
    )


@pytest.mark.parametrize(
    ("kind", "tz"), [("minute", "UTC"), ("hour", "Asia/Kolkata"), ("day", "Europe/Berlin"), ("cycle", "UTC")]
)
def test_calls_across_a_boundary_are_charged_to_the_period_that_admitted_them(scene, kind, tz):
    """Reserved before, settled after, in any order: the sum over periods is what was used, and no call is in two."""
    rng, p = random.Random(f"{kind} {tz}"), period(kind, tz)
    edge = p.window(ms("2027-10-31T10:00")).end_ms
    open_, truth, windows = [], {}, set()
    scene.lua.now = edge - 3_000
    scene.lua.generation("run1", 0, 15_000, "e", "")
    for step in range(400):
        scene.lua.now = now = edge - 3_000 + 15 * step
        window = p.window(now)
        amount = rng.randint(0, 20)
        args = {"pid": window.key, "start": window.start_ms, "end": window.end_ms}
        assert scene.reserve(draw(10**9, amount, **args))[0] == b"OK"
        windows.add(window.key)
        open_.append((scene.seq, amount, window.key))
        if rng.random() < 0.6:
            rng.shuffle(open_)
            seq, held, pid = open_.pop()
            used = rng.randint(0, held)
            truth[pid] = truth.get(pid, 0) + used
            scene.settle(seq, held, used, pid=pid)
    for seq, held, pid in open_:
        truth[pid] = truth.get(pid, 0) + held
        scene.settle(seq, held, held, pid=pid)
    assert len(windows) == 2
    for pid in windows:
        numbers, holds, held = scene.lua.counters("b1", pid)
        assert (numbers["used"], held, holds) == (truth[pid], 0, {})
        assert "late" not in numbers


def test_the_store_decides_which_window_it_is(scene):
    """A sidecar whose clock is wrong is told so, and nothing is held in a window that is not now."""
    p = Period(kind="minute")
    for wrong in (-1, 60_000):
        window = p.window(scene.lua.now + wrong)
        reply = scene.reserve(draw(10, 1, pid=window.key, start=window.start_ms, end=window.end_ms))
        assert reply == [b"CLOCK", scene.lua.now, 1]
        assert scene.lua.counters("b1", window.key) == ({}, {}, 0)


def test_a_clock_that_goes_back_does_not_open_a_window_that_is_over(scene):
    p = Period(kind="minute")
    first = p.window(scene.lua.now)
    scene.lua.now = first.end_ms + 1_000
    second = p.window(scene.lua.now)
    assert scene.reserve(draw(10, 1, pid=second.key, start=second.start_ms, end=second.end_ms))[0] == b"OK"
    scene.lua.now = first.end_ms - 500
    assert scene.reserve(draw(10, 1, pid=first.key, start=first.start_ms, end=first.end_ms))[0] == b"CLOCK"
    assert scene.reserve(draw(10, 1, pid=second.key, start=second.start_ms, end=second.end_ms))[0] == b"OK"


def test_counters_of_a_period_outlive_it_by_45_days(scene):
    window = Period(kind="hour").window(scene.lua.now)
    scene.reserve(draw(10, 1, pid=window.key, start=window.start_ms, end=window.end_ms))
    for kind in "bx":
        assert scene.lua.redis("PEXPIRETIME", f"b:{{t}}:{kind}:b1:{window.key}") == window.end_ms + 45 * 86_400_000


@pytest.mark.parametrize("period", ["fortnight", "rolling:0d", "rolling:", "rolling:5", "cycle", ""])
def test_a_period_that_is_none_is_refused(period):
    with pytest.raises(ValueError):
        Period(kind=period)
