"""A store that refuses in the middle: wrong types, no memory, no permission, another slot. Never a partial write (B8, A13)."""

import asyncio
from dataclasses import replace

import pytest

from accounting.ask import Ask, Draw, Rate
from accounting.ledger import Ledger
from accounting.store.embedded import find_server
from accounting.store.errors import StoreUnavailableError
from accounting.store.resp import Address, connect
from accounting.supervisor import Supervisor
from tests.ledger.houses import ask, spent, store_on, till, tokens

TYPES = {"g": "hash", "s:{sid}": "hash", "lim": "hash", "sess": "zset", "b": "hash", "x": "zset", "q": "string"}


@pytest.mark.parametrize("which", list(TYPES))
async def test_a_key_of_the_wrong_type_refuses_the_call_and_nothing_is_half_written(server, raw, which):
    """Somebody planted a list where ours should be: with expired holds about, that the script would first clear away."""
    async with till(server.address) as one:
        first, second = tokens(100), tokens(100, "team:t")
        key = one.store.key
        names = {
            "b": key("b", second.id, "total"),
            "x": key("x", second.id, "total"),
            "q": key("q", "key:k", "requests"),
        }
        planted = names.get(which) or key(*which.format(sid=one.ledger.sid).split(":"))
        for budget in (first, second):
            await raw.call("ZADD", key("x", budget.id, "total"), 5, "dead.1|30", deadline_s=5)
            await raw.call("HSET", key("b", budget.id, "total"), "held", 30, deadline_s=5)
        await raw.call("DEL", planted, deadline_s=5)
        await raw.call("RPUSH", planted, "x", deadline_s=5)
        before = {k: await raw.call("DUMP", k, deadline_s=5) for k in sorted(await raw.call("KEYS", "*", deadline_s=5))}
        a = Ask(
            draws=(Draw(first, 1, 1), Draw(second, 1, 1)),
            rates=(Rate(subject="key:k", what="requests", limit=5, fixed=1, per_output=0),),
            wanted=5,
        )
        with pytest.raises(StoreUnavailableError):
            await one.ledger.reserve(a, request_id="r")
        await one.settled()
        after = {k: await raw.call("DUMP", k, deadline_s=5) for k in sorted(await raw.call("KEYS", "*", deadline_s=5))}
        assert one.ledger.settler.low == 1, "and its mark is not waited for for ever"
        session = key("s", one.ledger.sid).encode()
        before.pop(session, None)
        after.pop(session, None)
        assert after == before


@pytest.mark.parametrize("which", ["u", "day"])
async def test_a_settlement_that_cannot_be_written_whole_is_not_written_at_all(server, raw, which):
    async with till(server.address) as one:
        budget = tokens(100)
        hold = await one.ledger.reserve(ask(budget, wanted=10), request_id="r")
        await raw.call(
            "RPUSH", one.store.key("u") if which == "u" else one.store.key("day", "20260101"), "x", deadline_s=5
        )
        one.ledger.settle(hold, spent(5))
        await one.settled()
        assert one.ledger.settler.tally.rejected_total == 1
        assert await one.counters(budget) == {"held": 10}
        assert await one.holds(budget) == 1


async def test_a_full_server_refuses_new_calls_and_takes_settlements(server, raw):
    """Out of memory: nothing new is admitted, nothing is half done, and what was spent is still recorded."""
    async with till(server.address) as one:
        budget = tokens(100)
        hold = await one.ledger.reserve(ask(budget, wanted=10), request_id="r")
        await raw.call("CONFIG", "SET", "maxmemory", "1mb", deadline_s=5)
        try:
            before = {
                k: await raw.call("DUMP", k, deadline_s=5) for k in sorted(await raw.call("KEYS", "*", deadline_s=5))
            }
            with pytest.raises(StoreUnavailableError, match="OOM"):
                await one.ledger.reserve(ask(budget, wanted=10), request_id="r")
            await one.settled()
            after = {
                k: await raw.call("DUMP", k, deadline_s=5) for k in sorted(await raw.call("KEYS", "*", deadline_s=5))
            }
            session = one.store.key("s", one.ledger.sid).encode()
            assert {k: v for k, v in after.items() if k != session} == {k: v for k, v in before.items() if k != session}
            one.ledger.settle(hold, spent(5))
            await one.settled()
            assert await one.counters(budget) == {"used": 5, "held": 0, "n": 1}
        finally:
            await raw.call("CONFIG", "SET", "maxmemory", "256mb", deadline_s=5)


async def test_a_user_who_may_not_is_told_what_to_allow(server, raw):
    await raw.call("ACL", "SETUSER", "poor", "on", ">pw", "~b:*", "+ping", "+client|setname", deadline_s=5)
    try:
        store = store_on(replace(server.address, username="poor", password="pw"))
        with pytest.raises(StoreUnavailableError, match="INFO"):
            await store.start()
        await store.close()
    finally:
        await raw.call("ACL", "DELUSER", "poor", deadline_s=5)


async def test_permissions_taken_away_refuse_calls_and_drop_no_settlement(server, raw):
    await raw.call("ACL", "SETUSER", "ours", "reset", "on", ">pw", "~b:*", "+@all", deadline_s=5)
    try:
        async with till(replace(server.address, username="ours", password="pw")) as one:
            budget = tokens(100)
            hold = await one.ledger.reserve(ask(budget, wanted=10), request_id="r")
            await raw.call("ACL", "SETUSER", "ours", "-evalsha", "-eval", deadline_s=5)
            with pytest.raises(StoreUnavailableError, match="NOPERM"):
                await one.ledger.reserve(ask(budget, wanted=10), request_id="r")
            one.ledger.settle(hold, spent(5))
            await asyncio.sleep(0.1)
            assert one.ledger.settler.pending
            await raw.call("ACL", "SETUSER", "ours", "+evalsha", "+eval", deadline_s=5)
            await one.settled()
            assert (await one.counters(budget))["used"] == 5
    finally:
        await raw.call("ACL", "DELUSER", "ours", deadline_s=5)


@pytest.mark.slow
async def test_no_key_of_a_script_leaves_its_slot_in_a_cluster(tmp_path):
    """A real server in cluster mode, which refuses a script that touches another slot."""
    process = await asyncio.create_subprocess_exec(
        find_server(), "--port", "0", "--unixsocket", str(tmp_path / "c.sock"), "--cluster-enabled", "yes", "--dir", str(tmp_path),
        "--cluster-port", "0", "--save", "", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        address = Address(path=str(tmp_path / "c.sock"))
        async with asyncio.timeout(10):
            while True:
                try:
                    raw = await connect(address, timeout_s=1)
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.02)
            await raw.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383, deadline_s=5)
            while b"cluster_state:ok" not in await raw.call("CLUSTER", "INFO", deadline_s=5):
                await asyncio.sleep(0.02)
        supervisor = Supervisor()
        store = store_on(address)
        ledger = Ledger(store, supervisor=supervisor)
        await ledger.start()
        for i in range(20):
            hold = await ledger.reserve(ask(tokens(10**6), tokens(10**6, f"team:{{{i}}}"), wanted=5), request_id="r")
            await ledger.extend()
            ledger.settle(hold, spent(3))
        async with asyncio.timeout(10):
            while ledger.settler.pending:
                await asyncio.sleep(0.01)
        assert ledger.settler.tally.settled_total == 20
        await store.close()
        raw.close()
    finally:
        process.terminate()
        await process.wait()
