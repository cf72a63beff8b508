"""The embedded store: who starts it, who attaches, and that nothing is lost however its owner dies."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from accounting.store.embedded import EmbeddedStore
from accounting.store.errors import StoreError, StoreUnavailableError
from accounting.store.resp import connect

ROOT = Path(__file__).parents[2]
OWNER = """
import asyncio, sys
from pathlib import Path
from accounting.store.embedded import EmbeddedStore
from accounting.store.resp import connect

async def main():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.start()
    one = await connect(store.address, timeout_s=5)
    print("owner" if store.owner else "guest", flush=True)
    n = 0
    while True:
        n = await one.call("INCR", "n", deadline_s=5)
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


async def ask(store: EmbeddedStore, *command):
    one = await connect(store.address, timeout_s=5)
    try:
        return await one.call(*command, deadline_s=5)
    finally:
        one.close()


async def test_the_first_starts_it_the_second_attaches_and_the_owner_ends_it(folder):
    first, second = EmbeddedStore(folder), EmbeddedStore(folder)
    await first.start()
    await second.start()
    assert first.owner
    assert not second.owner
    await ask(second, "SET", "k", "v")
    await second.stop()
    assert await ask(first, "GET", "k") == b"v", "a guest that leaves takes nothing away"
    await first.stop()
    with pytest.raises(StoreUnavailableError):
        await connect(first.address, timeout_s=1)
    await second.start()
    assert second.owner
    assert await ask(second, "GET", "k") == b"v"
    await second.stop()


async def test_of_many_that_start_at_once_one_is_the_owner(folder):
    stores = [EmbeddedStore(folder) for _ in range(6)]
    await asyncio.gather(*(store.start() for store in stores))
    assert sum(store.owner for store in stores) == 1
    run_ids = {
        line
        for store in stores
        for line in (await ask(store, "INFO", "server")).splitlines()
        if line.startswith(b"run_id")
    }
    assert len(run_ids) == 1
    for store in stores:
        await store.stop()


async def test_it_is_set_up_so_that_budgets_can_be_kept(folder):
    store = EmbeddedStore(folder)
    await store.start()
    settings = {}
    for name in ("maxmemory-policy", "appendonly", "appendfsync", "port"):
        settings[name] = (await ask(store, "CONFIG", "GET", name))[1]
    assert settings == {
        "maxmemory-policy": b"noeviction",
        "appendonly": b"yes",
        "appendfsync": b"everysec",
        "port": b"0",
    }
    assert os.stat(store.address.path).st_mode & 0o077 == 0, "nobody else may connect"
    assert os.stat(folder).st_mode & 0o077 == 0
    await store.stop()


async def test_a_folder_with_a_long_name_gets_a_short_socket(tmp_path):
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    store, guest = EmbeddedStore(folder), EmbeddedStore(folder)
    await store.start()
    await guest.start()
    assert len(os.fsencode(store.address.path)) <= 100
    assert not guest.owner
    await store.stop()


async def serves_again(store: EmbeddedStore) -> bytes:
    """Start as a sidecar does: until it stays."""
    async with asyncio.timeout(15):
        while True:
            await store.start()
            try:
                return await ask(store, "GET", "n")
            except StoreError:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("times", [1, pytest.param(8, marks=pytest.mark.slow)])
async def test_an_owner_that_is_killed_loses_nothing_and_the_next_one_goes_on(folder, times):
    told = 0
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "owner\n"
        for _ in range(200):
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        for line in process.stdout:
            told = int(line) if line.strip().isdigit() and line.endswith("\n") else told
        process.stdout.close()
        store = EmbeddedStore(folder)
        found = int(await serves_again(store))
        print(f"told of {told}, found {found}")
        assert found - told in (0, 1), "what was acknowledged is there; at most the one on its way more"
        async with asyncio.timeout(15):
            while not store.owner:
                await asyncio.sleep(0.05)
                await store.start()
        assert int(await ask(store, "GET", "n")) == found
        await store.stop()


async def test_a_server_that_is_killed_is_started_again_with_all_it_acknowledged(folder):
    store = EmbeddedStore(folder)
    await store.start()
    for _ in range(50):
        await ask(store, "INCR", "n")
    store._process.send_signal(signal.SIGKILL)
    assert int(await serves_again(store)) == 50
    assert store.owner
    await store.stop()


async def test_a_folder_whose_lock_is_held_is_never_served_by_two(folder):
    """Somebody holds the lock and does not serve: we wait, say so, and start nothing."""
    import fcntl

    from accounting.store import embedded

    folder.mkdir()
    holder = (folder / "store.lock").open("a")
    fcntl.flock(holder, fcntl.LOCK_EX)
    patience, embedded.START_S = embedded.START_S, 0.3
    try:
        store = EmbeddedStore(folder)
        with pytest.raises(StoreUnavailableError, match="store.log"):
            await store.start()
        assert not store.owner
    finally:
        embedded.START_S = patience
        holder.close()
    await store.start()
    assert store.owner
    await store.stop()


async def test_the_lock_is_the_servers_too_so_an_owner_that_died_leaves_no_room_for_two(folder):
    """The owner is gone and its server is not yet: it may be writing its last."""
    store, other = EmbeddedStore(folder), EmbeddedStore(folder)
    await store.start()
    store._lock.close()  # as the system does for a process that died
    assert not other._take_lock()
    await store.stop()
    assert other._take_lock()
    other._unlock()


async def test_a_server_that_cannot_start_is_told_with_where_to_look(folder):
    folder.mkdir()
    (folder / "appendonlydir").write_text("not a directory")
    with pytest.raises(StoreUnavailableError, match="store.log"):
        await EmbeddedStore(folder).start()
