"""A real Cluster: slots that move while they are used, primaries that are killed under load (B5, A13)."""

import asyncio
import random
import statistics

import pytest

from accounting.store.store import Store
from accounting.store.url import StoreUrl
from tests.ledger.houses import tokens
from tests.ledger.load import LARGE, WORST, Load, hurry, seed, sidecars
from tests.ledger.servers import Cluster, until

__all__ = ["seed"]
BUDGETS = (LARGE, tokens(150 * WORST, "user:b"))
GENERAL = "b:{t}:g"  # any key of the tenant


def url_of(cluster: Cluster) -> StoreUrl:
    return StoreUrl(kind="cluster", addresses=tuple(node.address for node in cluster.nodes))


@pytest.fixture
async def cluster(tmp_path):
    """Three primaries, a replica each: fewer could not vote."""
    made = Cluster(tmp_path, 3, replicas=True)
    try:
        await made.start()
        yield made
    finally:
        made.kill()


async def errors_of(cluster: Cluster) -> dict[str, int]:
    """How often each error was answered, over all nodes."""
    found: dict[str, int] = {}
    for node in cluster.nodes:
        text = (await node.command("INFO", "errorstats")).decode()
        for line in text.splitlines():
            if line.startswith("errorstat_"):
                name, _, count = line.removeprefix("errorstat_").partition(":count=")
                found[name] = found.get(name, 0) + int(count.split(",")[0])
    return found


async def moved_under_load(tmp_path, seed: int, *, moves: int, calls: int):
    """Move the tenant's slot to and fro while it is in use; return the errors that the nodes gave."""
    cluster = Cluster(tmp_path, 2, replicas=False)
    try:
        await cluster.start()
        async with sidecars(url_of(cluster), tmp_path) as ours:
            load = Load(ours, BUDGETS, seed=seed)
            slot = await cluster.slot(GENERAL)
            async with load.running() as truth:
                for _ in range(moves):
                    await load.admits(40)
                    source = await cluster.owner(GENERAL)
                    await cluster.move(slot, source, next(n for n in cluster.nodes if n is not source))
                await load.admits(40)
                while len(truth.admitted_s) < calls:
                    await load.admits()
            await load.agrees()
            print(f"the slowest answer took {truth.slowest_s:.2f} s")
            duplicates = sum(s.ledger.settler.tally.duplicate_total for s in ours)
            records = await ours[0].store.call("XLEN", ours[0].store.key("u"), deadline_s=5)
            assert records == truth.records, "each call has one record"
            errors = await errors_of(cluster)
            print(
                f"{load.calls} calls, {len(truth.refused_s)} refused, {duplicates} settled twice, counted once; {errors}"
            )
            return errors
    finally:
        cluster.kill()


@pytest.mark.slow
async def test_a_slot_that_moves_while_it_is_used_loses_and_doubles_nothing(tmp_path, monkeypatch, seed):
    hurry(monkeypatch)
    errors = await moved_under_load(tmp_path, seed, moves=4, calls=0)
    assert {"MOVED", "ASK"} <= set(errors), "the test bites"
    assert "CROSSSLOT" not in errors


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_ten_thousand_calls_over_moving_slots(tmp_path, seed):
    errors = await moved_under_load(tmp_path, seed, moves=15, calls=10_000)
    assert {"MOVED", "ASK"} <= set(errors)
    assert "CROSSSLOT" not in errors


async def killed_under_load(cluster: Cluster, tmp_path, seed: int, kills: int, outage_s: float):
    """Kill the primary that serves us, wait for its replica to take over, and let it come back as a replica."""
    rng = random.Random(seed)
    async with sidecars(url_of(cluster), tmp_path) as ours:
        load = Load(ours, BUDGETS, seed=seed)
        async with load.running() as truth:
            for _ in range(kills):
                await load.admits(rng.randrange(40, 120))
                primary = await cluster.owner(GENERAL)
                primary.kill()
                await load.admits(20)
                primary.start()
                await until(cluster.well)
            await load.admits(40)
        await load.agrees()
        print(f"{load.calls} calls, {len(truth.refused_s)} refused, outages of {truth.outages_s()} s")
        print(f"the slowest answer took {truth.slowest_s:.2f} s")
        assert statistics.median(truth.outages_s()) < outage_s, (
            "of all the kills; a single one may meet a machine at work"
        )


@pytest.mark.slow
async def test_a_primary_killed_under_load_is_out_for_seconds_and_then_all_is_exact(
    cluster, tmp_path, monkeypatch, seed
):
    hurry(monkeypatch)
    await killed_under_load(cluster, tmp_path, seed, kills=1, outage_s=8)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_thirty_primaries_killed_under_load(cluster, tmp_path, seed):
    await killed_under_load(cluster, tmp_path, seed, kills=30, outage_s=8)


@pytest.mark.slow
async def test_whichever_node_is_asked_first_a_primary_is_found(cluster):
    """Users list all nodes: half of them are replicas, which refuse to serve."""
    for node in cluster.nodes:
        others = [n.address for n in cluster.nodes if n is not node]
        store = Store(StoreUrl(kind="cluster", addresses=(node.address, *others)), prefix="b", tenant="t", deadline_s=2)
        store._addresses = lambda store=store: asyncio.sleep(
            0, (store._moved,) if store._moved else store.url.addresses
        )
        await store.start()
        assert await store.call("SET", store.key("probe"), "1") == b"OK"
        await store.close()
