"""C5 and C14, scaled: many streams at once whose clients stop reading, or that are open when Bursar must stop."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from proxy.fake import Script
from tests.misbehaving import provider
from tests.sidecars import HELLO, house, rows_of
from tests.test_upstream_oddities import At
from tests.wire import post

STREAM_BYTES = 64 * 1024 * 1024
GROWN_KB_MAX = (
    300  # a reader, of which 128 may be the sidecar's; the provider, in the same process, keeps 64 and more itself
)
EVENT = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
PIECE = EVENT * 64
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % STREAM_BYTES


def resident_kb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


class Flood:
    """A provider that would send 64 MB of events to each call, as fast as they are taken."""

    def __init__(self):
        self.streams = self.ended = 0
        self.changed = asyncio.Event()

    async def __call__(self, peer):
        while await peer.request():
            self.streams += 1
            self.changed.set()
            try:
                await peer.write(HEAD)
                for _ in range(STREAM_BYTES // len(PIECE)):
                    await peer.write(PIECE)
            finally:
                self.ended += 1
                self.changed.set()

    async def until(self, condition, timeout_s=60):
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def stalled_reader(port):
    """Ask for a long stream, read nothing of it."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    body = json.dumps({"model": "fake-1", "messages": HELLO, "stream": True}).encode()
    await loop.sock_sendall(raw, post(body))
    return raw


async def stalled(store, tmp_path, readers):
    """Return by how many KB this process (sidecar and provider) grew for each reader, once nothing moves any more."""
    more = f"server: {{max_connections: {readers + 50}, max_in_flight: {readers + 10}, keepalive_comment: 1}}\ntimeouts: {{write_stall: 600, idle: 600}}\n"
    flood = Flood()
    async with provider(flood) as odd, house(store, tmp_path, fake=At(odd), more=more) as home:
        warm = await stalled_reader(home.port)
        await flood.until(lambda: flood.streams == 1)
        before_kb = resident_kb()
        open_now = [await stalled_reader(home.port) for _ in range(readers)]
        await flood.until(lambda: flood.streams == readers + 1)
        await asyncio.sleep(2)
        last_kb, now_kb = 0, resident_kb()
        async with asyncio.timeout(120):
            while now_kb - last_kb > readers:  # a KB each
                last_kb = now_kb
                await asyncio.sleep(0.5)
                now_kb = resident_kb()
        assert flood.ended == 0  # every provider is being held back
        assert (await home.get("/models")).status == 200  # others are served as ever
        for raw in (warm, *open_now):
            raw.close()
        await home.until_receipts(readers + 1, 60)
        await flood.until(lambda: flood.ended == readers + 1)
        return (now_kb - before_kb) / readers


@pytest.mark.slow
async def test_a_hundred_clients_that_do_not_read_make_their_providers_wait(store, tmp_path):
    assert await stalled(store, tmp_path, 100) < GROWN_KB_MAX


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_thousand_clients_that_do_not_read_make_their_providers_wait(store, tmp_path):
    assert await stalled(store, tmp_path, 1000) < GROWN_KB_MAX


@pytest.mark.parametrize("streams", [60])
async def test_streams_that_outlive_the_drain_end_with_an_event_that_says_why(store, tmp_path, streams):
    more = 'budgets: [{subject: "user:alice", usd: 500, period: day}]\n'
    async with house(store, tmp_path, more=more) as home:
        home.fake.script = Script(stall=5, length=50)
        calls = [asyncio.create_task(home.chat("fake-1", stream=True)) for _ in range(streams)]
        await home.fake.until(lambda: home.fake.in_flight == streams)
        async with asyncio.timeout(10):
            while len(home.sidecar.routes.gateway.streams) < streams:
                await asyncio.sleep(0.01)
        await home.sidecar.stop(0.2)
        for reply in await asyncio.gather(*calls):
            assert reply.status == 200
            rows = rows_of(reply.body)
            assert rows[-1]["error"]["code"] == "draining"
            assert b"[DONE]" not in reply.body
            assert not any(row.get("choices") and row["choices"][0].get("finish_reason") for row in rows)
        assert home.sidecar.ledger.open == {}
        assert not home.sidecar.ledger.settler.pending
        assert len(home.receipts) == streams
        assert home.sidecar.routes.gateway.streams == set()
        home.sidecar.stop = _stopped


async def _stopped(*_):
    """It is stopped already."""
