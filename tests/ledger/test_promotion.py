"""A replica that takes over from a primary without the last that was acknowledged (B6); and Sentinel, who says which one it is."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from accounting.store.sentinel import locate_primary
from accounting.store.url import StoreUrl, read_url
from tests.fault_proxy import Faults, fault_proxy
from tests.ledger.houses import ask, spent, tokens
from tests.ledger.load import LARGE, WORST, Load, hurry, met, seed, sidecars
from tests.ledger.servers import Sentinel, Valkey, running, until

__all__ = ["seed"]
BUDGETS = (LARGE, tokens(150 * WORST, "user:b"))


@asynccontextmanager
async def pair(tmp_path):
    """A primary, and a replica that hears of it through a proxy."""
    with running(Valkey(tmp_path / "one"), Valkey(tmp_path / "two")) as (primary, replica):
        async with fault_proxy(primary.address, resp=False) as link:
            await replica.command("REPLICAOF", "127.0.0.1", link.port)
            await until(lambda: in_step(replica))
            yield primary, replica, link


async def in_step(replica: Valkey) -> bool:
    return await replica.info("master_link_status") == "up"


class Place:
    """Where the store is, as somebody outside would tell."""

    def __init__(self, server: Valkey) -> None:
        self.server = server

    async def __call__(self):
        return (self.server.address,)


async def promoted_under_load(tmp_path, seed: int, times: int):
    """Cut the replica off, go on for some calls, kill the primary, promote the replica."""
    budgets = BUDGETS
    for number in range(times):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with pair(folder) as (primary, replica, link):
            place = Place(primary)
            async with sidecars(StoreUrl(kind="single", addresses=(primary.address,)), folder, locate=place) as ours:
                load = Load(ours, budgets, seed=seed + number)
                async with load.running() as truth:
                    await load.admits(60)
                    link.faults = Faults(black_hole=True)
                    await load.admits(120)
                    lost = int(await primary.info("master_repl_offset")) - int(await replica.info("slave_repl_offset"))
                    primary.kill()
                    await replica.command("REPLICAOF", "NO", "ONE")
                    place.server = replica
                    await load.admits(60)
                await load.agrees()
                print(f"the slowest answer took {truth.slowest_s:.2f} s")
                assert lost > 0, "the test bites"
                print(f"{lost} bytes never reached the replica; outages of {truth.outages_s()} s")


@pytest.mark.slow
async def test_what_never_reached_the_replica_is_told_again_after_its_promotion(tmp_path, monkeypatch, seed):
    hurry(monkeypatch)
    await promoted_under_load(tmp_path, seed, 1)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_twenty_promotions_under_load(tmp_path, seed):
    await promoted_under_load(tmp_path, seed, 20)


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False], ids=["told again", "control"])
async def test_only_being_told_again_keeps_a_promoted_replica_exact(tmp_path, monkeypatch, told):
    hurry(monkeypatch)
    async with pair(tmp_path) as (primary, replica, link):
        place = Place(primary)
        async with sidecars(StoreUrl(kind="single", addresses=(primary.address,)), tmp_path, 1, locate=place) as (one,):
            link.faults = Faults(black_hole=True)
            holds = [await one.ledger.reserve(ask(LARGE, wanted=WORST), request_id=str(n)) for n in range(10)]
            for hold in holds[:8]:
                one.ledger.settle(hold, spent(50))
            await one.settled()
            primary.kill()
            await replica.command("REPLICAOF", "NO", "ONE")
            place.server = replica
            if not told:
                one.ledger.recover = None
                one.ledger.open.clear()
            await met(one)
            await one.settled()
            row = await one.store.call("HMGET", one.store.key("b", LARGE.id, "total"), "used", "held", deadline_s=5)
            assert row == ([b"400", b"200"] if told else [None, None])


@pytest.mark.slow
async def test_sentinel_says_who_the_primary_is_and_a_failover_is_followed(tmp_path, monkeypatch, seed):
    hurry(monkeypatch)
    with running(
        one := Valkey(tmp_path / "one"), two := Valkey(tmp_path / "two"), sentinel := Sentinel(tmp_path / "watch", one)
    ):
        await two.command("REPLICAOF", "127.0.0.1", one.port)
        await until(lambda: in_step(two))

        async def knows_the_replica() -> bool:
            return bool(await sentinel.command("SENTINEL", "REPLICAS", "main"))

        await until(knows_the_replica)
        url = read_url(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main")

        async def locate():
            return await locate_primary(url)

        assert [a.port for a in await locate()] == [one.port], "also if the first Sentinel is gone"
        async with sidecars(url, tmp_path, locate=locate) as ours:
            load = Load(ours, BUDGETS, seed=seed)
            async with load.running() as truth:
                await load.admits(60)
                one.kill()
                await load.admits(60)
                assert [a.port for a in await locate()] == [two.port]
                one.start()  # it believes itself the primary, until it is told
                await load.admits(60)
            await load.agrees()
            print(f"the slowest answer took {truth.slowest_s:.2f} s")
            print(f"{load.calls} calls, {len(truth.refused_s)} refused, longest outage {truth.outage_s():.1f} s")


async def test_a_primary_that_no_sentinel_knows_is_told_as_such(tmp_path):
    from accounting.store.errors import StoreUnavailableError

    with running(one := Valkey(tmp_path / "one"), watch := Sentinel(tmp_path / "watch", one)):
        with pytest.raises(StoreUnavailableError, match="'other'"):
            await asyncio.wait_for(locate_primary(read_url(f"redis+sentinel://127.0.0.1:{watch.port}/other")), 5)
