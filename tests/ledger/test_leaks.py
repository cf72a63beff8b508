"""Nothing is kept for ever: holds end, marks are forgotten, keys have an owner or a TTL (A7)."""

import random

import pytest

from tests.ledger.commands import DAY_MS, key
from tests.ledger.scenes import RUN, START, TTL, Rate, draw

OWNED = {key(name) for name in ("g", "lim", "sess", "u", "audit", "budgets")}


def churn(scene, calls: int, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    open_, acked = [], 0
    kinds = {
        "hour": {"pid": str(START), "start": START, "end": START + 100 * DAY_MS},
        "rolling": {"pid": "rolling", "bucket": 1_000},
        "total": {"pid": "total"},
    }
    for seq in range(1, calls + 1):
        scene.lua.now += rng.choice((0, 1, 10, 200, 2_000 if rng.random() < 0.1 else 0))
        fate = rng.random()
        draws = [draw(10**9, rng.randint(0, 9), budget=name, **kinds[name]) for name in kinds]
        reply = scene.reserve(*draws, seq=seq, rates=(Rate("q", 600_000, 60_000, 1, 0),))
        fields = [reply[3 + 5 * i] for i in range(3)]
        rows = [(d.budget, d.pid, field, d.fixed, rng.randint(0, 12)) for d, field in zip(draws, fields, strict=True)]
        open_.append((seq, rows))
        if fate < 0.9:  # else it is never heard of again
            rng.shuffle(open_)
            done, rows = open_.pop()
            scene.lua.settle(RUN, "s", done, acked, "p", True, rows, expiry=START + 200 * DAY_MS)
        acked = min(seq for seq, _ in open_) - 1 if open_ else seq
    print(f"{len(open_)} of {calls} calls were never settled")
    marks = len(scene.lua.redis("HKEYS", key("s", "s")))
    assert marks <= 2 * calls
    scene.lua.now += TTL + 1
    scene.lua.generation(RUN, 0, 15_000, "e", "")
    for name, kind in kinds.items():
        scene.reserve(draw(10**9, 0, budget=name, **kind), sid="z")
        _, holds, held = scene.lua.counters(name, kind["pid"])
        assert held == 0
        assert len(holds) == 1, "the one that asks"
    for name in scene.lua.redis("KEYS", "*"):
        if name != b"now" and name.decode() not in OWNED and not name.endswith(b":total"):
            assert scene.lua.redis("PTTL", name) > 0, f"{name!r} is for ever"


def test_after_all_leases_nothing_is_held_and_every_key_has_an_end(scene):
    churn(scene, 400, seed=1)


@pytest.mark.slow
def test_ten_thousand_calls_leave_nothing(scene):
    churn(scene, 10_000, seed=2)


def test_a_settlement_after_its_counters_are_gone_gives_them_an_end(scene):
    for pid, field in (("hour", b"used"), ("rolling", b"u1800000000")):
        scene.lua.settle(
            RUN, "s", 1 if pid == "hour" else 2, 0, "p", True, [("b1", pid, field, 5, 5)], expiry=START + 500 * DAY_MS
        )
        assert scene.lua.redis("PTTL", key("b", "b1", pid)) > 0


def test_a_hold_in_a_short_window_outlives_it_while_it_is_extended(scene):
    """A rolling minute has buckets of a second: its counters must not end while a long stream is still open."""
    scene.reserve(draw(100, 40, pid="rolling", bucket=1_000), seq=1)
    for _ in range(200):
        scene.lua.now += 5_000
        assert scene.lua.extend(RUN, "s", TTL, [(1, 0, [("b1", "rolling", 40)])])[4:] == []
    for kind in "bx":
        assert scene.lua.redis("PEXPIRETIME", key(kind, "b1", "rolling")) == START + 120 * 1_000 + 45 * DAY_MS
    assert scene.used_and_held(pid="rolling")[1] == 40


def test_a_session_that_nobody_heard_of_for_two_weeks_is_forgotten(scene):
    for name, age in (("gone", 14 * DAY_MS), ("old", 14 * DAY_MS - 1)):
        scene.lua.redis("ZADD", key("sess"), START - age, name)
    scene.lua.extend(RUN, "s", TTL, [])
    assert scene.lua.redis("ZRANGE", key("sess"), 0, -1) == [b"old", b"g", b"s"]


def test_a_lease_ends_to_the_millisecond(scene):
    scene.hold(100, 100)
    scene.lua.now = START + TTL - 1
    assert scene.reserve(draw(100, 1))[0] == b"DENY"
    scene.lua.now = START + TTL
    assert scene.reserve(draw(100, 100))[0] == b"OK"


def test_a_hold_that_is_extended_stays_and_one_that_expired_is_lost(scene):
    kept, gone = scene.hold(100, 10), scene.hold(100, 10)
    scene.lua.now = START + TTL - 1
    assert scene.lua.extend(RUN, "s", TTL, [(kept, 0, [("b1", "total", 10)])])[4:] == []
    scene.lua.now = START + TTL
    both = [(seq, 0, [("b1", "total", 10)]) for seq in (kept, gone)]
    assert scene.lua.extend(RUN, "s", TTL, both)[4:] == [str(gone).encode()]
    assert scene.lua.read([draw(100)])[3] == 10


def test_a_late_settlement_is_recorded_and_told_apart(scene):
    seq = scene.hold(100, 10)
    scene.lua.now = START + TTL
    scene.hold(100, 100)
    assert scene.settle(seq, 10, 12)[0] == b"OK"
    numbers, _, held = scene.lua.counters("b1", "total")
    assert numbers == {"used": 12, "late": 12, "over": 2, "n": 1, "expired": 10}
    assert held == 100
