"""All streams are looked after by one timer: comments into silence, an end for a client that takes nothing."""

import asyncio

import pytest

from proxy.tending import Tender

pytestmark = pytest.mark.asyncio
WAIT_S = 5.0


class Stream:
    def __init__(self):
        self.wrote, self.writing_since_s, self.comments = 0, None, 0

    def comment(self):
        self.comments += 1


async def until(true):
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.001)


async def test_each_silent_stream_gets_comments_and_one_that_writes_gets_none():
    tender, silent, busy, mute = Tender(), Stream(), Stream(), Stream()
    tender.add(silent, comment_s=0.02, stall_s=60, abort=pytest.fail)
    tender.add(busy, comment_s=0.02, stall_s=60, abort=pytest.fail)
    tender.add(mute, comment_s=0, stall_s=60, abort=pytest.fail)

    def enough():
        busy.wrote += 1
        return silent.comments >= 3

    await until(enough)
    assert (busy.comments, mute.comments) == (0, 0)
    for stream in (silent, busy, mute):
        tender.discard(stream)
    assert len(tender) == 0


async def test_a_stream_that_came_later_and_wants_to_be_looked_at_sooner_is():
    tender, patient, hasty = Tender(), Stream(), Stream()
    tender.add(patient, comment_s=60, stall_s=60, abort=pytest.fail)
    tender.add(hasty, comment_s=0.01, stall_s=60, abort=pytest.fail)
    await until(lambda: hasty.comments)
    assert patient.comments == 0


async def test_a_client_that_takes_nothing_is_cut_off_once_and_no_other():
    tender, stalled, slow, cut = Tender(), Stream(), Stream(), []
    tender.add(stalled, comment_s=15, stall_s=0.02, abort=lambda: cut.append("stalled"))
    tender.add(slow, comment_s=15, stall_s=30, abort=lambda: cut.append("slow"))
    stalled.writing_since_s = slow.writing_since_s = asyncio.get_running_loop().time()
    await until(lambda: cut)
    assert len(tender) == 1
    await asyncio.sleep(0.05)  # several sweeps: nothing more may come of them
    assert cut == ["stalled"]
    assert (stalled.comments, slow.comments) == (0, 0)


async def test_nothing_is_scheduled_while_there_is_no_stream():
    tender, stream = Tender(), Stream()
    tender.add(stream, comment_s=0.01, stall_s=60, abort=pytest.fail)
    tender.discard(stream)
    tender.discard(stream)
    await until(lambda: tender._timer is None)
    tender.add(stream, comment_s=0.01, stall_s=60, abort=pytest.fail)
    await until(lambda: stream.comments)
    tender.discard(stream)
