"""The rules of trying again: how each failure is read, how long is waited, how often, and on how much of the hold."""

import pytest

from accounting.ask import Ask, Draw
from accounting.budgets import Budget
from accounting.charge import Attempt
from accounting.hold import HeldRow, Hold
from accounting.meter import Meter
from accounting.periods import Period
from accounting.usage import Usage
from adapters.errors import (
    UpstreamAuthError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from adapters.retrying import concerns_key, is_safe, retry_after_s
from proxy.retrying import (
    BACKOFF_S,
    BACKOFF_S_MAX,
    RetryBudget,
    blames_target,
    grant_left,
    is_far_away,
    wait_s,
)


def error(status, code=None, **headers):
    return UpstreamError("x", status=status, code=code, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(
    ("failure", "safe", "key", "target", "far"),
    [
        (UpstreamUnavailableError("x", delivered=False), True, False, True, False),
        (UpstreamUnavailableError("x", delivered=True), False, False, True, False),
        (UpstreamTimeoutError("x", phase="connect"), True, False, True, False),
        (UpstreamTimeoutError("x", phase="tls"), True, False, True, False),
        (UpstreamTimeoutError("x", phase="first_token"), False, False, True, False),
        (UpstreamTimeoutError("x", phase="idle"), False, False, True, False),
        (UpstreamTimeoutError("x", phase="total"), False, False, True, False),
        (UpstreamProtocolError("x"), True, False, True, False),
        (UpstreamAuthError("x"), True, True, False, True),
        (error(429), True, True, False, False),
        (error(429, retry_after="2"), True, True, False, False),
        (error(429, retry_after="30"), True, True, False, True),
        (error(429, "insufficient_quota", x_should_retry="false"), True, True, False, True),
        (error(500), True, False, True, False),
        (error(503, retry_after="60"), True, False, True, True),
        (error(503, x_should_retry="false"), False, False, True, False),
        (error(529), True, False, True, False),
        (error(501), False, False, True, False),
        (error(408), True, False, False, False),
        (error(400), False, False, False, False),
        (error(403), True, True, False, True),
        (error(403, "content_policy_violation"), False, False, False, True),
        (error(404), False, False, False, False),
        (error(422), False, False, False, False),
    ],
)
def test_every_failure_has_one_reading(failure, safe, key, target, far):
    assert (is_safe(failure), concerns_key(failure), blames_target(failure), is_far_away(failure)) == (
        safe,
        key,
        target,
        far,
    )


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"retry-after": "2"}, 2.0), ({"retry-after-ms": "150"}, 0.15), ({"retry-after-ms": "1", "retry-after": "9"}, 0.001),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:00 GMT"}, None), ({"retry-after": "-1"}, None), ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None), ({}, None), ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
    ],
)  # fmt: skip
def test_what_a_provider_says_about_waiting_is_read_and_nonsense_is_not(headers, expected_s):
    assert retry_after_s(UpstreamError("x", status=429, headers=headers)) == expected_s


def test_waits_are_jittered_over_the_whole_range_and_grow_up_to_a_bound():
    failure = error(503)
    for turn in (1, 2, 3, 9):
        most = min(BACKOFF_S_MAX, BACKOFF_S * 2**turn)
        waits = [wait_s(failure, turn) for _ in range(400)]
        assert 0 <= min(waits) < most * 0.1
        assert most * 0.9 < max(waits) <= most
    assert 2.0 <= wait_s(error(503, retry_after="2"), 1) <= 2.0 + BACKOFF_S


@pytest.mark.parametrize("calls", [0, 10, 100, 1000])
def test_retries_are_a_tenth_of_all_calls_and_three_to_begin_with(calls):
    budget, taken = RetryBudget(0.1), 0
    for _ in range(calls):
        budget.earned()
        taken += budget.take()
    while budget.take():
        taken += 1
    assert calls * 0.1 + 2 <= taken <= calls * 0.1 + 3.001


def test_quiet_times_do_not_save_up_for_a_storm():
    budget = RetryBudget(0.1)
    for _ in range(100_000):
        budget.earned()
    assert sum(budget.take() for _ in range(1000)) == 13


class Price:
    version = "t"

    def cost_nanousd(self, usage):
        return 1000 * usage.input + 2000 * usage.output


def held(unit, amount, fixed, per, *, granted, least, mode="hard"):
    budget = Budget(subject="user:a", unit=unit, limit=10**12, period=Period(kind="day"), mode=mode)
    row = HeldRow(
        budget=budget, counters_key="", holds_key="", field="used", amount=amount, expiry_ms=0, resets_ms=None,
        limit=10**12, used=0, held=amount,
    )  # fmt: skip
    hold = Hold(seq=1, request_id="r", granted=granted, rows=(row,))
    return hold, Ask(draws=(Draw(budget, fixed, per),), wanted=granted, least=least)


def attempt(usage=None, *, billable=True):
    meter = Meter("m", lambda: 0)
    meter.reported = usage
    return Attempt("p", "m", Price(), meter, billable=billable)


SMALL = Usage(input=10, output=5)


@pytest.mark.parametrize(
    ("unit", "amount", "fixed", "per", "mode", "attempts", "left"),
    [
        ("usd", 2_100_000, 100_000, 2000, "hard", [], 1000),
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(billable=False)], 1000),
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt()], None),  # the worst must be assumed
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(SMALL)], 990),  # 20,000 of it are spent
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(SMALL), attempt()], None),
        ("usd", 2_100_000, 100_000, 2000, "hard", [attempt(Usage(input=10, output=900))], None),  # less than the least
        ("usd", 110_000, 100_000, 0, "hard", [attempt(SMALL)], None),
        ("tokens", 1100, 100, 1, "hard", [attempt(SMALL)], 985),
        ("requests", 1, 1, 0, "hard", [attempt()], 1000),
        ("concurrency", 1, 1, 0, "hard", [attempt()], 1000),
        ("usd", 2_100_000, 100_000, 2000, "soft", [attempt()], 1000),
    ],
)
def test_one_more_attempt_gets_what_the_hold_still_covers(unit, amount, fixed, per, mode, attempts, left):
    hold, ask = held(unit, amount, fixed, per, granted=1000, least=256, mode=mode)
    assert grant_left(hold, ask, attempts) == left
