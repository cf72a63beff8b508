"""Answers say that Bursar serves, and no more: neither which library nor which version."""

import asyncio
import re

import pytest

from proxy.fake import FakeProvider, Script
from tests.sidecars import KEY, house
from tests.wire import post, talk

AUTH = f"authorization: Bearer {KEY}\r\n".encode()


def named(got):
    """The server headers of all answers in `got`."""
    return re.findall(rb"(?im)^server: ([^\r]*)", got)


def get(path, more=b""):
    return b"GET " + path + b" HTTP/1.1\r\nhost: bursar.example\r\nconnection: close\r\n" + more + b"\r\n"


@pytest.mark.parametrize(
    "data",
    [
        get(b"/v1/models", AUTH),
        get(b"/v1/models"),
        get(b"/v1/nothing", AUTH),
        get(b"/v1/chat/completions", AUTH),
        get(b"/v1/models", b"content-length: 1\r\ntransfer-encoding: chunked\r\n"),
        b"NONSENSE\r\n\r\n",
        post(b"{"),
        post(b'{"model": "gpt-4o?length=3", "messages": [{"role": "user", "content": "x"}]}'),
        post(b'{"model": "gpt-4o?length=3", "stream": true, "messages": [{"role": "user", "content": "x"}]}'),
        post(b'{"model": "gpt-4o?status=500", "messages": [{"role": "user", "content": "x"}]}'),
    ],
    ids=["ok", "401", "404", "405", "smuggled", "no http", "400", "whole", "stream", "500"],
)
async def test_every_answer_of_the_data_listener_is_bursars(store, tmp_path, data):
    async with house(store, tmp_path, more="retries: {attempts: 1}\n") as h:
        got, _ = await talk(h.port, data.replace(b"\r\nhost", b"\r\nconnection: close\r\nhost", 1), 5)
        assert named(got) == [b"bursar"], got
        assert b"aiohttp" not in got.lower()


@pytest.mark.parametrize("path", [b"/livez", b"/readyz", b"/metrics", b"/nothing", b"/admin/v1/keys"])
async def test_every_answer_of_the_ops_listener_is_bursars(store, tmp_path, path):
    async with house(store, tmp_path) as h:
        got, _ = await talk(int(h.sidecar.ops_url.rpartition(":")[2]), get(path), 5)
        assert named(got) == [b"bursar"]
        assert b"aiohttp/" not in got.lower()


async def test_a_connection_too_many_is_told_so_by_bursar(store, tmp_path):
    async with FakeProvider(script=Script(hang=True)) as fake:
        async with house(store, tmp_path, fake=fake, more="server: {max_connections: 1}\n") as h:
            busy = asyncio.create_task(h.chat())
            await fake.until(lambda: fake.in_flight == 1)
            got, _ = await talk(h.port, get(b"/v1/models"), 5)
            assert named(got) == [b"bursar"]
            busy.cancel()
            await asyncio.wait([busy])
