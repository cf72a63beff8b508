"""A store that lost writes, script by script: whom it asks, what it takes back, and what it does not."""

import pytest

from tests.ledger.scenes import RUN, START, TTL, draw

EPOCH = "e"


def learn(scene, run: str = "run2", remembered: str = EPOCH) -> int:
    return scene.lua.generation(run, 6_000, 15_000, "other", remembered)[1]


def extend(scene, seq: int, amount: int, run: str = "run2"):
    return scene.lua.extend(run, "s", TTL, [(seq, 5, [("b1", "total", amount)])], expiry=START + 10**10)


def lose_holds(scene) -> None:
    for name in scene.lua.redis("KEYS", "b:{t}:[bxs]:*"):
        scene.lua.redis("DEL", name)


def test_a_hold_that_is_missing_is_taken_back_without_asking_for_room(scene):
    seq = scene.hold(100, 60)
    lose_holds(scene)
    assert learn(scene) == START + 6_000
    assert extend(scene, seq, 60)[2::2] == [START + 6_000]
    assert scene.used_and_held() == (0, 60)
    assert extend(scene, seq, 60)[4:] == []
    assert scene.used_and_held() == (0, 60), "and once"


def test_a_hold_that_expired_and_was_not_cleared_away_is_counted_once(scene):
    seq = scene.hold(100, 60)
    scene.lua.now = START + TTL + 1
    learn(scene)
    assert extend(scene, seq, 60)[4:] == []
    assert scene.used_and_held() == (0, 60)
    assert scene.lua.read([draw(100)])[3] == 60


@pytest.mark.parametrize("lapsed", [False, True])
def test_growth_that_was_lost_is_taken_back_with_its_hold(scene, lapsed):
    """The replica that took over has the hold as it was before it grew: the stream may have used all of what it grew to."""
    d = draw(100, 0, 1)
    scene.reserve(d, wanted=10, least=10, seq=1)
    if lapsed:
        scene.lua.now = START + TTL + 1
    learn(scene)
    reply = scene.lua.extend("run2", "s", TTL, [(1, 70, [("b1", "total", 70)])])
    assert reply[4:] == []
    assert scene.used_and_held() == (0, 70)
    assert scene.lua.grow("run2", "s", 1, TTL, 70, 0, (d,)) == [b"OK", scene.lua.now, 70, 70], (
        "and is known to have grown"
    )
    assert scene.lua.extend("run2", "s", TTL, [(1, 10, [("b1", "total", 10)])])[4:] == [], "one who missed that it grew"
    assert scene.used_and_held() == (0, 70)
    assert scene.lua.settle("run2", "s", 1, 0, "p", True, [("b1", "total", b"used", 70, 60)]) == [b"OK", 60, 0]


def test_a_heartbeat_grows_nothing_while_nothing_is_learnt(scene):
    scene.reserve(draw(100, 0, 1), wanted=10, least=10, seq=1)
    assert scene.lua.extend(RUN, "s", TTL, [(1, 70, [("b1", "total", 70)])])[4:] == []
    assert scene.used_and_held() == (0, 10)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_late_heartbeat_does_not_bring_back_a_call_that_is_over(scene, forgotten):
    seq = scene.hold(100, 60)
    scene.settle(seq, 60, 5)
    if forgotten:
        scene.settle(seq + 1, 0, 0, ack=seq)
    learn(scene)
    assert extend(scene, seq, 60)[4:] == [str(seq).encode()]
    assert scene.used_and_held()[1] == 0


def test_a_hold_that_is_missing_is_lost_when_nothing_is_learnt(scene):
    seq = scene.hold(100, 60)
    lose_holds(scene)
    assert extend(scene, seq, 60, run=RUN)[2::2] == [0, str(seq).encode()]
    assert scene.used_and_held() == (0, 0)


def test_nothing_is_admitted_on_a_hard_budget_until_it_has_learnt(scene):
    scene.hold(100, 1)
    learn(scene)
    for binds, verdict in ((True, b"LEARN"), (False, b"OK")):
        reply = scene.lua.reserve("run2", 0, "s", 50 + binds, TTL, scene_ask(binds))
        assert reply[0] == verdict
    scene.lua.now = START + 6_000
    assert scene.lua.reserve("run2", 0, "s", 60, TTL, scene_ask(True))[0] == b"OK"


def scene_ask(binds: bool):
    from tests.ledger.model import Ask

    return Ask((draw(100, 1, binds=binds),))


def test_whoever_has_not_met_the_server_is_told_so_first(scene):
    scene.hold(100, 1)
    assert scene.lua.reserve("run2", 0, "s", 9, TTL, scene_ask(True)) == [b"GEN", START]
    assert scene.lua.extend("run2", "s", TTL, []) == [b"GEN", START]


@pytest.mark.parametrize(
    ("sessions", "remembered", "learns"),
    [([], "", False), ([0], "", True), ([15_000], "", True), ([15_001], "", False), ([], EPOCH, True)],
)
def test_there_is_something_to_learn_only_where_somebody_lives(scene, sessions, remembered, learns):
    scene.lua.redis("DEL", "b:{t}:sess")
    for ago in sessions:
        scene.lua.redis("ZADD", "b:{t}:sess", START - ago, f"sid{ago}")
    assert bool(learn(scene, remembered=remembered)) == learns


def test_a_store_that_lost_even_its_epoch_learns_though_its_process_is_known(scene):
    assert learn(scene, run=RUN) == 0
    assert learn(scene, run=RUN, remembered="an epoch that is gone") == START + 6_000


def test_our_own_store_learns_nothing(scene):
    scene.hold(100, 1)
    assert scene.lua.generation("run2", 0, 15_000, "x", EPOCH)[1] == 0


def heard_of(scene, *sids: str) -> None:
    """Sessions that have a word with the store; the scene's own and the one of its beginning are not there."""
    scene.lua.redis("DEL", "b:{t}:sess")
    for sid in sids:
        scene.lua.extend(RUN, sid, TTL, [])


def say(scene, sid: str, *, told: bool = True, arrivals: int = 0, remembered: str = EPOCH, run: str = "run2") -> int:
    """Return how long the store learns still, after a session met it or said that it told all."""
    now, until_ms, *_ = scene.lua.generation(run, 6_000, 15_000, "x", remembered, sid, arrivals, told)
    return until_ms and until_ms - now


def test_a_lesson_ends_when_the_last_has_told_but_not_before_its_least_time(scene):
    heard_of(scene, "a", "b", "c")
    assert say(scene, "a", told=False) == 6_000
    assert [say(scene, sid) for sid in "ab"] == [6_000, 6_000]
    scene.lua.now += 500
    assert say(scene, "a") == 5_500, "saying it twice does not count twice"
    assert say(scene, "c") == 1_500, "whom it forgot may yet come"
    scene.lua.now += 1_500
    assert say(scene, "b") == 0
    assert scene.lua.reserve("run2", 0, "a", 60, TTL, scene_ask(True))[0] == b"OK"


def test_a_lesson_whose_last_tells_late_ends_at_once(scene):
    heard_of(scene, "a", "b")
    say(scene, "a", told=False)
    say(scene, "a")
    scene.lua.now += 5_000
    assert say(scene, "a") == 1_000
    assert say(scene, "b") == 0


def test_of_a_session_that_says_nothing_a_lesson_waits_no_longer_than_ever(scene):
    heard_of(scene, "a", "dead")
    say(scene, "a", told=False)
    assert say(scene, "a") == 6_000
    scene.lua.now += 6_000
    assert say(scene, "a") == 0


@pytest.mark.parametrize(("silent_ms", "waits"), [(TTL, True), (TTL * 4 // 3, True), (TTL * 4 // 3 + 1, False)])
def test_whoever_may_hold_something_is_waited_for(scene, silent_ms, waits):
    """A lease lasts 30 s, and whoever reserves is noted again after ten."""
    heard_of(scene, "old")
    scene.lua.now += silent_ms
    scene.lua.extend(RUN, "a", TTL, [])
    scene.lua.now += 51
    scene.lua.redis("HSET", "b:{t}:g", "clk", START + silent_ms)
    say(scene, "a", told=False)
    assert say(scene, "a") == (6_000 if waits else 2_000)


@pytest.mark.parametrize("who", ["reserve", "heartbeat"])
def test_a_session_that_works_is_heard_of(scene, who):
    scene.lua.redis("DEL", "b:{t}:sess")
    for _ in range(7):
        scene.lua.now += 9_000
        if who == "reserve":
            scene.hold(100, 1)
        else:
            scene.lua.extend(RUN, "s", TTL, [])
    say(scene, "a", told=False, remembered="")
    assert say(scene, "a", remembered="") == 6_000
    assert say(scene, "s") == 2_000


@pytest.mark.parametrize("why", ["unknown", "knows of more", "a new epoch", "a leap of the clock", "nobody"])
def test_a_store_that_may_have_forgotten_somebody_learns_for_the_whole_time(scene, why):
    heard_of(scene, *(("a", "b") if why != "nobody" else ()))
    arrivals = 3 + (why == "knows of more")  # "a", "b", and who began the scene
    if why == "a leap of the clock":
        scene.lua.now += 700_000
        assert scene.lua.extend(RUN, "a", TTL, [])[0] == b"GEN"
    say(scene, "a", told=False, remembered="another" if why == "a new epoch" else EPOCH)
    if why == "unknown":
        say(scene, "c", told=False)
    for sid in "abc":
        left = say(scene, sid, arrivals=arrivals)
    assert left == 6_000
    scene.lua.now += 6_000
    assert say(scene, "a") == 0


def test_a_newcomer_without_a_past_costs_nothing(scene):
    heard_of(scene, "a")
    say(scene, "a", told=False)
    say(scene, "new", told=False, remembered="")
    assert say(scene, "a") == 2_000


def test_how_often_somebody_came_is_told_with_each_heartbeat_and_never_falls(scene):
    scene.lua.redis("DEL", "b:{t}:sess", "b:{t}:g")
    assert scene.lua.generation(RUN, 0, 15_000, "x", "", "a")[3] == 1
    assert scene.lua.generation(RUN, 0, 15_000, "x", "", "a")[3] == 1
    assert scene.lua.extend(RUN, "b", TTL, [])[3] == 2
    scene.lua.reserve(RUN, 0, "c", 1, TTL, scene_ask(True))
    assert scene.lua.extend(RUN, "a", TTL, [])[3] == 3
    scene.lua.now += TTL * 4 // 3 + 1
    assert scene.lua.extend(RUN, "a", TTL, [])[3] == 4, "whoever was away that long comes again"
    assert scene.lua.generation(RUN, 0, 15_000, "x", EPOCH, "a", 9)[3] == 9, "somebody knows better"


def test_what_was_told_to_a_store_that_lost_writes_since_is_told_again(scene):
    heard_of(scene, "a")
    assert scene.lua.generation("run2", 6_000, 15_000, "x", EPOCH, "a", 0, True)[4] == 1
    assert scene.lua.generation("run2", 6_000, 15_000, "x", EPOCH, "a", 0, True)[1:] == [START + 2_000, b"e", 2, 0]


@pytest.mark.parametrize("who", ["reserve", "extend"])
def test_a_leap_of_the_clock_under_living_sessions_is_a_loss(scene, who):
    """All leases seem to have ended at once: they are asked for again before others take their room."""
    seq = scene.hold(100, 60)
    scene.lua.now = START + 600_000 + 51
    reply = (
        scene.lua.reserve(RUN, 0, "z", 1, TTL, scene_ask(True)) if who == "reserve" else extend(scene, seq, 60, run=RUN)
    )
    assert reply[0] == b"GEN"
    learn(scene, run=RUN)
    assert extend(scene, seq, 60, run=RUN)[4:] == []
    assert scene.used_and_held() == (0, 60)


def test_an_hour_without_a_call_is_no_leap(scene):
    """Heartbeats and new sidecars move the clock on."""
    scene.hold(100, 60)
    for _ in range(720):
        scene.lua.now += 5_000
        assert scene.lua.extend(RUN, "s", TTL, [])[0] == b"OK"
    scene.lua.now += 3_600_000
    scene.lua.generation(RUN, 6_000, 15_000, "x", "")
    assert scene.reserve(draw(100, 100))[0] == b"OK"


@pytest.mark.parametrize("way", ["settled", "released", "expired"])
def test_a_hold_of_nothing_ends_like_any_other(scene, way):
    """-0 is not an integer to the server: a script that subtracts nothing must not fail half-way."""
    seq = scene.hold(100, 0)
    if way == "expired":
        scene.lua.now = START + TTL
        assert scene.reserve(draw(100, 0))[0] == b"OK"
        scene.settle(scene.seq, 0, 0)
    else:
        assert scene.settle(seq, 0 if way == "settled" else -1, 0)[0] == b"OK"
    assert scene.lua.counters("b1", "total")[1] == {}
