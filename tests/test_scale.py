"""What must stay flat as things grow: CPU per call over keys, budgets and open streams; memory over slow readers and time.

CPU time is compared within one run, loosely: a shared machine is no laboratory. The long forms have the figures of docs/scale.md.
"""

import asyncio
import socket
import sys
import time
import tracemalloc
from contextlib import asynccontextmanager

import orjson
import pytest

from accounting.budgets import Budget, BudgetBook, Caller
from accounting.periods import Period
from accounting.stored import StoredKey
from proxy.auth import Gate
from proxy.keyring import Keyring, KeyRow, peppered_digest
from proxy.principal import Principal
from tests.bench import measure, units
from tests.bench.cluster_simulation import Cluster, HotBudget, Units, heartbeats, hot_budget
from tests.bench.load import Load, ask
from tests.sidecars import HELLO, KEY, KEYS, MODELS, ROOT, serving

PEPPER = b"p" * 32
KEY_BYTES_MAX = 2048
STALLED_BYTES_MAX = 128 * 1024
WAITING_BYTES = 10_000_000
HELD_BACK_BYTES = 400_000  # far more than the proxy may keep


# keys and budgets --------------------------------------------------------------------------------------------------


def secret(number):
    return f"sk-bursar-{number:032d}"


def keyring(count):
    rows = []
    for n in range(count):
        caller = Caller(tenant="default", key=f"key-{n}", user=f"user-{n}", team=f"team-{n % 100}")
        rows.append(
            KeyRow(
                digest=peppered_digest(PEPPER, secret(n).encode()), peppered=True, principal=Principal(caller=caller)
            )
        )
    return Keyring(rows, PEPPER)


def book(count):
    month = Period(kind="month")
    return BudgetBook(
        stored=[Budget(subject=f"user:user-{n}", unit="usd", limit=10**9, period=month) for n in range(count)]
    )


def us_per(times, act):
    """The least CPU time of one act over some rounds, in microseconds."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            act()
        best = min(best, (time.process_time() - began) / times * 1e6)
    return best


@pytest.mark.slow
def test_a_caller_is_found_as_fast_among_100_000_keys_as_alone():
    few, many = (Gate(keyring(count), tenant="default", open_to_all=False) for count in (1, 100_000))
    alone, crowd = {"Authorization": f"Bearer {secret(0)}"}, {"Authorization": f"Bearer {secret(77_777)}"}
    assert many.admit(crowd, 0).caller.user == "user-77777"
    assert us_per(2000, lambda: many.admit(crowd, 0)) < 3 * us_per(2000, lambda: few.admit(alone, 0))


def test_a_key_takes_little_memory():
    tracemalloc.start()
    try:
        kept = keyring(5000)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(kept) == 5000
    assert size / 5000 < KEY_BYTES_MAX


def test_budgets_of_a_caller_are_found_as_fast_among_10_000_as_alone():
    few, many = book(1), book(10_000)
    subjects = ("key:k", "user:user-0", "team:t", "tenant:default", "model:m", "model:p/m", "provider:p")
    assert many.for_subjects(subjects) == few.for_subjects(subjects)
    assert us_per(2000, lambda: many.for_subjects(subjects)) < 3 * us_per(2000, lambda: few.for_subjects(subjects))


def test_taking_in_ten_times_the_budgets_takes_about_ten_times_as_long():
    few, many = book_us(1000), book_us(10_000)
    assert many < 40 * few


def book_us(count):
    began = time.process_time()
    book(count)
    return (time.process_time() - began) * 1e6


@pytest.mark.slow
async def test_the_store_works_no_more_per_call_among_10_000_budgets_or_beside_5_000_open_holds(tmp_path):
    bench = units.Bench(tmp_path)
    await bench.start()
    try:
        ledger = await bench.ledger()

        async def reserved(asks):
            held = []
            cost = await bench.cost(len(asks), lambda: units._into(held, units.reserve_many(ledger, asks)))
            return cost.cpu_us, held

        mine = [units.ask_for(1, "user:mine")] * 500
        await units.settle_many(ledger, (await reserved(mine))[1])
        alone_us, held = await reserved(mine)
        await units.settle_many(ledger, held)
        await reserved([units.ask_for(1, f"user:u{n}") for n in range(10_000)])
        among_us, held = await reserved(mine)
        await units.settle_many(ledger, held)
        await reserved([mine[0]] * 5000)
        crowded_us, _ = await reserved(mine)
        assert among_us < 2 * alone_us
        assert crowded_us < 2 * alone_us
    finally:
        await bench.stop()


@pytest.mark.long
async def test_100_000_stored_keys_are_read_and_used_by_a_running_proxy(own_store, tmp_path):
    rows = []
    for n in range(100_000):
        row = StoredKey(
            id=f"key-{n}", digest=peppered_digest(PEPPER, secret(n).encode()), user=f"user-{n}", team=f"team-{n % 100}"
        )
        rows += [row.id, orjson.dumps({name: getattr(row, name) for name in StoredKey.__slots__})]
    await own_store.command("SET", "scale:{default}:pepper", PEPPER.hex())
    for at in range(0, len(rows), 2000):
        await own_store.command("HSET", "scale:{default}:keys", *rows[at : at + 2000])
    await own_store.command("HINCRBY", "scale:{default}:g", "cfg", 1)
    async with provider() as upstream, proxy(tmp_path, upstream, store=own_store.url, prefix="scale") as running:
        load = Load(asked(running, key=secret(99_999)), 1)
        await load.start()
        async with asyncio.timeout(20):
            while not load.tally.calls and not load.tally.errors:
                await asyncio.sleep(0.01)
        await load.stop()
        assert not load.tally.errors, load.tally.first_error
        assert measure.memory_bytes([running.process.pid]) < 300e6


# slow readers ------------------------------------------------------------------------------------------------------


class Torrent:
    """A provider that sends each stream as fast as it is taken, up to 10 MB; `taken` is what left for the proxy, in all."""

    def __init__(self):
        self.taken = self.streams = 0
        self.port = 0
        self._event = (
            b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n'
            % (b"word " * 200)
        )
        self._piece = b"%x\r\n%b\r\n" % (len(self._event), self._event)

    async def serve(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.transport.set_write_buffer_limits(high=1)
        self.streams += 1
        sent = 0
        try:
            while sent < WAITING_BYTES:
                writer.write(self._piece)
                await writer.drain()
                sent += len(self._piece)
                self.taken += len(self._piece)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def torrent():
    found = Torrent()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, backlog=2048)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


@asynccontextmanager
async def provider(*, every_ms=5.0):
    """The benchmark's provider, as a process of its own; yields its port."""
    command = [sys.executable, "-m", "tests.bench.upstream", "--no-tls", "--every-ms", str(every_ms)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        yield orjson.loads(await process.stdout.readline())["plain"]
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def proxy(tmp_path, port, *, store="embedded", prefix="bursar"):
    """A real `bursar serve` before that provider, with room for thousands of streams."""
    config = tmp_path / "bursar.yaml"
    config.write_text(f"""
listen: 127.0.0.1:0
ops: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}", data_dir: "{tmp_path}/data", prefix: {prefix}}}
providers: {{fake: {{kind: openai, base_url: "http://127.0.0.1:{port}/v1", api_keys: [sk-x]}}}}
{MODELS}{KEYS}
prices: {{"fake/*": {{input: 1, output: 2}}}}
budgets: [{{subject: "user:*", usd: 1000000, period: month}}, {{subject: "team:*", tokens: 1000000000000, period: day}}]
server: {{max_in_flight: 2500, max_connections: 3000}}
log: {{level: warning}}
""")
    async with serving(config) as running:
        yield running


def asked(running, *, stream=False, key=KEY):
    host, _, port = running.url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    return ask(
        host,
        int(port),
        path="/v1/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        model="fake-1",
        stream=stream,
    )


async def stall(running, count):
    """Open streams that read their head and then nothing more; return the sockets."""
    what, loop, readers = asked(running), asyncio.get_running_loop(), []
    body = orjson.dumps({"model": "fake-1", "messages": HELLO, "stream": True, "max_tokens": 4_000_000})
    raw = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    for _ in range(count):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        await loop.sock_connect(reader, (what.host, what.port))
        await loop.sock_sendall(reader, raw)
        readers.append(reader)
        assert (await loop.sock_recv(reader, 12)) == b"HTTP/1.1 200"
    return readers


async def stalled_growth(tmp_path, count):
    """Return how much memory so many stalled readers cost, with 10 MB waiting for each.

    The kernel takes some of the 10 MB, in its own buffers; what matters is that the proxy does not keep the rest.
    """
    async with torrent() as upstream, proxy(tmp_path, upstream.port) as running:
        warm, pid = await stall(running, 8), running.process.pid
        base = await settled_memory(upstream, pid, 8)
        readers = await stall(running, count)
        grown = await settled_memory(upstream, pid, count + 8) - base
        assert upstream.streams == count + 8
        for reader in warm + readers:
            reader.close()
        return grown


async def settled_memory(upstream, pid, streams):
    """Wait until the streams are held back; return the proxy's memory, the middle one of some looks."""
    before, still = -1, 0
    async with asyncio.timeout(120):
        while still < 4 and upstream.taken < streams * HELD_BACK_BYTES:  # on a busy machine half a second is nothing
            still = still + 1 if upstream.taken == before else 0
            before = upstream.taken
            await asyncio.sleep(0.5)
    looks = []
    for _ in range(15):
        looks.append(measure.memory_bytes([pid]))
        await asyncio.sleep(0.05)
    return sorted(looks)[len(looks) // 2]


@pytest.mark.slow
async def test_a_stalled_reader_costs_at_most_128_kb(tmp_path):
    assert await stalled_growth(tmp_path, 60) <= 60 * STALLED_BYTES_MAX


@pytest.mark.long
async def test_1_000_stalled_readers_with_10_mb_waiting_for_each_cost_at_most_160_mb(tmp_path):
    assert await stalled_growth(tmp_path, 1000) <= min(160_000_000, 1000 * STALLED_BYTES_MAX)


# open streams, and time --------------------------------------------------------------------------------------------


async def stream_us_per_chunk(running, count, seconds):
    """CPU of the proxy for one chunk while so many streams are open. They are opened some at a time, as in life."""
    loads, pid = [], running.process.pid
    for start in range(0, count, 50):
        loads.append(Load(asked(running, stream=True), min(50, count - start)))
        await loads[-1].start()
        await asyncio.sleep(0.25)
    async with asyncio.timeout(60):
        while sum(load.tally.calls for load in loads) < count:
            await asyncio.sleep(0.1)
    cpu_s, chunks = measure.cpu_s([pid]), sum(load.tally.chunks for load in loads)
    await asyncio.sleep(seconds)
    us = (measure.cpu_s([pid]) - cpu_s) / (sum(load.tally.chunks for load in loads) - chunks) * 1e6
    for load in loads:
        await load.stop()
        assert not load.tally.errors, load.tally.first_error
    print(f"{count} streams: {us:.1f} us per chunk")
    return us


@pytest.mark.long
async def test_a_chunk_costs_the_same_cpu_with_20_streams_open_and_with_2_000(tmp_path):
    async with provider(every_ms=200) as port, proxy(tmp_path, port) as running:
        few = await stream_us_per_chunk(running, 20, 20)
        many = await stream_us_per_chunk(running, 2000, 20)
        assert many < 1.5 * few


@pytest.mark.long
async def test_memory_does_not_grow_with_time(tmp_path):
    async with provider() as port, proxy(tmp_path, port) as running:
        loads = [Load(asked(running), 8), Load(asked(running, stream=True), 8)]
        for load in loads:
            await load.start()
        sizes = []
        for _ in range(8):
            await asyncio.sleep(15)
            sizes.append(measure.memory_bytes([running.process.pid]))
        for load in loads:
            await load.stop()
            assert not load.tally.errors, load.tally.first_error
        assert max(sizes[4:]) < max(sizes[1:4]) + 5e6


# the paper's assumptions -------------------------------------------------------------------------------------------


def test_heartbeats_that_are_spread_keep_no_reserve_waiting_and_those_in_step_do():
    cluster = Cluster(sidecars=10_000, calls_per_s=500, seconds=12)
    spread = heartbeats(cluster, Units())
    assert spread.late == 0
    assert spread.p99_ms < 5
    in_step = heartbeats(Cluster(sidecars=10_000, calls_per_s=500, seconds=12, began_within_s=0.05), Units())
    assert in_step.most_ms > 50 * spread.p99_ms


@pytest.mark.parametrize("call_s", [2.0, 20.0])
def test_a_budget_that_all_share_ends_without_overspend_and_without_a_storm(call_s):
    ending = hot_budget(HotBudget(calls_per_s=500, call_s=call_s, lasts_s=15, seconds=40), Units())
    assert ending.most_used_and_held <= ending.limit
    assert ending.used <= ending.limit
    assert ending.reserves <= 3 * ending.calls
    assert ending.wait_p99_ms < 50
