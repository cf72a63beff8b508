"""A stream's bytes go to the client's socket without aiohttp: framed as the client's HTTP has it, and no more than it takes."""

import asyncio
import json

import pytest

from tests.sidecars import HELLO, MODEL, house
from tests.wire import post


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_a_stream_is_framed_as_the_clients_http_has_it(store, tmp_path, version):
    async with house(store, tmp_path) as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
        body = json.dumps({"model": MODEL + "?length=80&pace=400", "messages": HELLO, "stream": True}).encode()
        writer.write(post(body).replace(b"HTTP/1.1", version, 1))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head
        chunked = b"transfer-encoding: chunked" in head
        assert chunked == (version == b"HTTP/1.1")
        said = await (dechunked(reader) if chunked else reader.read())
        events = said.split(b"\n\n")
        assert events[-2:] == [b"data: [DONE]", b""]
        assert sum(bool(delta(event).get("content")) for event in events[:-2]) == 80
        writer.close()


async def dechunked(reader):
    said = b""
    while size := int(await reader.readline(), 16):
        said += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readline() == b"\r\n"
    return said


def delta(event):
    assert event.startswith(b"data: {"), event
    choices = json.loads(event[6:])["choices"]
    return choices[0]["delta"] if choices else {}
