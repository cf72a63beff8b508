"""Rolling windows: never more than the limit in any window of that length, and little less than could be (A10)."""

import random
from collections import deque

import pytest

from accounting.periods import Period
from tests.ledger.scenes import START, draw

ROLLING = [("rolling:1m", 60_000), ("rolling:1h", 3_600_000), ("rolling:30d", 30 * 86_400_000)]


def arrivals(kind: str, width: int, rng: random.Random, count: int) -> list[int]:
    """Offsets from the start: bursts at the seams of buckets, floods, and drizzle."""
    bucket = -(-width // 60)
    if kind == "seams":
        return sorted(max(0, bucket * rng.randint(0, 200) + rng.choice((-1, 0, 1))) for _ in range(count))
    if kind == "flood":
        return sorted(rng.randint(0, 10) + width * rng.randint(0, 3) for _ in range(count))
    return sorted(rng.randint(0, 4 * width) for _ in range(count))


@pytest.mark.parametrize(("period", "width"), ROLLING)
@pytest.mark.parametrize("kind", ["seams", "flood", "drizzle"])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_window_of_that_length_is_ever_over(scene, period, width, kind, seed):
    rng = random.Random(f"{period} {kind} {seed}")
    window = Period(kind=period).window(START)
    assert 60 * window.bucket_ms >= width
    limit, admitted, refused, recent = 100, [], 0, deque()
    for offset in arrivals(kind, width, rng, 150):
        now = START + offset
        if scene.lua.now < now:
            scene.lua.now = now
            scene.lua.generation("run1", 0, 15_000, "e", "")
        amount = rng.randint(1, 30)
        reply = scene.reserve(draw(limit, amount, pid=window.key, bucket=window.bucket_ms))
        if reply[0] == b"OK":
            admitted.append((now, amount))
            scene.settle(scene.seq, amount, amount, pid=window.key, field=reply[3])
        else:
            refused += 1
            # What it counts is at most one bucket older than the window.
            counted = sum(a for t, a in admitted if t >= (now // window.bucket_ms - 60) * window.bucket_ms)
            assert counted + amount > limit, "and nothing is refused without that reason"
    for now, amount in admitted:
        recent.append((now, amount))
        while recent[0][0] <= now - width:
            recent.popleft()
        assert sum(a for _, a in recent) <= limit
    assert admitted
    assert refused or kind == "drizzle"


def test_what_was_used_counts_for_its_window_and_at_most_a_sixtieth_more(scene):
    bucket = 1_000
    reply = scene.reserve(draw(10, 10, pid="rolling", bucket=bucket))
    scene.settle(scene.seq, 10, 10, pid="rolling", field=reply[3])
    scene.lua.now = START + 60_999
    assert scene.reserve(draw(10, 1, pid="rolling", bucket=bucket))[0] == b"DENY"
    scene.lua.now = START + 61_000
    assert scene.reserve(draw(10, 10, pid="rolling", bucket=bucket))[0] == b"OK"


def test_a_reading_of_a_rolling_window_is_what_a_reserve_would_see(scene):
    for step in range(100):
        scene.lua.now = START + 1_700 * step
        reply = scene.reserve(draw(10**6, 5, pid="rolling", bucket=1_000))
        told = scene.lua.read([draw(10**6, pid="rolling", bucket=1_000)])
        assert told[2:4] == [reply[5], reply[6]]
        settled = scene.settle(scene.seq, 5, step, pid="rolling", field=reply[3])
        assert settled[1] == reply[5] + step, "and a settlement tells the whole window too"
