"""Breakers, key rotation and latencies: decisions on a clock that the test holds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.health import (
    CONSECUTIVE,
    LIMITED_S,
    LIMITED_S_MAX,
    OPEN_S,
    OPEN_S_MAX,
    PROBE_S,
    REFUSED_S,
    REFUSED_S_MAX,
    TARGETS_MAX,
    WINDOW_S,
    Breaker,
    Health,
    KeyRotation,
)
from proxy.latency import ALIKE, FADES_S, Latencies


def place(number):
    return ("p", f"m{number}", "http://x")


def broken(now_s=0.0):
    breaker = Breaker()
    for _ in range(CONSECUTIVE):
        breaker.failed(now_s)
    return breaker


def test_a_target_is_left_out_after_so_many_failures_in_a_row_and_not_before():
    breaker = Breaker()
    for _ in range(CONSECUTIVE - 1):
        breaker.failed(0)
    assert breaker.state(0) == "closed"
    breaker.failed(0)
    assert (breaker.state(0), breaker.lets_through(0)) == ("open", False)


def test_a_success_between_failures_starts_the_count_anew():
    breaker = Breaker()
    for _ in range(3 * CONSECUTIVE):
        breaker.failed(0)
        if breaker.failures == CONSECUTIVE - 1:
            breaker.succeeded(0)
    assert breaker.state(0) == "closed"


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [(10, 10, "open"), (11, 10, "closed"), (4, 5, "closed"), (0, 4, "closed")],
    ids=["half of twenty", "less than half", "too few to tell", "few, though all bad"],
)
def test_a_target_that_fails_too_often_is_left_out_though_never_in_a_row(good, bad, state):
    breaker = Breaker()
    ends = [True] * (good - min(good, bad)) + [True, False] * min(good, bad) + [False] * (bad - min(good, bad))
    for end in ends:
        breaker.succeeded(1) if end else breaker.failed(1)
    assert breaker.state(1) == state


def test_failures_of_long_ago_do_not_count():
    breaker = Breaker()
    for _ in range(9):
        breaker.succeeded(0), breaker.failed(0)
    later = WINDOW_S + 1
    for _ in range(6):
        breaker.succeeded(later), breaker.failed(later)
    assert breaker.state(later) == "closed"


def test_after_its_rest_one_call_probes_and_all_others_keep_away():
    breaker = broken()
    assert not breaker.lets_through(OPEN_S - 0.1)
    assert breaker.lets_through(OPEN_S)
    breaker.began(OPEN_S)
    assert breaker.state(OPEN_S) == "probing"
    assert not breaker.lets_through(OPEN_S + 1)
    breaker.answered()
    assert (breaker.state(OPEN_S + 1), breaker.lets_through(OPEN_S + 1)) == ("closed", True)


def test_each_failed_probe_doubles_the_rest_up_to_a_bound():
    breaker, now_s, rests = broken(), 0.0, []
    for _ in range(8):
        rests.append(breaker.open_until_s - now_s)
        now_s = breaker.open_until_s
        breaker.began(now_s)
        breaker.failed(now_s)
    assert rests[:3] == [OPEN_S, 2 * OPEN_S, 4 * OPEN_S]
    assert rests[-1] == OPEN_S_MAX


@pytest.mark.parametrize("how", ["cancelled", "forgotten"])
def test_a_probe_that_tells_nothing_makes_room_for_another(how):
    breaker = broken()
    breaker.began(OPEN_S)
    now_s = OPEN_S + 1
    if how == "cancelled":
        breaker.inconclusive()
    else:
        now_s = OPEN_S + PROBE_S
    assert breaker.lets_through(now_s)


def test_stragglers_from_before_the_rest_do_not_prolong_it():
    breaker = broken()
    breaker.failed(1)
    assert breaker.open_until_s == OPEN_S


def test_a_stream_that_began_and_broke_off_counts_as_a_failure_though_it_answered():
    breaker = Breaker()
    for _ in range(CONSECUTIVE):
        breaker.answered()
        breaker.failed(0)
    assert breaker.state(0) == "open"


@given(
    count=st.integers(1, 9),
    events=st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from(["good", "bad", "slow", "slow", "begun"]), st.floats(0, 2)),
        max_size=120,
    ),
)
def test_never_are_more_than_half_of_the_targets_left_out_nor_the_last(count, events):
    health, now_s = Health(), 0.0
    places = [place(n) for n in range(count)]
    for number, how, passed_s in events:
        now_s += passed_s
        breaker = health.of(places[number % count])
        breaker.began(now_s)
        if how == "good":
            breaker.succeeded(now_s)
        elif how != "begun":  # which is left without an end
            breaker.failed(now_s, slow=how == "slow")
        order = health.order(places, now_s)
        assert len(order) >= max(1, count - count // 2)
        assert len(set(order)) == len(order)
        left_out = [n for n in range(count) if not health.of(places[n]).lets_through(now_s)]
        assert set(range(count)) - set(order) <= set(left_out)
        fit = [n for n in order if n not in left_out]
        assert order[: len(fit)] == sorted(fit)  # the fit come first, as they were


def test_a_target_that_lets_its_callers_wait_is_asked_by_one_at_a_time_but_never_are_all_left_out():
    health, places = Health(), [place(0), place(1)]
    for each in places:
        for _ in range(CONSECUTIVE):
            health.of(each).failed(0, slow=True)
    assert sorted(health.order(places, 1)) == [0, 1]
    health.of(places[0]).began(1)
    assert health.order(places, 1) == [1]  # the other is being asked
    health.of(places[1]).began(1)
    assert len(health.order(places, 1)) == 1
    health.of(places[0]).inconclusive()
    assert 0 in health.order(places, 1)


def test_a_target_that_fails_quickly_is_the_last_resort_of_every_call():
    health, places = Health(), [place(0), place(1), place(2)]
    for _ in range(CONSECUTIVE):
        health.of(places[0]).failed(0)
    health.of(places[0]).began(1)
    assert health.order(places, 1) == [1, 2, 0]
    assert not health.fit(places[0], 1)


def test_names_from_the_wire_do_not_grow_the_books():
    health = Health()
    for number in range(3 * TARGETS_MAX):
        health.of(place(number)).failed(0) if number % 2 else health.of(place(number)).succeeded(0)
    assert len(health.states(0)) <= TARGETS_MAX


def test_keys_are_used_in_turn():
    keys = KeyRotation(3)
    assert [keys.choose(0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_a_key_that_is_refused_rests_ever_longer_and_comes_back_when_accepted():
    keys, now_s, rests = KeyRotation(2), 0.0, []
    for _ in range(8):
        keys.refused(0, now_s)
        rests.append(next(s for s in (60, 120, 240, 480, 900, 1800) if keys.ready(now_s + s) == 2))
        assert keys.ready(now_s + rests[-1] - 0.1) == 1
        now_s += REFUSED_S_MAX
    assert rests == [60, 120, 240, 480, 900, 900, 900, 900]
    keys.accepted(0)
    keys.refused(0, now_s)
    assert keys.ready(now_s + REFUSED_S) == 2


@pytest.mark.parametrize(("told_s", "rest_s"), [(None, LIMITED_S), (2.0, 2.0), (9999.0, LIMITED_S_MAX)])
def test_a_key_at_its_limit_rests_for_as_long_as_the_provider_says(told_s, rest_s):
    keys = KeyRotation(2)
    keys.limited(0, 10, told_s)
    assert keys.ready(10 + rest_s - 0.1) == 1
    assert keys.ready(10 + rest_s) == 2


@given(
    count=st.integers(1, 5),
    events=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["refused", "limited", "accepted"]), st.floats(0, 50))
    ),
    stick_to=st.sampled_from([None, "user:a"]),
)
def test_there_is_always_a_key_to_use_and_a_resting_one_only_when_all_rest(count, events, stick_to):
    keys, now_s = KeyRotation(count), 0.0
    for number, what, passed_s in events:
        now_s += passed_s
        number %= count
        if what == "refused":
            keys.refused(number, now_s)
        elif what == "limited":
            keys.limited(number, now_s, None)
        else:
            keys.accepted(number)
        ready = keys.ready(now_s)
        chosen = keys.choose(now_s, stick_to=stick_to)
        assert 0 <= chosen < count
        if ready:
            assert keys._rests[chosen].until_s <= now_s


def test_one_who_sticks_gets_the_same_key_until_it_rests():
    keys = KeyRotation(4)
    users = [f"user:{n}" for n in range(40)]
    first = {user: keys.choose(0, stick_to=user) for user in users}
    assert first == {user: keys.choose(1, stick_to=user) for user in users}
    assert set(first.values()) == {0, 1, 2, 3}
    keys.refused(2, 2)
    second = {user: keys.choose(3, stick_to=user) for user in users}
    assert all(second[user] == first[user] for user in users if first[user] != 2)
    assert 2 not in second.values()


def test_the_fastest_target_comes_first_and_the_unknown_gets_a_try():
    known = Latencies(random.Random(1))
    known.observed(place(0), 2.0, 0)
    known.observed(place(1), 0.5, 0)
    assert known.order([place(0), place(1)], 0) == [1, 0]
    assert known.order([place(0), place(1), place(2)], 0)[0] == 2


def test_a_slow_target_is_looked_at_again_after_a_while():
    known = Latencies(random.Random(1))
    known.observed(place(0), 2.0, 0)
    known.observed(place(1), 1.0, 10 * FADES_S)
    assert known.order([place(0), place(1)], 10 * FADES_S)[0] == 0


def test_targets_that_are_about_as_fast_share_the_calls():
    known = Latencies(random.Random(1))
    known.observed(place(0), 1.0, 0)
    known.observed(place(1), ALIKE - 0.01, 0)
    known.observed(place(2), 3.0, 0)
    firsts = [known.order([place(0), place(1), place(2)], 0)[0] for _ in range(200)]
    assert 60 < firsts.count(0) < 140
    assert firsts.count(2) == 0


def test_one_outlier_does_not_turn_the_order():
    known = Latencies(random.Random(1))
    for _ in range(20):
        known.observed(place(0), 0.5, 0)
        known.observed(place(1), 2.0, 0)
    known.observed(place(0), 5.0, 0)
    assert known.order([place(0), place(1)], 0) == [0, 1]
