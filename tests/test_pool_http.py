"""C10 and C11 through the proxy: an answer belongs to its own question, whatever a provider sends besides."""

import asyncio
import json
import random

import pytest

from tests.misbehaving import provider
from tests.sidecars import house
from tests.test_upstream_oddities import At


def answer_to(request, *, evil=False):
    """An answer that holds what was asked, so that a stray one is seen."""
    body = json.loads(request.partition(b"\r\n\r\n")[2])
    said = "evil" if evil else body["messages"][0]["content"]
    message = {"role": "assistant", "content": said}
    made = json.dumps({
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }).encode()  # fmt: skip
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(made) + made


async def unsolicited(peer):
    while request := await peer.request():
        await peer.write(answer_to(request) + answer_to(request, evil=True))


async def unsolicited_later(peer):
    while request := await peer.request():
        await peer.write(answer_to(request))
        await asyncio.sleep(0.002)
        await peer.write(answer_to(request, evil=True))


async def extra_bytes(peer):
    while request := await peer.request():
        await peer.write(answer_to(request) + b"x")


async def interim_between(peer):
    while request := await peer.request():
        await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + answer_to(request) + b"HTTP/1.1 103 Early Hints\r\n\r\n")


async def half_closed(peer):
    request = await peer.request()
    if request:
        await peer.write(answer_to(request))
        peer.writer.write_eof()
        await peer.gone()


async def closes_at_random(peer):
    while request := await peer.request():
        await peer.write(answer_to(request))
        if random.random() < 0.4:
            return


async def after_204(peer):
    while request := await peer.request():
        if random.random() < 0.3:
            await peer.write(b"HTTP/1.1 204 No Content\r\n\r\n" + answer_to(request, evil=True))
        else:
            await peer.write(answer_to(request))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "all_good"),
    [
        (unsolicited, True), (unsolicited_later, True), (extra_bytes, True), (interim_between, True), (half_closed, True),
        (closes_at_random, True), (after_204, False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
async def test_no_caller_ever_gets_another_callers_answer(store, tmp_path, script, all_good):
    random.seed(5)
    async with provider(script) as odd, house(store, tmp_path, fake=At(odd)) as home:
        wrong = []

        async def ask(number):
            for turn in range(20):
                mark = f"question {number} {turn}"
                reply = await home.chat(messages=[{"role": "user", "content": mark}])
                if reply.status == 200:
                    if reply.json["choices"][0]["message"]["content"] != mark:
                        wrong.append((mark, reply.body))
                elif all_good:
                    wrong.append((mark, reply))

        await asyncio.gather(*(ask(n) for n in range(10)))
        assert not wrong, wrong[:3]
        if script is closes_at_random:
            assert len(odd.requests) <= 200 * 1.05  # what may have been delivered is not sent twice


async def test_a_call_that_is_cancelled_leaves_nothing_for_the_next(store, tmp_path):
    async def late(peer):
        while request := await peer.request():
            if b"slow" in request:
                await asyncio.sleep(0.15)
            await peer.write(answer_to(request))

    async with provider(late) as odd, house(store, tmp_path, fake=At(odd)) as home:
        for number in range(20):
            slow = asyncio.create_task(home.chat(messages=[{"role": "user", "content": f"slow {number}"}]))
            while not any(f"slow {number}".encode() in seen for seen in odd.requests):
                await asyncio.sleep(0.002)
            slow.cancel()
            reply = await home.chat(messages=[{"role": "user", "content": f"quick {number}"}])
            assert reply.json["choices"][0]["message"]["content"] == f"quick {number}"
