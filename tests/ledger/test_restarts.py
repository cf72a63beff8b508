"""A store that is killed under load and comes back, whatever it kept: afterwards the counters are the truth (B4)."""

import asyncio
import random

import pytest

from accounting.hold import BudgetRefusedError, LearningError
from accounting.store.errors import StoreError
from accounting.store.url import StoreUrl
from tests.fault_proxy import Faults, fault_proxy
from tests.ledger.houses import ask, spent, tokens
from tests.ledger.load import LARGE, WORST, Load, hurry, met, seed, sidecars
from tests.ledger.servers import Valkey, awake, running

SMALL = 200 * WORST
__all__ = ["seed"]


async def killed_under_load(tmp_path, keeping: str, *, kills: int, seed: int, lost_bytes: int = 0, small: int = SMALL):
    """Kill and start again; `lost_bytes` of the file are lost each time, as in a power cut."""
    rng, budgets = random.Random(seed), (LARGE, tokens(small, "user:b"))
    with running(Valkey(tmp_path / "store", keeping=keeping)) as (server,):
        async with sidecars(StoreUrl(kind="single", addresses=(server.address,)), tmp_path) as ours:
            load = Load(ours, budgets, seed=seed)
            async with load.running() as truth:
                for _ in range(kills):
                    await load.admits(rng.randrange(40, 160))
                    server.kill()
                    if lost_bytes and keeping != "none":
                        server.lose_tail(rng.randrange(lost_bytes))
                    await asyncio.sleep(rng.uniform(0, 0.4))
                    server.start()
                await load.admits(40)
            await load.agrees()
            print(f"the slowest answer took {truth.slowest_s:.2f} s")
            print(f"{load.calls} calls, {len(truth.refused_s)} refused, outages of {truth.outages_s()} s")
            return load, [s.ledger.settler.tally for s in ours]


@pytest.mark.slow
async def test_refusals_of_a_long_outage_leave_nothing_to_be_told(tmp_path):
    """A call that was never sent holds nothing: only the few that found the store gone are taken back."""
    with running(Valkey(tmp_path / "store")) as (server,):
        async with sidecars(StoreUrl(kind="single", addresses=(server.address,)), tmp_path, 1) as (one,):
            before = await one.ledger.reserve(ask(LARGE, wanted=WORST), request_id="before")
            server.kill()
            for number in range(500):
                with pytest.raises(StoreError):
                    await one.ledger.reserve(ask(LARGE, wanted=WORST), request_id=str(number))
            assert len(one.ledger.settler.pending) < 10
            server.start()
            one.ledger.settle(before, spent(7))
            await one.settled()
            row = await one.store.call("HMGET", one.store.key("b", LARGE.id, "total"), "used", "held", deadline_s=5)
            assert row == [b"7", b"0"]
            assert one.ledger.settler.low >= 500, "and what was never sent holds up nobody's marks"


@pytest.mark.slow
@pytest.mark.parametrize("keeping", ["always", "everysec", "none"])
async def test_a_store_killed_under_load_counts_the_truth_afterwards(tmp_path, monkeypatch, seed, keeping):
    hurry(monkeypatch)
    await killed_under_load(tmp_path, keeping, kills=3, seed=seed)


@pytest.mark.slow
async def test_what_a_power_cut_takes_from_the_file_is_given_back(tmp_path, monkeypatch, seed):
    hurry(monkeypatch)
    await killed_under_load(tmp_path, "everysec", kills=3, seed=seed, lost_bytes=60_000)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["whoever asked", "whoever finds its journal"])
async def test_what_a_call_asked_for_in_vain_is_taken_back_again_if_the_store_forgets_that_it_was(
    tmp_path, monkeypatch, who
):
    """The file of a busy disk ends between a reserve whose answer came too late and the word that it is not wanted any more."""
    hurry(monkeypatch)
    with running(Valkey(tmp_path / "store")) as (server,):
        async with fault_proxy(server.address) as proxy:
            async with sidecars(StoreUrl(kind="single", addresses=(proxy.address,)), tmp_path, 1) as (one,):
                await one.ledger.reserve(ask(LARGE, wanted=1), request_id="the scripts are known")
                key = one.store.key("b", LARGE.id, "total")
                proxy.faults = Faults(mute=True)
                with pytest.raises(StoreError):
                    await one.ledger.reserve(ask(LARGE, wanted=WORST), request_id="in vain")
                assert await server.command("HGET", key, "held") == str(WORST + 1).encode()
                kept_bytes = server.kept_bytes()
                await proxy.heal()
                proxy.reset_all()
                await one.settled()
                assert await server.command("HGET", key, "held") == b"1"
                proxy.faults = Faults(refuse=True)
                server.kill()
                server.lose_tail(server.kept_bytes() - kept_bytes)
                server.start()
                await awake(server)
                assert await server.command("HGET", key, "held") == str(WORST + 1).encode(), "the test bites"
                await proxy.heal()
                if who == "whoever asked":
                    await met(one)
                    await one.settled()
            if who != "whoever asked":
                async with sidecars(StoreUrl(kind="single", addresses=(server.address,)), tmp_path, 1) as (other,):
                    await other.recovery.once()
                    assert await server.command("HGET", key, "held") == b"0", "the call that was open is over, too"
            else:
                assert await server.command("HGET", key, "held") == b"1"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["settlements", "holds"])
async def test_without_being_told_again_the_store_would_have_lost_it(tmp_path, monkeypatch, part):
    """The control: each half of what is given back is needed."""
    hurry(monkeypatch)
    with running(Valkey(tmp_path / "store", keeping="none")) as (server,):
        async with sidecars(StoreUrl(kind="single", addresses=(server.address,)), tmp_path, 1) as (one,):
            done = await one.ledger.reserve(ask(LARGE, wanted=WORST), request_id="done")
            await one.ledger.reserve(ask(LARGE, wanted=WORST), request_id="open")
            one.ledger.settle(done, spent(60))
            await one.settled()
            if part == "settlements":
                one.ledger.recover = None
            else:
                one.ledger.open.clear()
            server.kill()
            server.start()
            await met(one)
            await one.settled()
            row = await one.store.call("HMGET", one.store.key("b", LARGE.id, "total"), "used", "held", deadline_s=5)
            assert row == ([None, b"100"] if part == "settlements" else [b"60", None])


@pytest.mark.slow
async def test_a_store_that_kept_nothing_admits_nothing_until_it_was_told_what_is_held(tmp_path, monkeypatch):
    """A hard budget that is all held, an empty store: without the lesson the next call would be let in twice."""
    hurry(monkeypatch)
    whole = tokens(WORST, "user:c")
    with running(Valkey(tmp_path / "store", keeping="none")) as (server,):
        async with sidecars(StoreUrl(kind="single", addresses=(server.address,)), tmp_path) as (one, two):
            hold = await one.ledger.reserve(ask(whole, wanted=WORST, least=WORST), request_id="open")
            server.kill()
            server.start()
            verdicts = []
            async with asyncio.timeout(20):
                while not verdicts or verdicts[-1] != "held":
                    try:
                        await two.ledger.reserve(ask(whole, wanted=WORST, least=WORST), request_id="next")
                        verdicts.append("admitted")
                        break
                    except LearningError:
                        verdicts.append("learns")
                    except BudgetRefusedError as error:
                        verdicts.append("held" if error.held_only else "spent")
                    except StoreError:
                        verdicts.append("away")
                    await asyncio.sleep(0.02)
            assert {"admitted", "spent"}.isdisjoint(verdicts)
            assert "learns" in verdicts
            one.ledger.release(hold)
            await one.settled()


@pytest.mark.slow
async def test_a_newcomer_who_finds_an_empty_store_first_lets_through_no_more_than_is_given_back(tmp_path, monkeypatch):
    """The bound of what a store without a file can cost: nobody told the newcomer, and there was nobody to learn from."""
    hurry(monkeypatch)
    whole = tokens(10 * WORST, "user:c")
    with running(Valkey(tmp_path / "store", keeping="none")) as (server,):
        url = StoreUrl(kind="single", addresses=(server.address,))
        async with sidecars(url, tmp_path, 1) as (one,):
            done = await one.ledger.reserve(ask(whole, wanted=3 * WORST), request_id="done")
            one.ledger.settle(done, spent(3 * WORST))
            await one.ledger.reserve(ask(whole, wanted=4 * WORST), request_id="open")
            await one.settled()
            one._tasks[0].cancel()  # its next heartbeat is still to come
            server.kill()
            server.start()
            async with sidecars(url, tmp_path / "new", 1) as (two,):
                await two.ledger.reserve(ask(whole, wanted=10 * WORST, least=10 * WORST), request_id="newcomer")
                await met(one)
                await one.settled()
                row = await two.store.call("HMGET", two.store.key("b", whole.id, "total"), "used", "held", deadline_s=5)
                assert [int(n) for n in row] == [3 * WORST, 14 * WORST], "all of it is known from here on"
                with pytest.raises((BudgetRefusedError, LearningError)):
                    await two.ledger.reserve(ask(whole, wanted=1, least=1), request_id="next")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("keeping", ["always", "everysec", "none"])
async def test_fifty_kills_of_the_store_with_the_real_lesson(tmp_path, seed, keeping):
    """Two stores side by side, since most of the time is spent waiting."""
    async with asyncio.TaskGroup() as group:
        for number in range(2):
            (folder := tmp_path / str(number)).mkdir()
            group.create_task(
                killed_under_load(folder, keeping, kills=25, seed=seed + number, lost_bytes=60_000, small=5_000 * WORST)
            )
