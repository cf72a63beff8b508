"""The store's process is another one and does not know it itself: what it keeps names the one before it, whose last writes it may lack."""

import asyncio
import contextlib
import time

import pytest

from accounting.hold import LearningError
from accounting.store.errors import StoreReplyError, StoreUnavailableError
from accounting.store.scripts import script
from accounting.store.url import StoreUrl
from tests.ledger.fake_store import fake_store
from tests.ledger.houses import ask, spent, store_on, till, tokens
from tests.ledger.load import Sidecar
from tests.ledger.servers import Valkey, running, until

BUDGET = tokens(1000)
pytestmark = pytest.mark.slow


@pytest.fixture
def valkey(tmp_path):
    with running(Valkey(tmp_path / "valkey")) as (server,):
        yield server


async def again(server: Valkey, *, without_bytes: int = 0) -> None:
    """Kill it, and let it come back without the end of its file; return when it has read that."""
    server.kill()
    server.lose_tail(without_bytes)
    server.start()

    async def answers() -> bool:
        with contextlib.suppress(StoreReplyError):
            return bool(await server.command("PING"))
        return False

    await until(answers)


def file_bytes(server: Valkey) -> int:
    return max(server.folder.glob("appendonlydir/*.incr.aof"), key=lambda p: p.stat().st_mtime).stat().st_size


async def test_the_first_call_after_a_restart_is_not_admitted_before_the_store_has_learnt(valkey):
    async with till(valkey.address) as one, till(valkey.address) as other:
        before = file_bytes(valkey)
        await other.ledger.reserve(ask(BUDGET, fixed=900), request_id="1")
        await again(valkey, without_bytes=file_bytes(valkey) - before)
        with pytest.raises(LearningError):
            await one.ledger.reserve(ask(BUDGET, fixed=900), request_id="2")


async def test_the_first_heartbeat_after_a_restart_gives_back_what_is_held(valkey):
    async with till(valkey.address) as one:
        before = file_bytes(valkey)
        hold = await one.ledger.reserve(ask(BUDGET, fixed=900), request_id="1")
        await again(valkey, without_bytes=file_bytes(valkey) - before)
        await one.ledger.extend()
        assert not hold.lost
        assert await one.holds(BUDGET) == 1


async def test_a_store_that_restarts_twice_in_a_second_is_told_twice(valkey):
    async with till(valkey.address) as one:
        await one.ledger.reserve(ask(BUDGET, fixed=900), request_id="1")
        for _ in range(2):
            await again(valkey)
            await one.ledger.start()
            async with asyncio.timeout(5):
                while one.ledger.settler.trusted_run_id != one.store.run_id:
                    await asyncio.sleep(0.005)


async def test_a_store_that_loses_all_while_it_learns_is_told_again_and_not_what_it_may_forget(valkey):
    """Its process is the same, so nothing but its own word says that what it was told does not count any more."""
    trusted: list[str] = []
    async with till(valkey.address) as one, till(valkey.address) as silent:

        async def noted() -> None:
            trusted.append(one.ledger.settler.trusted_run_id)

        one.ledger.recover = noted
        await silent.ledger.extend()
        await one.store.call("HSET", one.store.key("g"), "gen", "another", deadline_s=5)
        await one.ledger.extend()
        async with asyncio.timeout(5):
            while one.ledger.settler.trusted_run_id != one.store.run_id:
                await asyncio.sleep(0.005)
        assert one.ledger.learning, "the other has not told what it holds"
        await one.store.call("FLUSHALL", deadline_s=5)
        async with asyncio.timeout(5):
            while len(trusted) < 2:
                await asyncio.sleep(0.005)
        assert trusted == ["", ""]


async def test_what_a_dead_session_was_told_is_settled_is_told_again_to_a_store_that_lost_it_since(valkey, tmp_path):
    url = StoreUrl(kind="single", addresses=(valkey.address,))
    one = Sidecar(url, tmp_path)
    await one.start()
    hold = await one.ledger.reserve(ask(BUDGET, fixed=900), request_id="1")
    before = file_bytes(valkey)
    one.ledger.settle(hold, spent(400))
    await one.settled()
    await one.close()
    await again(valkey, without_bytes=file_bytes(valkey) - before)
    other = Sidecar(url, tmp_path)
    await other.start()
    try:
        await other.recovery.once()
        found = await other.store.call("HGET", other.store.key("b", BUDGET.id, "total"), "used", deadline_s=5)
        assert found == b"400"
    finally:
        await other.close()


async def test_a_script_that_is_unknown_when_no_time_is_left_is_no_rejection():
    def answer(words: list[bytes]) -> bytes | None:
        if words[0] != b"EVALSHA":
            return None
        time.sleep(0.15)  # so that the answer comes with the deadline: the loop that would tell is the same
        return b"-NOSCRIPT No matching script.\r\n"

    async with fake_store(answer) as fake:
        store = store_on(fake.address)
        await store.start()
        with pytest.raises(StoreUnavailableError):
            await store.run(script("settle"), [], [], deadline_s=0.1)
        await store.close()
