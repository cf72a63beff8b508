"""Where yes turns to no: to the unit, at every size (A5)."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounting.store.scripts import script
from tests.ledger.scenes import AMOUNT_MAX, RUN, START, TTL, Ask, Rate, draw
from tests.ledger.seam import ScriptFailedError

SHARED = settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=60, database=None)


@pytest.mark.parametrize("limit", [0, 1, 7, 1000, 2**31, 2**32 + 1, 10**14, 10**15 + 7, AMOUNT_MAX - 1, AMOUNT_MAX])
@pytest.mark.parametrize("before", [0, 1])
def test_what_is_left_to_the_unit_is_admitted_and_one_more_is_not(scene, limit, before):
    if before > limit:
        pytest.skip("nothing fits before")
    if before:
        scene.settle(scene.hold(limit, before), before, before)
    left = limit - before
    if left < AMOUNT_MAX:
        reply = scene.reserve(draw(limit, left + 1))
        assert reply[0] == b"DENY"
        assert reply[2:] == [b"spent", 1, limit, before, 0, left + 1]
    reply = scene.reserve(draw(limit, left))
    assert reply[0] == b"OK"
    assert scene.used_and_held() == (before, left)
    assert scene.reserve(draw(limit, 1))[:3:2] == [b"DENY", b"held" if left else b"spent"]
    scene.settle(scene.seq - 1, left, left)
    assert scene.used_and_held() == (limit, 0)
    assert scene.reserve(draw(limit, 0))[0] == b"OK", "what costs nothing fits into nothing"


@pytest.mark.parametrize(
    ("free", "fixed", "per", "wanted", "least", "granted"),
    [
        (100, 0, 1, 100, 1, 100),
        (100, 0, 1, 101, 1, 100),
        (100, 99, 1, 50, 1, 1),
        (100, 99, 1, 50, 2, None),
        (100, 0, 3, 50, 1, 33),
        (100, 1, 3, 50, 33, 33),
        (100, 2, 3, 50, 33, None),
        (AMOUNT_MAX, 0, 1, AMOUNT_MAX, 1, AMOUNT_MAX),
        (AMOUNT_MAX, 1, 1, AMOUNT_MAX, 1, AMOUNT_MAX - 1),
        (AMOUNT_MAX, 0, 3, AMOUNT_MAX, 1, AMOUNT_MAX // 3),
        (AMOUNT_MAX, 0, 1_000_003, AMOUNT_MAX, 1, AMOUNT_MAX // 1_000_003),
        (AMOUNT_MAX, 0, AMOUNT_MAX, 2, 1, 1),
        (AMOUNT_MAX - 1, 0, AMOUNT_MAX, 2, 1, None),
        (0, 0, 1, 0, 0, 0),
    ],
)
def test_the_output_is_clamped_to_what_fits(scene, free, fixed, per, wanted, least, granted):
    reply = scene.reserve(draw(free, fixed, per), wanted=wanted, least=least)
    assert (reply[2] if reply[0] == b"OK" else None) == granted
    if granted is not None:
        assert scene.used_and_held() == (0, fixed + per * granted)


@SHARED
@given(
    limit=st.integers(0, AMOUNT_MAX), used=st.integers(0, AMOUNT_MAX), fixed=st.integers(0, AMOUNT_MAX),
    per=st.integers(0, AMOUNT_MAX), wanted=st.integers(0, AMOUNT_MAX), least=st.integers(0, AMOUNT_MAX),
    share=st.sampled_from((0, 1, 250, 999, 1000)),
)  # fmt: skip
def test_arithmetic_is_exact_up_to_the_largest_amount(scene, limit, used, fixed, per, wanted, least, share):
    scene.lua.redis("FLUSHALL")
    scene.__init__(scene.lua)
    least = min(least, wanted)
    scene.settle(99, 0, used)
    reply = scene.reserve(draw(limit, fixed, per), wanted=wanted, least=least, share=share, seq=100)
    if used + fixed + per * least > limit:
        assert reply[0] == b"DENY"
        return
    assert reply[0] == b"OK"
    amount = fixed + per * reply[2]
    assert reply[7] == amount
    assert used + amount <= limit
    assert least <= reply[2] <= wanted
    if per and not share:
        assert reply[2] == min(wanted, (limit - used - fixed) // per), "and nothing that fits is withheld"


def test_a_full_budget_takes_all_or_nothing(scene):
    assert scene.reserve(draw(100, 0, 1, full=True), wanted=101, least=1)[0] == b"DENY"
    assert scene.reserve(draw(100, 0, 1, full=True), wanted=100, least=1)[2] == 100


def test_a_caller_without_a_limit_of_his_own_gets_a_share_of_what_is_free(scene):
    assert scene.reserve(draw(1000, 0, 1), wanted=900, least=10, share=250)[2] == 250
    assert scene.reserve(draw(1000, 0, 1), wanted=900, least=10, share=250)[2] == 187, "a quarter of the other 750"
    assert scene.reserve(draw(1000, 0, 1), wanted=900, least=400, share=250)[2] == 400, "but never less than the least"
    assert scene.reserve(draw(1000, 0, 1), wanted=5, least=5, share=250)[2] == 5, "nor more than is wanted"


@SHARED
@given(
    limits=st.lists(st.integers(0, 60), min_size=1, max_size=3), settled=st.integers(0, 40), held=st.integers(0, 40),
    fixed=st.integers(0, 40), least=st.integers(0, 10), rpm=st.integers(1, 3), calls=st.integers(0, 3),
)  # fmt: skip
def test_held_is_said_exactly_when_it_would_fit_were_nothing_held(
    scene, limits, settled, held, fixed, least, rpm, calls
):
    scene.lua.redis("FLUSHALL")
    scene.__init__(scene.lua)
    names = [f"b{i}" for i in range(len(limits))]
    for name in names:
        scene.lua.settle(RUN, "o", 1 + names.index(name), 0, "x", True, [(name, "total", b"used", 0, settled)])
    for seq in range(50, 50 + calls):
        scene.reserve(rates=(Rate("q", rpm, 60_000, 1, 0),), sid="r", seq=seq)
    others = [scene.reserve(draw(AMOUNT_MAX, held, budget=name, version=1), sid="h")[0] for name in names]
    assert set(others) == {b"OK"}
    seqs = range(scene.seq - len(names) + 1, scene.seq + 1)
    mine = tuple(draw(limit, fixed, 1, budget=name, version=2) for name, limit in zip(names, limits, strict=True))
    rates = (Rate("q", rpm, 60_000, 1, 0),)
    reply = scene.reserve(*mine, rates=rates, wanted=20, least=least, seq=900)
    for name, seq in zip(names, seqs, strict=True):
        scene.settle(seq, held, 0, budget=name, told=False, sid="h")
    then = scene.reserve(*mine, rates=rates, wanted=20, least=least, seq=901)
    if reply[0] != b"OK":
        assert (reply[0] == b"DENY" and reply[2] == b"held") == (then[0] == b"OK")


def test_the_budget_that_is_spent_is_named_before_one_that_is_held(scene):
    scene.hold(10, 10, budget="b1")
    scene.settle(scene.hold(10, 10, budget="b2"), 10, 10, budget="b2")
    reply = scene.reserve(draw(10, 1, budget="b1"), draw(10, 1, budget="b2"))
    assert reply[2:4] == [b"spent", 2]


@pytest.mark.parametrize("binds", [True, False])
def test_a_refused_call_holds_nowhere(scene, binds):
    reply = scene.reserve(draw(10, 5), draw(1, 2, budget="b2", binds=binds))
    assert (reply[0] == b"OK") == (not binds)
    assert (scene.used_and_held()[1] > 0) == (not binds)


def test_what_cannot_refuse_never_overflows_either(scene):
    for _ in range(3):
        reply = scene.reserve(
            draw(1, AMOUNT_MAX, AMOUNT_MAX, binds=False), draw(5, 1, budget="b2"), wanted=AMOUNT_MAX, least=0
        )
        assert reply[0] == b"OK"
    assert scene.used_and_held() == (0, AMOUNT_MAX)
    assert scene.used_and_held("b2") == (0, 3)


def test_a_counter_that_is_full_stays_full_and_the_settlement_is_taken(scene):
    for seq in (1, 2, 3):
        assert scene.settle(seq, 0, AMOUNT_MAX)[0] == b"OK"
    assert scene.used_and_held() == (AMOUNT_MAX, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (AMOUNT_MAX - 3, AMOUNT_MAX),
        (AMOUNT_MAX - 2, AMOUNT_MAX + 1),
        (AMOUNT_MAX, AMOUNT_MAX + 3),
        (2**62 + 1, 2**62 + 4),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_a_sum_of_a_day_is_exact_beyond_what_lua_counts_and_a_full_one_stays_full(scene, before, after):
    day = "b:{t}:day:20260101"
    scene.lua.redis("HSET", day, "k|u|t|m|cost", before)
    assert scene.settle(1, 0, 5)[0] == b"OK"
    row = scene.lua.redis("HMGET", day, "k|u|t|m|n", "k|u|t|m|input", "k|u|t|m|output", "k|u|t|m|cost")
    assert [int(n) for n in row] == [1, 1, 2, after]
    assert scene.lua.redis("PTTL", day) > 399 * 86_400_000


def test_a_sum_of_a_day_that_is_no_number_is_begun_anew_and_costs_nobody_a_settlement(scene):
    day = "b:{t}:day:20260101"
    scene.lua.redis("HSET", day, "k|u|t|m|input", "spoilt")
    assert scene.settle(1, 0, 5)[0] == b"OK"
    assert scene.lua.redis("HGET", day, "k|u|t|m|input") == b"1"
    assert scene.lua.redis("PTTL", day) > 0


def test_a_hold_of_which_the_server_lost_its_half_makes_no_room(scene):
    seq = scene.hold(100, 60)
    scene.lua.redis("DEL", "b:{t}:b:b1:total")
    scene.settle(seq, 60, 100)
    reply = scene.reserve(draw(100, 30))
    assert reply[:1] + reply[2:] == [b"DENY", b"spent", 1, 100, 100, -60, 30]


BAD = ["-1", "1.0", "1e3", "", " 1", "0x1", "nan", "inf", str(AMOUNT_MAX + 1), "9" * 17, "१"]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("at", [3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17])
def test_what_is_not_an_amount_is_refused_before_anything_is_written(scene, bad, at):
    _refused_before_anything_is_written(scene, at, lambda _: bad)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("part", range(7))
def test_terms_of_a_budget_that_are_no_amounts_are_refused_before_anything_is_written(scene, bad, part):
    def spoil(terms):
        parts = terms.split("|")
        return "|".join((*parts[:part], bad, *parts[part + 1 :]))

    _refused_before_anything_is_written(scene, 11, spoil)


@pytest.mark.parametrize(
    "terms", ["", "1|10|1|0|0|0", "1|10|1|0|0|0|0|", "1|10|1|0|0|0|0|0", "|1|10|1|0|0|0|0", "1|10|1|0|0|0|0\n"]
)
def test_terms_with_a_part_too_few_or_too_many_are_refused_before_anything_is_written(scene, terms):
    _refused_before_anything_is_written(scene, 11, lambda _: terms)


def _refused_before_anything_is_written(scene, at, spoil):
    ask = Ask((draw(10, 5, 1),), (Rate("q", 5, 60_000, 1, 0),), 5, 1, 0)
    keys, args = scene.lua.reserve_command(RUN, 0, "s", 1, TTL, ask)
    args[at] = spoil(args[at])
    before = scene.snapshot()
    with pytest.raises(ScriptFailedError, match="BURSAR"):
        scene.lua.redis.run("reserve", keys, args)
    assert scene.snapshot() == before


@pytest.mark.parametrize("bad", BAD)
def test_a_settlement_of_what_is_not_an_amount_changes_nothing(scene, bad):
    seq = scene.hold(10, 5)
    before = scene.snapshot()
    with pytest.raises(ScriptFailedError, match="BURSAR"):
        scene.settle(seq, 5, bad)  # type: ignore[arg-type]
    assert scene.snapshot() == before


@pytest.mark.parametrize("cut", [1, 2])
def test_a_command_with_too_few_keys_changes_nothing(scene, cut):
    keys, args = scene.lua.reserve_command(RUN, 0, "s", 1, TTL, Ask((draw(10, 5),)))
    before = scene.snapshot()
    with pytest.raises(ScriptFailedError, match="keys"):
        scene.lua.redis.run("reserve", keys[:-cut], args)
    assert scene.snapshot() == before


def test_a_change_of_the_stored_configuration_is_seen_at_the_next_reserve(scene):
    assert scene.reserve(draw(10, 1))[0] == b"OK"
    assert scene.lua.configure("b1") == 1
    assert scene.reserve(draw(10, 1)) == [b"CONFIG", START, b"1"]
    assert scene.reserve(draw(10, 1), cfg=1)[0] == b"OK"


def test_of_two_files_the_higher_version_wins_whoever_speaks_last(scene):
    assert scene.reserve(draw(100, 50, version=2))[4] == 100
    assert scene.reserve(draw(10, 50, version=1))[4] == 100, "the old file still knows 10"
    assert scene.reserve(draw(5, 1, version=3))[0] == b"DENY"
    assert scene.reserve(draw(100, 1, version=2))[0] == b"DENY", "what was lowered stays lowered"
    scene.lua.configure("b1")
    assert scene.reserve(draw(200, 1, version=1), cfg=1)[0] == b"OK", "until the stored one is removed"


@pytest.mark.parametrize("limit", [1, 5, 60, 600])
def test_a_rate_lets_so_many_through_at_once_and_then_one_by_one(scene, limit):
    rate = (Rate("q", limit, 60_000, 1, 0),)
    replies = [scene.reserve(rates=rate) for _ in range(limit)]
    assert [r[0] for r in replies] == [b"OK"] * limit
    assert [r[4] for r in replies] == list(range(limit - 1, -1, -1)), "what remains is told"
    refused = scene.reserve(rates=rate)
    assert refused[0] == b"RATE"
    wait = refused[4]
    scene.lua.now = START + wait - 1
    assert scene.reserve(rates=rate)[0] == b"RATE"
    scene.lua.now = START + wait
    assert scene.reserve(rates=rate)[0] == b"OK"


@pytest.mark.parametrize("limit", [7, 11, 13, 999, 77_777])
def test_a_rate_that_does_not_divide_its_window_admits_no_more_for_it(scene, limit):
    admitted = 0
    for step in range(60):
        scene.lua.now = START + 997 * step
        admitted += scene.reserve(rates=(Rate("q", limit, 60_000, max(1, limit // 7), 0),))[0] == b"OK"
    passed = 59 * 997
    assert admitted * max(1, limit // 7) <= limit + limit * passed / 60_000


def test_a_call_that_asks_for_more_than_a_whole_rate_is_clamped_to_it(scene):
    rate = (Rate("q", 1_000, 60_000, 100, 1),)
    reply = scene.reserve(rates=rate, wanted=5_000, least=10)
    assert reply[:3] == [b"OK", START, 900]
    assert scene.reserve(rates=rate, wanted=5_000, least=10)[0] == b"RATE", (
        "it waits for a whole window, but not for ever"
    )
    scene.lua.now = START + 60_000
    assert scene.reserve(rates=rate, wanted=5_000, least=10)[2] == 900


def test_a_rate_of_nothing_admits_nothing_and_a_call_of_nothing_passes(scene):
    assert scene.reserve(rates=(Rate("q", 0, 60_000, 1, 0),))[0] == b"RATE"
    assert scene.reserve(rates=(Rate("q", 0, 60_000, 0, 0),))[0] == b"OK"


def test_a_refused_call_takes_nothing_from_a_rate(scene):
    rate = (Rate("q", 2, 60_000, 1, 0),)
    for _ in range(5):
        assert scene.reserve(draw(0, 1), rates=rate)[0] == b"DENY"
    assert scene.reserve(rates=rate)[4] == 1


def test_calls_at_once_are_holds_that_use_nothing(scene):
    two = [scene.hold(2, 1) for _ in range(2)]
    assert scene.reserve(draw(2, 1))[0] == b"DENY"
    scene.settle(two[0], 1, 0)
    assert scene.reserve(draw(2, 1))[0] == b"OK"
    assert scene.used_and_held() == (0, 2)


def test_no_reading_counts_a_hold_that_expired(scene):
    scene.hold(100, 30)
    assert scene.lua.read([draw(100)])[2:4] == [0, 30]
    scene.lua.now = START + TTL
    assert scene.lua.read([draw(100)])[2:4] == [0, 0]
    assert scene.lua.read([draw(100)])[7] == 30, "it is told as expired"
    assert scene.used_and_held() == (0, 30), "though nobody has cleared it away"
    scene.reserve(draw(100, 1))
    assert scene.used_and_held() == (0, 1)


@pytest.mark.parametrize("dead", [1, 63, 64, 65, 200])
def test_all_expired_holds_are_cleared_away_by_one_reserve(scene, dead):
    for _ in range(dead):
        scene.hold(10_000, 3)
    scene.lua.now = START + TTL
    assert scene.reserve(draw(10_000, 10_000))[0] == b"OK"
    assert scene.used_and_held() == (0, 10_000)
    assert scene.lua.read([draw(10_000)])[7] == 3 * dead


@pytest.mark.parametrize(
    ("change", "left"),
    [(-10, (50, 30, 10)), (-20, (50, 30, 0)), (-45, (50, 5, 0)), (-1000, (0, 0, 0)), (7, (50, 30, 27))],
)
def test_what_is_taken_from_a_rolling_window_is_taken_from_its_latest_part_first(scene, change, left):
    for used in (50, 30, 20):
        seq = scene.hold(1_000, 50, bucket=1_000, pid="r")
        scene.settle(seq, 50, used, pid="r", field=f"u{scene.lua.now // 1_000}".encode())
        scene.lua.now += 1_000
    scene.lua.now -= 1_000
    assert scene.lua.adjust("b1", "r", 1_000, change, "m") == [100, max(0, 100 + change)]
    numbers = scene.lua.counters("b1", "r")[0]
    assert tuple(numbers[f"u{START // 1_000 + i}"] for i in range(3)) == left


def test_every_key_that_a_script_touches_is_declared():
    """A key that is built inside a script would break a Cluster; each must come from KEYS."""
    declared = re.compile(r"KEYS\[[^]]+\]|[dr]\.(b|x|key)|b|x")
    for name in ("reserve", "settle", "extend", "generation", "read", "configure", "adjust"):
        calls = re.findall(r"p?call\('([A-Z]+)'(?:, ([^,)]+(?:\[[^]]*\])?))?", script(name).text)
        assert calls
        for command, first in calls:
            assert command == "TIME" or declared.fullmatch(first.strip()), (name, command, first)


@pytest.mark.parametrize("name", ["reserve", "settle", "extend", "read", "generation", "configure", "adjust"])
def test_no_amount_is_made_by_concatenation_or_as_a_float(name):
    """Lua writes large numbers as 1e+15: amounts go through %.0f or stay the strings that they came as."""
    text = re.sub(r"--.*", "", script(name).text)
    assert "tostring" not in text
    assert "cjson" not in text
    for formatted in re.findall(r"\bformat\('([^']*)'", text):
        assert formatted in ("%.0f", "%.3f"), formatted
