"""Every command between one and eleven times, in any order: the totals are those of a single delivery (A6)."""

import random

import pytest

from tests.ledger.scenes import AMOUNT_MAX, RUN, TTL, Ask, draw

BUDGETS = ("b1", "b2")


def storm(scene, calls: int, seed: int) -> int:
    """Send all commands of many calls, doubled and mixed within a window of about 40 calls; return how many were sent."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    deck: list[tuple[float, str, int, tuple[int, int]]] = []
    truth = [0, 0]
    for seq in range(1, calls + 1):
        held, actual = rng.randint(0, 50), rng.randint(0, 60)
        settles = rng.random() < 0.7
        if settles:
            truth[0] += actual
            truth[1] += 1
        for kind in ("reserve", "extend", "settle" if settles else "release"):
            deck += [(seq + rng.uniform(0, 40), kind, seq, (held, actual)) for _ in range(rng.randint(1, 11))]
    deck.sort()
    commands = []
    for _, kind, seq, (held, actual) in deck:
        pairs = [
            (name, "total", b"used", -1 if kind == "release" else held, 0 if kind == "release" else actual)
            for name in BUDGETS
        ]
        if kind == "reserve":
            draws = tuple(draw(AMOUNT_MAX, held, budget=name) for name in BUDGETS)
            commands.append(("reserve", RUN, 0, "s", seq, TTL, Ask(draws)))
        elif kind == "extend":
            commands.append(("extend", RUN, "s", TTL, [(seq, 0, [(name, "total", held) for name in BUDGETS])]))
        else:
            print_ = "0" if kind == "release" else str(actual)
            commands.append(("settle", RUN, "s", seq, 0, print_, kind == "settle", pairs))
    told: dict[int, int] = {}
    for command in commands:
        reply = getattr(scene.lua, command[0])(*command[1:])
        if command[0] == "settle":
            assert reply[0] in (b"OK", b"DUP")
            told[command[3]] = told.get(command[3], 0) + (reply[0] == b"OK")
    assert set(told.values()) == {1}, "each was settled once"
    for name in BUDGETS:
        numbers, holds, held = scene.lua.counters(name, "total")
        assert numbers.get("used", 0) == truth[0]
        assert numbers.get("n", 0) == truth[1]
        assert not holds, "a settlement or a release before its reserve left no orphan"
        assert held == 0
    assert scene.lua.redis("XLEN", "b:{t}:u") >= min(1_000, truth[1]), "one record each"
    totals = scene.lua.redis("HGET", "b:{t}:day:20260101", "k|u|t|m|n")
    assert int(totals) == truth[1]
    return len(commands)


def test_a_storm_of_copies_counts_as_one_delivery(scene):
    print(storm(scene, 150, seed=1), "commands")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_a_longer_storm_counts_as_one_delivery(scene, seed):
    print(storm(scene, 1_000, seed), "commands")


@pytest.mark.long
def test_a_hundred_thousand_commands_count_as_one_delivery(scene):
    assert storm(scene, 6_000, seed=4) > 100_000


@pytest.mark.parametrize(
    "order", [("reserve", "settle"), ("settle", "reserve"), ("release", "reserve"), ("release", "settle")]
)
def test_whatever_comes_first_nothing_is_held_in_the_end(scene, order):
    for kind in order:
        if kind == "reserve":
            scene.reserve(draw(100, 10), seq=1)
        else:
            scene.settle(
                1, -1 if kind == "release" else 10, 0 if kind == "release" else 7, told=kind == "settle", print_=kind
            )
    assert scene.used_and_held()[1] == 0


def test_a_call_settled_again_with_other_amounts_is_told_apart_and_changes_nothing(scene):
    seq = scene.hold(100, 10)
    assert scene.settle(seq, 10, 7)[0] == b"OK"
    before = scene.snapshot()
    assert scene.settle(seq, 10, 8) == [b"MISMATCH"]
    assert scene.settle(seq, 10, 7) == [b"DUP"]
    assert scene.snapshot() == before


def test_a_reserve_that_comes_again_is_told_what_it_was_granted(scene):
    first = scene.reserve(draw(100, 10, 1), wanted=50, least=5, seq=1)
    scene.reserve(draw(100, 10, 1), wanted=20, least=5, seq=2)
    again = scene.reserve(draw(100, 10, 1), wanted=50, least=5, seq=1)
    assert again[2] == first[2] == 50
    assert again[7] == first[7] == 60
    assert scene.used_and_held() == (0, 90)


@pytest.mark.parametrize("then", ["a new configuration", "a new limit", "the lease ended", "another window"])
def test_what_changed_meanwhile_does_not_make_a_copy_hold_again(scene, then):
    scene.reserve(draw(100, 60), seq=1)
    cfg, more = 0, {}
    if then == "a new configuration":
        cfg = scene.lua.configure("b2") - 1
    elif then == "a new limit":
        more = {"version": 2}
    elif then == "the lease ended":
        scene.lua.now += TTL
    else:
        more = {"pid": "1"}
    reply = scene.reserve(draw(100, 60, **more), seq=1, cfg=cfg)
    assert reply[0] == (b"OK" if then in ("a new configuration", "a new limit") else b"TERMINAL")
    assert scene.used_and_held()[1] <= 60
    assert scene.used_and_held(pid="1") == (0, 0)


def test_marks_are_forgotten_as_soon_as_their_owner_knows(scene):
    for seq in range(1, 3_001):
        scene.settle(seq, 0, 1, ack=seq - 1)
    session = scene.lua.redis("HKEYS", "b:{t}:s:s")
    assert len(session) <= 3, "the low mark, and the last ones"
    assert scene.settle(5, 0, 1) == [b"DUP"]
    assert scene.reserve(draw(100, 1), seq=5)[0] == b"TERMINAL"


def test_an_ack_of_the_call_itself_leaves_no_mark_of_it(scene):
    assert scene.settle(1, 0, 5, ack=2)[0] == b"OK"
    assert scene.lua.redis("HKEYS", "b:{t}:s:s") == [b"low"]
    assert scene.settle(1, 0, 6) == [b"DUP"], "it is over, and nobody knows with what"
    assert scene.used_and_held() == (5, 0)


def test_marks_stay_fourteen_days_from_the_last_settlement_and_are_not_prolonged_by_each(scene):
    fourteen_days_ms = 14 * 86_400_000
    scene.settle(1, 0, 5)
    scene.lua.redis("PEXPIRE", "b:{t}:s:s", 5_000)
    scene.settle(2, 0, 5)
    first_ms = scene.lua.redis("PEXPIRETIME", "b:{t}:s:s")
    assert scene.lua.redis("PTTL", "b:{t}:s:s") >= fourteen_days_ms
    scene.settle(3, 0, 5, ack=2)
    assert scene.lua.redis("PEXPIRETIME", "b:{t}:s:s") == first_ms


def test_an_ack_that_was_learnt_from_another_server_is_not_believed(scene):
    """It says that calls are settled which a server that lost writes does not have."""
    for seq in (1, 2):
        scene.settle(seq, 0, 5)
    scene.settle(7, 0, 5, ack=6, run="run0")
    assert scene.settle(3, 0, 5)[0] == b"OK", "so it can be told of 3 once more"
    scene.settle(8, 0, 5, ack=7)
    assert scene.settle(4, 0, 5) == [b"DUP"]
