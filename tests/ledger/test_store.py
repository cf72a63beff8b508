"""The store: scripts, deadlines, redirections, refusals, and what makes a server unfit."""

import asyncio
import time

import pytest

from accounting.store.errors import StoreReplyError, StoreUnavailableError
from accounting.store.scripts import script
from accounting.store.store import Store
from tests.ledger.fake_store import fake_store, info
from tests.ledger.houses import store_on

READ = ([":g", ":lim"], [])


def scripted(reply: bytes):
    return lambda words: reply if words[0] in (b"EVALSHA", b"EVAL") else None


async def read(store: Store, **more):
    return await store.run(script("read"), *READ, **more)


async def test_a_script_that_the_server_does_not_know_is_sent_whole_once(server, raw):
    await raw.call("SCRIPT", "FLUSH", deadline_s=5)
    store = store_on(server.address)
    for _ in range(3):
        assert len(await read(store)) == 1
    calls = await raw.call("INFO", "commandstats", deadline_s=5)
    assert b"cmdstat_eval:" in calls
    await store.close()


async def test_a_server_that_says_too_late_that_it_does_not_know_a_script_rejects_nothing(server, raw):
    """A settlement that is rejected is given up: what only came too late must be tried again."""
    await raw.call("SCRIPT", "FLUSH", deadline_s=5)
    store = store_on(server.address)
    await store.start()
    asked = asyncio.ensure_future(read(store, deadline_s=0.05))
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(0.3)  # our own loop is busy: the answer lies there, and the deadline is over
    with pytest.raises(StoreUnavailableError):
        await asked
    assert b"cmdstat_evalsha:" in await raw.call("INFO", "commandstats", deadline_s=5)
    assert store.up
    await store.close()


async def test_a_script_is_looked_for_and_sent_within_one_deadline():
    """NOSCRIPT late, then no answer: the deadline is one for both."""
    async with fake_store(
        lambda words: (
            b"-NOSCRIPT No matching script.\r\n" if words[0] == b"EVALSHA" else b"" if words[0] == b"EVAL" else None
        )
    ) as server:
        store = store_on(server.address, deadline_s=0.2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(StoreUnavailableError):
            await read(store)
        assert loop.time() - began < 1.0
        assert server.names().count("EVAL") == 1
        await store.close()


async def test_a_broken_connection_is_made_anew_and_the_command_sent_once_more():
    cut = iter([True, False])
    async with fake_store() as server:
        store = store_on(server.address)
        await store.call("PING")

        def answer(words):
            if words[0] == b"EVALSHA" and next(cut):
                server.cut()
                return b""
            return b"*1\r\n:1\r\n" if words[0] == b"EVALSHA" else None

        server.answer = answer
        assert await read(store) == [1]
        assert server.names().count("EVALSHA") == 2
        await store.close()


async def test_a_connection_that_breaks_again_and_again_is_not_tried_for_ever():
    async with fake_store() as server:
        store = store_on(server.address)
        server.answer = lambda words: (server.cut(), b"")[1] if words[0] == b"EVALSHA" else None
        with pytest.raises(StoreUnavailableError):
            await read(store)
        assert server.names().count("EVALSHA") == 2
        await store.close()


async def test_nothing_is_sent_again_after_its_deadline():
    async with fake_store(scripted(b"")) as server:
        store = store_on(server.address, deadline_s=0.05)
        with pytest.raises(StoreUnavailableError):
            await read(store)
        assert server.names().count("EVALSHA") == 1
        await store.close()


async def test_what_is_meant_for_one_server_process_is_sent_to_no_other():
    async with fake_store(scripted(b"*0\r\n"), info(run_id=b"new")) as server:
        store = store_on(server.address)
        with pytest.raises(StoreUnavailableError, match="another process"):
            await read(store, only_run_id="old")
        assert "EVALSHA" not in server.names()
        assert await read(store, only_run_id="new") == []
        await store.close()


NOT_NOW = [
    b"-LOADING Redis is loading the dataset in memory", b"-BUSY Redis is busy running a script", b"-OOM command not allowed when used memory > 'maxmemory'.",
    b"-READONLY You can't write against a read only replica.", b"-MASTERDOWN Link with MASTER is down", b"-CLUSTERDOWN The cluster is down",
    b"-TRYAGAIN Multiple keys request during rehashing of slot", b"-NOREPLICAS Not enough good replicas to write.", b"-MISCONF Errors writing to the AOF file",
    b"-NOPERM this user has no permissions to run the 'evalsha' command", b"-NOAUTH Authentication required.",
    b"-ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'. ",
    b"-ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -READONLY You can't write against a read only replica. ",
]  # fmt: skip


@pytest.mark.parametrize("error", NOT_NOW, ids=lambda e: e.decode().rpartition("-")[2].split()[0])
async def test_an_error_that_means_not_now_is_told_as_unavailable(error):
    async with fake_store(scripted(error + b"\r\n")) as server:
        store = store_on(server.address)
        with pytest.raises(StoreUnavailableError):
            await read(store)
        await store.close()


@pytest.mark.parametrize(
    "error",
    [
        b"-WRONGTYPE Operation against a key",
        b"-ERR user_script:1: BURSAR argument 4 is not an amount",
        b"-ERR value is not an integer",
    ],
)
async def test_an_error_of_our_own_is_told_as_such(error):
    async with fake_store(scripted(error + b"\r\n")) as server:
        store = store_on(server.address)
        with pytest.raises(StoreReplyError):
            await read(store)
        assert store.up, "the store answers, if only to object"
        await store.close()


async def test_a_slot_that_moved_is_followed_and_remembered():
    async with fake_store(scripted(b"*1\r\n:2\r\n")) as new:
        async with fake_store(scripted(b"-MOVED 42 127.0.0.1:%d\r\n" % new.port)) as old:
            store = store_on(old.address)
            assert await read(store) == [2]
            assert await read(store) == [2]
            assert old.names().count("EVALSHA") == 1
            await new.stop()
            with pytest.raises(StoreUnavailableError):
                await read(store, deadline_s=0.3)
            old.answer = scripted(b"*1\r\n:1\r\n")
            assert await read(store) == [1], "and where that is gone, the first address is asked again"
            await store.close()


async def test_a_slot_that_moves_without_end_is_given_up():
    async with fake_store() as one:
        one.answer = scripted(b"-MOVED 42 :%d\r\n" % one.port)
        store = store_on(one.address)
        with pytest.raises(StoreUnavailableError, match="MOVED"):
            await read(store)
        assert one.names().count("EVALSHA") <= 6
        await store.close()


async def test_a_slot_on_its_way_is_asked_for_at_its_target_for_once():
    """Without ASKING the target would send us back, and the first node stays the one to ask."""
    asked = []

    def target(words):
        asked.append(words[0])
        if words[0] == b"EVALSHA":
            return b"-NOSCRIPT No matching script.\r\n" if asked[-2] == b"ASKING" else b"-MOVED 42 127.0.0.1:1\r\n"
        if words[0] == b"EVAL":
            return b"*1\r\n:7\r\n" if asked[-2] == b"ASKING" else b"-MOVED 42 127.0.0.1:1\r\n"
        return None

    async with fake_store(target) as new, fake_store(scripted(b"-ASK 42 127.0.0.1:%d\r\n" % new.port)) as old:
        store = store_on(old.address)
        assert await read(store) == [7]
        old.answer = scripted(b"*1\r\n:1\r\n")
        assert await read(store) == [1]
        await store.close()


async def test_a_replica_is_left_and_the_primary_looked_for_again():
    async with (
        fake_store(scripted(b"-READONLY You can't write against a read only replica.\r\n")) as demoted,
        fake_store(scripted(b"*1\r\n:3\r\n")) as promoted,
    ):
        at = [demoted.address]

        async def locate():
            return at

        store = store_on(demoted.address, locate=locate)
        with pytest.raises(StoreUnavailableError):
            await read(store)
        at[0] = promoted.address
        assert await read(store) == [3]
        await store.close()


@pytest.mark.slow
async def test_a_silent_server_is_left_for_a_new_connection():
    async with fake_store(scripted(b"")) as server:
        store = store_on(server.address, deadline_s=0.05)
        await store.start()
        loop, until = asyncio.get_running_loop(), asyncio.get_running_loop().time() + 8
        while server.connections < 2 and loop.time() < until:
            with pytest.raises(StoreUnavailableError):
                await read(store)
            await asyncio.sleep(0.05)
        assert server.connections >= 2
        server.answer = scripted(b"*1\r\n:1\r\n")
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await read(store) == [1]
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)
        assert store.up
        await store.close()


async def test_many_callers_share_the_one_attempt_to_connect():
    async with fake_store(scripted(b"*1\r\n:1\r\n")) as server:
        store = store_on(server.address)
        assert await asyncio.gather(*(read(store) for _ in range(50))) == [[1]] * 50
        assert server.connections == 1
        await store.close()
