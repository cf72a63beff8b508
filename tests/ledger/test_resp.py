"""The pipelined connection: every reply to its own command, late ones to nobody, rubbish to the wastebasket."""

import asyncio
import random
import time

import pytest

from accounting.store import resp
from accounting.store.errors import StoreReplyError, StoreUnavailableError
from accounting.store.packing import pack
from accounting.store.resp import connect
from tests.fault_proxy import Faults, fault_proxy
from tests.ledger.fake_store import bulk, fake_store


async def test_replies_of_many_pipelined_calls_go_to_their_own(raw):
    rng = random.Random(1)
    sizes = [rng.choice((0, 1, 10, 1_000, 100_000)) for _ in range(400)]
    replies = await asyncio.gather(*(raw.call("ECHO", f"{i}:" + "x" * n, deadline_s=20) for i, n in enumerate(sizes)))
    assert replies == [f"{i}:".encode() + b"x" * n for i, n in enumerate(sizes)]


async def test_commands_of_one_turn_leave_in_one_write():
    async with fake_store() as server:
        one = await connect(server.address, timeout_s=2)
        writes = []
        write = one._transport.write
        one._transport.write = lambda data: (writes.append(data), write(data))
        await asyncio.gather(*(one.call("PING", deadline_s=2) for _ in range(50)))
        assert len(writes) == 1
        one.close()


async def test_a_late_reply_reaches_nobody_else(server, raw):
    """The place in the queue is kept: or the next caller would be told of somebody else's budget."""
    async with fault_proxy(server.address) as proxy:
        one = await connect(proxy.address, timeout_s=2)
        proxy.faults = Faults(black_hole=True)
        for i in range(20):
            with pytest.raises(StoreUnavailableError, match="in time"):
                await one.call("ECHO", f"late {i}", deadline_s=0.01)
        after = asyncio.gather(*(one.call("ECHO", f"mine {i}", deadline_s=10) for i in range(5)))
        await asyncio.sleep(0)
        await proxy.heal()
        assert await after == [f"mine {i}".encode() for i in range(5)]
        one.close()


async def test_a_cancelled_caller_leaves_his_place_too(raw):
    task = asyncio.create_task(raw.call("ECHO", "cancelled", deadline_s=5))
    await asyncio.sleep(0)
    task.cancel()
    assert await raw.call("ECHO", "next", deadline_s=5) == b"next"


SLOW = "for i = 1, 10000000 do end return 'at last'"  # some 50 ms


async def test_a_reply_that_lies_in_the_socket_at_the_deadline_is_read(raw):
    """Our own loop was busy when the deadline came: the store was not late, we were."""
    asyncio.get_running_loop().call_later(0.02, busy)
    assert await raw.call("EVAL", SLOW, 0, deadline_s=0.02) == b"at last"


async def test_a_command_that_left_late_is_waited_for(raw):
    """Our own loop was busy before the command could leave (ranks were loading): the store has had no time at all."""
    asyncio.get_running_loop().call_soon(busy)
    assert await raw.call("EVAL", SLOW, 0, deadline_s=0.02) == b"at last"


@pytest.mark.slow
async def test_however_late_we_are_a_store_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(resp, "_EXCUSED_MAX_S", 0.2)
    loop = asyncio.get_running_loop()
    always = asyncio.create_task(always_busy())
    async with fake_store(lambda words: b"" if words[0] == b"PING" else None) as server:
        one = await connect(server.address, timeout_s=20)
        began_s = loop.time()
        with pytest.raises(StoreUnavailableError, match="in time"):
            await asyncio.wait_for(one.call("PING", deadline_s=0.02), 20)
        assert one._excused_until_s > began_s  # it was excused, for a while
        one.close()
    always.cancel()


def busy(seconds=0.4):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def always_busy():
    while True:
        busy(0.05)
        await asyncio.sleep(0)


RUBBISH = [
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
    pytest.param(b"\x15\x03\x01\x00\x02\x02\x50", id="TLS"),
    pytest.param(b"+OK\r\n+OK\r\n+OK\r\n", id="more replies than commands"),
    pytest.param(b"$-5\r\n", id="a negative length"),
    pytest.param(b"*99999999999999999999\r\n", id="an endless array"),
    pytest.param(bytes(random.Random(5).randbytes(500)), id="noise"),
]


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_what_is_not_the_protocol_breaks_the_connection_and_tells_everyone(rubbish):
    async with fake_store(lambda words: rubbish if words[0] == b"PING" else None) as server:
        one = await connect(server.address, timeout_s=2)
        results = await asyncio.gather(*(one.call("PING", deadline_s=2) for _ in range(2)), return_exceptions=True)
        assert sum(isinstance(r, StoreUnavailableError) for r in results) >= 1 or one.closed
        async with asyncio.timeout(2):
            while not one.closed:
                await asyncio.sleep(0.005)
        with pytest.raises(StoreUnavailableError):
            await one.call("PING", deadline_s=2)


async def test_a_reply_without_end_is_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr(resp, "REPLY_BYTES_MAX", 100_000)
    async with fake_store(lambda words: b"$9999999\r\n" + b"x" * 300_000 if words[0] == b"PING" else None) as server:
        one = await connect(server.address, timeout_s=2)
        with pytest.raises(StoreUnavailableError, match="large"):
            await one.call("PING", deadline_s=5)
        assert one.closed


async def test_many_large_replies_in_a_row_are_fine(monkeypatch, raw):
    monkeypatch.setattr(resp, "REPLY_BYTES_MAX", 100_000)
    for _ in range(5):
        assert len(await raw.call("ECHO", "x" * 90_000, deadline_s=5)) == 90_000


async def test_all_who_wait_are_told_when_the_connection_is_lost():
    async with fake_store(lambda words: b"" if words[0] == b"PING" else None) as server:
        one = await connect(server.address, timeout_s=2)
        waiting = [asyncio.create_task(one.call("PING", deadline_s=5)) for _ in range(10)]
        await asyncio.sleep(0.02)
        assert one.silent_s() > 0
        server.cut()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(r, StoreUnavailableError) and "lost" in str(r) for r in results)


async def test_an_answer_is_awaited_in_pieces_of_one_byte(server, raw):
    async with fault_proxy(server.address) as proxy:
        proxy.faults = Faults(one_byte=True)
        one = await connect(proxy.address, timeout_s=5)
        assert await asyncio.gather(*(one.call("ECHO", str(i), deadline_s=5) for i in range(50))) == [
            str(i).encode() for i in range(50)
        ]
        one.close()


async def test_an_error_reply_is_raised_and_the_connection_goes_on(raw):
    with pytest.raises(StoreReplyError, match="unknown command"):
        await raw.call("NONSENSE", deadline_s=5)
    assert await raw.call("PING", deadline_s=5) == b"PONG"


async def test_too_many_waiting_commands_are_refused_and_not_queued(monkeypatch):
    monkeypatch.setattr(resp, "PENDING_MAX", 10)
    async with fake_store(lambda words: b"" if words[0] == b"PING" else None) as server:
        one = await connect(server.address, timeout_s=2)
        for _ in range(10):
            one.send(pack(("PING",)))
        with pytest.raises(StoreUnavailableError, match="too many"):
            one.send(pack(("PING",)))
        one.close()


async def test_a_password_is_sent_and_never_told(monkeypatch):
    from dataclasses import replace

    async with fake_store(
        lambda words: b"-WRONGPASS invalid username-password pair\r\n" if words[0] == b"AUTH" else None
    ) as server:
        with pytest.raises(StoreReplyError) as refused:
            await connect(replace(server.address, username="u", password="hunter2", database=3), timeout_s=2)
        assert server.commands[0] == [b"AUTH", b"u", b"hunter2"]
        assert "hunter2" not in str(refused.value)
    async with fake_store(lambda _: bulk(b"x")) as server:
        one = await connect(replace(server.address, password="p", database=3), timeout_s=2)
        assert [w[0] for w in server.commands] == [b"AUTH", b"SELECT", b"CLIENT"]
        one.close()


async def test_nobody_there_is_told_in_time(unused_tcp_port):
    with pytest.raises(StoreUnavailableError, match="cannot reach"):
        await connect(resp.Address(port=unused_tcp_port), timeout_s=2)
