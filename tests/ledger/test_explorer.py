"""Every order of events of the protocol: no promise breaks; and each of the known mistakes breaks one (A2)."""

import time
from collections import deque

import pytest

from tests.ledger.protocol import Books, Bounds, Call, Owner, Protocol, Rules, World

TWO = (Call(0, 1, 2, 2), Call(1, 1, 2, 2))
SAME = (Call(0, 1, 2, 2), Call(0, 2, 2, 1))
THREE = (Call(0, 1, 2, 2), Call(1, 1, 2, 1), Call(0, 2, 1, 1))


EXHAUSTED = [
    pytest.param(TWO[:1], Bounds(), 19_117, id="one call and everything"),
    pytest.param(
        TWO,
        Bounds(rollbacks=0, sends=1),
        111_665,
        id="two sidecars",
        marks=[pytest.mark.slow, pytest.mark.timeout(180)],
    ),
    pytest.param(
        SAME,
        Bounds(lapses=0, crashes=0, sends=1, doubles=False),
        137_027,
        id="a rollback",
        marks=[pytest.mark.slow, pytest.mark.timeout(180)],
    ),
    pytest.param(
        TWO,
        Bounds(lapses=0, crashes=0, sends=1, doubles=False, losses=False),
        233_200,
        id="two sidecars and a rollback",
        marks=[pytest.mark.long, pytest.mark.timeout(600)],
    ),  # fmt: skip
]


def explore(protocol: Protocol, most: int) -> tuple[int, str | None, list[str]]:
    """Look at worlds, nearest first; return how many, what is wrong, and the shortest way there."""
    came: dict[World, tuple[World, str] | None] = {protocol.start: None}
    ahead = deque([protocol.start])
    while ahead:
        world = ahead.popleft()
        if wrong := protocol.wrong(world):
            path, at = [], came[world]
            while at is not None:
                path.append(at[1])
                at = came[at[0]]
            return len(came), wrong, path[::-1]
        if len(came) < most:
            for name, after in protocol.moves(world):
                if after not in came:
                    came[after] = (world, name)
                    ahead.append(after)
    return len(came), None, []


@pytest.mark.parametrize(("calls", "bounds", "all_of_them"), EXHAUSTED)
def test_the_explorer_sees_all_there_is(calls, bounds, all_of_them):
    """These cases are looked at to the end, not to a number."""
    count, wrong, path = explore(Protocol(calls, Rules(), bounds), 10**9)
    assert wrong is None, f"{wrong}: {path}"
    assert count == all_of_them


SOUND = [
    pytest.param(TWO, Bounds(rollbacks=0, sends=1), 15_000, id="two sidecars"),
    pytest.param(SAME, Bounds(lapses=0, crashes=0, sends=1, doubles=False), 20_000, id="a rollback"),
    pytest.param(TWO, Bounds(rollbacks=0, crashes=0, lapses=0, rollovers=1, sends=1), 12_000, id="a period ends"),
    pytest.param(TWO, Bounds(), 150_000, id="everything", marks=pytest.mark.slow),
    pytest.param(SAME, Bounds(), 100_000, id="everything in one sidecar", marks=pytest.mark.slow),
    pytest.param(THREE, Bounds(), 500_000, id="three calls", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
]


@pytest.mark.parametrize(("calls", "bounds", "most"), SOUND)
def test_no_order_of_events_breaks_a_promise(calls, bounds, most):
    began = time.monotonic()
    count, wrong, path = explore(Protocol(calls, Rules(), bounds), most)
    print(f"{count} states in {time.monotonic() - began:.1f} s")
    assert wrong is None, f"{wrong}: {path}"


SMALL = Bounds(lapses=0, rollbacks=0, crashes=0, sends=2)
MISTAKES = [
    pytest.param("tombstone", TWO[:1], SMALL, "I7", id="no tombstone"),
    pytest.param("dedupe", TWO[:1], SMALL, "P3", id="no dedupe"),
    pytest.param("keyed_periods", TWO[:1], SMALL._replace(rollovers=1), "P8", id="a reset of the key"),
    pytest.param("replay_by_id", TWO[:1], SMALL._replace(rollbacks=1, sends=1), "P1", id="a total seeded anew"),
    pytest.param("expiry_with_hold", TWO[:1], SMALL._replace(crashes=1), "P5", id="an expiry of its own"),
    pytest.param("clamp", (Call(0, 1, 2, 3),), SMALL, "P2", id="no clamp"),
    pytest.param(
        "trusted_ack",
        SAME,
        SMALL._replace(rollbacks=1, sends=1, doubles=False, losses=False),
        "I7",
        id="an ack that outlives the store",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "remembers", TWO, SMALL._replace(lapses=1, sends=1, losses=False), "P1", id="no memory of what lapsed"
    ),
]


@pytest.mark.parametrize(("rule", "calls", "bounds", "promise"), MISTAKES)
def test_a_known_mistake_breaks_a_promise(rule, calls, bounds, promise):
    count, wrong, path = explore(Protocol(calls, Rules()._replace(**{rule: False}), bounds), 200_000)
    print(f"{count} states: {wrong}: {path}")
    assert (wrong or "").startswith(promise), (wrong, path)
    sound, fine, way = explore(Protocol(calls, Rules(), bounds), 3_000)
    assert fine is None, (sound, fine, way)


def lost_sight(*listed: int) -> World:
    """Two sidecars that know of each other, and a copy of the store from before it knew all of them."""
    both = frozenset((0, 1))
    return World(Books(roster=both), (Owner(), Owner()), came=both, knows=(2, 2), saved=Books(roster=frozenset(listed)))


LESSON = SMALL._replace(rollbacks=1, sends=1, doubles=False, losses=False)
TAUGHT_BADLY = [
    pytest.param("adopt", lost_sight(0, 1), id="nothing is taken back"),
    pytest.param("tells_pending", lost_sight(0, 1), id="what was on its way is not told"),
    pytest.param("awaits", lost_sight(0, 1), id="it ends when somebody has told"),
    pytest.param("waits_least", lost_sight(0)._replace(knows=(1, 2)), id="it forgot whom nobody else knows"),
    pytest.param("counts_arrivals", lost_sight(0), id="it forgot whom others know"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "start"), TAUGHT_BADLY)
def test_a_lesson_that_leaves_something_out_lets_too_much_through(rule, start):
    count, wrong, path = explore(Protocol(TWO, Rules()._replace(**{rule: False}), LESSON, start), 200_000)
    print(f"{count} states: {wrong}: {path}")
    assert (wrong or "").startswith("P1"), (wrong, path)


@pytest.mark.slow
@pytest.mark.parametrize("known", [(0, 1), (0,)], ids=["all are known", "one is forgotten"])
def test_a_lesson_is_sound_whoever_stands_still_meanwhile(known):
    bounds = LESSON._replace(stalls=1, crashes=1)
    count, wrong, path = explore(Protocol(TWO, Rules(), bounds, lost_sight(*known)), 60_000)
    assert wrong is None, (count, wrong, path)
