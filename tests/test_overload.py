"""C15, scaled: five times as many calls as fit. What is compared are counts and ratios, never times of this machine."""

import asyncio
import time

import pytest

from proxy.fake import Script
from tests.sidecars import house

MORE = "server: {max_in_flight: 8, queue: 16, queue_seconds: 0.5}\n"
CALL_MS = 120  # long beside what a call costs this process, which is client, sidecar and provider in one


async def load(home, callers, seconds):
    """Let so many clients call one after another; a refused one comes back when it pleases. Return counts by status, the replies refused."""
    statuses, refused = {}, []
    until_s = time.monotonic() + seconds

    async def caller():
        while time.monotonic() < until_s:
            reply = await home.chat("fake-1")
            statuses[reply.status] = statuses.get(reply.status, 0) + 1
            if reply.status != 200:
                refused.append(reply)
                await asyncio.sleep(CALL_MS / 1000)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return statuses, refused


@pytest.mark.slow
async def test_at_five_times_the_capacity_as_much_gets_done_as_at_its_peak(store, tmp_path):
    async with house(store, tmp_path, more=MORE) as home:
        home.fake.script = Script(delay_ms=CALL_MS, length=3)
        await load(home, 8, 0.2)
        home.fake.requests.clear()
        peak, none = await load(home, 8, 2)
        flood, refused = await load(home, 40, 2)
        assert none == []
        assert flood[200] >= 0.8 * peak[200], (flood, peak)
        assert set(flood) == {200, 503}
        assert refused
        for reply in refused:
            assert reply.error["code"] == "overloaded"
            assert 1 <= int(reply.headers["retry-after"]) <= 30
            assert reply.headers["connection"] == "close"
        places = home.sidecar.routes.places
        assert (places.taken, len(places._queue)) == (0, 0)
        await home.settled()
        assert home.sidecar.ledger.open == {}


async def test_never_more_calls_are_in_flight_than_may_be(store, tmp_path):
    async with house(store, tmp_path, more=MORE) as home:
        home.fake.script = Script(delay_ms=CALL_MS, length=3)
        most = 0

        def look():
            nonlocal most
            most = max(most, home.fake.in_flight)
            return False

        watching = asyncio.create_task(home.fake.until(look, 60))
        replies = await asyncio.gather(*(home.chat("fake-1") for _ in range(60)))
        watching.cancel()
        assert most == 8
        assert sum(reply.status == 200 for reply in replies) >= 24  # those with a place, and the queue


async def test_the_queue_is_short_enough_that_a_call_waits_no_longer_than_it_may(store, tmp_path):
    async with house(store, tmp_path, more=MORE) as home:
        home.fake.script = Script(hang=True)
        hanging = [asyncio.create_task(home.chat("fake-1")) for _ in range(8)]
        await home.fake.until(lambda: home.fake.in_flight == 8)
        began_s = time.monotonic()
        replies = await asyncio.gather(*(home.chat("fake-1") for _ in range(30)))
        assert {reply.status for reply in replies} == {503}
        assert time.monotonic() - began_s < 0.5 * 1.1 + 1.0
        assert len(home.fake.requests) == 8  # not one of them went upstream
        for task in hanging:
            task.cancel()
