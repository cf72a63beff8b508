"""SIGTERM: streams end, new calls are told, everything is settled, exit 0; a second one hurries."""

import asyncio
import itertools
import json
import signal

import aiohttp
import pytest

from accounting.reading import Reader
from accounting.store.store import Store
from accounting.store.url import read_url
from proxy.fake import FakeProvider
from tests.sidecars import HELLO, HELLO_TOKENS, KEY, MODEL, config_text, counted, serving

pytestmark = pytest.mark.slow
_runs = itertools.count()
BUDGET = 'budgets: [{subject: "user:alice", tokens: 1000000, period: day}]\n'


@pytest.fixture
async def running(store, tmp_path, request):
    more = BUDGET + getattr(request, "param", "")
    file = tmp_path / "bursar.yaml"
    prefix = f"drain{next(_runs)}"
    timeout = aiohttp.ClientTimeout(total=30)
    async with FakeProvider(count=counted) as fake, aiohttp.ClientSession(timeout=timeout) as http:
        file.write_text(config_text(store, tmp_path, fake.url, prefix=prefix, more=more))
        async with serving(file) as process:

            def call(model, **body):
                headers = {"authorization": f"Bearer {KEY}"}
                return http.post(
                    process.url + "/chat/completions", json={"model": model, "messages": HELLO, **body}, headers=headers
                )

            async def records():
                reading = Store(read_url(store.url), prefix=prefix, tenant="default")
                await reading.start()
                found = [record async for record in Reader(reading).records()]
                held = await store.command("KEYS", f"{prefix}*:x:*")
                await reading.close()
                return found, held

            process.call, process.fake, process.records, process.http = call, fake, records, http
            yield process


async def test_streams_end_and_new_calls_are_told(running):
    async with running.call(MODEL + "?length=30&pace=20", stream=True) as stream:
        await stream.content.readuntil(b"\n\n")
        running.signal(signal.SIGTERM)
        while True:
            async with running.call(MODEL) as late:
                status, body, headers = late.status, await late.read(), late.headers
            if status != 200:
                break
        assert status == 503
        assert json.loads(body)["error"]["code"] == "draining"
        assert headers["retry-after"]
        assert headers["connection"].lower() == "close"
        assert running.process.returncode is None
        rest = await stream.content.read()
        assert rest.endswith(b"data: [DONE]\n\n")
    assert await running.ended() == 0
    found, _ = await running.records()
    streamed = [r for r in found if r["output"] == 30]
    assert [r["outcome"] for r in streamed] == ["ok"]
    assert "Traceback" not in running.log


async def test_without_calls_it_ends_at_once(running):
    running.signal(signal.SIGTERM)
    assert await running.ended(10) == 0


async def test_an_interrupt_is_as_good_as_a_termination(running):
    running.signal(signal.SIGINT)
    assert await running.ended(10) == 0


async def test_a_second_signal_hurries_and_what_was_relayed_is_settled(running):
    async with running.call(MODEL + "?length=40&stall=7", stream=True) as stream:
        seen = b""
        while seen.count(b'"content":') <= 7:
            seen += await stream.content.readuntil(b"\n\n")
        running.signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while True:
                async with running.call(MODEL) as late:
                    if late.status == 503:
                        break
        running.signal(signal.SIGTERM)
        assert await running.ended(15) == 0
    found, held = await running.records()
    (record,) = [r for r in found if r["output"] == 7]
    assert record["input"] == HELLO_TOKENS
    assert held == []
    assert "Traceback" not in running.log


@pytest.mark.parametrize("running", ["server: {drain_seconds: 0.3}\n"], indirect=True)
async def test_a_stream_that_outlives_the_drain_is_ended_and_settled(running):
    async with running.call(MODEL + "?length=40&stall=5", stream=True) as stream:
        seen = b""
        while seen.count(b'"content":') <= 5:
            seen += await stream.content.readuntil(b"\n\n")
        running.signal(signal.SIGTERM)
        assert await running.ended(15) == 0
    found, held = await running.records()
    assert [r["output"] for r in found] == [5]
    assert held == []
