"""Where the store is, whether it is fit for budgets, and when not to ask it."""

import pytest

from accounting.store.breaker import FAILURES_MAX, PROBE_S, Breaker
from accounting.store.errors import StoreSettingsError
from accounting.store.server import check_info, read_info
from accounting.store.url import read_url
from tests.ledger.fake_store import fake_store, info
from tests.ledger.houses import store_on


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
