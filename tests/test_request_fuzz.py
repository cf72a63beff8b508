"""C2: seeded mutations of requests. Never a 5xx, a hang, a traceback or a byte of a secret; memory stays where it was."""

import asyncio
import json
import random
import resource

import pytest

from tests.sidecars import KEY, house
from tests.smuggling import CASES
from tests.wire import BODY, answers, post

MORE = "server: {header_seconds: 0.3, body_seconds: 0.3, max_connections: 4000}\n"
SEED = 20261120
WORDS = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"chunked", b"Transfer-Encoding: ", b"Content-Length: 5\r\n", b"0\r\n\r\n",
    b"HTTP/1.1", b"POST ", b"{", b"}", b"[" * 80, b'"', b"\\ud800", b"1e999", b"-1", b"99999999999999999999", b"null", b"\xff\xfe",
    b"Host: evil\r\n", b"Expect: 100-continue\r\n", b"\x0b", b"/../", b"%00", b"max_tokens", b"stream", b"true", b'n":1',
)  # fmt: skip
SEEDS = [post(), post(headers=b"x: y\r\n"), *CASES.values()]
FIELDS = {
    "model": ["", None, 3, "x" * 5000, "\u0000", "fake-1?length=2", {"a": 1}], "messages": [[], None, "x", [1], [{}], [{"role": 1, "content": {}}], [{"role": "user"}]],
    "max_tokens": [0, -1, 2**70, 1.5, "9", True, None, 5], "n": [0, 10**9, 1, None, "2"], "stream": [1, "true", None, True, False], "temperature": ["x", None, 2, {}],
    "stream_options": [{}, [], {"include_usage": "x"}, {"include_usage": True}], "tools": [[], [{}], {}, [{"type": "function"}]], "user": [1, "x" * 9999], "stop": [[[]], 1],
    "response_format": [1, {"type": "json_schema"}], "service_tier": [1, "flex"], "reasoning_effort": ["high", 3], "logit_bias": [[], {"a": "b"}],
}  # fmt: skip


def mutated(rng):
    """One request: bytes or JSON changed in one to five places."""
    if rng.random() < 0.3:
        body = {"model": "fake-1?length=2", "messages": [{"role": "user", "content": "hi"}]}
        for name in rng.sample(sorted(FIELDS), rng.randint(1, 4)):
            body[name] = rng.choice(FIELDS[name])
        path = rng.choice([b"chat/completions", b"completions", b"embeddings", b"responses"])
        return post(json.dumps(body).encode(), line=b"POST /v1/%s HTTP/1.1" % path, headers=b"connection: close\r\n")
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 5)):
        at, how = rng.randrange(len(data) + 1), rng.randrange(6)
        if how == 0:
            data[at:at] = rng.choice(WORDS)
        elif how == 1:
            del data[at : at + rng.randint(1, 20)]
        elif how == 2 and data:
            data[at % len(data)] = rng.randrange(256)
        elif how == 3:
            data[at:at] = data[at : at + rng.randint(1, 60)]
        elif how == 4:
            data[at : at + rng.randint(0, 8)] = rng.choice(WORDS)
        else:
            del data[at:]
    return bytes(data)


async def exchanged(port, data):
    """Send, half a second of silence ends it; return what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(data)
        async with asyncio.timeout(11):
            while piece := await asyncio.wait_for(reader.read(65536), 0.5 if got else 10):
                got += piece
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return got


async def fuzz(store, tmp_path, count, caplog, at_once=200):
    rng = random.Random(SEED)
    async with house(store, tmp_path, more=MORE) as home:
        left = iter(range(count))
        wrong = []

        async def work():
            for number in left:
                data = mutated(rng)
                got = await exchanged(home.port, data)
                bad = [status for status, _ in answers(got) if status >= 500 and status not in (505, 503)]
                if bad or KEY.encode() in got or b"Traceback" in got or len(got) > 2_000_000:
                    wrong.append((number, bad, data[:400], got[:400]))

        for _ in range(200):  # warm up what is loaded once
            await exchanged(home.port, mutated(rng))
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await asyncio.gather(*(work() for _ in range(at_once)))
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
        assert not wrong, wrong[:3]
        alive = await home.chat()
        assert alive.status == 200
        await home.settled()
        assert KEY not in caplog.text
        assert "Traceback" not in caplog.text
        return grown_kb


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_five_hundred_mutated_requests_leave_no_trace(store, tmp_path, caplog):
    await fuzz(store, tmp_path, 500, caplog)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_twenty_thousand_mutated_requests_leave_no_trace(store, tmp_path, caplog):
    assert await fuzz(store, tmp_path, 20_000, caplog) < 40_000  # of which the sockets of the test itself are a part


def test_the_same_seed_makes_the_same_requests():
    first, second = random.Random(SEED), random.Random(SEED)
    assert [mutated(first) for _ in range(50)] == [mutated(second) for _ in range(50)]
    assert BODY in post()
