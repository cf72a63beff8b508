"""The store: scripts, deadlines, redirections, refusals, and what makes a server unfit."""

import asyncio

import pytest

from accounting.ledger import Ledger
from accounting.store.breaker import FAILURES_MAX, PROBE_S, Breaker
from accounting.store.errors import StoreReplyError, StoreSettingsError, StoreUnavailableError
from accounting.store.resp import Address
from accounting.store.scripts import script
from accounting.store.server import check_info, read_info
from accounting.store.store import Store
from accounting.store.url import StoreUrl, read_url
from accounting.supervisor import Supervisor
from tests.ledger.fake_store import fake_store, info
from tests.ledger.houses import ask, spent, till, tokens

READ = ([":g", ":lim"], [])


def store_on(*addresses: Address, **more) -> Store:
    return Store(
        StoreUrl(kind="single", addresses=addresses),
        prefix="b",
        tenant="t",
        deadline_s=more.pop("deadline_s", 2.0),
        **more,
    )


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


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through():
    breaker = Breaker()
    for i in range(FAILURES_MAX):
        assert breaker.allows(i * 0.1)
        breaker.failure(i * 0.1)
    assert breaker.open
    assert not breaker.allows(0.3)
    probe = 0.1 * (FAILURES_MAX - 1) + PROBE_S
    assert breaker.allows(probe)
    assert not breaker.allows(probe + PROBE_S / 2), "one at a time"
    breaker.failure(probe + 0.1)
    assert breaker.open
    assert breaker.allows(probe + PROBE_S)
    breaker.success()
    assert not breaker.open
    assert breaker.allows(probe + PROBE_S)


def test_failures_that_lie_apart_or_between_answers_open_nothing():
    breaker = Breaker()
    for i in range(10):
        breaker.failure(i * 1.1)
    assert not breaker.open
    for i in range(10):
        breaker.failure(20 + i * 0.01)
        breaker.success()
    assert not breaker.open


@pytest.mark.parametrize(
    ("url", "kind", "places", "more"),
    [
        ("embedded", "embedded", [], {}),
        ("redis://h", "single", ["h:6379"], {}),
        ("redis://h:7000/3", "single", ["h:7000"], {"database": 3}),
        ("redis://:p%40ss@h", "single", ["h:6379"], {"password": "p@ss", "username": None}),
        ("redis://us%3Aer:pa@ss@h:1", "single", ["h:1"], {"username": "us:er", "password": "pa@ss"}),
        ("redis://[::1]:7000", "single", ["::1:7000"], {}),
        ("redis://[2001:db8::1]", "single", ["2001:db8::1:6379"], {}),
        ("rediss://h:6380", "single", ["h:6380"], {}),
        ("unix:///run/r.sock", "single", ["/run/r.sock"], {}),
        ("unix:///run/r.sock?db=2", "single", ["/run/r.sock"], {"database": 2}),
        ("redis+cluster://a:1,b:2,c", "cluster", ["a:1", "b:2", "c:6379"], {}),
        ("redis+sentinel://a,b:2/mymaster/4", "sentinel", ["a:26379", "b:2"], {"database": 4}),
        ("redis://", "single", ["127.0.0.1:6379"], {}),
    ],
)  # fmt: skip
def test_a_store_url_is_read(url, kind, places, more):
    found = read_url(url)
    assert found.kind == kind
    assert [a.path or f"{a.host}:{a.port}" for a in found.addresses] == places
    for name, value in more.items():
        assert getattr(found.addresses[0], name) == value
    assert all((a.tls is not None) == url.startswith("rediss") for a in found.addresses)
    if kind == "sentinel":
        assert found.service == "mymaster"
    if "@" in url:
        assert str(found.addresses[0].password) not in repr(found)


@pytest.mark.parametrize(
    "url", ["http://h", "redis+other://h", "redis://h/x", "redis://h:port", "", "h:6379", "redis://:secret@h:nan/1"]
)
def test_a_store_url_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(ValueError) as refused:
        read_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "hard", "verdict"),
    [
        ({}, True, []),
        ({"policy": b"allkeys-lru"}, True, "maxmemory-policy"),
        ({"policy": b"volatile-ttl"}, True, "maxmemory-policy"),
        ({"policy": b"allkeys-lru"}, False, []),
        ({"role": b"slave"}, False, "replica"),
        ({"aof": b"0"}, True, ["append-only"]),
    ],
)
async def test_settings_that_would_break_a_hard_budget_refuse_it(fields, hard, verdict):
    async with fake_store(greeting=info(**fields)) as server:
        store = store_on(server.address)
        store.hard = hard
        if isinstance(verdict, str):
            with pytest.raises(StoreSettingsError, match=verdict):
                await store.start()
        else:
            warnings = await store.start()
            assert [w for w in verdict if w in warnings[0]] == verdict
        await store.close()


@pytest.mark.parametrize(("number", "fits"), [("6.0.16", False), ("6.2.0", True), ("7.4", True), ("5.0", False)])
def test_a_server_that_is_too_old_is_refused_by_name(number, fits):
    found = read_info(f"redis_version:{number}\r\nrun_id:x\r\n")
    if fits:
        check_info(found, hard=True)
    else:
        with pytest.raises(StoreSettingsError, match="6.2"):
            check_info(found, hard=True)


def test_a_managed_service_that_tells_little_is_believed():
    assert check_info(read_info("redis_version:7.2.4\r\nrun_id:x"), hard=True) == []
    assert read_info("valkey_version:9.1.0\r\nredis_version:7.2.4\r\n").version == (9, 1, 0)


TYPES = {"g": "hash", "s:{sid}": "hash", "lim": "hash", "sess": "zset", "b": "hash", "x": "zset", "q": "string"}


@pytest.mark.parametrize("which", list(TYPES))
async def test_a_key_of_the_wrong_type_refuses_the_call_and_nothing_is_half_written(server, raw, which):
    """Somebody planted a list where ours should be: with expired holds about, that the script would first clear away."""
    from accounting.ask import Ask, Draw, Rate

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
        from dataclasses import replace

        store = store_on(replace(server.address, username="poor", password="pw"))
        with pytest.raises(StoreUnavailableError, match="INFO"):
            await store.start()
        await store.close()
    finally:
        await raw.call("ACL", "DELUSER", "poor", deadline_s=5)


async def test_permissions_taken_away_refuse_calls_and_drop_no_settlement(server, raw):
    from dataclasses import replace

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


async def test_no_key_of_a_script_leaves_its_slot_in_a_cluster(tmp_path):
    """A real server in cluster mode, which refuses a script that touches another slot."""
    from accounting.store.embedded import find_server
    from accounting.store.resp import connect

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
