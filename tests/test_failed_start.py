"""A start that fails half-way leaves nothing open: no listener, no journal, no connection, no task, no built-in provider."""

import asyncio
import socket

import pytest

from accounting.journal.session import Session
from proxy.config.load import load_text
from proxy.sidecar import Sidecar
from tests.sidecars import config_text

BUILT_IN = "providers: {{fake: {{kind: fake}}}}\n"


def sidecar(store, tmp_path, *, more="", ops="", **changes):
    text = config_text(store, tmp_path, "http://127.0.0.1:1/v1", providers=BUILT_IN, more=more)
    for old, new in changes.values():
        text = text.replace(old, new)
    return Sidecar(load_text(text, "test.yaml", {}).config)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def clients(store):
    return (await store.command("CLIENT", "LIST")).count(b"\n")


async def until_clients(store, count):
    async with asyncio.timeout(10):
        while await clients(store) != count:
            await asyncio.sleep(0)


async def taken(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_when_the_ops_port_is_in_use_all_else_is_closed_again(own_store, tmp_path):
    alone, tasks, data_port = await clients(own_store), asyncio.all_tasks(), free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        made = sidecar(
            own_store,
            tmp_path,
            data=("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{data_port}"),
            ops_port=('{listen: "127.0.0.1:0"}', f'{{listen: "127.0.0.1:{port}"}}'),
        )
        with pytest.raises(OSError, match="in use"):
            await made.start()
    assert made.url.endswith(f":{data_port}")  # it was open
    assert not await taken(data_port)
    assert not await taken(int(made._fakes._urls["fake"].split(":")[2].partition("/")[0]))
    assert asyncio.all_tasks() <= tasks
    await until_clients(own_store, alone)
    dead = Session.dead(made.journal.folder, 0)
    assert [session.sid for session in dead] == [made.journal.sid]  # nobody holds it: whoever comes next looks after it
    for session in dead:
        session.release()


async def test_it_can_be_started_anew_when_what_was_in_the_way_is_gone(own_store, tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        change = {"data": ("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}")}
        with pytest.raises(OSError, match="in use"):
            await sidecar(own_store, tmp_path, **change).start()
    second = sidecar(own_store, tmp_path, **change)
    await second.start()
    assert await taken(port)
    await second.stop(0)


async def test_a_part_that_cannot_be_closed_does_not_keep_the_others_open(own_store, tmp_path):
    made = sidecar(own_store, tmp_path)
    await made.start()

    async def fail():
        raise RuntimeError("cannot")

    made.feed.runner.close = fail
    with pytest.raises(RuntimeError, match="cannot"):
        await made.stop(0)
    assert not await taken(int(made.url.rpartition(":")[2]))
    assert [session.sid for session in Session.dead(made.journal.folder, 0)] == [made.journal.sid]


async def test_a_callback_that_is_not_there_stops_the_start_before_anything_listens(own_store, tmp_path):
    alone = await clients(own_store)
    made = sidecar(own_store, tmp_path, more="callbacks: [nobody]\n")
    with pytest.raises(ValueError, match="nobody"):
        await made.start()
    assert made.url == ""
    await until_clients(own_store, alone)
